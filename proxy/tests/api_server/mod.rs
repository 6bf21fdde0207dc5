//! An API server as far as discovery knows one: lists and watches over HTTP/2 and TLS, with everything that can go
//! wrong with them, and a network in front that can freeze or break.

#![allow(dead_code, reason = "each test binary uses a part of it")]

mod network;
mod request;
mod watch;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use ferrule_proxy::discovery::Address;
use futures::StreamExt as _;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Frame, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub use self::network::Network;
use self::request::Selection;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An API server that runs.
pub struct ApiServer {
    pub network: Network,
    credentials: tempfile::TempDir,
    state: Arc<Shared>,
}

/// How a watch is told that its version is too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooOld {
    /// By the answer's status.
    Status,
    /// By an event.
    Event,
}

struct Shared {
    state: Mutex<State>,
    /// The version, for those who watch.
    version: tokio::sync::watch::Sender<u64>,
}

struct State {
    version: u64,
    /// By resource, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    history: Vec<Event>,
    /// Versions below it are too old to go on from.
    compacted: u64,
    too_old: TooOld,
    /// Changes are not told to watches.
    losing: bool,
    /// Watches tell nothing at all.
    mute: bool,
    /// Paths that were asked for.
    requests: Vec<String>,
    open_watches: usize,
    /// What everything is answered with, when there is something.
    refusal: Option<(StatusCode, &'static str)>,
}

#[derive(Clone, Debug)]
struct Event {
    version: u64,
    kind: &'static str,
    resource: String,
    object: Value,
    lost: bool,
}

impl ApiServer {
    pub async fn start() -> Self {
        let credentials = tempfile::tempdir().expect("a temporary directory");
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).expect("a certificate");
        std::fs::write(credentials.path().join("ca.crt"), certified.cert.pem()).expect("writable");
        std::fs::write(credentials.path().join("token"), "a-token\n").expect("writable");
        let key =
            rustls_pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("certificate and key");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let behind = listener.local_addr().expect("bound");
        let state = State {
            version: 100,
            objects: BTreeMap::new(),
            history: Vec::new(),
            compacted: 0,
            too_old: TooOld::Status,
            losing: false,
            mute: false,
            requests: Vec::new(),
            open_watches: 0,
            refusal: None,
        };
        let state =
            Arc::new(Shared { state: Mutex::new(state), version: tokio::sync::watch::Sender::new(100) });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, shared) = (tls.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .max_concurrent_streams(100)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { network: Network::before(behind).await, credentials, state }
    }

    /// Where it is, for discovery.
    pub fn address(&self) -> Address {
        Address {
            host: "127.0.0.1".into(),
            port: self.network.address().port(),
            credentials: self.credentials.path().to_owned(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.state.lock().expect("not poisoned")
    }

    /// Adds or changes an object of a namespace.
    pub fn put(&self, resource: &str, namespace: &str, name: &str, mut object: Value) {
        let version = self.state().put(resource, namespace, name, &mut object);
        self.state.version.send_replace(version);
    }

    /// Deletes an object.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) {
        let version = self.state().delete(resource, namespace, name);
        self.state.version.send_replace(version);
    }

    /// A Service with port 80 and this address.
    pub fn service(&self, namespace: &str, name: &str, address: &str) {
        self.service_with(
            namespace,
            name,
            &json!({"clusterIP": address, "clusterIPs": [address], "ports": [{"name": "http", "port": 80}]}),
        );
    }

    pub fn service_with(&self, namespace: &str, name: &str, spec: &Value) {
        self.put("services", namespace, name, json!({"spec": spec}));
    }

    /// The slice NAME-0 of a Service, with these addresses and port 8080.
    pub fn endpoints(&self, namespace: &str, name: &str, addresses: &[&str]) {
        self.slice(namespace, name, 0, addresses);
    }

    pub fn slice(&self, namespace: &str, service: &str, index: usize, addresses: &[&str]) {
        let endpoints: Vec<_> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
        let object = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": service}},
            "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}],
        });
        self.put("endpointslices", namespace, &format!("{service}-{index}"), object);
    }

    /// Versions up to now become too old to go on from.
    pub fn compact(&self, how: TooOld) {
        let mut state = self.state();
        state.compacted = state.version;
        state.too_old = how;
    }

    /// While it is set, changes are not told to watches.
    pub fn lose(&self, losing: bool) {
        self.state().losing = losing;
    }

    /// While it is set, watches tell nothing; pings are answered.
    pub fn mute(&self, mute: bool) {
        self.state().mute = mute;
        self.state.version.send_modify(|_| {});
    }

    /// While it is set, every request is refused.
    pub fn refuse(&self, refusal: Option<(StatusCode, &'static str)>) {
        self.state().refusal = refusal;
    }

    /// Something else happens in the cluster, and watches are told of the version alone.
    pub fn bookmark(&self) -> u64 {
        let version = {
            let mut state = self.state();
            state.version += 10;
            let version = state.version;
            let event = Event {
                version,
                kind: "BOOKMARK",
                resource: String::new(),
                object: json!({"metadata": {"resourceVersion": version.to_string()}}),
                lost: false,
            };
            state.history.push(event);
            version
        };
        self.state.version.send_replace(version);
        version
    }

    /// What was asked for since this was last called.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().requests)
    }

    /// Watches that are open.
    pub fn open_watches(&self) -> usize {
        self.state().open_watches
    }
}

impl State {
    fn put(&mut self, resource: &str, namespace: &str, name: &str, object: &mut Value) -> u64 {
        self.version += 1;
        let version = self.version;
        let place = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        object["metadata"]["name"] = name.into();
        object["metadata"]["namespace"] = namespace.into();
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let known = self.objects.insert(place, object.clone());
        self.tell(if known.is_some() { "MODIFIED" } else { "ADDED" }, resource, object.clone());
        version
    }

    fn delete(&mut self, resource: &str, namespace: &str, name: &str) -> u64 {
        let place = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        let mut object = self.objects.remove(&place).expect("the object is there");
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.tell("DELETED", resource, object);
        self.version
    }

    fn tell(&mut self, kind: &'static str, resource: &str, object: Value) {
        let event =
            Event { version: self.version, kind, resource: resource.to_owned(), object, lost: self.losing };
        self.history.push(event);
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path_and_query().expect("a path").as_str().to_owned();
    let authorized = request.headers().get("authorization").is_some_and(|value| value == "Bearer a-token");
    let refusal = {
        let mut state = shared.state.lock().expect("not poisoned");
        state.requests.push(path.clone());
        state.refusal
    };
    if !authorized {
        return Ok(status(StatusCode::UNAUTHORIZED, "Unauthorized"));
    }
    if let Some((code, message)) = refusal {
        return Ok(status(code, message));
    }
    let Some(selection) = Selection::parse(&path) else {
        return Ok(status(StatusCode::NOT_FOUND, "not found"));
    };
    if let Some(version) = selection.watch {
        return Ok(watch::answer(shared, selection, version));
    }
    Ok(list(&shared, &selection))
}

fn list(shared: &Shared, selection: &Selection) -> Response<Body> {
    let state = shared.state.lock().expect("not poisoned");
    let matching =
        state.objects.iter().filter(|((resource, ..), object)| selection.matches(resource, object));
    if selection.single {
        return match matching.map(|(_, object)| object).next() {
            Some(object) => Response::new(Full::new(Bytes::from(object.to_string())).boxed_unsync()),
            None => status(StatusCode::NOT_FOUND, "not found"),
        };
    }
    let mut items: Vec<Value> = matching.map(|(_, object)| object.clone()).skip(selection.skip).collect();
    let mut metadata = json!({"resourceVersion": state.version.to_string()});
    if let Some(limit) = selection.limit.filter(|limit| *limit < items.len()) {
        items.truncate(limit);
        metadata["continue"] = (selection.skip + limit).to_string().into();
    }
    let text = json!({"kind": "List", "metadata": metadata, "items": items}).to_string();
    // In pieces, as a large list comes.
    let pieces: Vec<_> = text.as_bytes().chunks(1000).map(Bytes::copy_from_slice).collect();
    let frames = futures::stream::iter(pieces).map(|piece| Ok(Frame::data(piece)));
    Response::new(StreamBody::new(frames).boxed_unsync())
}

fn status(code: StatusCode, message: &str) -> Response<Body> {
    let text = json!({"kind": "Status", "code": code.as_u16(), "message": message}).to_string();
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *response.status_mut() = code;
    response
}

/// Repeats until it holds, for at most ten seconds.
pub async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    for _ in 0..500 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}
