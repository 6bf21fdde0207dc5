//! The webhook as the API server calls it: the real server on a free port, over TLS.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::{Body, to_bytes};
use ferrule::injector::{
    Certificates, Metrics, Namespaces, ReviewResult, Settings, podsecurity::Level, serve,
};
use hyper::{Request, StatusCode, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::ByteString;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const NAME: &str = "ferrule-webhook.ferrule-system.svc";

struct Webhook {
    address: SocketAddr,
    certificates: Certificates,
    namespaces: Namespaces,
    metrics: Metrics,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    roots: RootCertStore,
}

impl Webhook {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let settings = Settings::new("ferrule/ferrule-proxy:test");
        let metrics = settings.metrics.clone();
        let (certificates, namespaces) = (Certificates::default(), Namespaces::default());
        let (stop, shutdown) = watch::channel(false);
        let (served, known) = (certificates.clone(), namespaces.clone());
        let server = tokio::spawn(async move {
            serve(listener, &served, settings, known, shutdown).await.expect("serves");
        });
        let roots = RootCertStore::empty();
        let mut webhook = Self { address, certificates, namespaces, metrics, stop, server, roots };
        webhook.new_certificate();
        webhook
    }

    /// Another certificate, the only one that clients trust from now on.
    fn new_certificate(&mut self) {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
        self.certificates.set(&made.cert.pem(), &made.signing_key.serialize_pem()).expect("accepted");
        self.roots = RootCertStore::empty();
        self.roots.add(made.cert.der().clone()).expect("accepted");
    }

    async fn tls(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await.expect("listens");
        stream.set_nodelay(true).expect("a socket");
        let name = ServerName::try_from(NAME).expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a trusted certificate")
    }

    async fn connect(&self) -> Connection {
        let io = TokioIo::new(self.tls(b"h2").await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        tokio::spawn(connection);
        Connection(sender)
    }
}

#[derive(Clone)]
struct Connection(http2::SendRequest<Body>);

impl Connection {
    async fn send(&mut self, method: &str, path: &str, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{NAME}{path}"))
            .body(Body::from(body))
            .expect("a request");
        let response = self.0.send_request(request).await.expect("a response");
        let status = response.status();
        let body = to_bytes(Body::new(response.into_body()), usize::MAX).await.expect("a body");
        (status, body.to_vec())
    }

    async fn review(&mut self, pod: &Value) -> Value {
        let (status, body) = self.send("POST", "/mutate", review(pod)).await;
        assert_eq!(status, StatusCode::OK);
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["response"]["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
        answer["response"].clone()
    }
}

fn review(pod: &Value) -> Vec<u8> {
    review_of("pods", "CREATE", pod)
}

fn review_of(resource: &str, operation: &str, object: &Value) -> Vec<u8> {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": resource},
            "namespace": "shop",
            "operation": operation,
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": object,
            "oldObject": null,
            "dryRun": true,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    });
    serde_json::to_vec(&review).expect("JSON")
}

/// As large as those that the API server sends: defaults filled in, managed fields, an own init container.
fn pod() -> Value {
    serde_json::from_str(include_str!("injector_pod.json")).expect("JSON")
}

#[tokio::test]
async fn a_pod_gets_a_patch_that_applies() {
    let webhook = Webhook::start().await;
    let response = webhook.connect().await.review(&pod()).await;
    assert_eq!(response["allowed"], true);
    assert_eq!(response["patchType"], "JSONPatch");
    let patch: ByteString = serde_json::from_value(response["patch"].clone()).expect("base64");
    let patch: json_patch::Patch = serde_json::from_slice(&patch.0).expect("a JSON patch");
    let mut pod = pod();
    json_patch::patch(&mut pod, &patch).expect("applies");
    assert_eq!(pod["spec"]["initContainers"][1]["name"], "ferrule-proxy");
    assert_eq!(webhook.metrics.reviews(ReviewResult::Injected), 1);
}

#[tokio::test]
async fn a_pod_that_the_api_server_asks_about_again_is_not_changed_again() {
    let webhook = Webhook::start().await;
    let mut connection = webhook.connect().await;
    let response = connection.review(&pod()).await;
    let patch: ByteString = serde_json::from_value(response["patch"].clone()).expect("base64");
    let patch: json_patch::Patch = serde_json::from_slice(&patch.0).expect("a JSON patch");
    let mut pod = pod();
    json_patch::patch(&mut pod, &patch).expect("applies");
    let again = connection.review(&pod).await;
    assert_eq!((&again["allowed"], again.get("patch")), (&json!(true), None));
    assert_eq!(webhook.metrics.reviews(ReviewResult::Injected), 1);
    assert_eq!(webhook.metrics.reviews(ReviewResult::Unchanged), 1);
}

#[tokio::test]
async fn a_refusal_is_an_answer_with_a_message() {
    let webhook = Webhook::start().await;
    let mut pod = pod();
    pod["metadata"]["annotations"] = json!({"ferrule.dev/log-level": "loud"});
    let response = webhook.connect().await.review(&pod).await;
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 400);
    let message = response["status"]["message"].as_str().expect("a message");
    assert!(
        message.starts_with("ferrule: annotation ferrule.dev/log-level: \"loud\" is not accepted"),
        "{message}"
    );
    assert_eq!(response.get("patch"), None);
    assert_eq!(webhook.metrics.reviews(ReviewResult::Refused), 1);
}

#[tokio::test]
async fn a_pod_on_the_nodes_network_passes_with_a_warning() {
    let webhook = Webhook::start().await;
    let mut pod = pod();
    pod["spec"]["hostNetwork"] = json!(true);
    let response = webhook.connect().await.review(&pod).await;
    assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None));
    assert!(response["warnings"][0].as_str().expect("a warning").contains("hostNetwork: true"));
    assert_eq!(webhook.metrics.reviews(ReviewResult::Skipped), 1);
}

#[tokio::test]
async fn the_level_that_a_namespace_enforces_is_respected_until_it_is_lowered() {
    let webhook = Webhook::start().await;
    let mut connection = webhook.connect().await;
    webhook.namespaces.set("shop", Some(Level::Baseline));
    assert_eq!(connection.review(&pod()).await["allowed"], false);
    webhook.namespaces.set("shop", None);
    assert_eq!(connection.review(&pod()).await["allowed"], true);
}

#[tokio::test]
async fn whatever_is_not_the_creation_of_a_pod_passes() {
    let webhook = Webhook::start().await;
    let mut connection = webhook.connect().await;
    for (resource, operation) in [("pods", "UPDATE"), ("pods", "DELETE"), ("services", "CREATE")] {
        let (status, body) =
            connection.send("POST", "/mutate", review_of(resource, operation, &json!(null))).await;
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(status, StatusCode::OK);
        assert_eq!(answer["response"]["allowed"], true, "{operation} {resource}");
        assert_eq!(answer["response"].get("patch"), None, "{operation} {resource}");
    }
}

#[tokio::test]
async fn malformed_reviews_get_400_and_say_what_is_wrong() {
    let webhook = Webhook::start().await;
    let mut connection = webhook.connect().await;
    let mut old: Value = serde_json::from_slice(&review(&pod())).expect("JSON");
    old["apiVersion"] = json!("admission.k8s.io/v1beta1");
    for (body, words) in [
        (Vec::new(), "not an AdmissionReview"),
        (b"{".to_vec(), "not an AdmissionReview"),
        (b"[1]".to_vec(), "not an AdmissionReview"),
        (b"\xff\xfe".to_vec(), "not an AdmissionReview"),
        (b"{}".to_vec(), "expected AdmissionReview of admission.k8s.io/v1"),
        (serde_json::to_vec(&old).expect("JSON"), "v1beta1"),
        (br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#.to_vec(), "has no request"),
        (br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}"#.to_vec(), "uid"),
    ] {
        let (status, answer) = connection.send("POST", "/mutate", body).await;
        let answer = String::from_utf8(answer).expect("text");
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(answer.contains(words), "{words:?} is missing in: {answer}");
    }
    assert_eq!(webhook.metrics.reviews(ReviewResult::Malformed), 8);
}

#[tokio::test]
async fn other_paths_methods_and_sizes_are_declined() {
    let webhook = Webhook::start().await;
    let mut connection = webhook.connect().await;
    assert_eq!(connection.send("GET", "/healthz", Vec::new()).await.0, StatusCode::OK);
    assert_eq!(connection.send("GET", "/mutate", Vec::new()).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(connection.send("POST", "/", Vec::new()).await.0, StatusCode::NOT_FOUND);
    let (status, _) = connection.send("POST", "/mutate", vec![b' '; (4 << 20) + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart_and_old_connections_go_on() {
    let mut webhook = Webhook::start().await;
    let mut before = webhook.connect().await;
    webhook.new_certificate();
    assert_eq!(webhook.connect().await.review(&pod()).await["allowed"], true);
    assert_eq!(before.review(&pod()).await["allowed"], true);
}

#[tokio::test]
async fn stopping_lets_new_reviews_in_for_a_moment_and_then_ends() {
    let webhook = Webhook::start().await;
    let mut open = webhook.connect().await;
    webhook.stop.send_replace(true);
    // The API server may not have heard yet.
    assert_eq!(webhook.connect().await.review(&pod()).await["allowed"], true);
    assert_eq!(open.review(&pod()).await["allowed"], true);
    timeout(Duration::from_secs(9), webhook.server).await.expect("ends in time").expect("no panic");
    assert!(TcpStream::connect(webhook.address).await.is_err(), "still listens");
}

#[tokio::test]
async fn a_client_that_never_sends_its_request_is_dropped() {
    let webhook = Webhook::start().await;
    let mut stream = webhook.tls(b"http/1.1").await;
    let read = timeout(Duration::from_secs(9), stream.read(&mut [0; 64])).await.expect("closed in time");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

/// Prints, and asserts nothing of, the time a review takes over HTTPS on an open connection as the API server
/// has one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latency_over_https_is_measured() {
    const ROUNDS: usize = 2000;
    let webhook = Webhook::start().await;
    let mut connection = webhook.connect().await;
    let pod = pod();
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        connection.review(&pod).await;
        times.push(start.elapsed());
    }
    times.sort();
    let start = Instant::now();
    webhook.connect().await.review(&pod).await;
    println!(
        "{ROUNDS} reviews over one HTTPS connection: p50 {:?}, p99 {:?}, max {:?}; the first on a new connection {:?}",
        times[ROUNDS / 2],
        times[ROUNDS * 99 / 100],
        times[ROUNDS - 1],
        start.elapsed()
    );
    assert_eq!(webhook.metrics.reviews(ReviewResult::Injected), ROUNDS as u64 + 1);
}
