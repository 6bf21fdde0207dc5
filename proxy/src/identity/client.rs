//! One request to the identity service.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use ferrule_config::{
    identity::{Issued, Refused},
    names::CERTIFICATES_PATH,
};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{bundle::Bundle, settings::Service};

/// Longest time for all of it. An answer that comes later is not used: the operator's rotation of the root counts on it.
const LIMIT: Duration = Duration::from_secs(15);
/// An answer has 5 KiB.
const MAX_ANSWER: usize = 128 * 1024;

/// Why there is no answer, or none that helps. No message holds a token.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    #[error("no answer within {LIMIT:?}")]
    Slow,
    #[error("the token file holds no token")]
    Token,
    #[error("cannot connect to {0}: {1}")]
    Connect(String, io::Error),
    #[error("TLS with {0}: {1}; is its certificate of the mesh's authority?")]
    Tls(String, io::Error),
    #[error("the exchange broke off: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer can't be understood")]
    Answer,
    #[error("refused with {status}: {}", .refused.message)]
    Refused { status: StatusCode, refused: Refused, retry_after: Option<Duration> },
    #[error("cannot set TLS up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Causes of the service's that are counted under their own name; any other one is `refused`.
const CAUSES: [&str; 18] = [
    "rate-limited",
    "busy",
    "too-large",
    "slow",
    "no-token",
    "token",
    "not-service-account",
    "unbound",
    "pod-gone",
    "other-account",
    "other-address",
    "no-address",
    "csr-malformed",
    "csr-key",
    "csr-signature",
    "csr-names",
    "no-authority",
    "api-server",
];

impl ClientError {
    /// One word of a fixed set, for metrics.
    pub(super) fn cause(&self) -> &'static str {
        match self {
            Self::Slow => "timeout",
            Self::Token => "no-token",
            Self::Connect(..) => "connect",
            Self::Tls(..) => "tls",
            Self::Http(_) => "http",
            Self::Answer => "answer",
            Self::Setup(_) => "setup",
            Self::Refused { refused, .. } => {
                CAUSES.into_iter().find(|cause| *cause == refused.cause).unwrap_or("refused")
            }
        }
    }

    /// When the service wants to be asked again.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Asks for a certificate.
pub(super) async fn ask(
    service: &Service,
    address: Option<SocketAddr>,
    bundle: &Bundle,
    token: &str,
    csr: Vec<u8>,
) -> Result<Issued, ClientError> {
    timeout(LIMIT, exchange(service, address, bundle, token, csr)).await.map_err(|_| ClientError::Slow)?
}

async fn exchange(
    service: &Service,
    address: Option<SocketAddr>,
    bundle: &Bundle,
    token: &str,
    csr: Vec<u8>,
) -> Result<Issued, ClientError> {
    let mut bearer =
        HeaderValue::try_from(format!("Bearer {}", token.trim())).map_err(|_| ClientError::Token)?;
    bearer.set_sensitive(true);
    let (name, connected) = match address {
        Some(address) => (address.to_string(), TcpStream::connect(address).await),
        None => (service.to_string(), TcpStream::connect((service.host.as_str(), service.port)).await),
    };
    let tcp = connected.map_err(|error| ClientError::Connect(name.clone(), error))?;
    crate::net::prepare(&tcp);
    let server = ServerName::try_from(service.host.clone())
        .map_err(|error| ClientError::Tls(name.clone(), io::Error::other(error)))?;
    let tls = TlsConnector::from(Arc::new(tls(bundle)?));
    let stream = tls.connect(server, tcp).await.map_err(|error| ClientError::Tls(name, error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post(CERTIFICATES_PATH)
        .header(header::HOST, service.to_string())
        .header(header::AUTHORIZATION, bearer)
        .header(header::CONTENT_TYPE, "application/pkcs10")
        .header(header::CONNECTION, "close")
        .header(header::USER_AGENT, concat!("ferrule-proxy/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(csr)))
        .map_err(|_| ClientError::Token)?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let retry_after =
        response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    connection.abort();
    let body = body.map_err(|_| ClientError::Answer)?.to_bytes();
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(|_| ClientError::Answer);
    }
    let refused = serde_json::from_slice(&body)
        .unwrap_or_else(|_| Refused { cause: String::new(), message: "no reason given".to_owned() });
    Err(ClientError::Refused { status, refused, retry_after: retry_after.map(Duration::from_secs) })
}

/// TLS 1.3 alone: both ends are ours.
fn tls(bundle: &Bundle) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(Arc::clone(bundle.roots()))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
