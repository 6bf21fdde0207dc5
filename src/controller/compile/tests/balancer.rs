//! BalancerPolicies.

use ferrule_config::{
    Algorithm, Balancer, ConsistentHash, Duration, EndpointWeight, HashKey, MAX_RING_SIZE, MAX_SESSION_TTL,
    MAX_SLOW_START, MAX_TABLE_SIZE, MAX_WEIGHT, MAX_WEIGHTS, MIN_HASH_SIZE, PortBalancer, Session,
    SessionKeeper, Zones, is_prime,
};

use super::*;

/// With these ports by number and name; an empty name is none.
fn named(name: &str, ports: &[(u16, &str)]) -> (Kind, Value) {
    let ports: Vec<_> =
        ports
            .iter()
            .map(|(port, name)| {
                if name.is_empty() { json!({ "port": port }) } else { json!({ "port": port, "name": name }) }
            })
            .collect();
    (Kind::Service, json!({ "metadata": { "name": name, "namespace": "shop" }, "spec": { "ports": ports } }))
}

fn the_cart() -> (Kind, Value) {
    named("cart", &[(80, "http"), (9090, "grpc")])
}

/// Created in this year.
fn of_year(year: i32, name: &str, spec: Value) -> (Kind, Value) {
    let created = format!("{year}-01-01T00:00:00Z");
    let metadata = json!({ "name": name, "namespace": "shop", "creationTimestamp": created });
    (Kind::BalancerPolicy, json!({ "metadata": metadata, "spec": spec }))
}

/// A specification for cart with these fields.
fn with(fields: Value) -> Value {
    let mut spec = json!({ "targetRefs": [{ "kind": "Service", "name": "cart" }] });
    for (key, value) in fields.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

/// The balancers of a Service.
fn balancers(compiled: &Compiled, service: &str) -> Vec<PortBalancer> {
    let services = &compiled.mesh.as_ref().expect("a mesh").services;
    services.get(service).map(|service| service.balancers.clone()).unwrap_or_default()
}

/// The balancer of all of cart, made by these fields.
fn balancer(fields: Value) -> Balancer {
    let compiled = compiled(&[the_cart(), of_year(2026, "p", with(fields))]);
    let mut balancers = balancers(&compiled, "cart");
    assert_eq!(balancers.len(), 1, "{:?}", compiled.verdicts);
    let PortBalancer { port_name, balancer } = balancers.remove(0);
    assert_eq!(port_name, None);
    balancer
}

/// Port and algorithm of each balancer.
fn algorithms(compiled: &Compiled, service: &str) -> Vec<(Option<String>, Algorithm)> {
    balancers(compiled, service).into_iter().map(|one| (one.port_name, one.balancer.algorithm)).collect()
}

#[test]
fn a_policy_of_nothing_but_a_target_is_the_default_balancer() {
    assert_eq!(balancer(json!({})), Balancer::default());
    let compiled = compiled(&[the_cart(), of_year(2026, "p", with(json!({})))]);
    assert_eq!(cart(&compiled).routes, [], "without Routes every request goes to the Service itself");
    for condition in [ConditionType::Accepted, ConditionType::Enforced] {
        assert!(finding(&compiled, "p", condition).0, "{condition:?}");
    }
    assert_eq!(finding(&compiled, "p", ConditionType::Enforced).1, Reason::Enforced);
}

#[test]
fn every_field_is_carried_over() {
    let compiled = balancer(json!({
        "algorithm": "LeastRequest",
        "weights": [
            { "zone": "eu-1a", "node": "n1", "weight": 3 },
            { "podPrefix": "cart-canary-", "weight": 0 },
        ],
        "zones": "Prefer",
        "slowStart": "30s",
        "panicThreshold": "50%",
        "sessionPersistence": { "sessionName": "Cart", "absoluteTimeout": "1h500ms" },
    }));
    let expected = Balancer {
        algorithm: Algorithm::LeastRequest,
        weights: vec![
            EndpointWeight {
                zone: Some("eu-1a".into()),
                node: Some("n1".into()),
                pod_prefix: None,
                weight: 3,
            },
            EndpointWeight { pod_prefix: Some("cart-canary-".into()), ..EndpointWeight::default() },
        ],
        zones: Zones::Prefer,
        slow_start: Some(Duration::from_millis(30_000)),
        panic_threshold: 50,
        session: Some(Session {
            kept_in: SessionKeeper::Cookie,
            name: "Cart".into(),
            ttl: Some(Duration::from_millis(3_600_000)),
        }),
    };
    assert_eq!(compiled, expected);
}

#[test]
fn each_algorithm_and_key_has_its_word() {
    let hash = |key, size| ConsistentHash { key, size };
    let cases = [
        (json!({ "algorithm": "PeakEWMA" }), Algorithm::PeakEwma),
        (json!({ "algorithm": "RoundRobin" }), Algorithm::RoundRobin),
        (json!({ "algorithm": "Random" }), Algorithm::Random),
        (
            json!({ "consistentHash": { "header": "X-Session" } }),
            Algorithm::Maglev(hash(HashKey::Header("x-session".into()), None)),
        ),
        (
            json!({ "consistentHash": { "cookie": "Id", "algorithm": "RingHash", "size": 65536 } }),
            Algorithm::RingHash(hash(HashKey::Cookie("Id".into()), Some(65_536))),
        ),
        (
            json!({ "consistentHash": { "queryParameter": "user%20id", "algorithm": "Maglev", "size": 251 } }),
            Algorithm::Maglev(hash(HashKey::Query("user%20id".into()), Some(251))),
        ),
        (
            json!({ "consistentHash": { "sourceAddress": true } }),
            Algorithm::Maglev(hash(HashKey::SourceAddress, None)),
        ),
    ];
    for (fields, expected) in cases {
        assert_eq!(balancer(fields.clone()).algorithm, expected, "{fields}");
    }
    let header = json!({ "sessionPersistence": { "type": "Header", "sessionName": "X-Cart" } });
    let session = balancer(header).session.expect("a session");
    assert_eq!((session.kept_in, session.name.as_str()), (SessionKeeper::Header, "x-cart"));
    assert_eq!(balancer(json!({ "slowStart": "0s" })).slow_start, None);
}

#[test]
fn a_policy_that_is_wrong_in_itself_is_told_the_field_and_others_go_on() {
    let hash = |hash: Value| json!({ "consistentHash": hash });
    let weight = |weight: Value| json!({ "weights": [{ "node": "n", "weight": 1 }, weight] });
    let session = |session: Value| json!({ "sessionPersistence": session });
    let cases = [
        (json!({ "targetRefs": [] }), "spec.targetRefs: name 1 to 16"),
        (json!({ "targetRefs": vec![json!({ "name": "cart" }); 17] }), "spec.targetRefs: name 1 to 16"),
        (json!({ "targetRefs": [{ "name": "cart" }, { "name": "cart" }] }), "spec.targetRefs[1]: "),
        (json!({ "targetRefs": [{ "name": "cart", "port": 80 }] }), "spec.targetRefs[0].port: unknown field"),
        (json!({ "targetRefs": [{ "kind": "Route", "name": "cart" }] }), "spec.targetRefs[0].kind: "),
        (json!({ "algorithm": "Fastest" }), "spec.algorithm: unknown variant"),
        (
            json!({ "algorithm": "PeakEWMA", "consistentHash": { "cookie": "c" } }),
            "spec.algorithm: contradicts consistentHash",
        ),
        (hash(json!({})), "spec.consistentHash: give exactly one of"),
        (hash(json!({ "header": "a", "cookie": "b" })), "spec.consistentHash: give exactly one of"),
        (hash(json!({ "header": "a", "sourceAddress": false })), "spec.consistentHash: give exactly one of"),
        (hash(json!({ "sourceAddress": false })), "spec.consistentHash.sourceAddress: "),
        (hash(json!({ "header": "a b" })), "spec.consistentHash.header: "),
        (hash(json!({ "cookie": "a;b" })), "spec.consistentHash.cookie: "),
        (hash(json!({ "queryParameter": "a=b" })), "spec.consistentHash.queryParameter: "),
        (hash(json!({ "cookie": "c", "size": 67.5 })), "spec.consistentHash.size: "),
        (hash(json!({ "cookie": "c", "size": 61 })), "spec.consistentHash.size: 61 must be a prime from 64"),
        (hash(json!({ "cookie": "c", "size": 65536 })), "spec.consistentHash.size: 65536 must be a prime"),
        (hash(json!({ "cookie": "c", "size": 65539 })), "spec.consistentHash.size: 65539 must be a prime"),
        (
            hash(json!({ "cookie": "c", "size": 65537, "algorithm": "RingHash" })),
            "spec.consistentHash.size: 65537 must be 64 to 65536",
        ),
        (weight(json!({ "weight": 1 })), "spec.weights[1]: give at least one of zone, node and podPrefix"),
        (weight(json!({ "zone": "", "weight": 1 })), "spec.weights[1].zone: must not be empty"),
        (weight(json!({ "zone": "a", "weight": 1001 })), "spec.weights[1].weight: 1001 must be at most 1000"),
        (weight(json!({ "zone": "a" })), "spec.weights[1]: missing field `weight`"),
        (json!({ "weights": vec![json!({ "zone": "a", "weight": 1 }); 65] }), "spec.weights: there are 65"),
        (json!({ "zones": "Never" }), "spec.zones: unknown variant"),
        (json!({ "slowStart": "15m1ms" }), "spec.slowStart: 15m1ms must be at most 15m"),
        (json!({ "panicThreshold": "12.5%" }), "spec.panicThreshold: 12.5% must be a whole number"),
        (json!({ "panicThreshold": "101%" }), "spec.panicThreshold: "),
        (session(json!({})), "spec.sessionPersistence: missing field `sessionName`"),
        (session(json!({ "sessionName": "a=b" })), "spec.sessionPersistence.sessionName: "),
        (
            session(json!({ "type": "Header", "sessionName": "Content-Length" })),
            "spec.sessionPersistence.sessionName: content-length can't be used",
        ),
        (
            session(json!({ "type": "Header", "sessionName": "x", "absoluteTimeout": "1h" })),
            "spec.sessionPersistence.absoluteTimeout: only a cookie",
        ),
        (
            session(json!({ "sessionName": "x", "absoluteTimeout": "999ms" })),
            "spec.sessionPersistence.absoluteTimeout: 999ms must be 1s to 9600h",
        ),
        (
            session(json!({ "sessionName": "x", "absoluteTimeout": "9600h1ms" })),
            "spec.sessionPersistence.absoluteTimeout: ",
        ),
        (json!({ "retries": 3 }), "spec.retries: unknown field"),
    ];
    for (fields, expected) in cases {
        // Older than the good one, so that it would win.
        let wrong = of_year(2020, "wrong", with(fields));
        let right = of_year(2026, "right", with(json!({ "algorithm": "Random" })));
        let compiled = compiled(&[the_cart(), wrong, right]);
        let (holds, reason, message) = finding(&compiled, "wrong", ConditionType::Accepted);
        assert_eq!((holds, reason), (false, Reason::Invalid), "{expected}");
        assert!(message.starts_with(expected), "{message:?} should start with {expected:?}");
        assert!(!finding(&compiled, "wrong", ConditionType::Enforced).0);
        assert!(finding(&compiled, "right", ConditionType::Enforced).0);
        assert_eq!(algorithms(&compiled, "cart"), [(None, Algorithm::Random)], "{expected}");
    }
}

#[test]
fn a_target_that_is_not_there_is_told_and_the_others_are_balanced() {
    let spec = |targets: Value| json!({ "targetRefs": targets, "algorithm": "Random" });
    let targets = json!([
        { "name": "gone" }, { "name": "cart", "sectionName": "admin" }, { "name": "plain", "sectionName": "http" },
        { "name": "cart", "sectionName": "grpc" }, { "name": "plain" },
    ]);
    let objects = [the_cart(), named("plain", &[(80, "")]), of_year(2026, "p", spec(targets))];
    let part = compiled(&objects);
    let (holds, reason, message) = finding(&part, "p", ConditionType::Accepted);
    assert_eq!((holds, reason), (false, Reason::TargetNotFound));
    assert_eq!(
        message,
        "Service gone does not exist in this namespace; Service cart has no port named admin; it has http, grpc; \
         Service plain has no port named http; none of its ports has a name, leave sectionName out; \
         the policy is in force for port grpc of Service cart, Service plain"
    );
    assert!(finding(&part, "p", ConditionType::Enforced).0);
    assert_eq!(algorithms(&part, "cart"), [(Some("grpc".into()), Algorithm::Random)]);
    assert_eq!(algorithms(&part, "plain"), [(None, Algorithm::Random)]);

    let none = compiled(&[of_year(2026, "p", spec(json!([{ "name": "gone" }])))]);
    let (holds, reason, _) = finding(&none, "p", ConditionType::Enforced);
    assert_eq!((holds, reason), (false, Reason::TargetNotFound));
    assert!(none.mesh.expect("a mesh").services.is_empty(), "no entry for a Service that is not there");
}

#[test]
fn a_service_outside_of_the_cluster_is_not_balanced() {
    let spec = json!({ "type": "ExternalName", "externalName": "example.com" });
    let away = (Kind::Service, json!({ "metadata": { "name": "cart", "namespace": "shop" }, "spec": spec }));
    let compiled = compiled(&[away, of_year(2026, "p", with(json!({})))]);
    assert_eq!(finding(&compiled, "p", ConditionType::Accepted).1, Reason::UnsupportedBackend);
    assert_eq!(balancers(&compiled, "cart"), []);
}

#[test]
fn of_two_policies_for_a_target_the_older_decides_then_the_first_by_name() {
    // (years of a and b, which of them loses)
    for (a, b, loser) in [(2025, 2024, "a"), (2024, 2025, "b"), (2025, 2025, "b")] {
        let compiled = compiled(&[
            the_cart(),
            of_year(a, "a", with(json!({ "algorithm": "Random" }))),
            of_year(b, "b", with(json!({ "algorithm": "RoundRobin" }))),
        ]);
        let winner = if loser == "a" { "b" } else { "a" };
        let expected = if winner == "a" { Algorithm::Random } else { Algorithm::RoundRobin };
        assert_eq!(algorithms(&compiled, "cart"), [(None, expected)]);
        assert!(finding(&compiled, winner, ConditionType::Accepted).0);
        let (holds, reason, message) = finding(&compiled, loser, ConditionType::Accepted);
        assert_eq!((holds, reason), (false, Reason::Conflicted));
        assert!(
            message.starts_with(&format!("BalancerPolicy {winner} decides on Service cart: ")),
            "{message}"
        );
        assert!(!finding(&compiled, loser, ConditionType::Enforced).0);
    }
}

#[test]
fn a_conflict_is_about_one_target_and_leaves_the_others() {
    let targets = json!([{ "name": "cart" }, { "name": "web" }]);
    let compiled = compiled(&[
        the_cart(),
        named("web", &[(80, "")]),
        of_year(2024, "old", with(json!({ "algorithm": "Random" }))),
        of_year(2025, "new", json!({ "targetRefs": targets, "algorithm": "RoundRobin" })),
    ]);
    assert_eq!(algorithms(&compiled, "cart"), [(None, Algorithm::Random)]);
    assert_eq!(algorithms(&compiled, "web"), [(None, Algorithm::RoundRobin)]);
    let (holds, reason, message) = finding(&compiled, "new", ConditionType::Accepted);
    assert_eq!((holds, reason), (false, Reason::Conflicted));
    assert!(message.ends_with("; the policy is in force for Service web"), "{message}");
    assert!(finding(&compiled, "new", ConditionType::Enforced).0);
}

#[test]
fn a_port_and_its_service_are_two_targets_and_the_port_comes_first() {
    let port =
        json!({ "targetRefs": [{ "name": "cart", "sectionName": "http" }], "algorithm": "RoundRobin" });
    let compiled = compiled(&[
        the_cart(),
        of_year(2024, "all", with(json!({ "algorithm": "Random" }))),
        of_year(2025, "one", port),
    ]);
    assert_eq!(
        algorithms(&compiled, "cart"),
        [(Some("http".into()), Algorithm::RoundRobin), (None, Algorithm::Random)]
    );
    for name in ["all", "one"] {
        assert!(finding(&compiled, name, ConditionType::Accepted).0, "{name}");
    }
}

#[test]
fn routes_and_balancers_of_a_service_stand_beside_each_other() {
    let policy = of_year(2026, "p", with(json!({ "algorithm": "Random" })));
    let both = compiled(&[the_cart(), route("r", json!([{}])), policy]);
    assert_eq!((cart(&both).routes.len(), cart(&both).balancers.len()), (1, 1));
    let alone = compiled(&[the_cart(), route("r", json!([{}]))]);
    assert_eq!(cart(&alone).routes, cart(&both).routes);
    assert_eq!(cart(&alone).rules, cart(&both).rules);
}

fn maybe<T: std::fmt::Debug>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    proptest::option::of(of)
}

/// Sizes at and beyond the bounds, primes and others.
fn any_size() -> impl Strategy<Value = u32> {
    prop_oneof![0..70u32, 65_500..65_540u32, Just(4099), Just(1024), any::<u32>()]
}

fn any_hash() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        prop_oneof!["[a-zA-Z-]{1,8}", "[ -~]{0,4}"].prop_map(|name| json!({ "header": name })),
        prop_oneof!["[a-zA-Z-]{1,8}", "[ -~]{0,4}"].prop_map(|name| json!({ "cookie": name })),
        prop_oneof!["[a-zA-Z-]{1,8}", "[ -~]{0,4}"].prop_map(|name| json!({ "queryParameter": name })),
        any::<bool>().prop_map(|given| json!({ "sourceAddress": given })),
    ];
    (key, maybe(prop_oneof![Just("Maglev"), Just("RingHash")]), maybe(any_size())).prop_map(
        |(mut hash, algorithm, size)| {
            if let Some(algorithm) = algorithm {
                hash["algorithm"] = json!(algorithm);
            }
            if let Some(size) = size {
                hash["size"] = json!(size);
            }
            hash
        },
    )
}

fn any_weights() -> impl Strategy<Value = Value> {
    let text = || maybe(prop_oneof![8 => "[a-z0-9-]{1,5}", 1 => Just(String::new())]);
    let weight = prop_oneof![8 => 0..=1000u16, 1 => any::<u16>()];
    let entry = (text(), text(), text(), weight).prop_map(|(zone, node, pod, weight)| {
        let mut entry = json!({ "weight": weight });
        for (key, value) in [("zone", zone), ("node", node), ("podPrefix", pod)] {
            if let Some(value) = value {
                entry[key] = json!(value);
            }
        }
        entry
    });
    let length = prop_oneof![8 => 0..4usize, 1 => 60..70usize];
    let entry = entry.boxed();
    length.prop_flat_map(move |length| prop::collection::vec(entry.clone(), length)).prop_map(Value::from)
}

fn any_session() -> impl Strategy<Value = Value> {
    let name = prop_oneof!["[a-zA-Z-]{1,8}", Just("Connection".to_owned()), "[ -~]{0,4}"];
    let kind = maybe(prop_oneof![Just("Cookie"), Just("Header")]);
    (name, kind, maybe("[0-9]{1,5}(h|m|s|ms)")).prop_map(|(name, kind, timeout)| {
        let mut session = json!({ "sessionName": name });
        if let Some(kind) = kind {
            session["type"] = json!(kind);
        }
        if let Some(timeout) = timeout {
            session["absoluteTimeout"] = json!(timeout);
        }
        session
    })
}

/// Specifications for cart, good ones and bad ones.
fn any_policy() -> impl Strategy<Value = Value> {
    let algorithm = prop_oneof![Just("PeakEWMA"), Just("LeastRequest"), Just("RoundRobin"), Just("Random")];
    let percent =
        prop_oneof![4 => (0..=101u8).prop_map(|share| format!("{share}%")), 1 => Just("0.5%".to_owned())];
    (
        maybe(algorithm),
        prop::option::weighted(0.3, any_hash()),
        maybe(any_weights()),
        maybe(prop_oneof![Just("Hints"), Just("Prefer"), Just("Ignore")]),
        maybe("[0-9]{1,3}(m|s|ms)"),
        maybe(percent),
        maybe(any_session()),
    )
        .prop_map(|(algorithm, hash, weights, zones, slow_start, percent, session)| {
            let mut fields = json!({});
            let given = [
                ("algorithm", algorithm.map(Value::from)),
                ("consistentHash", hash),
                ("weights", weights),
                ("zones", zones.map(Value::from)),
                ("slowStart", slow_start.map(Value::from)),
                ("panicThreshold", percent.map(Value::from)),
                ("sessionPersistence", session),
            ];
            for (key, value) in given {
                if let Some(value) = value {
                    fields[key] = value;
                }
            }
            with(fields)
        })
}

/// What a proxy may rely on.
fn in_range(balancer: &Balancer) -> bool {
    let Balancer { algorithm, weights, zones: _, slow_start, panic_threshold, session } = balancer;
    let named = |key: &HashKey| match key {
        HashKey::Header(name) => !name.is_empty() && *name == name.to_ascii_lowercase(),
        HashKey::Cookie(name) | HashKey::Query(name) => !name.is_empty() && name.is_ascii(),
        HashKey::SourceAddress => true,
    };
    let algorithm = match algorithm {
        Algorithm::PeakEwma | Algorithm::LeastRequest | Algorithm::RoundRobin | Algorithm::Random => true,
        Algorithm::RingHash(ConsistentHash { key, size }) => {
            named(key) && size.is_none_or(|size| (MIN_HASH_SIZE..=MAX_RING_SIZE).contains(&size))
        }
        Algorithm::Maglev(ConsistentHash { key, size }) => {
            let fits = |size| (MIN_HASH_SIZE..=MAX_TABLE_SIZE).contains(&size) && is_prime(size);
            named(key) && size.is_none_or(fits)
        }
    };
    let weights = weights.len() <= MAX_WEIGHTS
        && weights.iter().all(|EndpointWeight { zone, node, pod_prefix, weight }| {
            let given = || [zone, node, pod_prefix].into_iter().flatten();
            *weight <= MAX_WEIGHT && given().next().is_some() && given().all(|text| !text.is_empty())
        });
    let session = session.as_ref().is_none_or(|Session { kept_in, name, ttl }| match kept_in {
        SessionKeeper::Cookie => {
            !name.is_empty() && ttl.is_none_or(|ttl| !ttl.is_zero() && ttl <= MAX_SESSION_TTL)
        }
        SessionKeeper::Header => !name.is_empty() && *name == name.to_ascii_lowercase() && ttl.is_none(),
    });
    let slow_start = slow_start.is_none_or(|window| !window.is_zero() && window <= MAX_SLOW_START);
    algorithm && weights && session && slow_start && *panic_threshold <= 100
}

fn any_policies() -> impl Strategy<Value = Objects> {
    let section = maybe(prop_oneof![Just("http"), Just("grpc"), Just("gone")]);
    let policies = prop::collection::btree_map("[a-f]", (2020..2023i32, section, any_policy()), 1..6);
    policies.prop_map(|policies| {
        let mut objects = vec![the_cart(), route("r", json!([{}]))];
        for (name, (year, section, mut spec)) in policies {
            if let Some(section) = section {
                spec["targetRefs"][0]["sectionName"] = json!(section);
            }
            objects.push(of_year(year, &name, spec));
        }
        objects
    })
}

proptest! {
    #[test]
    fn a_policy_is_refused_with_its_field_or_compiles_to_a_balancer_in_range(spec in any_policy()) {
        let compiled = compiled(&[the_cart(), of_year(2026, "p", spec)]);
        let (accepted, reason, message) = finding(&compiled, "p", ConditionType::Accepted);
        let (enforced, ..) = finding(&compiled, "p", ConditionType::Enforced);
        prop_assert_eq!(accepted, enforced);
        let balancers = balancers(&compiled, "cart");
        if accepted {
            prop_assert_eq!(balancers.len(), 1);
            prop_assert!(in_range(&balancers[0].balancer), "{:?}", balancers);
        } else {
            prop_assert_eq!(reason, Reason::Invalid);
            prop_assert!(message.starts_with("spec."), "{}", message);
            prop_assert!(balancers.is_empty());
        }
    }

    #[test]
    fn balancers_do_not_depend_on_the_order_of_the_objects(
        (one, other) in any_policies().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle()))
    ) {
        prop_assert_eq!(compiled(&one), compiled(&other));
    }

    #[test]
    fn balancers_survive_the_way_through_config_maps(objects in any_policies()) {
        let mesh = compiled(&objects).mesh.expect("there is a Route");
        let shards = shard::split(&mesh).expect("fits").into_iter().enumerate().collect();
        prop_assert_eq!(shard::join(&shards), Ok(mesh));
    }

    #[test]
    fn each_target_has_at_most_one_balancer_and_one_policy_without_a_conflict(objects in any_policies()) {
        let compiled = compiled(&objects);
        let balancers = balancers(&compiled, "cart");
        let ports: std::collections::BTreeSet<_> = balancers.iter().map(|one| &one.port_name).collect();
        prop_assert_eq!(ports.len(), balancers.len());
        let of_policies = compiled.verdicts.iter().filter(|verdict| verdict.kind == Kind::BalancerPolicy);
        prop_assert_eq!(of_policies.filter(|verdict| verdict.is_accepted()).count(), balancers.len());
    }
}
