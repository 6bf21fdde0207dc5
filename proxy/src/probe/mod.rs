//! What the kubelet wants to know of the application, asked from inside the pod.
//!
//! The injector sends the probes of a pod to the admin port ([`Probe`] has the paths). They are asked here as the kubelet
//! would ask, and the application's own answer is handed on. Nothing is asked that the pod's probes do not name, so whoever
//! reaches the admin port can do no more than the kubelet does.

mod grpc;
mod http;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use ::http::{HeaderValue, Request, Response, StatusCode, header};
use bytes::Bytes;
use ferrule_config::probe::{Check, Probe};
use http_body_util::Full;
use hyper::body::Incoming;
use thiserror::Error;
use tokio::net::TcpStream;

/// As much of an answer's body as the kubelet shows.
const MAX_BODY: usize = 10 * 1024;

/// The probes of a pod.
#[derive(Debug, Default)]
pub struct Probes {
    by_path: BTreeMap<String, Probe>,
    own: Vec<IpAddr>,
}

/// Why the application gave no answer.
#[derive(Debug, Error)]
enum ProbeFailed {
    #[error("the application takes no connections on this port: {0}")]
    Connect(io::Error),
    #[error("TLS with the application: {0}")]
    Tls(io::Error),
    #[error("the application's answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the application's answer: {0}")]
    Answer(String),
    #[error("too many redirects")]
    Redirects,
}

impl Probes {
    /// `own`: addresses of the pod.
    #[must_use]
    pub fn new(probes: impl IntoIterator<Item = Probe>, own: Vec<IpAddr>) -> Self {
        let by_path = probes.into_iter().map(|probe| (probe.to_string(), probe)).collect();
        Self { by_path, own }
    }

    /// Asks what the request's path says; 404 where that is no probe of the pod, 503 where there is no answer.
    pub async fn ask(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let Some(probe) = self.by_path.get(path) else {
            return text(StatusCode::NOT_FOUND, "the pod has no such probe\n".into());
        };
        let answer = match probe.check {
            Check::Tcp => {
                self.connect(probe.port.get()).await.map(|_| text(StatusCode::OK, "connected\n".into()))
            }
            Check::Http | Check::Https => http::get(self, probe, request.headers()).await,
            Check::Grpc => grpc::check(self, probe).await,
        };
        answer.unwrap_or_else(|error| text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")))
    }

    /// As the kubelet would: by the pod's address, which an application may listen on alone.
    async fn connect(&self, port: u16) -> Result<TcpStream, ProbeFailed> {
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for ip in self.own.iter().copied().chain([Ipv4Addr::LOCALHOST.into()]) {
            match TcpStream::connect(SocketAddr::new(ip, port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(ProbeFailed::Connect(failed))
    }

    /// The name of the application in a request.
    fn authority(&self, port: u16) -> String {
        let ip = self.own.first().copied().unwrap_or(Ipv4Addr::LOCALHOST.into());
        SocketAddr::new(ip, port).to_string()
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
