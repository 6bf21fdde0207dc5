//! What pods accept, and who answers behind Services.

use std::collections::BTreeMap;

use ferrule_config::{MinVersion, Modes, Peers, Selector, TlsMode, WorkloadTls};

use super::*;

pub(super) fn injected(name: &str) -> (Kind, Value) {
    let labels = json!({ "ferrule.dev/inject": "enabled" });
    (Kind::Namespace, json!({ "metadata": { "name": name, "labels": labels } }))
}

fn selecting(name: &str, selector: Value) -> (Kind, Value) {
    let spec = json!({ "selector": selector, "ports": [{ "port": 80 }] });
    (Kind::Service, json!({ "metadata": { "name": name, "namespace": "shop" }, "spec": spec }))
}

/// With a sidecar if it has an account.
pub(super) fn pod(name: &str, labels: Value, account: Option<&str>, address: &str) -> (Kind, Value) {
    let annotations = account.map_or(json!({}), |_| json!({ "ferrule.dev/injected": "0.1.0" }));
    let metadata = json!({ "name": name, "namespace": "shop", "labels": labels, "annotations": annotations });
    let containers = account.map_or(json!([]), |_| json!([{ "name": "ferrule-proxy" }]));
    let spec = json!({ "serviceAccountName": account, "initContainers": containers });
    let status = json!({ "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] });
    (Kind::Pod, json!({ "metadata": metadata, "spec": spec, "status": status }))
}

/// Created in this year.
pub(super) fn tls_in(namespace: &str, year: i32, name: &str, spec: Value) -> (Kind, Value) {
    let created = format!("{year}-01-01T00:00:00Z");
    let metadata =
        json!({ "name": name, "namespace": namespace, "generation": 2, "creationTimestamp": created });
    (Kind::MeshTls, json!({ "metadata": metadata, "spec": spec }))
}

pub(super) fn tls(year: i32, name: &str, spec: Value) -> (Kind, Value) {
    tls_in("shop", year, name, spec)
}

fn entry(labels: &[(&str, &str)], mode: TlsMode) -> WorkloadTls {
    WorkloadTls { selector: selector(labels), modes: Modes { mode, ..Modes::default() } }
}

fn selector(labels: &[(&str, &str)]) -> Selector {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Selector { match_labels: labels.collect() }
}

pub(super) fn entries(compiled: &Compiled) -> &[WorkloadTls] {
    &compiled.mesh.as_ref().expect("a mesh").tls
}

fn peers(compiled: &Compiled, service: &str) -> Option<Peers> {
    compiled.mesh.as_ref().expect("a mesh").services.get(service)?.peers.clone()
}

pub(super) fn told(compiled: &Compiled, name: &str) -> ((bool, Reason, String), (bool, Reason)) {
    let (holds, reason, _) = finding(compiled, name, ConditionType::Enforced);
    (finding(compiled, name, ConditionType::Accepted), (holds, reason))
}

pub(super) const SYSTEM: &str = "ferrule-system";

#[test]
fn what_is_narrower_comes_first() {
    let compiled = compiled(&[
        injected("shop"),
        tls_in(SYSTEM, 2020, "mesh", json!({ "mode": "Strict", "force": true })),
        tls(2021, "shop", json!({ "mode": "Disabled" })),
        tls(2022, "cart", json!({ "selector": { "matchLabels": { "app": "cart" } } })),
    ]);
    assert_eq!(
        entries(&compiled),
        [
            entry(&[("app", "cart")], TlsMode::Permissive),
            entry(&[], TlsMode::Disabled),
            entry(&[], TlsMode::Strict),
        ]
    );
    for name in ["cart", "shop"] {
        let ((accepted, reason, _), enforced) = told(&compiled, name);
        assert_eq!(
            (accepted, reason, enforced),
            (true, Reason::Accepted, (true, Reason::Enforced)),
            "{name}"
        );
    }
}

#[test]
fn without_any_everything_is_accepted_and_nothing_is_written() {
    assert_eq!(entries(&compiled(&[injected("shop")])), []);
}

#[test]
fn ports_and_version_are_carried_over() {
    let ports = json!([{ "port": 9090, "mode": "Disabled" }]);
    let spec = json!({ "mode": "Strict", "force": true, "ports": ports, "minVersion": "1.2" });
    let compiled = compiled(&[injected("shop"), tls(2020, "shop", spec)]);
    let modes = Modes {
        mode: TlsMode::Strict,
        ports: BTreeMap::from([(9090, TlsMode::Disabled)]),
        min_version: MinVersion::V1_2,
    };
    assert_eq!(entries(&compiled), [WorkloadTls { selector: Selector::default(), modes }]);
}

#[test]
fn a_service_stands_for_the_pods_that_it_selects() {
    let targets = json!([{ "name": "cart" }, { "name": "gone" }, { "name": "external" }]);
    let compiled = compiled(&[
        injected("shop"),
        selecting("cart", json!({ "app": "cart" })),
        selecting("external", json!(null)),
        tls(2020, "cart", json!({ "targetRefs": targets, "mode": "Disabled" })),
    ]);
    assert_eq!(entries(&compiled), [entry(&[("app", "cart")], TlsMode::Disabled)]);
    let ((accepted, reason, message), enforced) = told(&compiled, "cart");
    assert_eq!((accepted, reason, enforced), (false, Reason::TargetNotFound, (true, Reason::Enforced)));
    assert!(message.contains("Service gone does not exist"), "{message}");
    assert!(message.contains("Service external has no selector"), "{message}");
}

#[test]
fn targets_that_are_all_missing_never_mean_the_whole_namespace() {
    let spec = json!({ "targetRefs": [{ "name": "gone" }], "mode": "Strict", "force": true });
    let compiled = compiled(&[injected("shop"), tls(2020, "cart", spec)]);
    assert_eq!(entries(&compiled), []);
    let ((accepted, reason, _), enforced) = told(&compiled, "cart");
    assert_eq!(
        (accepted, reason, enforced),
        (false, Reason::TargetNotFound, (false, Reason::TargetNotFound))
    );
}

#[test]
fn what_is_wrong_is_told_with_its_field_and_changes_nothing() {
    let labels = json!({ "matchLabels": { "app": "cart" } });
    let port = json!({ "port": 80, "mode": "Strict" });
    let cases = [
        (json!({ "selector": labels, "targetRefs": [{ "name": "cart" }] }), "spec.selector: contradicts"),
        (json!({ "selector": { "matchLabels": {} } }), "spec.selector.matchLabels: give 1 to 16"),
        (json!({ "ports": [port, port] }), "spec.ports[1].port: 80 is there twice"),
        (json!({ "ports": [{ "port": 0, "mode": "Strict" }] }), "spec.ports[0].port: must be"),
        (json!({ "mode": "Sometimes" }), "spec.mode: unknown variant"),
    ];
    for (spec, expected) in cases {
        let compiled = compiled(&[injected("shop"), tls(2020, "wrong", spec)]);
        let ((accepted, reason, message), enforced) = told(&compiled, "wrong");
        assert_eq!((accepted, reason, enforced), (false, Reason::Invalid, (false, Reason::Invalid)));
        assert!(message.starts_with(expected), "{message}");
        assert_eq!(entries(&compiled), []);
    }
}

#[test]
fn of_several_for_a_namespace_the_oldest_decides() {
    let compiled = compiled(&[
        injected("shop"),
        tls(2021, "a", json!({ "mode": "Disabled" })),
        tls(2020, "z", json!({ "mode": "Permissive" })),
        tls(2020, "y", json!({ "mode": "Disabled" })),
    ]);
    assert_eq!(entries(&compiled), [entry(&[], TlsMode::Disabled)]);
    assert!(told(&compiled, "y").0.0);
    for loser in ["a", "z"] {
        let ((accepted, reason, message), enforced) = told(&compiled, loser);
        assert_eq!((accepted, reason, enforced), (false, Reason::Conflicted, (false, Reason::Conflicted)));
        assert!(message.starts_with("MeshTLS y decides in its place"), "{message}");
    }
}

#[test]
fn of_several_for_pods_the_oldest_decides_where_they_overlap() {
    let of = |labels: Value| json!({ "selector": { "matchLabels": labels }, "mode": "Disabled" });
    let both = json!({ "app": "cart", "tier": "back" });
    let objects = [
        injected("shop"),
        tls(2020, "app", of(json!({ "app": "cart" }))),
        tls(2021, "tier", of(json!({ "tier": "back" }))),
        tls(2022, "both", of(both.clone())),
    ];
    let before = compiled(&objects);
    assert!(told(&before, "tier").0.0, "there is no pod that both select");
    let ((accepted, reason, _), (enforced, _)) = told(&before, "both");
    assert_eq!((accepted, reason, enforced), (false, Reason::Conflicted, false), "nor can there ever be one");

    let after = compiled(&[&objects[..], &[pod("cart", both, Some("cart"), "10.0.0.1")]].concat());
    let ((accepted, reason, message), (enforced, _)) = told(&after, "tier");
    assert_eq!((accepted, reason, enforced), (false, Reason::Conflicted, true));
    assert!(message.starts_with("MeshTLS app decides on pods that it selects too"), "{message}");
}

#[test]
fn peers_are_the_accounts_of_pods_with_sidecars_and_the_addresses_of_those_without() {
    let cart = json!({ "app": "cart" });
    let compiled = compiled(&[
        injected("shop"),
        selecting("cart", cart.clone()),
        pod("b", cart.clone(), Some("spare"), "10.0.0.3"),
        pod("a", cart.clone(), Some("cart"), "10.0.0.2"),
        pod("c", cart.clone(), Some("cart"), "10.0.0.4"),
        pod("old-2", cart.clone(), None, "10.0.0.9"),
        pod("old-1", cart, None, "10.0.0.10"),
        pod("web", json!({ "app": "web" }), Some("web"), "10.0.0.5"),
    ]);
    let expected = Peers {
        accounts: vec!["cart".into(), "spare".into()],
        plain: vec!["10.0.0.9".parse().expect("an address"), "10.0.0.10".parse().expect("an address")],
        modes: Modes::default(),
    };
    assert_eq!(peers(&compiled, "cart"), Some(expected));
}

#[test]
fn a_service_has_no_peers_without_a_sidecar_or_a_selector_or_a_label_on_the_namespace() {
    let cart = json!({ "app": "cart" });
    let (service, with) = (selecting("cart", cart.clone()), pod("a", cart.clone(), Some("cart"), "10.0.0.2"));
    let without = pod("a", cart, None, "10.0.0.2");
    assert!(peers(&compiled(&[injected("shop"), service.clone(), with.clone()]), "cart").is_some());
    assert_eq!(peers(&compiled(&[injected("shop"), service.clone(), without]), "cart"), None);
    let selectorless = selecting("cart", json!({}));
    assert_eq!(peers(&compiled(&[injected("shop"), selectorless, with.clone()]), "cart"), None);
    assert_eq!(peers(&compiled(&[service, with, route("r", json!([{}]))]), "cart"), None);
}

#[test]
fn a_pod_that_has_ended_does_not_count() {
    let cart = json!({ "app": "cart" });
    for phase in ["Succeeded", "Failed"] {
        let mut ended = pod("a", cart.clone(), Some("cart"), "10.0.0.2");
        let mut observed = observed(&[injected("shop"), selecting("cart", cart.clone()), ended.clone()]);
        assert!(peers(&compile(&observed, "shop"), "cart").is_some());
        ended.1["status"]["phase"] = json!(phase);
        let object = serde_json::from_value(ended.1).expect("an object");
        observed.apply(Object::read(Kind::Pod, object).expect("readable"));
        assert_eq!(peers(&compile(&observed, "shop"), "cart"), None, "{phase}");
    }
}

#[test]
fn where_the_pods_of_a_service_differ_the_stricter_counts() {
    let of = |version: &str| json!({ "app": "cart", "version": version });
    let spec = |version: &str, mode: &str, ports: Value| {
        let labels = json!({ "version": version });
        json!({ "selector": { "matchLabels": labels }, "mode": mode, "force": true, "ports": ports })
    };
    let port = |port: u16, mode: &str| json!({ "port": port, "mode": mode });
    let compiled = compiled(&[
        injected("shop"),
        selecting("cart", json!({ "app": "cart" })),
        pod("a", of("1"), Some("cart"), "10.0.0.1"),
        pod("b", of("2"), Some("cart"), "10.0.0.2"),
        tls(2020, "one", spec("1", "Disabled", json!([port(81, "Strict"), port(82, "Permissive")]))),
        tls(2020, "two", spec("2", "Permissive", json!([port(82, "Disabled"), port(83, "Disabled")]))),
    ]);
    let modes = peers(&compiled, "cart").expect("peers").modes;
    let expected = Modes {
        mode: TlsMode::Permissive,
        ports: BTreeMap::from([(81, TlsMode::Strict), (83, TlsMode::Disabled)]),
        min_version: MinVersion::V1_3,
    };
    assert_eq!(modes, expected);
}

#[test]
fn pods_with_sidecars_are_known_by_their_addresses() {
    let changed = |mut pod: (Kind, Value), change: fn(&mut Value)| {
        change(&mut pod.1);
        pod
    };
    let labels = json!({ "app": "cart" });
    let two = |pod: &mut Value| {
        pod["status"]["podIPs"] = json!([{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }]);
    };
    let observed = observed(&[
        injected("shop"),
        tls(2020, "cart", json!({ "selector": { "matchLabels": labels }, "mode": "Strict", "force": true })),
        changed(pod("both", labels.clone(), Some("cart"), "10.0.0.1"), two),
        pod("web", json!({}), Some("web"), "10.0.0.2"),
        pod("plain", labels.clone(), None, "10.0.0.3"),
        changed(pod("node", labels.clone(), Some("cart"), "10.0.0.4"), |pod| {
            pod["spec"]["hostNetwork"] = json!(true);
        }),
        changed(pod("elsewhere", labels, Some("cart"), "10.0.0.5"), |pod| {
            pod["metadata"]["namespace"] = json!("unlabelled");
        }),
    ]);
    let strict = Modes { mode: TlsMode::Strict, ..Modes::default() };
    let peer = |account: &str, modes: &Modes| Peer {
        namespace: "shop".into(),
        account: account.into(),
        modes: modes.clone(),
    };
    let expected = [
        ("10.0.0.1", peer("cart", &strict)),
        ("10.0.0.2", peer("web", &Modes::default())),
        ("fd00::1", peer("cart", &strict)),
    ];
    let expected = expected.map(|(address, peer)| (address.parse().expect("an address"), peer));
    assert_eq!(compile_peers(&observed), expected.into());
}

#[test]
fn ports_at_which_no_sidecar_stands_are_never_encrypted_to() {
    let cart = json!({ "app": "cart" });
    let bypassed = |name: &str, address: &str| {
        let mut pod = pod(name, cart.clone(), Some("cart"), address);
        pod.1["metadata"]["annotations"]["ferrule.dev/exclude-inbound-ports"] = json!("9090, 22");
        pod
    };
    let objects = [
        injected("shop"),
        selecting("cart", cart.clone()),
        bypassed("a", "10.0.0.1"),
        tls(2020, "shop", json!({ "mode": "Strict", "force": true })),
    ];
    let expected = Modes {
        mode: TlsMode::Strict,
        ports: BTreeMap::from([(22, TlsMode::Disabled), (9090, TlsMode::Disabled)]),
        ..Modes::default()
    };
    assert_eq!(peers(&compiled(&objects), "cart").expect("peers").modes, expected);
    let addresses = compile_peers(&observed(&objects));
    assert_eq!(addresses.values().map(|peer| &peer.modes).collect::<Vec<_>>(), [&expected]);
    let other = pod("b", cart.clone(), Some("cart"), "10.0.0.2");
    let mixed = compiled(&[&objects[..], &[other]].concat());
    assert_eq!(peers(&mixed, "cart").expect("peers").modes.of(9090), TlsMode::Strict, "the stricter counts");
}

/// Pods with some of the labels `a` to `c`, Services and MeshTLS that select some of them.
fn any_mesh() -> impl Strategy<Value = Objects> {
    let labels = || prop::collection::btree_map("[a-c]", "[xy]", 1..3);
    let pods = prop::collection::btree_map("[a-h]", (labels(), any::<bool>(), 1..250u8), 0..8);
    let services = prop::collection::btree_map("[a-d]", labels(), 1..4);
    let mode = || prop_oneof![Just("Permissive"), Just("Strict"), Just("Disabled")];
    let ports = prop::collection::btree_map(80..83u16, mode(), 0..3);
    let tls = prop::collection::btree_map(
        "[a-f]",
        (2020..2022i32, any::<bool>(), prop::option::of(labels()), mode(), ports),
        0..6,
    );
    (pods, services, tls).prop_map(|(pods, services, tls)| {
        let mut objects = vec![injected("shop")];
        for (name, (labels, has_sidecar, address)) in pods {
            let account = has_sidecar.then_some(name.as_str());
            objects.push(pod(&name, json!(labels), account, &format!("10.0.0.{address}")));
        }
        objects.extend(services.into_iter().map(|(name, labels)| selecting(&name, json!(labels))));
        for (name, (year, of_mesh, labels, mode, ports)) in tls {
            let ports: Vec<_> =
                ports.iter().map(|(port, mode)| json!({ "port": port, "mode": mode })).collect();
            let mut spec = json!({ "mode": mode, "ports": ports, "force": true });
            if let Some(labels) = labels {
                spec["selector"] = json!({ "matchLabels": labels });
            }
            objects.push(tls_in(if of_mesh { SYSTEM } else { "shop" }, year, &name, spec));
        }
        objects
    })
}

proptest! {
    #[test]
    fn encryption_does_not_depend_on_the_order_of_the_objects(
        (one, other) in any_mesh().prop_flat_map(|objects| (Just(objects.clone()), Just(objects).prop_shuffle()))
    ) {
        prop_assert_eq!(compiled(&one), compiled(&other));
    }

    #[test]
    fn encryption_survives_the_way_through_config_maps(objects in any_mesh()) {
        let mesh = compiled(&objects).mesh.expect("injected");
        let shards = shard::split(&mesh).expect("fits").into_iter().enumerate().collect();
        prop_assert_eq!(shard::join(&shards), Ok(mesh));
    }

    #[test]
    fn a_service_is_as_strict_as_the_strictest_of_its_pods(objects in any_mesh(), port in 79..84u16) {
        let observed = observed(&objects);
        let mesh = compile(&observed, "shop").mesh.expect("injected");
        let of = observed.namespace("shop").expect("there");
        for (name, service) in &of.services {
            let labels = Selector { match_labels: service.selector.clone() };
            let pods: Vec<_> =
                of.pods.values().filter(|pod| labels.selects(&pod.labels)).collect();
            let modes: Vec<_> = pods
                .iter()
                .filter(|pod| pod.injected)
                .map(|pod| {
                    let first = mesh.tls.iter().find(|entry| entry.selector.selects(&pod.labels));
                    first.map_or(TlsMode::Permissive, |entry| entry.modes.of(port))
                })
                .collect();
            let peers = mesh.services.get(name).and_then(|service| service.peers.as_ref());
            let strictest = [TlsMode::Strict, TlsMode::Permissive, TlsMode::Disabled]
                .into_iter()
                .find(|mode| modes.contains(mode));
            prop_assert_eq!(peers.map(|peers| peers.modes.of(port)), strictest);
        }
    }

    #[test]
    fn every_one_for_pods_comes_before_any_for_all(objects in any_mesh()) {
        let tls = compiled(&objects).mesh.expect("injected").tls;
        prop_assert!(tls.is_sorted_by_key(|entry| entry.selector.match_labels.is_empty()));
        prop_assert!(tls.iter().filter(|entry| entry.selector.match_labels.is_empty()).count() <= 2);
    }
}
