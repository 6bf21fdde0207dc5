//! The admin port: `/ready`, `/live`, `/metrics`, `/config`, `/identity`, `/tls`, and the probes that the injector sends here.
//!
//! It only tells, it changes nothing, and it tells no secret. The kubelet, Prometheus and the operator ask from outside of the
//! pod; `/config`, which is a map of what the pod uses, is told to whoever is in the pod, unless somebody asked for more.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{
    discovery::Discovery,
    drain::Drain,
    identity::Identity,
    probe::Probes,
    telemetry::{Format, Telemetry},
    tls::Tls,
};

/// To whoever asks for `/config` from outside.
const NOT_OUTSIDE: &str = "/config is told in the pod alone; use `kubectl port-forward POD 15110`, or set the annotation \
     ferrule.dev/expose-config: \"true\" on the pod\n";
/// Connections that are served at once.
const MAX_CONNECTIONS: usize = 64;

/// What the admin port tells of.
#[derive(Debug)]
pub struct Admin {
    /// For `/metrics`.
    pub telemetry: Arc<Telemetry>,
    /// For `/config`.
    pub discovery: Discovery,
    /// For `/identity`.
    pub identity: Identity,
    /// For `/tls`.
    pub tls: Tls,
    /// For `/ready`: a proxy that ends is not ready.
    pub drain: Drain,
    /// For `/probe/…`.
    pub probes: Probes,
    /// Whether `/config` is told to everybody.
    pub expose_config: bool,
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok((stream, from)) => (stream, from),
            Err(error) => {
                tracing::warn!(%error, "admin port");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let inside = is_inside(from, stream.local_addr().ok());
            let service = service_fn(|request| answer(Arc::clone(&admin), inside, request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service);
            // Whoever is gone needs no answer.
            let _ = tokio::time::timeout(Duration::from_secs(300), connection).await;
            drop(permit);
        });
    }
}

/// Whether a client is in the pod: it comes from the loopback interface, which `kubectl port-forward` does too, or from the
/// address that it goes to.
fn is_inside(from: SocketAddr, to: Option<SocketAddr>) -> bool {
    let from = from.ip().to_canonical();
    from.is_loopback() || to.is_some_and(|to| to.ip().to_canonical() == from)
}

async fn answer(
    admin: Arc<Admin>,
    inside: bool,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed\n"));
    }
    Ok(match request.uri().path() {
        "/live" => text(StatusCode::OK, "live\n"),
        "/ready" if admin.drain.is_draining() => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/ready" => text(StatusCode::OK, "ready\n"),
        "/metrics" => {
            let accept =
                request.headers().get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
            let format = Format::accepted(&accept.collect::<Vec<_>>().join(","));
            typed(StatusCode::OK, format.content_type(), admin.telemetry.encode(format))
        }
        "/config" if !inside && !admin.expose_config => text(StatusCode::FORBIDDEN, NOT_OUTSIDE),
        "/config" => {
            let config = serde_json::to_string_pretty(&admin.discovery.dump().await).unwrap_or_default();
            typed(StatusCode::OK, "application/json", (config + "\n").into_bytes())
        }
        "/identity" => {
            let report = serde_json::to_string_pretty(&admin.identity.report()).unwrap_or_default();
            typed(StatusCode::OK, "application/json", (report + "\n").into_bytes())
        }
        "/tls" => {
            let report =
                serde_json::to_string_pretty(&admin.tls.inbound().report(Instant::now())).unwrap_or_default();
            typed(StatusCode::OK, "application/json", (report + "\n").into_bytes())
        }
        path if path.starts_with("/probe/") => admin.probes.ask(request).await,
        _ => text(StatusCode::NOT_FOUND, "there are /ready, /live, /metrics, /config, /identity and /tls\n"),
    })
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body.into())
}

fn typed(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_itself_is_told_from_everybody_else() {
        let inside = |from: &str, to: &str| {
            is_inside(from.parse().expect("an address"), Some(to.parse().expect("an address")))
        };
        assert!(inside("127.0.0.1:40000", "127.0.0.1:15110"));
        assert!(inside("[::1]:40000", "[::1]:15110"));
        assert!(inside("[::ffff:127.0.0.1]:40000", "[::ffff:127.0.0.1]:15110"));
        assert!(inside("10.0.0.7:40000", "[::ffff:10.0.0.7]:15110"));
        assert!(!inside("10.0.0.8:40000", "10.0.0.7:15110"));
        assert!(!inside("[fd00::8]:40000", "[fd00::7]:15110"));
        assert!(!is_inside("10.0.0.8:40000".parse().expect("an address"), None));
    }
}
