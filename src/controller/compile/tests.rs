#![expect(clippy::needless_pass_by_value, reason = "`json!` in the place of an argument reads best by value")]

use ferrule_config::{Backend, PathMatch, RouteEntry, Service as ServiceConfig, shard};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::controller::observe::Object;

mod access_policy;
mod act;
mod balancer;
mod matches;
mod mesh_tls;
mod retry;
mod strict;

fn observed(objects: &[(Kind, Value)]) -> Observed {
    let mut observed = Observed::default().with_system("ferrule-system");
    for (kind, value) in objects {
        let object = serde_json::from_value(value.clone()).expect("an object");
        observed.apply(Object::read(*kind, object).expect("readable"));
    }
    observed
}

fn service(name: &str, ports: &[u16]) -> (Kind, Value) {
    let ports: Vec<_> = ports.iter().map(|port| json!({ "port": port })).collect();
    (Kind::Service, json!({ "metadata": { "name": name, "namespace": "shop" }, "spec": { "ports": ports } }))
}

/// Created in this year.
fn route_of(year: i32, name: &str, spec: Value) -> (Kind, Value) {
    let created = format!("{year}-01-01T00:00:00Z");
    let metadata =
        json!({ "name": name, "namespace": "shop", "generation": 2, "creationTimestamp": created });
    (Kind::Route, json!({ "metadata": metadata, "spec": spec }))
}

fn route(name: &str, rules: Value) -> (Kind, Value) {
    route_of(2026, name, json!({ "targetRefs": [{ "name": "cart" }], "rules": rules }))
}

fn policy(kind: Kind, spec: Value) -> (Kind, Value) {
    (kind, json!({ "metadata": { "name": "policy", "namespace": "shop" }, "spec": spec }))
}

fn compiled(objects: &[(Kind, Value)]) -> Compiled {
    compile(&observed(objects), "shop")
}

fn cart(compiled: &Compiled) -> &ServiceConfig {
    &compiled.mesh.as_ref().expect("a mesh").services["cart"]
}

/// Status, reason and message.
fn finding(compiled: &Compiled, name: &str, condition: ConditionType) -> (bool, Reason, String) {
    let verdict = compiled.verdicts.iter().find(|verdict| verdict.name == name).expect("a verdict");
    let finding = verdict.finding(condition).expect("a finding");
    (finding.holds, finding.reason, finding.message.clone())
}

#[test]
fn a_rule_without_matches_and_backends_sends_everything_to_its_service() {
    let compiled = compiled(&[service("cart", &[80]), route("all", json!([{}]))]);
    let cart = cart(&compiled);
    assert_eq!(cart.routes, [RouteEntry::default()]);
    assert_eq!(cart.rules[0].name, "shop/all/0");
    let itself = Backend {
        namespace: "shop".into(),
        name: "cart".into(),
        port: None,
        weight: 1,
        ..Backend::default()
    };
    assert_eq!(cart.rules[0].backends, [itself]);
    let (holds, reason, _) = finding(&compiled, "all", ConditionType::Accepted);
    assert_eq!((holds, reason), (true, Reason::Accepted));
    let (holds, reason, _) = finding(&compiled, "all", ConditionType::ResolvedRefs);
    assert_eq!((holds, reason), (true, Reason::ResolvedRefs));
    assert_eq!(compiled.verdicts[0].generation, 2);
}

#[test]
fn a_rule_is_carried_over_whole() {
    let compiled = compiled(&[
        service("cart", &[80]),
        service("cart-v2", &[8080]),
        route(
            "split",
            json!([{
                "name": "beta",
                "matches": [{
                    "path": { "prefix": "/v2/" }, "method": "GET",
                    "headers": [{ "name": "X-User", "exact": "beta" }, { "name": "Debug", "present": false }]
                }],
                "backendRefs": [{ "name": "cart", "port": 80, "weight": 90 }, { "name": "cart-v2", "port": 8080 }],
                "requestHeaders": { "set": [{ "name": "X-Via", "value": "mesh" }], "remove": ["X-Debug"] },
                "responseHeaders": { "add": [{ "name": "Server-Timing", "value": "a" }] },
                "timeouts": { "request": "2s", "backendRequest": "500ms" }
            }]),
        ),
    ]);
    let expected: ServiceConfig = serde_json::from_value(json!({
        "routes": [{
            "match": {
                "path": { "prefix": "/v2" }, "method": "GET",
                "headers": [{ "name": "debug", "value": { "present": false } }, { "name": "x-user", "value": { "exact": "beta" } }]
            },
            "rule": 0
        }],
        "rules": [{
            "name": "shop/split/beta",
            "backends": [
                { "namespace": "shop", "name": "cart", "port": 80, "weight": 90 },
                { "namespace": "shop", "name": "cart-v2", "port": 8080, "weight": 1 }
            ],
            "requestHeaders": { "set": [["x-via", "mesh"]], "remove": ["x-debug"] },
            "responseHeaders": { "add": [["server-timing", "a"]] },
            "timeouts": { "request": "2s", "backendRequest": "500ms" }
        }]
    }))
    .expect("a Service's configuration");
    assert_eq!(cart(&compiled), &expected);
}

#[test]
fn a_missing_target_is_told_and_other_routes_go_on() {
    let lost = route_of(2026, "lost", json!({ "targetRefs": [{ "name": "gone" }], "rules": [{}] }));
    let compiled = compiled(&[service("cart", &[80]), route("all", json!([{}])), lost]);
    let (holds, reason, message) = finding(&compiled, "lost", ConditionType::Accepted);
    assert_eq!((holds, reason), (false, Reason::TargetNotFound));
    assert_eq!(message, "Service gone does not exist in this namespace");
    assert!(finding(&compiled, "all", ConditionType::Accepted).0);
    let mesh = compiled.mesh.expect("a mesh");
    assert_eq!(mesh.services.keys().collect::<Vec<_>>(), ["cart"]);
}

#[test]
fn a_route_with_one_target_of_two_is_in_force_for_that_one() {
    let targets = json!([{ "name": "gone" }, { "name": "cart" }]);
    let half = route_of(2026, "half", json!({ "targetRefs": targets, "rules": [{}] }));
    let compiled = compiled(&[service("cart", &[80]), half]);
    let (holds, _, message) = finding(&compiled, "half", ConditionType::Accepted);
    assert!(!holds);
    assert_eq!(message, "Service gone does not exist in this namespace; the Route is in force for cart");
    assert_eq!(cart(&compiled).routes.len(), 1);
}

#[test]
fn a_target_port_that_the_service_has_not_is_told_with_those_that_it_has() {
    let targets = json!([{ "name": "cart", "port": 81 }]);
    let wrong = route_of(2026, "wrong", json!({ "targetRefs": targets, "rules": [{}] }));
    let compiled = compiled(&[service("cart", &[80, 9090]), wrong]);
    let (_, reason, message) = finding(&compiled, "wrong", ConditionType::Accepted);
    assert_eq!(reason, Reason::TargetNotFound);
    assert_eq!(message, "Service cart has no port 81; it has 80, 9090");
    assert!(compiled.mesh.expect("a mesh").services.is_empty());
}

#[test]
fn a_target_port_bounds_the_entries_and_all_ports_swallow_one() {
    let of = |targets: Value| {
        let route = route_of(2026, "r", json!({ "targetRefs": targets, "rules": [{}] }));
        let compiled = compiled(&[service("cart", &[80, 81]), route]);
        cart(&compiled).routes.iter().map(|entry| entry.port).collect::<Vec<_>>()
    };
    assert_eq!(of(json!([{ "name": "cart", "port": 80 }])), [Some(80)]);
    assert_eq!(
        of(json!([{ "name": "cart", "port": 81 }, { "name": "cart", "port": 80 }])),
        [Some(80), Some(81)]
    );
    assert_eq!(of(json!([{ "name": "cart", "port": 80 }, { "name": "cart" }])), [None]);
}

#[test]
fn a_missing_backend_keeps_its_share_and_is_named() {
    let backends =
        json!([{ "backendRefs": [{ "name": "cart", "port": 80 }, { "name": "gone", "port": 80 }] }]);
    let compiled = compiled(&[service("cart", &[80]), route("r", backends)]);
    let (holds, reason, message) = finding(&compiled, "r", ConditionType::ResolvedRefs);
    assert_eq!((holds, reason), (false, Reason::BackendNotFound));
    assert!(message.starts_with("spec.rules[0].backendRefs[1]: Service gone does not exist"), "{message}");
    assert!(finding(&compiled, "r", ConditionType::Accepted).0);
    assert_eq!(cart(&compiled).rules[0].backends.len(), 2);
}

#[test]
fn a_backend_port_that_the_service_has_not_is_named() {
    let of = |backend: Value| {
        let compiled = compiled(&[
            service("cart", &[80]),
            service("other", &[8080]),
            route("r", json!([{ "backendRefs": [backend] }])),
        ]);
        finding(&compiled, "r", ConditionType::ResolvedRefs)
    };
    let (_, reason, message) = of(json!({ "name": "other", "port": 80 }));
    assert_eq!(reason, Reason::BackendNotFound);
    assert!(message.contains("Service other has no port 80; it has 8080"), "{message}");
    // Without a port the request's own is asked for, which is cart's.
    assert_eq!(of(json!({ "name": "other" })).1, Reason::BackendNotFound);
    assert_eq!(of(json!({ "name": "other", "port": 8080 })).1, Reason::ResolvedRefs);
    assert_eq!(of(json!({ "name": "cart" })).1, Reason::ResolvedRefs);
}

#[test]
fn a_backend_outside_of_the_cluster_is_not_supported() {
    let spec = json!({ "type": "ExternalName", "externalName": "example.com" });
    let external =
        (Kind::Service, json!({ "metadata": { "name": "away", "namespace": "shop" }, "spec": spec }));
    let route = route("r", json!([{ "backendRefs": [{ "name": "away" }] }]));
    let compiled = compiled(&[service("cart", &[80]), external, route]);
    assert_eq!(finding(&compiled, "r", ConditionType::ResolvedRefs).1, Reason::UnsupportedBackend);
}

#[test]
fn a_route_that_is_wrong_in_itself_is_told_the_field_and_others_go_on() {
    let header = |name: &str| json!({ "name": name, "value": "v" });
    let cases = [
        (json!([]), "spec.rules: "),
        (json!([{ "name": "a" }, { "name": "a" }]), "spec.rules[1].name: a is the name of another rule"),
        (json!([{ "backendRefs": [] }]), "spec.rules[0].backendRefs: "),
        (
            json!([{ "backendRefs": [{ "name": "cart", "weight": 1_000_001 }] }]),
            "spec.rules[0].backendRefs[0].weight: ",
        ),
        (json!([{ "matches": [{ "path": {} }] }]), "spec.rules[0].matches[0].path: give exactly one"),
        (
            json!([{ "matches": [{ "path": { "exact": "/a", "prefix": "/a" } }] }]),
            "spec.rules[0].matches[0].path: ",
        ),
        (json!([{ "matches": [{ "path": { "prefix": "v2" } }] }]), "spec.rules[0].matches[0].path.prefix: "),
        (
            json!([{ "matches": [{ "path": { "exact": "/a/../b" } }] }]),
            "spec.rules[0].matches[0].path.exact: ",
        ),
        (
            json!([{ "matches": [{ "path": { "exact": "/a?b=c" } }] }]),
            "spec.rules[0].matches[0].path.exact: ",
        ),
        (json!([{}, { "matches": [{ "method": "get" }] }]), "spec.rules[1].matches[0].method: "),
        (json!([{ "matches": [{ "headers": [{ "name": "x" }] }] }]), "spec.rules[0].matches[0].headers[0]: "),
        (
            json!([{ "matches": [{ "headers": [{ "name": "X", "exact": "1" }, { "name": "x", "exact": "2" }] }] }]),
            "spec.rules[0].matches[0].headers[1].name: x is there twice",
        ),
        (
            json!([{ "requestHeaders": { "set": [header("Host")] } }]),
            "spec.rules[0].requestHeaders.set[0].name: ",
        ),
        (
            json!([{ "responseHeaders": { "remove": ["Content-Length"] } }]),
            "spec.rules[0].responseHeaders.remove[0].name: ",
        ),
        (
            json!([{ "requestHeaders": { "add": [header("a b")] } }]),
            "spec.rules[0].requestHeaders.add[0].name: ",
        ),
        (
            json!([{ "requestHeaders": { "add": [{ "name": "a", "value": "b\r\nc: d" }] } }]),
            "spec.rules[0].requestHeaders.add[0].value: ",
        ),
        (
            json!([{ "timeouts": { "request": "1s", "backendRequest": "2s" } }]),
            "spec.rules[0].timeouts.backendRequest: 2s must not exceed the 1s",
        ),
        (json!([{ "timeouts": { "request": "soon" } }]), "spec.rules[0].timeouts.request: "),
    ];
    for (rules, expected) in cases {
        let compiled =
            compiled(&[service("cart", &[80]), route("wrong", rules), route("right", json!([{}]))]);
        let (holds, reason, message) = finding(&compiled, "wrong", ConditionType::Accepted);
        assert_eq!((holds, reason), (false, Reason::Invalid), "{expected}");
        assert!(message.starts_with(expected), "{message:?} should start with {expected:?}");
        assert!(finding(&compiled, "right", ConditionType::Accepted).0);
        assert_eq!(cart(&compiled).rules.len(), 1, "{expected}");
    }
}

#[test]
fn a_timeout_of_zero_is_none_and_bounds_nothing() {
    let rules = json!([{ "timeouts": { "request": "0s", "backendRequest": "2s" } }]);
    let compiled = compiled(&[service("cart", &[80]), route("r", rules)]);
    let timeouts = &cart(&compiled).rules[0].timeouts;
    assert_eq!(timeouts.request, None);
    assert_eq!(timeouts.backend_request.map(|limit| limit.to_string()), Some("2s".into()));
}

/// Names of the rules in the order in which their matches are looked at.
fn order(compiled: &Compiled) -> Vec<String> {
    let cart = cart(compiled);
    cart.routes.iter().map(|entry| cart.rules[entry.rule].name.clone()).collect()
}

#[test]
fn precedence_is_that_of_gateway_api() {
    let prefix = |path: &str| json!({ "path": { "prefix": path } });
    let exact = |path: &str| json!({ "path": { "exact": path } });
    let header = |name: &str| json!({ "name": name, "present": true });
    // (goes first, goes second, why)
    let cases = [
        (exact("/a"), prefix("/a/very/long/prefix"), "an exact path goes before any prefix"),
        (prefix("/a/b"), prefix("/a"), "the longer prefix goes first"),
        (
            prefix("/a"),
            json!({ "method": "GET", "headers": [header("x"), header("y")] }),
            "path before method and headers",
        ),
        (prefix("/a"), json!({}), "no path is the shortest prefix"),
        (
            json!({ "method": "GET" }),
            json!({ "headers": [header("x"), header("y")] }),
            "method before headers",
        ),
        (
            json!({ "headers": [header("x"), header("y")] }),
            json!({ "headers": [header("z")] }),
            "more headers go first",
        ),
        (
            json!({ "path": { "exact": "/a" }, "method": "GET" }),
            exact("/a/long"),
            "equal in path, then method",
        ),
        (
            json!({ "path": { "prefix": "/a/" }, "method": "GET" }),
            prefix("/a"),
            "a slash at the end does not count",
        ),
    ];
    for (first, second, why) in cases {
        for swap in [false, true] {
            let rule = |name: &str, conditions: &Value| json!({ "name": name, "matches": [conditions] });
            let (one, two) = (rule("first", &first), rule("second", &second));
            let rules = if swap { json!([two, one]) } else { json!([one, two]) };
            let compiled = compiled(&[service("cart", &[80]), route("r", rules)]);
            assert_eq!(order(&compiled), ["shop/r/first", "shop/r/second"], "{why}, swapped: {swap}");
        }
    }
}

#[test]
fn equal_matches_go_by_age_then_name_then_place() {
    let all =
        |year, name| route_of(year, name, json!({ "targetRefs": [{ "name": "cart" }], "rules": [{}, {}] }));
    let compiled = compiled(&[service("cart", &[80]), all(2025, "b"), all(2025, "a"), all(2020, "z")]);
    assert_eq!(order(&compiled), ["shop/z/0", "shop/z/1", "shop/a/0", "shop/a/1", "shop/b/0", "shop/b/1"]);
}

#[test]
fn matches_of_one_rule_are_alternatives() {
    let rules = json!([{ "matches": [{ "path": { "prefix": "/a" } }, { "path": { "prefix": "/longer" } }] }]);
    let compiled = compiled(&[service("cart", &[80]), route("r", rules)]);
    let cart = cart(&compiled);
    let paths: Vec<_> = cart.routes.iter().map(|entry| entry.matches.path.clone()).collect();
    assert_eq!(paths, [Some(PathMatch::Prefix("/longer".into())), Some(PathMatch::Prefix("/a".into()))]);
    assert_eq!(cart.routes.iter().map(|entry| entry.rule).collect::<Vec<_>>(), [0, 0]);
}

#[test]
fn a_namespace_takes_part_by_its_label_or_its_resources() {
    let namespace =
        |labels: Value| (Kind::Namespace, json!({ "metadata": { "name": "shop", "labels": labels } }));
    assert_eq!(compiled(&[]).mesh, None);
    assert_eq!(compiled(&[namespace(json!({})), service("cart", &[80])]).mesh, None);
    let mesh = compiled(&[namespace(json!({ "ferrule.dev/inject": "enabled" }))]).mesh.expect("a mesh");
    assert_eq!((mesh.format, mesh.namespace.as_str(), mesh.services.len()), (FORMAT, "shop", 0));
    assert!(compiled(&[policy(Kind::MeshTls, json!({ "mode": "Strict" }))]).mesh.is_some());
}

#[test]
fn policies_are_accepted_and_say_that_they_are_not_enforced() {
    let circuit = json!({ "targetRefs": [{ "name": "cart" }], "breaker": {} });
    let compiled = compiled(&[service("cart", &[80]), policy(Kind::CircuitPolicy, circuit)]);
    assert!(finding(&compiled, "policy", ConditionType::Accepted).0);
    let (holds, reason, message) = finding(&compiled, "policy", ConditionType::Enforced);
    assert_eq!((holds, reason), (false, Reason::NotImplemented));
    assert!(message.contains("does not enforce it yet"), "{message}");
}

#[test]
fn a_policy_whose_target_is_missing_is_told() {
    let of = |target: Value| {
        let spec = json!({ "targetRefs": [target], "bulkhead": { "maxConcurrent": 1 } });
        let compiled = compiled(&[
            service("cart", &[80]),
            route("split", json!([{ "name": "beta" }])),
            policy(Kind::CircuitPolicy, spec),
        ]);
        let (_, reason, message) = finding(&compiled, "policy", ConditionType::Accepted);
        (reason, message)
    };
    assert_eq!(of(json!({ "name": "gone" })).1, "Service gone does not exist in this namespace");
    assert_eq!(
        of(json!({ "kind": "Route", "name": "gone" })).1,
        "Route gone does not exist in this namespace"
    );
    let (reason, message) = of(json!({ "kind": "Route", "name": "split", "sectionName": "alpha" }));
    assert_eq!((reason, message.as_str()), (Reason::TargetNotFound, "Route split has no rule named alpha"));
    assert_eq!(of(json!({ "kind": "Route", "name": "split", "sectionName": "beta" })).0, Reason::Accepted);
}

#[test]
fn a_policy_that_cannot_be_read_is_told_why() {
    let compiled = compiled(&[policy(Kind::MeshTls, json!({ "mode": "Sometimes" }))]);
    let (holds, reason, message) = finding(&compiled, "policy", ConditionType::Accepted);
    assert_eq!((holds, reason), (false, Reason::Invalid));
    assert!(message.starts_with("spec.mode: unknown variant `Sometimes`"), "{message}");
}

fn any_rule() -> impl Strategy<Value = Value> {
    let path = prop_oneof![
        Just(None),
        "/[ab]{0,2}".prop_map(|path| Some(json!({ "prefix": path }))),
        "/[ab]{0,2}".prop_map(|path| Some(json!({ "exact": path }))),
    ];
    let method = proptest::option::of(prop_oneof![Just("GET"), Just("POST")]);
    let matches = prop::collection::vec(
        (path, method, prop::collection::btree_set("[a-c]", 0..3)).prop_map(|(path, method, headers)| {
            let mut conditions = json!({});
            if let Some(path) = path {
                conditions["path"] = path;
            }
            if let Some(method) = method {
                conditions["method"] = json!(method);
            }
            conditions["headers"] =
                headers.iter().map(|name| json!({ "name": name, "present": true })).collect();
            conditions
        }),
        0..3,
    );
    matches.prop_map(|matches| json!({ "matches": matches }))
}

fn any_objects() -> impl Strategy<Value = Objects> {
    let routes = prop::collection::btree_map(
        "[a-f]",
        (
            2020..2023i32,
            prop::collection::vec(any_rule(), 1..4),
            prop_oneof![Just("cart"), Just("gone"), Just("web")],
        ),
        1..6,
    );
    routes.prop_map(|routes| {
        let mut objects = vec![service("cart", &[80]), service("web", &[80])];
        for (name, (year, rules, target)) in routes {
            let spec = json!({ "targetRefs": [{ "name": target }], "rules": rules });
            objects.push(route_of(year, &name, spec));
        }
        objects
    })
}

type Objects = Vec<(Kind, Value)>;

fn shuffled() -> impl Strategy<Value = (Objects, Objects)> {
    any_objects().prop_flat_map(|objects| (Just(objects.clone()), Just(objects).prop_shuffle()))
}

proptest! {
    #[test]
    fn the_result_does_not_depend_on_the_order_of_the_objects((one, other) in shuffled()) {
        prop_assert_eq!(compiled(&one), compiled(&other));
    }

    #[test]
    fn what_is_compiled_survives_the_way_through_config_maps(objects in any_objects()) {
        let mesh = compiled(&objects).mesh.expect("there are Routes");
        let shards = shard::split(&mesh).expect("fits").into_iter().enumerate().collect();
        prop_assert_eq!(shard::join(&shards), Ok(mesh));
    }

    #[test]
    fn every_entry_leads_to_a_rule_and_every_rule_has_an_entry(objects in any_objects()) {
        for service in compiled(&objects).mesh.expect("there are Routes").services.values() {
            for rule in 0..service.rules.len() {
                prop_assert!(service.routes.iter().any(|entry| entry.rule == rule));
            }
            prop_assert!(service.routes.iter().all(|entry| entry.rule < service.rules.len()));
        }
    }
}
