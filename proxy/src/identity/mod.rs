//! Who this sidecar is: a key in memory, a certificate for it from the identity service, and the roots that others'
//! certificates are verified against.
//!
//! ```text
//!   token, trust bundle ─mount─▶ renew ──CSR──▶ identity service ──certificate, bundle──▶ current, bundle ──▶ data path
//! ```
//!
//! Nothing waits for it: traffic goes on without an identity until there is one. Without `FERRULE_IDENTITY` there never
//! is.

mod bundle;
mod client;
mod current;
mod files;
mod renew;
mod request;
mod schedule;
mod settings;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use ferrule_config::identity::Report;
use tokio::sync::watch;

pub use bundle::{Bundle, BundleError};
pub use current::{CertificateError, Current};
pub use request::RequestError;
pub use settings::{Service, Settings};

use crate::telemetry::{IdentityMetrics, Telemetry};

/// The identity in force, and the trust bundle; clones share them.
#[derive(Clone, Debug)]
pub struct Identity(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    current: ArcSwapOption<Current>,
    bundle: ArcSwapOption<Bundle>,
    last_failure: Mutex<Option<String>>,
    changes: watch::Sender<u64>,
    telemetry: Arc<Telemetry>,
}

impl Identity {
    /// None, and there never is one.
    #[must_use]
    pub fn none(telemetry: Arc<Telemetry>) -> Self {
        Self(Arc::new(Shared {
            current: ArcSwapOption::empty(),
            bundle: ArcSwapOption::empty(),
            last_failure: Mutex::default(),
            changes: watch::channel(0).0,
            telemetry,
        }))
    }

    /// Begins to get one, on the current runtime, and keeps it current. Returns at once.
    #[must_use]
    pub fn start(settings: Option<&Settings>, telemetry: Arc<Telemetry>) -> Self {
        let identity = Self::none(telemetry);
        if let Some(settings) = settings {
            tokio::spawn(renew::run(settings.clone(), identity.clone()));
        }
        identity
    }

    /// The identity in force: a certificate that is valid by this node's clock, but for the moment of its end.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Current>> {
        self.0.current.load_full()
    }

    /// The trust bundle in force.
    #[must_use]
    pub fn bundle(&self) -> Option<Arc<Bundle>> {
        self.0.bundle.load_full()
    }

    /// Changes its value whenever identity or bundle do; for whoever builds something of them.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// What can be told of it.
    #[must_use]
    pub fn report(&self) -> Report {
        let (current, bundle) = (self.current(), self.bundle());
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Report {
            id: current.as_ref().map(|current| current.id.to_string()),
            not_after: current.as_ref().map(|current| seconds(current.not_after)),
            chain: current.as_ref().map(|current| current.chain.clone()),
            root: current.as_ref().map(|current| current.root.clone()),
            bundle: bundle.map(|bundle| bundle.report().clone()),
            last_failure: self.0.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Puts a bundle in force, unless a later one is.
    fn trust(&self, bundle: Bundle) -> bool {
        let later = self.bundle().is_none_or(|held| bundle.generation() > held.generation());
        if later {
            self.metrics().set_generation(bundle.generation());
            self.0.bundle.store(Some(Arc::new(bundle)));
            self.changed();
        }
        later
    }

    fn set(&self, current: Option<Current>) {
        self.metrics().set_expiry(current.as_ref().map(|current| current.not_after));
        self.0.current.store(current.map(Arc::new));
        self.changed();
    }

    fn metrics(&self) -> &IdentityMetrics {
        &self.0.telemetry.identity
    }

    fn set_failure(&self, failure: Option<String>) {
        *self.0.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    fn changed(&self) {
        self.0.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}
