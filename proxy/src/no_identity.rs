//! A build without TLS has no identity: [`crate::identity`] with nothing behind it.

#[path = "identity/settings.rs"]
mod settings;

use std::sync::Arc;

use ferrule_config::identity::Report;

pub use settings::{Service, Settings};

use crate::telemetry::Telemetry;

/// None, ever.
#[derive(Clone, Debug)]
pub struct Identity(());

impl Identity {
    /// None, and there never is one.
    #[must_use]
    pub fn start(settings: Option<&Settings>, _: Arc<Telemetry>) -> Self {
        if settings.is_some() {
            tracing::warn!("FERRULE_IDENTITY is set, but this build of the proxy has no TLS");
        }
        Self(())
    }

    /// What can be told of it.
    #[must_use]
    pub fn report(&self) -> Report {
        let Self(()) = self;
        Report { last_failure: Some("this build of the proxy has no TLS".to_owned()), ..Report::default() }
    }
}
