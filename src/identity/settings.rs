//! What the identity service must know; the command line fills it in.

use std::time::Duration;

use ferrule_config::{identity::TrustDomain, names};

use super::{Metrics, life::Life, rotation::GRACE};

/// Everything that [`super::run`] needs besides a client and the lead.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the operator; its Secret holds the authority.
    pub namespace: String,
    /// Name of this replica, for Events.
    pub replica: String,
    /// Service in [`Self::namespace`] that leads to the identity service; it gives the server's certificate its name.
    pub service: String,
    /// TCP port of the service on all addresses of the host; 0 picks a free one.
    pub port: u16,
    /// The name under which all identities stand.
    pub trust_domain: TrustDomain,
    /// How long certificates live.
    pub life: Life,
    /// Secret in [`Self::namespace`] with the user's authority; without one the operator makes its own.
    pub authority_secret: Option<String>,
    /// After this time a rotation that waits for sidecars says so in an Event.
    pub rotation_patience: Duration,
    /// How long after a step of a rotation sidecars are asked about it; see [`GRACE`]. Nothing but a test has a reason
    /// for another.
    pub grace: Duration,
    /// Whether a token counts only when it comes from an address of its pod.
    pub check_address: bool,
    /// Port on which sidecars tell of their identity.
    pub admin_port: u16,
    /// Counters that the caller has registered. A clone shares them.
    pub metrics: Metrics,
}

impl Settings {
    /// Settings with every name and default of the chart.
    #[must_use]
    pub fn new(replica: impl Into<String>) -> Self {
        Self {
            namespace: names::SYSTEM_NAMESPACE.to_owned(),
            replica: replica.into(),
            service: names::IDENTITY_SERVICE.to_owned(),
            port: names::ports::IDENTITY,
            trust_domain: TrustDomain::default(),
            life: Life::default(),
            authority_secret: None,
            rotation_patience: Duration::from_secs(15 * 60),
            grace: GRACE,
            check_address: true,
            admin_port: names::ports::ADMIN,
            metrics: Metrics::default(),
        }
    }

    /// Name by which sidecars call the service.
    #[must_use]
    pub fn server_name(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }
}
