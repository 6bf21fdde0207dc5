//! An API server in memory: objects by path, lists and watches with selectors, compare and swap, token reviews.

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
    http::{HeaderMap, Method, StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

/// Longest wait for anything that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Store {
    version: u64,
    objects: BTreeMap<String, Value>,
    /// Version, path of the object, event.
    events: Vec<(u64, String, Value)>,
    /// Status of the review by token.
    tokens: HashMap<String, Value>,
    created: Vec<String>,
    reviews: usize,
}

/// The server; clones share its objects.
#[derive(Clone)]
pub struct Api(Arc<Mutex<Store>>, watch::Sender<u64>);

impl Api {
    /// Starts it, and gives a client of it.
    pub async fn start() -> (Self, kube::Client) {
        // Another test of this process may have been quicker.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let api = Self(Arc::default(), watch::channel(0).0);
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
        let version = {
            let mut store = self.store();
            store.put(path, object);
            store.version
        };
        self.1.send_replace(version);
    }

    /// Deletes an object as a user would.
    pub fn delete(&self, path: &str) {
        let version = {
            let mut store = self.store();
            store.delete(path);
            store.version
        };
        self.1.send_replace(version);
    }

    /// An object as it is now.
    pub fn object(&self, path: &str) -> Option<Value> {
        self.store().objects.get(path).cloned()
    }

    /// What a review of this token says.
    pub fn token(&self, token: &str, status: Value) {
        self.store().tokens.insert(token.to_owned(), status);
    }

    /// How many reviews were asked for.
    pub fn reviews(&self) -> usize {
        self.store().reviews
    }

    /// How often an object was created at this path.
    pub fn created(&self, path: &str) -> usize {
        self.store().created.iter().filter(|created| *created == path).count()
    }

    /// Waits until this holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never: {what}");
    }
}

/// Text of a Secret's key.
pub fn text(base64: &Value) -> String {
    let bytes: ByteString = serde_json::from_value(base64.clone()).expect("base64");
    String::from_utf8(bytes.0).expect("text")
}

impl Store {
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let known = self.objects.contains_key(path);
        let parts = Parts::of(path);
        object["metadata"]["name"] = json!(parts.name);
        if let Some(namespace) = parts.namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let kind = if known { "MODIFIED" } else { "ADDED" };
        self.events.push((self.version, path.to_owned(), json!({ "type": kind, "object": object })));
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn delete(&mut self, path: &str) -> Option<Value> {
        let mut object = self.objects.remove(path)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let event = json!({ "type": "DELETED", "object": object });
        self.events.push((self.version, path.to_owned(), event));
        Some(object)
    }
}

/// A path of the API: a collection, or an object when it has a name.
struct Parts<'a> {
    namespace: Option<&'a str>,
    plural: &'a str,
    name: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(path: &'a str) -> Self {
        let skip = if path.starts_with("/apis/") { 3 } else { 2 };
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').skip(skip).collect();
        match parts[..] {
            ["namespaces", namespace, plural] => Self { namespace: Some(namespace), plural, name: None },
            ["namespaces", namespace, plural, name] => {
                Self { namespace: Some(namespace), plural, name: Some(name) }
            }
            [plural, name] => Self { namespace: None, plural, name: Some(name) },
            [plural] => Self { namespace: None, plural, name: None },
            _ => panic!("path {path}"),
        }
    }
}

/// What a list or a watch is of.
#[derive(Clone)]
struct Selection {
    plural: String,
    namespace: Option<String>,
    name: Option<String>,
    labels: Vec<(String, String)>,
}

impl Selection {
    fn of(path: &str, query: &HashMap<String, String>) -> Self {
        let parts = Parts::of(path);
        let name = query.get("fieldSelector").and_then(|selector| selector.strip_prefix("metadata.name="));
        let labels = query.get("labelSelector").map(String::as_str).unwrap_or_default();
        Self {
            plural: parts.plural.to_owned(),
            namespace: parts.namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            labels: labels
                .split(',')
                .filter_map(|label| label.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    fn has(&self, path: &str, object: &Value) -> bool {
        let parts = Parts::of(path);
        parts.plural == self.plural
            && self.namespace.as_deref().is_none_or(|wanted| parts.namespace == Some(wanted))
            && self.name.as_deref().is_none_or(|wanted| parts.name == Some(wanted))
            && self.labels.iter().all(|(key, value)| object["metadata"]["labels"][key] == json!(value))
    }
}

async fn answer(
    State(api): State<Api>,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    if method == Method::GET && query.contains_key("watch") {
        let since = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
        return follow(api, Selection::of(&path, &query), since);
    }
    let response = {
        let mut store = api.store();
        respond(&mut store, &method, &path, &query, &headers, &body)
    };
    let version = api.store().version;
    api.1.send_replace(version);
    response
}

fn respond(
    store: &mut Store,
    method: &Method,
    path: &str,
    query: &HashMap<String, String>,
    headers: &HeaderMap,
    body: &[u8],
) -> Response {
    let sent: Value = serde_json::from_slice(body).unwrap_or_default();
    let parts = Parts::of(path);
    let written = match *method {
        Method::GET if parts.name.is_none() => return list(store, &Selection::of(path, query)),
        Method::GET => store.objects.get(path).cloned(),
        Method::POST if parts.plural == "tokenreviews" => return review(store, sent),
        Method::POST => {
            let name = sent["metadata"]["name"].as_str().unwrap_or("generated").to_owned();
            let path = format!("{path}/{name}");
            if store.objects.contains_key(&path) {
                return failure(StatusCode::CONFLICT);
            }
            store.created.push(path.clone());
            Some(store.put(&path, sent))
        }
        Method::PUT => {
            let Some(current) = store.objects.get(path) else { return failure(StatusCode::NOT_FOUND) };
            if current["metadata"]["resourceVersion"] != sent["metadata"]["resourceVersion"] {
                return failure(StatusCode::CONFLICT);
            }
            Some(store.put(path, sent))
        }
        Method::DELETE => store.delete(path),
        Method::PATCH => {
            let merge = headers[CONTENT_TYPE] == "application/merge-patch+json";
            match store.objects.get(path).cloned() {
                Some(mut object) if merge => {
                    json_patch::merge(&mut object, &sent);
                    Some(store.put(path, object))
                }
                None if merge => None,
                _ => Some(store.put(path, sent)),
            }
        }
        _ => None,
    };
    written.map_or_else(|| failure(StatusCode::NOT_FOUND), |object| Json(object).into_response())
}

/// As the API server does: a token that it does not know, or knows for other audiences only, is an answer, not an error.
fn review(store: &mut Store, mut sent: Value) -> Response {
    store.reviews += 1;
    let token = sent["spec"]["token"].as_str().unwrap_or_default();
    let refused = json!({ "authenticated": false, "error": "[invalid bearer token]" });
    sent["status"] = store.tokens.get(token).cloned().unwrap_or(refused);
    sent["spec"]["token"] = json!("");
    (StatusCode::CREATED, Json(sent)).into_response()
}

fn list(store: &Store, selection: &Selection) -> Response {
    let items: Vec<_> = store
        .objects
        .iter()
        .filter(|(path, object)| selection.has(path, object))
        .map(|(_, object)| object)
        .collect();
    let metadata = json!({ "resourceVersion": store.version.to_string() });
    Json(json!({ "apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items })).into_response()
}

/// All events after a version, and those to come.
fn follow(api: Api, selection: Selection, since: u64) -> Response {
    let changes = api.1.subscribe();
    let state = (api, selection, since, changes);
    let lines = futures::stream::unfold(state, |(api, selection, since, mut changes)| async move {
        changes.wait_for(|version| *version > since).await.ok()?;
        let (lines, version) = {
            let store = api.store();
            let lines: String = store
                .events
                .iter()
                .filter(|(version, path, event)| *version > since && selection.has(path, &event["object"]))
                .map(|(.., event)| format!("{event}\n"))
                .collect();
            (lines, store.version)
        };
        Some((Ok::<_, Infallible>(Bytes::from(lines)), (api, selection, version, changes)))
    });
    Body::from_stream(lines).into_response()
}

fn failure(code: StatusCode) -> Response {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "message": "no",
        "reason": code.canonical_reason().map(|reason| reason.replace(' ', "")), "code": code.as_u16(),
    });
    (code, Json(status)).into_response()
}
