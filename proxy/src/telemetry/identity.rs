//! How it goes with the certificate.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    counters::Counters,
    exposition::Family,
    gather,
    value::{Counter, Gauge},
};

/// Metrics of the identity.
#[derive(Debug)]
pub struct IdentityMetrics {
    /// Seconds since 1970.
    expiry: Gauge,
    generation: Gauge,
    renewals: Counter,
    failures: Counters<1>,
}

impl IdentityMetrics {
    pub(super) fn new(capped: &Counter) -> Self {
        Self {
            expiry: Gauge::default(),
            generation: Gauge::default(),
            renewals: Counter::default(),
            failures: Counters::new(gather::RENEWAL_FAILURES, ["cause"], capped),
        }
    }

    /// Counts a certificate that was obtained.
    pub fn renewed(&self) {
        self.renewals.inc();
    }

    /// Certificates obtained so far.
    #[must_use]
    pub fn renewals(&self) -> u64 {
        self.renewals.get()
    }

    /// Counts an attempt that failed for one of a fixed set of causes.
    pub fn failed(&self, cause: &'static str) {
        self.failures.of([cause.into()]).inc();
    }

    /// When the certificate in force ends; nothing when there is none.
    pub fn set_expiry(&self, time: Option<SystemTime>) {
        let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        self.expiry.set(i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or(i64::MAX));
    }

    /// Which trust bundle is in force.
    pub fn set_generation(&self, generation: u64) {
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    /// What is told of it.
    pub(super) fn tell(&self) -> [Family; 4] {
        [
            Family::single(gather::CERTIFICATE_EXPIRY, self.expiry.get() as f64),
            Family::single(gather::TRUST_GENERATION, self.generation.get() as f64),
            Family::single(gather::RENEWALS, self.renewals.get() as f64),
            self.failures.tell(),
        ]
    }
}
