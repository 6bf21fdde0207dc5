//! The admin port: `/ready`, `/live`, `/metrics`, `/config`, `/identity`, `/tls`, and the probes that the injector sends here.
//!
//! It only tells, it changes nothing, and it tells no secret.

use std::{
    convert::Infallible,
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
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin port");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&admin), request));
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

async fn answer(admin: Arc<Admin>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
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
