//! An API server in memory: lists, watches, server-side apply without its finer points, and Leases.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc};

/// A write that came in: method and path.
pub type Write = (String, String);

#[derive(Default)]
struct Store {
    version: u64,
    /// By path, such as `/api/v1/namespaces/shop/configmaps/ferrule`.
    objects: BTreeMap<String, Value>,
    watches: Vec<(String, mpsc::UnboundedSender<Value>)>,
    /// What has happened, with its version and plural: a watch begins after the list that it follows, and misses nothing.
    events: Vec<(u64, String, Value)>,
    writes: Vec<Write>,
    /// Writes to paths with these in them are refused.
    refused: Vec<String>,
}

/// The server; clones share its objects.
#[derive(Clone, Default)]
pub struct Api(Arc<Mutex<Store>>);

impl Api {
    /// Starts it, and gives a client of it.
    pub async fn start() -> (Self, kube::Client) {
        // Another test of this process may have been quicker.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let api = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(answer).with_state(api.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let url = format!("http://{address}").parse().expect("a URL");
        (api, kube::Client::try_from(kube::Config::new(url)).expect("a client"))
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.lock().expect("nobody panics with the lock")
    }

    /// Stores an object as a user would.
    pub fn put(&self, path: &str, object: Value) {
        self.store().put(path, object);
    }

    /// Deletes an object as a user would.
    pub fn delete(&self, path: &str) {
        self.store().delete(path);
    }

    /// An object as it is now.
    pub fn object(&self, path: &str) -> Option<Value> {
        self.store().objects.get(path).cloned()
    }

    /// Writes of clients to paths with this in them.
    pub fn writes(&self, part: &str) -> Vec<Write> {
        self.store().writes.iter().filter(|(_, path)| path.contains(part)).cloned().collect()
    }

    /// From now on refuses writes to paths with one of these in them.
    pub fn refuse(&self, parts: &[&str]) {
        self.store().refused = parts.iter().map(ToString::to_string).collect();
    }

    /// Waits until this holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let writes = || self.writes("");
        assert!(tokio::time::timeout(Duration::from_secs(10), wait).await.is_ok(), "{what}: {:?}", writes());
    }
}

impl Store {
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let old = self.objects.get(path);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let generation = match old {
            Some(old) if old["spec"] == object["spec"] => old["metadata"]["generation"].as_i64().unwrap_or(1),
            Some(old) => old["metadata"]["generation"].as_i64().unwrap_or(1) + 1,
            None => 1,
        };
        object["metadata"]["generation"] = json!(generation);
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        self.tell(path, &json!({ "type": kind, "object": object }));
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn delete(&mut self, path: &str) -> Option<Value> {
        let mut object = self.objects.remove(path)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.tell(path, &json!({ "type": "DELETED", "object": object }));
        Some(object)
    }

    fn tell(&mut self, path: &str, event: &Value) {
        let plural = plural(path);
        self.events.push((self.version, plural.clone(), event.clone()));
        self.watches.retain(|(of, watch)| *of != plural || watch.send(event.clone()).is_ok());
    }
}

/// `configmaps` of `/api/v1/namespaces/shop/configmaps/ferrule`, `namespaces` of `/api/v1/namespaces/shop`.
fn plural(path: &str) -> String {
    path.rsplit('/').nth(1).unwrap_or_default().to_owned()
}

async fn answer(
    State(api): State<Api>,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    let mut store = api.store();
    if method == Method::GET {
        if query.contains_key("watch") {
            let since = query.get("resourceVersion").and_then(|version| version.parse().ok());
            return watch(&mut store, &path, since.unwrap_or_default());
        }
        return match store.objects.get(&path) {
            Some(object) => Json(object).into_response(),
            None if path.contains("/leases/") => failure(StatusCode::NOT_FOUND),
            None => list(&store, &path),
        };
    }
    store.writes.push((method.to_string(), path.clone()));
    if store.refused.iter().any(|part| path.contains(part)) {
        return failure(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
    let written = match method {
        Method::POST => {
            let name = sent["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            Some(store.put(&format!("{path}/{name}"), sent))
        }
        Method::PUT => {
            let current =
                store.objects.get(&path).map(|object| object["metadata"]["resourceVersion"].clone());
            if current != Some(sent["metadata"]["resourceVersion"].clone()) {
                return failure(StatusCode::CONFLICT);
            }
            Some(store.put(&path, sent))
        }
        Method::DELETE => store.delete(&path),
        Method::PATCH => apply(&mut store, &path, sent),
        _ => None,
    };
    written.map_or_else(|| failure(StatusCode::NOT_FOUND), |object| Json(object).into_response())
}

fn apply(store: &mut Store, path: &str, sent: Value) -> Option<Value> {
    if let Some(path) = path.strip_suffix("/status") {
        let mut object = store.objects.get(path)?.clone();
        object["status"] = sent["status"].clone();
        return Some(store.put(path, object));
    }
    let mut object = sent;
    if let Some(namespace) = path.split('/').skip_while(|part| *part != "namespaces").nth(1) {
        object["metadata"]["namespace"] = json!(namespace);
    }
    Some(store.put(path, object))
}

fn list(store: &Store, path: &str) -> Response {
    let plural = path.rsplit('/').next().unwrap_or_default();
    let items: Vec<_> = store
        .objects
        .iter()
        .filter(|(path, _)| self::plural(path) == plural)
        .map(|(_, object)| object)
        .collect();
    let metadata = json!({ "resourceVersion": store.version.to_string() });
    Json(json!({ "apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items })).into_response()
}

fn watch(store: &mut Store, path: &str, since: u64) -> Response {
    let (sender, mut events) = mpsc::unbounded_channel();
    let plural = path.rsplit('/').next().unwrap_or_default();
    for (_, _, event) in store.events.iter().filter(|(version, of, _)| *version > since && of == plural) {
        let _ = sender.send(event.clone());
    }
    store.watches.push((plural.to_owned(), sender));
    let lines = futures::stream::poll_fn(move |context| events.poll_recv(context))
        .map(|event| Ok::<_, Infallible>(format!("{event}\n")));
    Body::from_stream(lines).into_response()
}

fn failure(code: StatusCode) -> Response {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "message": "no",
        "reason": code.canonical_reason().map(|reason| reason.replace(' ', "")), "code": code.as_u16(),
    });
    (code, Json(status)).into_response()
}
