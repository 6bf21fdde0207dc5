//! Where Strict waits, and where it has taken hold.

use ferrule_config::{Modes, PlaintextClient, PlaintextReport, TlsMode};
use k8s_openapi::jiff::Timestamp;

use super::{
    mesh_tls::{SYSTEM, entries, injected, pod, tls, tls_in, told},
    *,
};
use crate::{
    api::{MeshTLSStatus, mesh_tls::Mode},
    controller::{
        plan::{Desired, Plan, plan},
        ratchet::{Answer, Key, Ratchets},
        writes::Writes,
    },
};

/// An operator: what it observes, and what it has heard.
struct Operator {
    observed: Observed,
    ratchets: Ratchets,
    now: i64,
    /// What every sidecar says.
    report: Option<PlaintextReport>,
}

impl Operator {
    fn new(objects: &[(Kind, Value)]) -> Self {
        let report = Some(PlaintextReport { observed_seconds: Some(9000), ..PlaintextReport::default() });
        Self { observed: observed(objects), ratchets: Ratchets::default(), now: 1_800_000_000, report }
    }

    fn plain(mut self, clients: &[(&str, u16, u64)]) -> Self {
        let each = clients.iter().map(|&(address, port, seconds_ago)| PlaintextClient {
            address: address.parse().expect("an address"),
            port,
            seconds_ago,
        });
        self.report =
            Some(PlaintextReport { plaintext_clients: each.collect(), observed_seconds: Some(9000) });
        self
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_second(self.now).expect("a valid second")
    }

    fn put(&mut self, (kind, value): (Kind, Value)) {
        let object = serde_json::from_value(value).expect("an object");
        self.observed.apply(Object::read(kind, object).expect("readable"));
    }

    /// As a user edits it.
    fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let tls = &self.observed.namespace("shop").expect("there").mesh_tls["closed"];
        let of = &tls.resource;
        let metadata = json!({
            "name": "closed", "namespace": "shop", "generation": of.generation + 1, "uid": of.uid,
            "creationTimestamp": of.created.map(|time| time.to_string()),
        });
        let (mut spec, mut status) = (json!(of.spec.as_ref().expect("readable")), json!(tls.status));
        change(&mut spec);
        status["conditions"] = json!(of.conditions);
        self.put((Kind::MeshTls, json!({ "metadata": metadata, "spec": spec, "status": status })));
    }

    /// Writes what is to be written, as the API server would store it.
    fn write(&mut self, namespace: &str) -> Plan {
        let desired = Desired::new(compile(&self.observed, namespace)).expect("fits");
        let planned = plan(&self.observed, namespace, &desired, &Writes::default(), self.time());
        for write in &planned.status {
            let Some(status) = &write.mesh_tls else { continue };
            let of = &self.observed.namespace(namespace).expect("there").mesh_tls[&write.name].resource;
            let metadata = json!({
                "name": write.name, "namespace": namespace, "generation": of.generation, "uid": of.uid,
                "creationTimestamp": of.created.map(|time| time.to_string()),
            });
            let mut status = json!(status);
            status["conditions"] = json!(write.conditions);
            let spec = json!(of.spec.as_ref().expect("readable"));
            self.put((Kind::MeshTls, json!({ "metadata": metadata, "spec": spec, "status": status })));
        }
        planned
    }

    /// Asks all whose turn it is. Gives the names of the pods that were asked.
    fn ask(&mut self) -> Vec<String> {
        let now = self.time();
        for gone in self.ratchets.follow(wanting_strict(&self.observed), now) {
            self.observed.tell_progress(gone, None);
        }
        let mut asked = Vec::new();
        for key in self.ratchets.due(now) {
            let pods = pods_of(&self.observed, &key);
            asked.extend(pods.iter().map(|pod| pod.name.clone()));
            let report = &self.report;
            let answer = |pod| Answer { pod, report: report.clone() };
            let answers: Vec<_> = pods.into_iter().map(answer).collect();
            let clients = report.iter().flat_map(|report| &report.plaintext_clients);
            let names = self.observed.pods_at(&clients.map(|client| client.address).collect());
            let progress = self.ratchets.answered(&key, &answers, &names, now, 0.5);
            self.observed.tell_progress(key, progress);
        }
        asked
    }

    /// Until nothing changes.
    fn settle(&mut self) {
        for _ in 0..3 {
            self.write("shop");
            self.ask();
        }
        self.write("shop");
    }

    fn compiled(&self) -> Compiled {
        compile(&self.observed, "shop")
    }

    fn status(&self, name: &str) -> MeshTLSStatus {
        self.observed.namespace("shop").expect("there").mesh_tls[name].status.clone()
    }

    fn mode(&self) -> TlsMode {
        entries(&self.compiled())[0].modes.mode
    }

    fn reason(&self) -> (bool, Reason, String) {
        finding(&self.compiled(), "closed", ConditionType::Enforced)
    }
}

fn ready(mut pod: (Kind, Value)) -> (Kind, Value) {
    pod.1["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
    pod
}

fn cart() -> (Kind, Value) {
    let mut pod = ready(pod(
        "cart-77-x",
        json!({ "app": "cart", "pod-template-hash": "77" }),
        Some("cart"),
        "10.0.0.1",
    ));
    pod.1["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-77", "uid": "1", "controller": true,
    }]);
    pod
}

fn closed() -> (Kind, Value) {
    tls(2020, "closed", json!({ "mode": "Strict" }))
}

#[test]
fn strict_waits_for_plaintext_clients_and_names_them() {
    let stranger = pod("stranger", json!({}), None, "10.0.0.9");
    let mut operator = Operator::new(&[injected("shop"), cart(), stranger, closed()])
        .plain(&[("10.0.0.9", 8080, 12), ("10.0.0.10", 9090, 100)]);
    let first = operator.write("shop");
    assert_eq!((operator.mode(), operator.reason().1), (TlsMode::Permissive, Reason::Observing));
    assert_eq!(first.status[0].notice, None);
    assert_eq!(operator.ask(), ["shop/cart-77-x"]);
    let second = operator.write("shop");
    let (holds, reason, message) = operator.reason();
    assert_eq!((holds, reason), (false, Reason::PlaintextClients));
    assert!(
        message.contains("10.0.0.10 to shop/cart port 9090, shop/stranger (10.0.0.9) to shop/cart port 8080"),
        "{message}"
    );
    assert!(message.contains("nobody has for 1h"), "{message}");
    let notice = second.status[0].notice.as_ref().expect("told");
    assert_eq!((notice.warning, notice.reason.as_str()), (true, "PlaintextClients"));
    let status = operator.status("closed");
    assert_eq!((status.mode, status.plaintext_client_count), (Some(Mode::Permissive), Some(2)));
    assert_eq!(operator.mode(), TlsMode::Permissive, "nobody is shut out");
    assert_eq!(operator.write("shop").status, [], "it is told once");
    assert!(told(&operator.compiled(), "closed").0.0, "it is valid all the same");
}

#[test]
fn it_takes_hold_when_that_is_written_and_stays_whoever_comes_and_whoever_leads() {
    let mut operator = Operator::new(&[injected("shop"), cart(), closed()]);
    operator.write("shop");
    operator.ask();
    assert_eq!(operator.mode(), TlsMode::Permissive, "what is not written down could be forgotten");
    let written = operator.write("shop");
    let notice = written.status[0].notice.as_ref().expect("told");
    assert_eq!((notice.warning, notice.reason.as_str()), (false, "StrictTookHold"));
    assert_eq!((operator.mode(), operator.reason().1), (TlsMode::Strict, Reason::Enforced));

    operator = operator.plain(&[("10.0.0.9", 8080, 0)]);
    operator.ratchets.clear();
    operator.observed.forget_progress();
    assert_eq!(operator.mode(), TlsMode::Strict);
    operator.settle();
    assert_eq!((operator.mode(), operator.reason().1), (TlsMode::Strict, Reason::Enforced));
    assert_eq!(operator.status("closed").plaintext_client_count, Some(1), "who is refused is listed");
}

#[test]
fn what_is_forced_or_has_nobody_to_ask_is_in_force_at_once() {
    let forced = tls(2020, "closed", json!({ "mode": "Strict", "force": true }));
    let mut operator = Operator::new(&[injected("shop"), cart(), forced]).plain(&[("10.0.0.9", 8080, 0)]);
    assert_eq!((operator.mode(), operator.reason().1), (TlsMode::Strict, Reason::Enforced));
    operator.settle();
    operator.edit(|spec| spec["force"] = json!(false));
    operator.settle();
    assert_eq!(operator.mode(), TlsMode::Strict, "what has taken hold needs no force any more");

    let mut local = Operator::new(&[injected("shop"), cart(), closed()]);
    local.observed = local.observed.with_strict_at_once();
    assert_eq!((local.mode(), local.reason().1), (TlsMode::Strict, Reason::Enforced));
}

#[test]
fn a_strict_mode_that_was_taken_back_begins_anew() {
    let mut operator = Operator::new(&[injected("shop"), cart(), closed()]);
    operator.settle();
    assert_eq!(operator.mode(), TlsMode::Strict);
    operator = operator.plain(&[("10.0.0.9", 8080, 0)]);
    operator.edit(|spec| spec["mode"] = json!("Permissive"));
    operator.settle();
    assert_eq!((operator.mode(), operator.reason().1), (TlsMode::Permissive, Reason::Enforced));
    assert_eq!(operator.status("closed").plaintext_client_count, None, "nobody asks");
    operator.edit(|spec| spec["mode"] = json!("Strict"));
    operator.settle();
    assert_eq!((operator.mode(), operator.reason().1), (TlsMode::Permissive, Reason::PlaintextClients));
}

#[test]
fn what_was_decided_of_one_specification_decides_nothing_of_another() {
    let open = json!({ "mode": "Strict", "ports": [{ "port": 9090, "mode": "Permissive" }] });
    let mut operator = Operator::new(&[injected("shop"), cart(), tls(2020, "closed", open)]);
    operator = operator.plain(&[("10.0.0.9", 9090, 0)]);
    operator.write("shop");
    operator.ask();
    // It may take hold everywhere but there, and before that is written there is to be no exception any more.
    operator.edit(|spec| spec["ports"] = json!([]));
    operator.write("shop");
    assert_eq!(operator.status("closed").mode, Some(Mode::Permissive));
    operator.settle();
    assert_eq!(operator.reason().1, Reason::PlaintextClients);
}

#[test]
fn a_port_that_is_to_become_strict_later_waits_alone() {
    let open = json!({ "mode": "Strict", "ports": [{ "port": 9090, "mode": "Permissive" }] });
    let mut operator = Operator::new(&[injected("shop"), cart(), tls(2020, "closed", open)]);
    operator.settle();
    operator = operator.plain(&[("10.0.0.9", 9090, 0), ("10.0.0.8", 80, 0)]);
    operator.edit(|spec| spec["ports"] = json!([]));
    operator.settle();
    let modes = &entries(&operator.compiled())[0].modes.clone();
    let expected =
        Modes { mode: TlsMode::Strict, ports: [(9090, TlsMode::Permissive)].into(), ..Modes::default() };
    assert_eq!((modes, operator.reason().1), (&expected, Reason::PlaintextClients));
    operator = operator.plain(&[("10.0.0.8", 80, 0)]);
    operator.now += 3700;
    operator.settle();
    assert_eq!(operator.reason().1, Reason::Enforced, "who is refused already holds nothing up");
    assert_eq!(entries(&operator.compiled())[0].modes.ports, [].into());
}

#[test]
fn another_selection_begins_anew() {
    let of = |app: &str| json!({ "mode": "Strict", "selector": { "matchLabels": { "app": app } } });
    let web = ready(pod("web", json!({ "app": "web" }), Some("web"), "10.0.0.2"));
    let mut operator = Operator::new(&[injected("shop"), cart(), web, tls(2020, "closed", of("cart"))]);
    operator.settle();
    assert_eq!(operator.mode(), TlsMode::Strict);
    operator = operator.plain(&[("10.0.0.9", 80, 0)]);
    operator.edit(|spec| spec["selector"]["matchLabels"] = json!({ "app": "web" }));
    operator.settle();
    assert_eq!((operator.mode(), operator.reason().1), (TlsMode::Permissive, Reason::PlaintextClients));
}

#[test]
fn pods_that_say_nothing_are_named() {
    let late = pod("late", json!({}), Some("cart"), "10.0.0.2");
    let mut operator = Operator::new(&[injected("shop"), cart(), late, closed()]);
    operator.report = None;
    operator.settle();
    let (_, reason, message) = operator.reason();
    assert_eq!(reason, Reason::ReportsMissing);
    assert!(message.contains("encryption: shop/cart-77-x. Is"), "{message}");
}

#[test]
fn only_pods_that_it_decides_on_are_asked() {
    let labels = json!({ "app": "other" });
    let mut elsewhere = pod("elsewhere", json!({}), Some("cart"), "10.0.0.5");
    elsewhere.1["metadata"]["namespace"] = json!("unlabelled");
    let mut operator = Operator::new(&[
        injected("shop"),
        cart(),
        pod("other", labels.clone(), Some("cart"), "10.0.0.2"),
        pod("without", json!({}), None, "10.0.0.3"),
        elsewhere,
        tls(2020, "narrow", json!({ "mode": "Disabled", "selector": { "matchLabels": labels } })),
        tls_in(SYSTEM, 2020, "mesh", json!({ "mode": "Strict" })),
        (Kind::Namespace, json!({ "metadata": { "name": SYSTEM } })),
    ]);
    operator.write(SYSTEM);
    assert_eq!(operator.ask(), ["shop/cart-77-x"]);
    operator.write(SYSTEM);
    assert_eq!(entries(&operator.compiled()).last().map(|entry| entry.modes.mode), Some(TlsMode::Strict));
}

#[test]
fn one_that_is_not_in_force_at_all_asks_nobody_and_says_no_mode() {
    let mut operator = Operator::new(&[injected("shop"), cart(), tls(2019, "older", json!({})), closed()]);
    operator.write("shop");
    assert_eq!(operator.ask(), Vec::<String>::new());
    assert_eq!((operator.status("closed").mode, operator.reason().1), (None, Reason::Conflicted));
}

#[test]
fn progress_of_what_is_gone_is_forgotten() {
    let mut operator = Operator::new(&[injected("shop"), cart(), closed()]);
    operator.settle();
    let key = Key { namespace: "shop".into(), name: "closed".into() };
    assert!(operator.observed.progress(&key.namespace, &key.name).is_some());
    operator.observed.delete(Kind::MeshTls, "shop", "closed");
    operator.ask();
    assert!(operator.observed.progress(&key.namespace, &key.name).is_none());
}
