//! The mutating admission webhook that puts a sidecar into pods.

pub mod annotations;
mod containers;
mod edit;
mod inject;
mod metrics;
pub mod podsecurity;
mod probes;
mod quantity;
mod refusal;
mod settings;

pub use inject::{Context, Decision, Skip, inject};
pub use metrics::{Metrics, Readiness, ReviewResult};
pub use quantity::{Quantity, QuantityError};
pub use refusal::Refusal;
pub use settings::{ProxySettings, Resources, Settings};

/// Why the injector ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port can't be had.
    #[error("cannot listen on port {port} for the webhook: {source}; is it taken by another process?")]
    Listen {
        /// The port of [`Settings::webhook_port`].
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Serves the webhook until `shutdown` turns true.
///
/// # Errors
/// [`Error`]; trouble with the API server is no error but is logged and tried again.
#[expect(clippy::unused_async, clippy::needless_pass_by_value, reason = "the signature comes first")]
pub async fn run(
    client: kube::Client,
    settings: Settings,
    shutdown: tokio::sync::watch::Receiver<bool>,
) -> Result<(), Error> {
    drop((client, settings, shutdown));
    Ok(())
}
