//! The operator's plain HTTP server: `/ready`, `/live` and `/metrics`.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{net::TcpListener, sync::watch};

/// Media type of what `/metrics` answers.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the server tells.
pub struct Admin {
    /// All metrics of the process.
    pub registry: Registry,
    /// What is missing for this replica to be ready; nothing when it is.
    pub unready: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Whether the process does its work.
    pub alive: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Why the server can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address can't be listened on.
    #[error("cannot listen on {address} for /ready, /live and /metrics: {source}; is the port taken?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ended by itself.
    #[error("the admin server ended: {0}")]
    Serve(#[from] std::io::Error),
}

/// Listens on all addresses of the host, IPv6 and IPv4 if it has both; port 0 takes a free one.
///
/// # Errors
/// [`Error::Listen`].
pub async fn listen(port: u16) -> Result<TcpListener, Error> {
    let [both, v4] = [SocketAddr::from(([0u16; 8], port)), SocketAddr::from(([0u8; 4], port))];
    match TcpListener::bind(both).await {
        Ok(listener) => Ok(listener),
        // A host without IPv6.
        Err(_) => TcpListener::bind(v4).await.map_err(|source| Error::Listen { address: v4, source }),
    }
}

/// Serves until `shutdown` turns true.
///
/// # Errors
/// [`Error::Serve`].
pub async fn serve(
    listener: TcpListener,
    admin: Admin,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), Error> {
    let router = Router::new()
        .route("/ready", get(ready))
        .route("/live", get(live))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(admin));
    let stop = async move {
        // An error means that nobody is left to say so, which is a stop too.
        let _ = shutdown.wait_for(|stop| *stop).await;
    };
    Ok(axum::serve(listener, router).with_graceful_shutdown(stop).await?)
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    let missing = (admin.unready)();
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready, waiting for: {}\n", missing.join(", ")))
        .into_response()
}

async fn live(State(admin): State<Arc<Admin>>) -> Response {
    if (admin.alive)() {
        return "alive\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "the controller's loop does not go round\n").into_response()
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &admin.registry) {
        Ok(()) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
