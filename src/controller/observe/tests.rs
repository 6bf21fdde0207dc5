use ferrule_config::{FORMAT, Mesh, peers, shard};
use serde_json::{Value, json};

use super::*;
use crate::controller::observe::object::WRITTEN_KEYS;

fn object(kind: Kind, value: Value) -> Object {
    Object::read(kind, serde_json::from_value(value).expect("an object")).expect("readable")
}

fn namespace(injected: bool) -> Object {
    let label = if injected { "enabled" } else { "disabled" };
    object(
        Kind::Namespace,
        json!({ "metadata": { "name": "shop", "labels": { "ferrule.dev/inject": label } } }),
    )
}

fn service(port: u16) -> Object {
    let metadata = json!({ "name": "cart", "namespace": "shop", "resourceVersion": port.to_string() });
    object(Kind::Service, json!({ "metadata": metadata, "spec": { "ports": [{ "port": port }] } }))
}

fn route(generation: i64, status: Option<&str>) -> Object {
    let conditions = status.map(|status| {
        json!([{
            "type": "Accepted", "status": status, "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"
        }])
    });
    object(
        Kind::Route,
        json!({
            "metadata": { "name": "cart", "namespace": "shop", "generation": generation },
            "spec": { "targetRefs": [{ "name": "cart" }], "rules": [{}] },
            "status": { "conditions": conditions.unwrap_or_default() },
        }),
    )
}

fn shop(need: Need) -> (Scope, Need) {
    (Scope::Namespace("shop".into()), need)
}

#[test]
fn only_a_change_that_matters_makes_a_namespace_stale() {
    let mut observed = Observed::default();
    assert_eq!(observed.apply(service(80)), [shop(Need::Compile)]);
    assert_eq!(observed.apply(service(80)), []);
    assert_eq!(observed.apply(service(81)), [shop(Need::Compile)]);
    assert_eq!(observed.delete(Kind::Service, "shop", "cart")[0], shop(Need::Compile));
    assert_eq!(observed.delete(Kind::Service, "shop", "cart"), []);
}

#[test]
fn a_status_is_compared_but_not_compiled() {
    let mut observed = Observed::default();
    assert_eq!(observed.apply(route(1, None)), [shop(Need::Compile)]);
    assert_eq!(observed.apply(route(1, Some("True"))), [shop(Need::Compare)]);
    assert_eq!(observed.apply(route(1, Some("True"))), []);
    assert_eq!(observed.apply(route(2, Some("True"))), [shop(Need::Compile)]);
}

#[test]
fn a_namespace_changes_the_rights_of_sidecars_too() {
    let mut observed = Observed::default();
    let both = [shop(Need::Compile), (Scope::Peers, Need::Compile), (Scope::ProxyBinding, Need::Compare)];
    assert_eq!(observed.apply(namespace(true)), both);
    assert_eq!(observed.apply(namespace(true)), []);
    assert_eq!(observed.injected().collect::<Vec<_>>(), ["shop"]);
    assert_eq!(observed.apply(namespace(false)), both);
    assert_eq!(observed.injected().count(), 0);
    assert_eq!(observed.delete(Kind::Namespace, "shop", "shop"), both);
}

#[test]
fn some_namespaces_are_never_injected() {
    let mut observed = Observed::without_injection_in(["shop".to_owned()]);
    observed.apply(namespace(true));
    assert!(!observed.is_injected("shop"));
}

#[test]
fn a_relist_takes_out_what_is_gone_and_leaves_other_kinds() {
    let mut observed = Observed::default();
    observed.apply(service(80));
    observed.apply(route(1, None));
    assert_eq!(observed.replace(Kind::Route, vec![route(1, None)]), []);
    assert_eq!(observed.replace(Kind::Route, Vec::new()), [shop(Need::Compile)]);
    assert_eq!((observed.count(Kind::Route), observed.count(Kind::Service)), (0, 1));
    assert_eq!(observed.replace(Kind::Service, Vec::new())[0], shop(Need::Compile));
    assert_eq!(observed.namespaces().count(), 0, "nothing is kept of a namespace without objects");
}

#[test]
fn a_specification_that_cannot_be_read_is_kept_with_the_field_that_is_wrong() {
    let metadata = json!({ "name": "cart", "namespace": "shop", "generation": 4 });
    let spec =
        json!({ "targetRefs": [{ "name": "cart" }], "rules": [{ "matches": [{ "path": { "exact": 7 } }] }] });
    let Body::Route(route) = object(Kind::Route, json!({ "metadata": metadata, "spec": spec })).body else {
        panic!("a Route")
    };
    assert_eq!(route.generation, 4);
    let error = route.spec.expect_err("not readable");
    assert!(error.starts_with("spec.rules[0].matches[0].path.exact: invalid type"), "{error}");

    let Body::Route(route) = object(Kind::Route, json!({ "metadata": { "name": "cart" } })).body else {
        panic!("a Route")
    };
    assert_eq!(route.spec, Err("spec: is missing".to_owned()));
}

#[test]
fn a_field_of_another_version_is_named() {
    let spec = json!({ "targetRefs": [{ "name": "cart" }], "rules": [{ "mirror": {} }] });
    let Body::Route(route) =
        object(Kind::Route, json!({ "metadata": { "name": "cart" }, "spec": spec })).body
    else {
        panic!("a Route")
    };
    let error = route.spec.expect_err("not readable");
    assert!(error.starts_with("spec.rules[0].mirror: unknown field `mirror`"), "{error}");
}

#[test]
fn kinds_are_told_by_version_and_name() {
    assert_eq!(Kind::of("ferrule.dev/v1alpha1", "Route"), Some(Kind::Route));
    assert_eq!(Kind::of("ferrule.dev/v1alpha1", "MeshTLS"), Some(Kind::MeshTls));
    assert_eq!(Kind::of("ferrule.dev/v1alpha1", "AccessPolicy"), Some(Kind::AccessPolicy));
    assert_eq!(Kind::of("v1", "Service"), Some(Kind::Service));
    assert_eq!(Kind::of("route.openshift.io/v1", "Route"), None);
}

#[test]
fn a_fingerprint_is_of_exactly_what_the_operator_writes() {
    let mesh = Mesh { format: FORMAT, namespace: "shop".into(), ..Mesh::default() };
    let mut data = shard::split(&mesh).expect("fits").remove(0);
    let addresses = peers::split(&peers::Addresses::new()).expect("fits");
    let mut keys: Vec<_> = data.keys().chain(addresses[0].keys()).map(String::as_str).collect();
    let mut written = WRITTEN_KEYS;
    keys.sort_unstable();
    written.sort_unstable();
    assert_eq!(keys, written);

    let before = fingerprint(&data);
    data.insert("note".into(), "of somebody else".into());
    assert_eq!(fingerprint(&data), before);
    data.insert("mesh.json".into(), "{}".into());
    assert_ne!(fingerprint(&data), before);
}

fn pod(address: &str, change: impl FnOnce(&mut Value)) -> Object {
    let mut pod = json!({
        "metadata": {
            "name": "cart-1", "namespace": "shop", "labels": { "app": "cart" },
            "annotations": { "ferrule.dev/injected": "0.1.0" },
        },
        "spec": { "serviceAccountName": "cart", "initContainers": [{ "name": "ferrule-proxy" }] },
        "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] },
    });
    change(&mut pod);
    object(Kind::Pod, pod)
}

#[test]
fn only_what_is_compiled_of_a_pod_makes_its_namespace_stale() {
    let mut observed = Observed::default();
    let (none, compile) = (Stale::new(), vec![shop(Need::Compile)]);
    let peers = vec![(Scope::Peers, Need::Compile)];
    let both = [compile.clone(), peers.clone()].concat();
    assert_eq!(observed.apply(pod("10.0.0.1", |_| {})), none, "its namespace has no sidecars");
    observed.apply(namespace(true));
    let heartbeat = pod("10.0.0.1", |pod| pod["status"]["conditions"] = json!([{ "type": "Ready" }]));
    assert_eq!(observed.apply(heartbeat), none);
    let ready =
        |pod: &mut Value| pod["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
    assert_eq!(observed.apply(pod("10.0.0.1", ready)), none);
    assert_eq!(observed.apply(pod("10.0.0.2", |_| {})), peers, "it answers by its account");
    let account = |pod: &mut Value| pod["spec"]["serviceAccountName"] = json!("other");
    assert_eq!(observed.apply(pod("10.0.0.2", account)), both);
    let plain = |pod: &mut Value| pod["metadata"]["annotations"] = json!({});
    assert_eq!(observed.apply(pod("10.0.0.2", plain)), both);
    assert_eq!(observed.apply(pod("10.0.0.3", plain)), compile, "nobody encrypts for this address");
    assert_eq!(observed.apply(pod("10.0.0.3", |pod| pod["status"]["phase"] = json!("Failed"))), both);
    assert_eq!(observed.count(Kind::Pod), 0);
    assert_eq!(observed.delete(Kind::Pod, "shop", "cart-1"), none);
}

#[test]
fn a_pod_has_a_sidecar_if_it_was_injected_and_says_so() {
    let has_sidecar = |change: fn(&mut Value)| match pod("10.0.0.1", change).body {
        Body::Pod(Some(pod)) => pod.injected,
        other => panic!("{other:?}"),
    };
    assert!(has_sidecar(|_| {}));
    assert!(!has_sidecar(|pod| pod["metadata"]["annotations"] = json!({})));
    assert!(!has_sidecar(|pod| pod["spec"]["initContainers"] = json!([])), "a copied annotation is none");
}

#[test]
fn a_pod_is_ready_until_it_is_to_end_and_belongs_to_its_workload() {
    let read = |change: &dyn Fn(&mut Value)| match pod("10.0.0.1", change).body {
        Body::Pod(Some(pod)) => (pod.ready, pod.workload),
        other => panic!("{other:?}"),
    };
    let ready =
        |pod: &mut Value| pod["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
    let of = |name: &str| json!([{ "apiVersion": "v1", "kind": "Any", "name": name, "uid": "1", "controller": true }]);
    assert_eq!(read(&|_| {}), (false, "cart-1".into()));
    assert_eq!(read(&ready), (true, "cart-1".into()));
    let ending = |pod: &mut Value| {
        ready(pod);
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["ownerReferences"] = of("cart");
    };
    assert_eq!(read(&ending), (false, "cart".into()), "of a StatefulSet");
    let replica = |pod: &mut Value| {
        pod["metadata"]["labels"]["pod-template-hash"] = json!("5d4");
        pod["metadata"]["ownerReferences"] = of("cart-5d4");
    };
    assert_eq!(read(&replica), (false, "cart".into()), "of a Deployment");
}

#[test]
fn what_is_in_force_is_read_whatever_else_the_status_holds() {
    let status =
        json!({ "mode": "Strict", "selection": "all pods", "plaintextClients": 7, "conditions": "none" });
    let metadata = json!({ "name": "closed", "namespace": "shop" });
    let tls = json!({ "metadata": metadata, "spec": { "mode": "Strict" }, "status": status });
    let Body::MeshTls(tls) = object(Kind::MeshTls, tls).body else { panic!("a MeshTLS") };
    assert_eq!(tls.status.mode, Some(crate::api::mesh_tls::Mode::Strict));
    assert_eq!(tls.status.selection.as_deref(), Some("all pods"));
}

#[test]
fn an_address_is_a_pod_s_unless_several_have_it() {
    let mut observed = Observed::default();
    observed.apply(pod("10.0.0.1", |_| {}));
    let other = |name: &str| {
        let name = name.to_owned();
        move |pod: &mut Value| pod["metadata"]["name"] = json!(name)
    };
    observed.apply(pod("10.0.0.2", other("a")));
    observed.apply(pod("10.0.0.2", other("b")));
    observed.apply(pod("10.0.0.3", |pod| {
        pod["metadata"]["name"] = json!("node");
        pod["spec"]["hostNetwork"] = json!(true);
    }));
    let asked = (1..=4).map(|last| std::net::Ipv4Addr::new(10, 0, 0, last).into()).collect();
    let found: Vec<_> = observed.pods_at(&asked).into_values().collect();
    assert_eq!(found, ["shop/cart-1"]);
}

#[test]
fn what_holds_for_the_mesh_makes_every_namespace_stale() {
    let mut observed = Observed::default().with_system("mesh");
    observed.apply(service(80));
    let tls = |namespace: &str, mode: &str| {
        let metadata = json!({ "name": "strict", "namespace": namespace });
        object(Kind::MeshTls, json!({ "metadata": metadata, "spec": { "mode": mode } }))
    };
    let peers = (Scope::Peers, Need::Compile);
    let all = [(Scope::Namespace("mesh".into()), Need::Compile), shop(Need::Compile), peers.clone()];
    assert_eq!(observed.apply(tls("mesh", "Strict")), all);
    assert_eq!(observed.apply(tls("mesh", "Strict")), []);
    assert_eq!(observed.apply(tls("shop", "Strict")), [shop(Need::Compile), peers]);
    assert_eq!(observed.delete(Kind::MeshTls, "mesh", "strict"), all);
}

#[test]
fn access_policies_make_those_stale_that_they_hold_for_and_no_addresses() {
    let mut observed = Observed::default().with_system("mesh");
    observed.apply(service(80));
    let policy = |namespace: &str, spec: Value| {
        let metadata = json!({ "name": "closed", "namespace": namespace });
        object(Kind::AccessPolicy, json!({ "metadata": metadata, "spec": spec }))
    };
    let mesh = (Scope::Namespace("mesh".into()), Need::Compile);
    assert_eq!(observed.apply(policy("shop", json!({ "allow": [] }))), [shop(Need::Compile)]);
    assert_eq!(observed.apply(policy("shop", json!({ "allow": [] }))), []);
    assert_eq!(observed.apply(policy("mesh", json!({ "allow": [] }))), [mesh.clone(), shop(Need::Compile)]);
    assert_eq!(observed.delete(Kind::AccessPolicy, "mesh", "closed"), [mesh, shop(Need::Compile)]);
    // What can't be read is told apart too.
    let unknown = |audit: bool| policy("shop", json!({ "audit": audit, "later": 1 }));
    assert_eq!(observed.apply(unknown(false)), [shop(Need::Compile)]);
    assert_eq!(observed.apply(unknown(false)), []);
    assert_eq!(observed.apply(unknown(true)), [shop(Need::Compile)]);
}

#[test]
fn a_service_account_that_comes_or_goes_concerns_those_whose_policies_name_it() {
    let mut observed = Observed::default();
    let spec =
        json!({ "allow": [{ "from": [{ "serviceAccount": "shop/cart" }, { "serviceAccount": "shop/*" }] }] });
    let metadata = json!({ "name": "closed", "namespace": "pay" });
    observed.apply(object(Kind::AccessPolicy, json!({ "metadata": metadata, "spec": spec })));
    let pay = (Scope::Namespace("pay".into()), Need::Compile);
    let named = |name: &str| {
        let name = name.to_owned();
        move |pod: &mut Value| pod["metadata"]["name"] = json!(name)
    };
    observed.apply(namespace(true));
    assert!(observed.apply(pod("10.0.0.1", named("a"))).contains(&pay));
    assert!(observed.has_account("shop", "cart"));
    assert!(!observed.apply(pod("10.0.0.2", named("b"))).contains(&pay), "there is one already");
    assert!(!observed.delete(Kind::Pod, "shop", "a").contains(&pay), "there is another one");
    assert!(observed.delete(Kind::Pod, "shop", "b").contains(&pay));
    let other = |pod: &mut Value| pod["spec"]["serviceAccountName"] = json!("other");
    assert!(!observed.apply(pod("10.0.0.1", other)).contains(&pay), "nobody names it");
}

#[test]
fn a_list_of_addresses_that_was_changed_is_compared_and_is_no_affair_of_its_namespace() {
    let mut observed = Observed::default().with_system("ferrule-system");
    let config_map = |namespace: &str, name: &str| {
        let metadata = json!({ "name": name, "namespace": namespace });
        object(Kind::ConfigMap, json!({ "metadata": metadata, "data": { "peers.json": "{}" } }))
    };
    let peers = [(Scope::Peers, Need::Compare)];
    assert_eq!(observed.apply(config_map("ferrule-system", "ferrule-peers-3")), peers);
    assert_eq!(observed.delete(Kind::ConfigMap, "ferrule-system", "ferrule-peers-3"), peers);
    assert_eq!(observed.apply(config_map("shop", "ferrule-peers-3")), [shop(Need::Compare)]);
}
