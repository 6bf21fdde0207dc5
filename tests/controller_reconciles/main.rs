//! The whole controller against an API server in memory.

mod api;
mod ratchet;

use std::time::Duration;

use api::Api;
use ferrule::controller::{self, Health, Metrics, Outcome};
use ferrule_config::{
    Algorithm, ConsistentHash, HashKey, Mesh, TlsMode, names,
    peers::{self, Peer},
    shard,
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

/// A replica of the operator.
struct Replica {
    metrics: Metrics,
    health: Health,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Replica {
    fn start(client: kube::Client, identity: &str) -> Self {
        Self::start_among(client, identity, names::ports::ADMIN)
    }

    /// With sidecars that answer on this port.
    fn start_among(client: kube::Client, identity: &str, sidecar_port: u16) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (metrics, health) = (Metrics::default(), Health::default());
        let settings = controller::Settings {
            namespace: "ferrule-system".into(),
            identity: identity.into(),
            sidecar_port,
            lead: controller::Lead::default(),
            metrics: metrics.clone(),
            health: health.clone(),
        };
        Self { metrics, health, stop, task: tokio::spawn(controller::run(client, settings, stopped)) }
    }

    fn compilations(&self) -> u64 {
        self.metrics.compilations(Outcome::Ok)
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(Duration::from_secs(5), self.task)
            .await
            .expect("ends in time")
            .expect("no panic");
    }
}

fn config_map(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/ferrule")
}

fn route_path(namespace: &str) -> String {
    format!("/apis/ferrule.dev/v1alpha1/namespaces/{namespace}/routes/cart")
}

fn route(namespace: &str, weight: u32) -> Value {
    let backends = json!([{ "name": "cart", "port": 80, "weight": weight }]);
    json!({
        "metadata": { "name": "cart", "namespace": namespace, "uid": "1" },
        "spec": { "targetRefs": [{ "name": "cart" }], "rules": [{ "backendRefs": backends }] },
    })
}

/// An injected namespace with a Service and a Route.
fn add_namespace(api: &Api, name: &str) {
    let labels = json!({ "ferrule.dev/inject": "enabled" });
    api.put(&format!("/api/v1/namespaces/{name}"), json!({ "metadata": { "name": name, "labels": labels } }));
    let service =
        json!({ "metadata": { "name": "cart", "namespace": name }, "spec": { "ports": [{ "port": 80 }] } });
    api.put(&format!("/api/v1/namespaces/{name}/services/cart"), service);
    api.put(&route_path(name), route(name, 1));
}

/// What the proxies of a namespace read.
fn mesh(api: &Api, namespace: &str) -> Option<Mesh> {
    let data = api.object(&config_map(namespace))?["data"].take();
    let data: shard::Data = serde_json::from_value(data).ok()?;
    shard::join(&[(0, data)].into()).ok()
}

fn weight(api: &Api, namespace: &str) -> Option<u32> {
    let mesh = mesh(api, namespace)?;
    Some(mesh.services.get("cart")?.rules.first()?.backends.first()?.weight)
}

fn accepted(api: &Api, namespace: &str) -> Option<(String, i64)> {
    let route = api.object(&route_path(namespace))?;
    let conditions = route["status"]["conditions"].as_array()?.clone();
    let condition = conditions.into_iter().find(|condition| condition["type"] == "Accepted")?;
    Some((condition["status"].as_str()?.to_owned(), condition["observedGeneration"].as_i64()?))
}

async fn settled(api: &Api, namespaces: &[&str]) {
    for namespace in namespaces {
        api.until("the first state is written", |api| {
            weight(api, namespace).is_some() && accepted(api, namespace).is_some()
        })
        .await;
    }
    // The echoes of the writes.
    sleep(Duration::from_millis(50)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_becomes_configuration_and_a_status() {
    let (api, client) = Api::start().await;
    add_namespace(&api, "shop");
    let replica = Replica::start(client, "a");
    settled(&api, &["shop"]).await;
    assert!(replica.health.is_ready() && replica.health.is_alive());
    assert_eq!((weight(&api, "shop"), accepted(&api, "shop")), (Some(1), Some(("True".into(), 1))));

    api.put(&route_path("shop"), route("shop", 7));
    api.until("the edit is in force", |api| weight(api, "shop") == Some(7)).await;
    api.until("and told", |api| accepted(api, "shop") == Some(("True".into(), 2))).await;

    api.delete("/api/v1/namespaces/shop/services/cart");
    api.until("the lost target is told", |api| {
        accepted(api, "shop").is_some_and(|(status, _)| status == "False")
    })
    .await;
    let subjects =
        api.object("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/ferrule-proxy").expect("bound");
    assert_eq!(subjects["subjects"][0]["name"], "system:serviceaccounts:shop");
    replica.stop().await;
    assert!(api.object(&config_map("shop")).is_some(), "the end of the operator is not the end of the mesh");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_policy_becomes_configuration_and_a_status() {
    let (api, client) = Api::start().await;
    add_namespace(&api, "shop");
    let path = "/apis/ferrule.dev/v1alpha1/namespaces/shop/balancerpolicies/cart";
    let policy = |hash: Value| {
        json!({
            "metadata": { "name": "cart", "namespace": "shop", "uid": "2" },
            "spec": { "targetRefs": [{ "kind": "Service", "name": "cart" }], "consistentHash": hash },
        })
    };
    api.put(path, policy(json!({ "header": "X-Session" })));
    let replica = Replica::start(client, "a");
    let balancers = |api: &Api| Some(mesh(api, "shop")?.services.get("cart")?.balancers.clone());
    let key = |api: &Api| match balancers(api)?.first()?.balancer.algorithm.clone() {
        Algorithm::Maglev(ConsistentHash { key, size: None }) => Some(key),
        _ => None,
    };
    let told = |api: &Api, kind: &str| {
        let policy = api.object(path)?;
        let conditions = policy["status"]["conditions"].as_array()?.clone();
        let condition = conditions.into_iter().find(|condition| condition["type"] == kind)?;
        let generation = condition["observedGeneration"].as_i64()?;
        Some((condition["status"].as_str()?.to_owned(), condition["reason"].as_str()?.to_owned(), generation))
    };
    let good = |reason: &str| Some(("True".to_owned(), reason.to_owned(), 1));
    let header = Some(HashKey::Header("x-session".into()));
    api.until("the policy is in force", |api| key(api) == header).await;
    api.until("and told", |api| told(api, "Accepted") == good("Accepted")).await;
    assert_eq!(told(&api, "Enforced"), good("Enforced"));
    assert_eq!(weight(&api, "shop"), Some(1), "the Route beside it is untouched");

    let both = policy(json!({ "header": "x-session", "cookie": "session" }));
    api.put(path, both);
    let bad = Some(("False".to_owned(), "Invalid".to_owned(), 2));
    api.until("what is wrong is told", |api| told(api, "Accepted") == bad).await;
    api.until("and taken out", |api| balancers(api) == Some(Vec::new())).await;
    assert_eq!(weight(&api, "shop"), Some(1));

    api.put(path, policy(json!({ "sourceAddress": true })));
    api.until("what is mended is in force", |api| key(api) == Some(HashKey::SourceAddress)).await;
    api.delete(path);
    api.until("what is deleted is not", |api| balancers(api) == Some(Vec::new())).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_changed_namespace_is_compiled_and_written() {
    let (api, client) = Api::start().await;
    for name in ["shop", "bank", "club"] {
        add_namespace(&api, name);
    }
    let replica = Replica::start(client, "a");
    settled(&api, &["shop", "bank", "club"]).await;
    let (compilations, writes) = (replica.compilations(), api.writes("").len());

    // Its own writes come back on the watches and lead to nothing.
    sleep(Duration::from_millis(100)).await;
    assert_eq!((replica.compilations(), api.writes("").len()), (compilations, writes));

    api.put(&route_path("shop"), route("shop", 7));
    api.until("the edit is in force", |api| weight(api, "shop") == Some(7)).await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(replica.compilations(), compilations + 1);
    let new: Vec<_> =
        api.writes("").into_iter().skip(writes).filter(|(_, path)| !path.contains("leases")).collect();
    let patch = |path: String| ("PATCH".to_owned(), path);
    assert_eq!(new, [patch(config_map("shop")), patch(format!("{}/status", route_path("shop")))]);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_that_is_edited_or_deleted_is_restored_without_compiling() {
    let (api, client) = Api::start().await;
    add_namespace(&api, "shop");
    let replica = Replica::start(client, "a");
    settled(&api, &["shop"]).await;
    let compilations = replica.compilations();

    let mut broken = api.object(&config_map("shop")).expect("written");
    broken["data"]["mesh.json"] = json!("{broken");
    api.put(&config_map("shop"), broken);
    assert_eq!(weight(&api, "shop"), None);
    api.until("restored after the edit", |api| weight(api, "shop") == Some(1)).await;
    sleep(Duration::from_millis(50)).await;
    api.delete(&config_map("shop"));
    api.until("restored after the deletion", |api| weight(api, "shop") == Some(1)).await;
    assert_eq!(replica.compilations(), compilations);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_fails_is_tried_again_and_holds_up_no_other() {
    let (api, client) = Api::start().await;
    for name in ["shop", "bank"] {
        add_namespace(&api, name);
    }
    api.refuse(&["/namespaces/bank/configmaps"]);
    let replica = Replica::start(client, "a");
    settled(&api, &["shop"]).await;
    api.put(&route_path("shop"), route("shop", 7));
    api.until("the other goes on", |api| weight(api, "shop") == Some(7)).await;
    api.until("it is tried again", |api| api.writes("/namespaces/bank/configmaps").len() >= 3).await;
    assert_eq!(weight(&api, "bank"), None);
    api.refuse(&[]);
    api.until("it works in the end", |api| weight(api, "bank") == Some(1)).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stands_by_writes_nothing_and_takes_over_within_a_second() {
    let (api, client) = Api::start().await;
    add_namespace(&api, "shop");
    let first = Replica::start(client.clone(), "a");
    settled(&api, &["shop"]).await;
    let second = Replica::start(client, "b");
    sleep(Duration::from_millis(300)).await;
    assert!(second.health.is_ready(), "its stores are warm");
    assert_eq!(second.compilations(), 0);

    first.stop().await;
    let released = std::time::Instant::now();
    api.put(&route_path("shop"), route("shop", 7));
    api.until("the second writes", |api| weight(api, "shop") == Some(7)).await;
    assert!(released.elapsed() < Duration::from_millis(1_500), "{:?}", released.elapsed());
    let lease = api.object("/apis/coordination.k8s.io/v1/namespaces/ferrule-system/leases/ferrule-operator");
    let lease = lease.expect("a Lease");
    assert_eq!(
        (&lease["spec"]["holderIdentity"], &lease["spec"]["leaseTransitions"]),
        (&json!("b"), &json!(1))
    );
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_another_schema_breaks_nothing() {
    let (api, client) = Api::start().await;
    for name in ["shop", "bank"] {
        add_namespace(&api, name);
    }
    let spec = json!({ "targetRefs": "everything" });
    api.put(
        &route_path("bank"),
        json!({ "metadata": { "name": "cart", "namespace": "bank" }, "spec": spec }),
    );
    let replica = Replica::start(client, "a");
    settled(&api, &["shop"]).await;
    api.until("the object is told", |api| accepted(api, "bank") == Some(("False".into(), 2))).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(api.writes("/namespaces/bank/routes").len(), 1, "and told once");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_leaves_the_mesh_loses_its_config_map() {
    let (api, client) = Api::start().await;
    add_namespace(&api, "shop");
    let replica = Replica::start(client, "a");
    settled(&api, &["shop"]).await;
    api.put("/api/v1/namespaces/shop", json!({ "metadata": { "name": "shop" } }));
    sleep(Duration::from_millis(50)).await;
    assert!(mesh(&api, "shop").is_some(), "its Route still counts");
    api.delete(&route_path("shop"));
    api.until("the ConfigMap goes", |api| api.object(&config_map("shop")).is_none()).await;
    replica.stop().await;
}

/// A pod with a sidecar.
fn pod(name: &str, account: &str, address: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "labels": { "app": "cart" },
            "annotations": { "ferrule.dev/injected": "0.1.0" },
        },
        "spec": { "serviceAccountName": account, "initContainers": [{ "name": "ferrule-proxy" }] },
        "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] },
    })
}

const POD: &str = "/api/v1/namespaces/shop/pods/cart-1";

/// An injected namespace with a Service that selects pods, and the operator's own.
fn add_selecting(api: &Api) {
    add_namespace(api, "shop");
    api.put("/api/v1/namespaces/ferrule-system", json!({ "metadata": { "name": "ferrule-system" } }));
    let spec = json!({ "ports": [{ "port": 80 }], "selector": { "app": "cart" } });
    let service = json!({ "metadata": { "name": "cart", "namespace": "shop" }, "spec": spec });
    api.put("/api/v1/namespaces/shop/services/cart", service);
}

fn accounts(api: &Api) -> Option<Vec<String>> {
    Some(mesh(api, "shop")?.services.get("cart")?.peers.as_ref()?.accounts.clone())
}

/// What sidecars are told of an address.
fn peer(api: &Api, address: &str) -> Option<Peer> {
    let address = address.parse().expect("an address");
    let name = peers::name(peers::shard(address));
    let data = api.object(&format!("/api/v1/namespaces/ferrule-system/configmaps/{name}"))?["data"].take();
    peers::read(&serde_json::from_value(data).ok()?).ok()?.remove(&address)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_become_peers_of_services_and_known_addresses() {
    let (api, client) = Api::start().await;
    add_selecting(&api);
    api.put(POD, pod("cart-1", "cart", "10.0.0.7"));
    let replica = Replica::start(client, "a");
    settled(&api, &["shop"]).await;
    api.until("who answers is known", |api| accounts(api) == Some(vec!["cart".into()])).await;
    api.until("and who has the address", |api| peer(api, "10.0.0.7").is_some()).await;
    sleep(Duration::from_millis(250)).await;
    let (compilations, writes) = (replica.compilations(), api.writes("configmaps").len());

    let mut heartbeat = pod("cart-1", "cart", "10.0.0.7");
    heartbeat["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
    api.put(POD, heartbeat);
    sleep(Duration::from_millis(250)).await;
    assert_eq!((replica.compilations(), api.writes("configmaps").len()), (compilations, writes));

    api.put("/api/v1/namespaces/shop/pods/cart-2", pod("cart-2", "spare", "10.0.0.8"));
    api.until("a new pod counts", |api| accounts(api) == Some(vec!["cart".into(), "spare".into()])).await;
    api.until("with its address", |api| peer(api, "10.0.0.8").is_some_and(|peer| peer.account == "spare"))
        .await;
    api.delete(POD);
    api.until("one that is gone does not", |api| accounts(api) == Some(vec!["spare".into()])).await;
    api.until("nor its address", |api| peer(api, "10.0.0.7").is_none()).await;

    let list = peers::name(peers::shard("10.0.0.8".parse().expect("an address")));
    api.delete(&format!("/api/v1/namespaces/ferrule-system/configmaps/{list}"));
    api.until("a list that was deleted is restored", |api| peer(api, "10.0.0.8").is_some()).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_for_the_mesh_reaches_every_namespace() {
    let (api, client) = Api::start().await;
    add_selecting(&api);
    add_namespace(&api, "bank");
    let replica = Replica::start(client, "a");
    settled(&api, &["shop", "bank"]).await;
    let path = "/apis/ferrule.dev/v1alpha1/namespaces/ferrule-system/meshtlses/mesh";
    let tls = |mode: &str| json!({ "metadata": { "name": "mesh", "namespace": "ferrule-system" }, "spec": { "mode": mode } });
    let mode = |api: &Api, namespace: &str| Some(mesh(api, namespace)?.tls.first()?.modes.mode);
    api.put(path, tls("Disabled"));
    for namespace in ["shop", "bank"] {
        api.until("it is in force", |api| mode(api, namespace) == Some(TlsMode::Disabled)).await;
    }
    let told = |api: &Api| Some(api.object(path)?["status"]["conditions"].as_array()?.len());
    api.until("and told", |api| told(api) == Some(2)).await;
    api.delete(path);
    for namespace in ["shop", "bank"] {
        api.until("and no more", |api| mode(api, namespace).is_none()).await;
    }
    replica.stop().await;
}
