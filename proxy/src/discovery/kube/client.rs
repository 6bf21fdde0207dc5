//! A client of the API server, as small as a sidecar needs: GET over HTTP/2 with the pod's projected token.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::telemetry::Telemetry;

/// Where the injector mounts the credentials.
const CREDENTIALS: &str = "/var/run/secrets/ferrule.dev/api";
/// Streams of one connection: the API server allows 100, and a stream beyond that would wait for ever behind
/// watches.
const MAX_STREAMS: usize = 80;
/// Largest answer to a list.
const MAX_LIST: usize = 64 * 1024 * 1024;
/// A connection is dead when a ping, sent this often, is not answered in the second time.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);

/// Why a call failed.
#[derive(Debug, Error)]
pub(in crate::discovery) enum ApiError {
    #[error("API server not reached: {0}")]
    Io(#[from] io::Error),
    #[error("API server: {0}")]
    Http(#[from] hyper::Error),
    #[error("API server did not answer within {ANSWER:?}")]
    Slow,
    #[error("API server answered {status} to {path}: {message}")]
    Status { status: StatusCode, path: String, message: String },
    /// The version is too old to go on from; list again.
    #[error("resource version is too old")]
    Gone,
    #[error("watch ended with {0}")]
    Watch(String),
    #[error("API server sent something unexpected: {0}")]
    Json(#[from] serde_json::Error),
    #[error("API server sent more than the proxy takes")]
    TooLarge,
}

pub(super) struct Client {
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    tls: TlsConnector,
    token: PathBuf,
    connections: Mutex<Vec<Connection>>,
    telemetry: Arc<Telemetry>,
}

#[derive(Clone)]
struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    streams: Arc<AtomicUsize>,
}

/// An answer's body; its stream is counted until it is dropped.
pub(super) struct Body {
    incoming: Incoming,
    _stream: Stream,
}

struct Stream(Arc<AtomicUsize>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Body {
    pub(super) async fn frame(&mut self) -> Option<Result<hyper::body::Frame<Bytes>, hyper::Error>> {
        self.incoming.frame().await
    }
}

impl Client {
    pub(super) fn in_cluster(telemetry: Arc<Telemetry>) -> anyhow::Result<Self> {
        let host = std::env::var("KUBERNETES_SERVICE_HOST")
            .context("KUBERNETES_SERVICE_HOST is not set: not in a pod?")?;
        let port = std::env::var("KUBERNETES_SERVICE_PORT").unwrap_or_else(|_| "443".into());
        let credentials = std::env::var("FERRULE_API_CREDENTIALS").unwrap_or_else(|_| CREDENTIALS.into());
        let credentials = PathBuf::from(credentials);
        let ca = credentials.join("ca.crt");
        let mut roots = RootCertStore::empty();
        for certificate in
            CertificateDer::pem_file_iter(&ca).with_context(|| format!("reading {}", ca.display()))?
        {
            roots.add(certificate.with_context(|| format!("reading {}", ca.display()))?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let server_name =
            ServerName::try_from(host.clone()).with_context(|| format!("KUBERNETES_SERVICE_HOST={host}"))?;
        Ok(Self {
            server_name,
            host,
            port: port.parse().with_context(|| format!("KUBERNETES_SERVICE_PORT={port}"))?,
            tls: TlsConnector::from(Arc::new(config)),
            token: credentials.join("token"),
            connections: Mutex::default(),
            telemetry,
        })
    }

    /// The whole answer, parsed.
    pub(super) async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let body = self.get(path).await?;
        let collected = tokio::time::timeout(ANSWER, Limited::new(body.incoming, MAX_LIST).collect());
        let bytes = collected.await.map_err(|_| ApiError::Slow)?.map_err(|_| ApiError::TooLarge)?.to_bytes();
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// The answer's body as it comes.
    pub(super) async fn get(&self, path: &str) -> Result<Body, ApiError> {
        let result = self.try_get(path).await;
        if result.is_err() {
            self.telemetry.api_errors.inc();
        }
        result
    }

    async fn try_get(&self, path: &str) -> Result<Body, ApiError> {
        let Connection { mut sender, streams } = self.connection().await?;
        streams.fetch_add(1, Relaxed);
        let stream = Stream(streams);
        // Read anew each time: the kubelet renews the file.
        let token = std::fs::read_to_string(&self.token)?;
        let mut request = Request::get(format!("https://{}{path}", self.authority()))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("ferrule-proxy/", env!("CARGO_PKG_VERSION")));
        let mut bearer = http::HeaderValue::try_from(format!("Bearer {}", token.trim()))
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the token file holds no token"))?;
        bearer.set_sensitive(true);
        if let Some(headers) = request.headers_mut() {
            headers.insert(header::AUTHORIZATION, bearer);
        }
        let request =
            request.body(Empty::new()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let answer = tokio::time::timeout(ANSWER, sender.send_request(request))
            .await
            .map_err(|_| ApiError::Slow)??;
        if answer.status().is_success() {
            return Ok(Body { incoming: answer.into_body(), _stream: stream });
        }
        Err(refused(path, answer).await)
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// A connection with room for a stream.
    async fn connection(&self) -> Result<Connection, ApiError> {
        if let Some(connection) = self.open_connection() {
            return Ok(connection);
        }
        let connected = tokio::time::timeout(CONNECT, async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            crate::net::prepare(&tcp);
            let tls = self.tls.connect(self.server_name.clone(), tcp).await?;
            let handshake = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING.0)
                .keep_alive_timeout(PING.1)
                .handshake(TokioIo::new(tls));
            Ok::<_, ApiError>(handshake.await?)
        });
        let (sender, connection) = connected.await.map_err(|_| ApiError::Slow)??;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the API server ended");
            }
        });
        let connection = Connection { sender, streams: Arc::default() };
        self.lock().push(connection.clone());
        Ok(connection)
    }

    fn open_connection(&self) -> Option<Connection> {
        let mut connections = self.lock();
        connections.retain(|connection| !connection.sender.is_closed());
        connections.iter().find(|connection| connection.streams.load(Relaxed) < MAX_STREAMS).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn refused(path: &str, answer: Response<Incoming>) -> ApiError {
    let status = answer.status();
    if status == StatusCode::GONE {
        return ApiError::Gone;
    }
    let body = Limited::new(answer.into_body(), 64 * 1024).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    let parsed: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let message = parsed.and_then(|parsed| Some(parsed.get("message")?.as_str()?.to_owned())).unwrap_or(text);
    if status == StatusCode::FORBIDDEN || status == StatusCode::UNAUTHORIZED {
        tracing::warn!(%status, path, message, "the API server refuses; is the namespace labelled for injection?");
    }
    ApiError::Status { status, path: path.to_owned(), message }
}
