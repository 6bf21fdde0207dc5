//! Identities of workloads: an authority, and certificates for those who can prove who they are.
//!
//! ```text
//!   sidecar ──token, CSR──▶ service ──▶ review (API server) ──▶ issue ──▶ certificate, trust bundle
//!                                                                ▲
//!   Secret ferrule-identity-ca ◀──compare and swap── keeper ── State ──▶ publish ──▶ ConfigMap ferrule-trust
//!   Secret of the user ─────────watch──────────────────┘         ▲
//!   sidecars ──which bundle, which root?──▶ census ──▶ rotation (pure) ◀── lead
//! ```
//!
//! All replicas issue; the one that leads publishes and rotates.

mod authority;
mod census;
mod certificate;
mod csr;
mod issue;
mod keeper;
mod lead;
mod life;
mod limit;
mod metrics;
mod publish;
mod refusal;
mod review;
pub mod rotation;
mod service;
mod serving;
mod settings;
mod state;
mod status;
mod supplied;

use std::{sync::Arc, time::Duration};

use kube::Client;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
};
use tracing::info;

use crate::{
    controller::Lead,
    https::{self, Bounds, Certificates},
};

pub use authority::{Authority, AuthorityError};
pub use certificate::{Certificate, CertificateError, Validity};
pub use csr::{Csr, CsrError, MAX_BYTES};
pub use issue::IssueError;
pub use keeper::{FORCE, ROTATE, SECRET};
pub use life::{Life, LifeError};
pub use metrics::Metrics;
pub use publish::STATUS_KEY;
pub use refusal::Refusal;
pub use settings::Settings;
pub use state::{Phase, PhaseName, State, StateError};
pub use status::Status;

/// A connection serves one request of a sidecar; none needs longer, and no pod needs many.
const BOUNDS: Bounds = Bounds { longest: Some(Duration::from_secs(30)), of_one_peer: 16 };

/// Why the identity service ended before it was asked to.
#[derive(Debug, Error)]
pub enum Error {
    /// The port can't be had.
    #[error(
        "cannot listen on port {port} for the identity service: {source}; is it taken by another process?"
    )]
    Listen {
        /// The port of [`Settings::port`].
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// The cryptography library can't do what it is built for.
    #[error("cannot set TLS up for the identity service: {0}")]
    Tls(#[from] rustls::Error),
}

/// Serves certificates, and while it leads publishes and rotates, until `shutdown` turns true.
///
/// # Errors
/// [`Error`]; trouble with the API server is no error but is logged, counted and tried again.
pub async fn run(
    client: Client,
    settings: Settings,
    lead: Lead,
    shutdown: watch::Receiver<bool>,
) -> Result<(), Error> {
    let port = settings.port;
    let listener = https::listen(port).await.map_err(|source| Error::Listen { port, source })?;
    serve(listener, client, settings, lead, shutdown).await
}

/// The same on a listener of the caller's.
///
/// # Errors
/// [`Error::Tls`].
pub async fn serve(
    listener: TcpListener,
    client: Client,
    settings: Settings,
    lead: Lead,
    shutdown: watch::Receiver<bool>,
) -> Result<(), Error> {
    let keeper = Arc::new(keeper::Keeper::new(client.clone(), settings.clone()));
    let certificates = Certificates::default();
    let reviewer = review::Reviewer::new(client.clone());
    let app = Arc::new(service::App::new(Arc::clone(&keeper), reviewer, settings.clone()));
    info!(
        name = settings.server_name(),
        trust_domain = %settings.trust_domain,
        life = %settings.life,
        "identity service listens"
    );

    let (publisher, watches) = publish::Publisher::new(client.clone(), settings.clone());
    let publisher = Arc::new(publisher);
    let (status, told) = watch::channel(None);
    let leader =
        lead::Leader::new(client, settings.clone(), Arc::clone(&keeper), Arc::clone(&publisher), status);
    let (ended, end) = oneshot::channel();
    let server = async {
        let tls = certificates.server_config()?;
        let router = service::router(app);
        https::serve("identity", BOUNDS, listener, tls, router, shutdown).await;
        // An error means that nobody waits any more.
        let _ = ended.send(());
        Ok(())
    };
    let upkeep = async {
        tokio::select! {
            _ = end => {}
            _ = async { tokio::join!(
                keeper.run(),
                serving::keep(&settings, &certificates, keeper.known()),
                watches.run(),
                publisher.run(keeper.known(), told, lead.tenure()),
                leader.run(lead.tenure()),
            ) } => {}
        }
        Ok(())
    };
    tokio::try_join!(server, upkeep).map(drop)
}
