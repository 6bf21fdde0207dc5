//! The server's own certificate: signed by the mesh's authority, its key in the memory of this replica alone.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::KeyPair;
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use super::{
    Settings,
    certificate::Certificate,
    issue::{self, IssueError},
    keeper::Known,
    metrics::Problem,
    state::State,
};
use crate::https::{CertificateError, Certificates};

/// It is made anew at half of its life, and when another issuer signs.
const LIFE: Duration = Duration::from_secs(24 * 60 * 60);
const RETRY: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum ServingError {
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
}

/// Keeps it current for as long as it is polled.
pub(super) async fn keep(
    settings: &Settings,
    certificates: &Certificates,
    mut known: watch::Receiver<Known>,
) {
    let mut served: Option<(Certificate, SystemTime)> = None;
    loop {
        let state = known.borrow_and_update().view.as_ref().map(|view| Arc::clone(&view.state));
        let mut pause = LIFE / 2;
        if let Some(state) = state {
            let now = SystemTime::now();
            let due = served
                .as_ref()
                .is_none_or(|(issuer, until)| issuer != state.current.issuer() || now + LIFE / 2 >= *until);
            if due {
                match make(settings, certificates, &state, now) {
                    Ok(until) => served = Some((state.current.issuer().clone(), until)),
                    Err(error) => {
                        settings.metrics.problem(Problem::Serving);
                        warn!(%error, "identity service has no certificate of its own; will try again");
                        pause = RETRY;
                    }
                }
            }
            let left = served.as_ref().and_then(|(_, until)| until.duration_since(now).ok());
            pause = pause.min(left.unwrap_or(RETRY).mul_f64(0.5)).max(RETRY);
        }
        tokio::select! {
            changed = known.changed() => if changed.is_err() { return },
            () = sleep(pause) => {}
        }
    }
}

fn make(
    settings: &Settings,
    certificates: &Certificates,
    state: &State,
    now: SystemTime,
) -> Result<SystemTime, ServingError> {
    let key = KeyPair::generate()?;
    let leaf = issue::server(&state.current, &key, &settings.server_name(), LIFE, now)?;
    certificates.set(&leaf.chain, &key.serialize_pem())?;
    info!(name = settings.server_name(), "identity service has a new certificate of its own");
    Ok(leaf.not_after)
}
