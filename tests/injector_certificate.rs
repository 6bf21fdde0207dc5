//! The webhook's certificate among several replicas, against an API server that knows two objects.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, put},
};
use ferrule::injector::{Error, Settings, run};
use futures::stream;
use k8s_openapi::ByteString;
use kube::Client;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

const SECRETS: &str = "secrets";
const CONFIGURATIONS: &str = "mutatingwebhookconfigurations";
const PATIENCE: Duration = Duration::from_secs(20);

/// An API server with at most one object of each of two kinds, and everything that ever happened to them.
#[derive(Clone)]
struct Api(Arc<Mutex<Store>>, watch::Sender<u64>);

#[derive(Default)]
struct Store {
    version: u64,
    objects: HashMap<String, Value>,
    events: Vec<(u64, String, Value)>,
    created: u32,
}

impl Api {
    fn new() -> Self {
        let api = Self(Arc::default(), watch::channel(0).0);
        api.put(
            CONFIGURATIONS,
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": "ferrule-injector"},
                "webhooks": [{
                    "name": "injector.ferrule.dev", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                    "clientConfig": {"service": {"name": "ferrule-webhook", "namespace": "ferrule-system"}},
                }],
            }),
        );
        api
    }

    fn client(&self) -> Client {
        let router = Router::new()
            .route("/api/v1/namespaces", get(no_namespaces))
            .route("/api/v1/namespaces/ferrule-system/{kind}", get(list).post(create))
            .route("/api/v1/namespaces/ferrule-system/{kind}/{name}", put(replace))
            .route("/apis/admissionregistration.k8s.io/v1/{kind}", get(list))
            .route("/apis/admissionregistration.k8s.io/v1/{kind}/{name}", axum::routing::patch(patch))
            .with_state(self.clone());
        Client::new(router, "ferrule-system")
    }

    fn put(&self, kind: &str, object: Value) {
        let _: Result<Value, Infallible> = self.change(kind, |_| Ok(object));
    }

    /// Replaces the object by what is made of it, at one stroke.
    fn change<E>(
        &self,
        kind: &str,
        make: impl FnOnce(Option<&Value>) -> Result<Value, E>,
    ) -> Result<Value, E> {
        let mut store = self.0.lock().expect("not poisoned");
        let current = store.objects.get(kind);
        let known = current.is_some();
        let mut object = make(current)?;
        store.version += 1;
        object["metadata"]["resourceVersion"] = json!(store.version.to_string());
        store.objects.insert(kind.to_owned(), object.clone());
        let event = json!({"type": if known { "MODIFIED" } else { "ADDED" }, "object": object});
        self.record(&mut store, kind, event);
        Ok(object)
    }

    fn delete(&self, kind: &str) {
        let mut store = self.0.lock().expect("not poisoned");
        let Some(object) = store.objects.remove(kind) else { return };
        store.version += 1;
        self.record(&mut store, kind, json!({"type": "DELETED", "object": object}));
    }

    fn record(&self, store: &mut Store, kind: &str, event: Value) {
        let version = store.version;
        store.events.push((version, kind.to_owned(), event));
        self.1.send_replace(version);
    }

    fn object(&self, kind: &str) -> Option<Value> {
        self.0.lock().expect("not poisoned").objects.get(kind).cloned()
    }

    fn created(&self) -> u32 {
        self.0.lock().expect("not poisoned").created
    }

    fn authority(&self) -> Option<String> {
        Some(text(&self.object(SECRETS)?["data"]["ca.crt"]))
    }

    fn bundle(&self) -> Option<String> {
        let bundle = self.object(CONFIGURATIONS)?["webhooks"][0]["clientConfig"]["caBundle"].clone();
        (!bundle.is_null()).then(|| text(&bundle))
    }

    /// Waits until the API server trusts what is served.
    async fn agreed(&self) {
        eventually("caBundle and authority agree", || {
            let (authority, bundle) = (self.authority(), self.bundle());
            authority.is_some() && authority == bundle
        })
        .await;
    }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

fn text(base64: &Value) -> String {
    let bytes: ByteString = serde_json::from_value(base64.clone()).expect("base64");
    String::from_utf8(bytes.0).expect("text")
}

async fn no_namespaces() -> Response {
    axum::Json(json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": "1"}, "items": []}))
    .into_response()
}

async fn list(
    State(api): State<Api>,
    Path(kind): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if query.get("watch").is_some_and(|watch| watch == "true") {
        let since = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
        return follow(api, kind, since);
    }
    let store = api.0.lock().expect("not poisoned");
    let items: Vec<_> = store.objects.get(&kind).into_iter().collect();
    let version = store.version.to_string();
    axum::Json(
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
    )
    .into_response()
}

/// All events of the kind after a version, and those to come.
fn follow(api: Api, kind: String, since: u64) -> Response {
    let changes = api.1.subscribe();
    let lines = stream::unfold((api, kind, since, changes), |(api, kind, since, mut changes)| async move {
        changes.wait_for(|version| *version > since).await.ok()?;
        let (lines, version) = {
            let store = api.0.lock().expect("not poisoned");
            let lines: String = store
                .events
                .iter()
                .filter(|(version, of, _)| *version > since && *of == kind)
                .map(|(.., event)| format!("{event}\n"))
                .collect();
            (lines, store.version)
        };
        Some((Ok::<_, Infallible>(Bytes::from(lines)), (api, kind, version, changes)))
    });
    Body::from_stream(lines).into_response()
}

async fn create(State(api): State<Api>, Path(kind): Path<String>, body: Bytes) -> Response {
    let created = api.change(&kind, |current| match current {
        // The slower of two replicas finds the object of the faster.
        Some(_) => Err((StatusCode::CONFLICT, "AlreadyExists")),
        None => Ok(serde_json::from_slice(&body).expect("JSON")),
    });
    if created.is_ok() {
        api.0.lock().expect("not poisoned").created += 1;
    }
    answer(created)
}

async fn replace(State(api): State<Api>, Path((kind, _)): Path<(String, String)>, body: Bytes) -> Response {
    let object: Value = serde_json::from_slice(&body).expect("JSON");
    answer(api.change(&kind, |current| match current {
        None => Err((StatusCode::NOT_FOUND, "NotFound")),
        Some(current) if current["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] => {
            Err((StatusCode::CONFLICT, "Conflict"))
        }
        Some(_) => Ok(object),
    }))
}

async fn patch(State(api): State<Api>, Path((kind, _)): Path<(String, String)>, body: Bytes) -> Response {
    let patch: json_patch::Patch = serde_json::from_slice(&body).expect("a JSON patch");
    answer(api.change(&kind, |current| {
        let mut object = current.cloned().ok_or((StatusCode::NOT_FOUND, "NotFound"))?;
        json_patch::patch(&mut object, &patch).map_err(|_| (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"))?;
        Ok(object)
    }))
}

type Failure = (StatusCode, &'static str);

fn answer(result: Result<Value, Failure>) -> Response {
    result.map_or_else(failure, |object| axum::Json(object).into_response())
}

fn failure((code, reason): Failure) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason,
        "reason": reason, "code": code.as_u16()});
    (code, axum::Json(status)).into_response()
}

/// An operator's injector.
struct Replica {
    settings: Settings,
    _stop: watch::Sender<bool>,
    _task: JoinHandle<Result<(), Error>>,
}

impl Replica {
    fn start(api: &Api) -> Self {
        let settings = Settings { webhook_port: 0, ..Settings::new("ferrule/ferrule-proxy:test") };
        let (stop, shutdown) = watch::channel(false);
        let task = tokio::spawn(run(api.client(), settings.clone(), shutdown));
        Self { settings, _stop: stop, _task: task }
    }

    async fn ready(&self) {
        eventually("ready", || self.settings.readiness.is_ready()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_together_share_one_certificate() {
    for _ in 0..10 {
        let api = Api::new();
        let replicas = [Replica::start(&api), Replica::start(&api), Replica::start(&api)];
        for replica in &replicas {
            replica.ready().await;
        }
        api.agreed().await;
        assert_eq!(api.created(), 1);
    }
}

#[tokio::test]
async fn a_replica_is_ready_only_when_the_api_server_trusts_it() {
    let api = Api::new();
    let replica = Replica::start(&api);
    assert!(!replica.settings.readiness.is_ready());
    replica.ready().await;
    assert_eq!(api.bundle(), api.authority());
    assert!(api.bundle().is_some());
}

#[tokio::test]
async fn a_bundle_that_somebody_cleared_is_put_back() {
    let api = Api::new();
    let replica = Replica::start(&api);
    replica.ready().await;
    let mut configuration = api.object(CONFIGURATIONS).expect("there");
    configuration["webhooks"][0]["clientConfig"].as_object_mut().expect("fields").remove("caBundle");
    api.put(CONFIGURATIONS, configuration);
    assert_eq!(api.bundle(), None);
    api.agreed().await;
}

#[tokio::test]
async fn a_configuration_that_comes_back_is_trusted_again() {
    let api = Api::new();
    let replica = Replica::start(&api);
    replica.ready().await;
    let mut configuration = api.object(CONFIGURATIONS).expect("there");
    api.delete(CONFIGURATIONS);
    configuration["webhooks"][0]["clientConfig"].as_object_mut().expect("fields").remove("caBundle");
    api.put(CONFIGURATIONS, configuration);
    api.agreed().await;
}

#[tokio::test]
async fn a_secret_that_somebody_deleted_or_spoilt_is_made_anew() {
    let api = Api::new();
    let replica = Replica::start(&api);
    replica.ready().await;
    let first = api.authority();
    api.delete(SECRETS);
    eventually("another authority", || api.authority().is_some_and(|now| Some(&now) != first.as_ref())).await;
    api.agreed().await;

    let second = api.authority();
    let mut secret = api.object(SECRETS).expect("there");
    secret["data"]["tls.key"] = json!("c3BvaWx0");
    api.put(SECRETS, secret);
    eventually("another authority", || api.authority().is_some_and(|now| Some(&now) != second.as_ref()))
        .await;
    api.agreed().await;
}

#[tokio::test]
async fn without_a_configuration_an_operator_serves_and_makes_none() {
    let api = Api::new();
    api.delete(CONFIGURATIONS);
    Replica::start(&api).ready().await;
    assert_eq!(api.object(CONFIGURATIONS), None);
}
