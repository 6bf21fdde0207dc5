use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::controller::{compile::compile, observe::Object, writes::Write};

const NAMESPACE: &str = "shop";

fn take_in(observed: &mut Observed, kind: Kind, value: Value) {
    let object = serde_json::from_value(value).expect("an object");
    observed.apply(Object::read(kind, object).expect("readable"));
}

/// An injected namespace with a Service and a Route, and nothing written yet.
fn shop() -> Observed {
    let mut observed = Observed::default();
    let labels = json!({ "ferrule.dev/inject": "enabled" });
    take_in(&mut observed, Kind::Namespace, json!({ "metadata": { "name": NAMESPACE, "labels": labels } }));
    let metadata = json!({ "name": "cart", "namespace": NAMESPACE });
    take_in(
        &mut observed,
        Kind::Service,
        json!({ "metadata": metadata, "spec": { "ports": [{ "port": 80 }] } }),
    );
    let spec = json!({ "targetRefs": [{ "name": "cart" }], "rules": [{}] });
    take_in(&mut observed, Kind::Route, json!({ "metadata": metadata, "spec": spec }));
    observed
}

fn desired(observed: &Observed) -> Desired {
    Desired::new(compile(observed, NAMESPACE)).expect("fits")
}

fn planned(observed: &Observed, writes: &Writes) -> Plan {
    plan(observed, NAMESPACE, &desired(observed), writes, Timestamp::UNIX_EPOCH)
}

/// The cluster after the plan.
fn carry_out(observed: &mut Observed, plan: &Plan) {
    for write in &plan.apply {
        let metadata = json!({ "name": write.name, "namespace": NAMESPACE });
        take_in(observed, Kind::ConfigMap, json!({ "metadata": metadata, "data": write.data }));
    }
    for name in &plan.delete {
        observed.delete(Kind::ConfigMap, NAMESPACE, name);
    }
    for write in &plan.status {
        let spec = json!({ "targetRefs": [{ "name": "cart" }], "rules": [{}] });
        let metadata = json!({ "name": write.name, "namespace": NAMESPACE });
        let status = json!({ "conditions": write.conditions });
        take_in(observed, write.kind, json!({ "metadata": metadata, "spec": spec, "status": status }));
    }
}

#[test]
fn what_is_missing_is_written_and_then_nothing_is() {
    let mut observed = shop();
    let first = planned(&observed, &Writes::default());
    assert_eq!(first.apply.iter().map(|write| write.name.as_str()).collect::<Vec<_>>(), ["ferrule"]);
    assert_eq!(first.status.iter().map(|write| write.name.as_str()).collect::<Vec<_>>(), ["cart"]);
    carry_out(&mut observed, &first);
    assert!(planned(&observed, &Writes::default()).is_empty());
}

#[test]
fn a_corrupted_or_deleted_config_map_is_written_again() {
    let mut observed = shop();
    let first = planned(&observed, &Writes::default());
    carry_out(&mut observed, &first);
    let metadata = json!({ "name": "ferrule", "namespace": NAMESPACE });
    let edited = json!({ "metadata": metadata, "data": { "mesh.json": "{}" } });
    take_in(&mut observed, Kind::ConfigMap, edited);
    assert_eq!(planned(&observed, &Writes::default()).apply, first.apply);
    observed.delete(Kind::ConfigMap, NAMESPACE, "ferrule");
    assert_eq!(planned(&observed, &Writes::default()).apply, first.apply);
}

#[test]
fn an_immutable_config_map_is_replaced() {
    let mut observed = shop();
    let metadata = json!({ "name": "ferrule", "namespace": NAMESPACE });
    take_in(&mut observed, Kind::ConfigMap, json!({ "metadata": metadata, "data": {}, "immutable": true }));
    let plan = planned(&observed, &Writes::default());
    assert_eq!(plan.replace, ["ferrule"]);
    assert_eq!(plan.apply.len(), 1);
}

#[test]
fn what_was_just_written_is_not_written_again_before_its_echo() {
    let observed = shop();
    let mut writes = Writes::default();
    let first = planned(&observed, &writes);
    let key = |kind, name: &str| Key { kind, namespace: NAMESPACE.into(), name: name.into() };
    let (config, status) = (&first.apply[0], &first.status[0]);
    let version = Some("7".to_owned());
    writes.made(Write {
        key: key(Kind::ConfigMap, &config.name),
        version: version.clone(),
        fingerprint: config.fingerprint,
    });
    writes.made(Write { key: key(Kind::Route, &status.name), version, fingerprint: status.fingerprint });
    assert!(planned(&observed, &writes).is_empty());
}

#[test]
fn surplus_shards_and_a_namespace_that_left_are_cleaned_up() {
    let mut observed = shop();
    let first = planned(&observed, &Writes::default());
    carry_out(&mut observed, &first);
    for name in ["ferrule-1", "ferrule-9", "ferrule-x"] {
        take_in(
            &mut observed,
            Kind::ConfigMap,
            json!({ "metadata": { "name": name, "namespace": NAMESPACE } }),
        );
    }
    assert_eq!(planned(&observed, &Writes::default()).delete, ["ferrule-1", "ferrule-9"]);

    observed.delete(Kind::Route, NAMESPACE, "cart");
    take_in(&mut observed, Kind::Namespace, json!({ "metadata": { "name": NAMESPACE } }));
    assert_eq!(planned(&observed, &Writes::default()).delete, ["ferrule", "ferrule-1", "ferrule-9"]);
}

#[test]
fn nothing_is_written_to_a_namespace_that_goes_away() {
    let mut observed = shop();
    let metadata = json!({ "name": NAMESPACE, "deletionTimestamp": "2026-01-01T00:00:00Z" });
    take_in(&mut observed, Kind::Namespace, json!({ "metadata": metadata }));
    assert!(planned(&observed, &Writes::default()).is_empty());
    observed.delete(Kind::Namespace, NAMESPACE, NAMESPACE);
    assert!(planned(&observed, &Writes::default()).is_empty());
}

#[test]
fn an_event_is_due_only_when_an_object_ceases_to_be_accepted() {
    let mut observed = shop();
    observed.delete(Kind::Service, NAMESPACE, "cart");
    let first = planned(&observed, &Writes::default());
    let refused = first.status[0].notice.as_ref().expect("refused for the first time");
    assert_eq!((refused.warning, refused.reason.as_str()), (true, "TargetNotFound"));
    carry_out(&mut observed, &first);
    let metadata = json!({ "name": "cart", "namespace": NAMESPACE, "generation": 2 });
    let spec = json!({ "targetRefs": [{ "name": "cart" }], "rules": [{}] });
    let status = json!({ "conditions": first.status[0].conditions });
    take_in(&mut observed, Kind::Route, json!({ "metadata": metadata, "spec": spec, "status": status }));
    let second = planned(&observed, &Writes::default());
    assert_eq!(second.status.len(), 1, "there is a new generation to be told of");
    assert_eq!(second.status[0].notice, None);
}

#[test]
fn the_first_shard_is_written_last() {
    let mut observed = shop();
    // Some 1.5 MB of names.
    for index in 0..2_500 {
        let name = format!("cart-{index:04}");
        let metadata = json!({ "name": name, "namespace": NAMESPACE });
        let rules: Vec<_> = (0..4).map(|_| json!({ "backendRefs": [{ "name": "b".repeat(60) }] })).collect();
        take_in(
            &mut observed,
            Kind::Route,
            json!({ "metadata": metadata, "spec": { "targetRefs": [{ "name": "cart" }], "rules": rules } }),
        );
    }
    let plan = planned(&observed, &Writes::default());
    let names: Vec<_> = plan.apply.iter().map(|write| write.name.as_str()).collect();
    assert!(names.len() > 1, "{names:?}");
    assert_eq!(names.last(), Some(&"ferrule"));
}

#[test]
fn sidecars_of_injected_namespaces_may_read_and_no_others() {
    let mut observed = shop();
    take_in(&mut observed, Kind::Namespace, json!({ "metadata": { "name": "other" } }));
    let (binding, fingerprint) = plan_binding(&observed, &Writes::default()).expect("there is none yet");
    let subjects = binding["subjects"].as_array().expect("a list");
    assert_eq!(subjects.len(), 1);
    assert_eq!(subjects[0]["name"], "system:serviceaccounts:shop");
    assert_eq!(binding["roleRef"]["name"], "ferrule-proxy");

    let object = serde_json::from_value(binding).expect("an object");
    let object = Object::read(Kind::ProxyBinding, object).expect("readable");
    observed.apply(object);
    assert_eq!(observed.proxy_binding(), Some(fingerprint));
    assert_eq!(plan_binding(&observed, &Writes::default()), None);

    let labels = json!({ "ferrule.dev/inject": "enabled" });
    take_in(&mut observed, Kind::Namespace, json!({ "metadata": { "name": "other", "labels": labels } }));
    let (binding, _) = plan_binding(&observed, &Writes::default()).expect("one more");
    assert_eq!(binding["subjects"].as_array().expect("a list").len(), 2);
}

#[test]
fn a_list_of_addresses_that_is_missing_or_edited_is_written_again() {
    let mut observed = Observed::default().with_system("ferrule-system");
    let address = "10.0.0.7".parse().expect("an address");
    let peer = peers::Peer { namespace: NAMESPACE.into(), account: "cart".into(), ..peers::Peer::default() };
    let desired = DesiredPeers::new(&[(address, peer)].into()).expect("fits");
    assert!(plan_peers(&observed, &desired, &Writes::default()).is_empty(), "its namespace is not known yet");

    take_in(&mut observed, Kind::Namespace, json!({ "metadata": { "name": "ferrule-system" } }));
    let all = plan_peers(&observed, &desired, &Writes::default());
    assert_eq!(all.apply.len(), peers::SHARDS);
    let mut put = |name: &str, data: &shard::Data| {
        let metadata = json!({ "name": name, "namespace": "ferrule-system" });
        take_in(&mut observed, Kind::ConfigMap, json!({ "metadata": metadata, "data": data }));
        plan_peers(&observed, &desired, &Writes::default())
    };
    for write in &all.apply {
        put(&write.name, &write.data);
    }
    let name = peers::name(peers::shard(address));
    let edited = put(&name, &[(peers::KEY.to_owned(), "{}".to_owned())].into());
    assert_eq!(edited.apply.iter().map(|write| &write.name).collect::<Vec<_>>(), [&name]);
    let right = all.apply.iter().find(|write| write.name == name).expect("written").data.clone();
    assert!(put(&name, &right).is_empty());
}
