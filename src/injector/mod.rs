//! The mutating admission webhook that puts a sidecar into pods.
//!
//! ```text
//!   API server ──HTTPS──▶ server ──bytes──▶ review ──pod──▶ inject (pure) ──▶ patch, or refusal
//!                            ▲                                 ▲
//!                       certificate ◀─ Secret              namespaces ◀─ watch (Pod Security labels)
//!                            └──────────▶ caBundle of the MutatingWebhookConfiguration
//! ```

pub mod annotations;
mod certificate;
mod containers;
mod edit;
mod inject;
mod metrics;
mod namespaces;
pub mod podsecurity;
mod probes;
mod quantity;
mod refusal;
mod review;
mod server;
mod settings;

use std::sync::Arc;

pub use crate::https::{CertificateError, Certificates};
pub use inject::{Context, Decision, Skip, inject};
pub use metrics::{Metrics, Readiness, ReviewResult};
pub use namespaces::Namespaces;
pub use quantity::{Quantity, QuantityError};
pub use refusal::Refusal;
pub use settings::{AccessLog, IdentitySettings, ProxySettings, Resources, Settings};
use thiserror::Error;
use tokio::{net::TcpListener, sync::watch};
use tracing::info;

use crate::https::{self, Bounds};

/// Why the injector ended before it was asked to.
#[derive(Debug, Error)]
pub enum Error {
    /// The port can't be had.
    #[error("cannot listen on port {port} for the webhook: {source}; is it taken by another process?")]
    Listen {
        /// The port of [`Settings::webhook_port`].
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// The cryptography library can't do what it is built for.
    #[error("cannot set TLS up for the webhook: {0}")]
    Tls(#[from] rustls::Error),
}

/// Serves the webhook until `shutdown` turns true, and keeps its certificate and the caBundle current.
///
/// # Errors
/// [`Error`]; trouble with the API server is no error but is logged and tried again.
pub async fn run(
    client: kube::Client,
    settings: Settings,
    shutdown: watch::Receiver<bool>,
) -> Result<(), Error> {
    let port = settings.webhook_port;
    let listener = https::listen(port).await.map_err(|source| Error::Listen { port, source })?;
    info!(port, name = settings.server_name(), "webhook listens");
    let certificates = Certificates::default();
    let namespaces = Namespaces::default();
    let readiness = settings.readiness.clone();
    let keeper = certificate::Keeper::new(client.clone(), settings.clone(), certificates.clone());
    let stop = shutdown.clone();
    let upkeep = async {
        tokio::select! {
            // Before the server stops, so that nobody new is sent here.
            () = https::stopped(stop) => readiness.set(false),
            _ = async { tokio::join!(keeper.run(), namespaces.clone().follow(client)) } => {}
        }
        Ok(())
    };
    let served = serve(listener, &certificates, settings, namespaces.clone(), shutdown);
    tokio::try_join!(served, upkeep).map(drop)
}

/// Serves the webhook on a listener with certificates that the caller keeps, until `shutdown` turns true.
///
/// # Errors
/// [`Error::Tls`].
pub async fn serve(
    listener: TcpListener,
    certificates: &Certificates,
    settings: Settings,
    namespaces: Namespaces,
    shutdown: watch::Receiver<bool>,
) -> Result<(), Error> {
    let app = Arc::new(server::App::new(settings, namespaces));
    let tls = certificates.server_config()?;
    https::serve("webhook", Bounds::default(), listener, tls, server::router(app), shutdown).await;
    Ok(())
}
