//! What the identity service counts.

use std::{
    sync::atomic::AtomicI64,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{
    certificate::seconds,
    refusal::Refusal,
    state::{PhaseName, State},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    certificate: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

/// The identity service's metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    issued: Counter,
    refused: Family<CauseLabels, Counter>,
    duration: Histogram,
    expiry: Family<CertificateLabels, Gauge<i64, AtomicI64>>,
    phase: Family<PhaseLabels, Gauge<i64, AtomicI64>>,
    waiting: Gauge<i64, AtomicI64>,
    problems: Family<CauseLabels, Counter>,
}

/// What went wrong besides a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The authority's Secret can't be used.
    Secret,
    /// The user's authority can't be used; the last good one stays.
    Authority,
    /// A trust bundle could not be written.
    Publish,
    /// Sidecars could not be listed.
    Census,
    /// A step of a rotation could not be taken.
    Rotation,
    /// The server's own certificate could not be made.
    Serving,
}

impl Problem {
    fn word(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Authority => "authority",
            Self::Publish => "publish",
            Self::Census => "census",
            Self::Rotation => "rotation",
            Self::Serving => "serving",
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            issued: Counter::default(),
            refused: Family::default(),
            // 1 ms to 5 s: two requests to the API server are most of it.
            duration: Histogram::new([0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0]),
            expiry: Family::default(),
            phase: Family::default(),
            waiting: Gauge::default(),
            problems: Family::default(),
        }
    }
}

impl Metrics {
    /// Makes the metrics part of what the registry renders.
    pub fn register(&self, registry: &mut Registry) {
        let Self { issued, refused, duration, expiry, phase, waiting, problems } = self.clone();
        let registry = registry.sub_registry_with_prefix("ferrule_identity");
        registry.register("certificates_issued", "Certificates that were issued to sidecars", issued);
        registry.register("certificates_refused", "Requests for a certificate refused, by cause", refused);
        let help = "Time from the head of a request for a certificate to its answer";
        registry.register_with_unit("request_duration", help, Unit::Seconds, duration);
        registry.register(
            "authority_expiry_timestamp_seconds",
            "When the root and the issuer end, in seconds since 1970",
            expiry,
        );
        registry.register("rotation_phase", "1 for the phase that the root's rotation is in, else 0", phase);
        let help = "Sidecars that the rotation waits for, as the leader last saw it";
        registry.register("rotation_waiting", help, waiting);
        registry.register("problems", "What went wrong besides requests, by cause", problems);
    }

    /// Certificates issued so far.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.issued.get()
    }

    /// Requests refused so far for a cause, as in [`Refusal::cause`].
    #[must_use]
    pub fn refused(&self, cause: &'static str) -> u64 {
        self.refused.get_or_create(&CauseLabels { cause }).get()
    }

    pub(super) fn answered<T>(&self, result: &Result<T, Refusal>, took: Duration) {
        match result {
            Ok(_) => self.issued.inc(),
            Err(refusal) => self.refused.get_or_create(&CauseLabels { cause: refusal.cause() }).inc(),
        };
        self.duration.observe(took.as_secs_f64());
    }

    pub(super) fn problem(&self, problem: Problem) {
        self.problems.get_or_create(&CauseLabels { cause: problem.word() }).inc();
    }

    pub(super) fn set_state(&self, state: &State) {
        let set = |certificate, time: SystemTime| {
            let time = i64::try_from(seconds(time)).unwrap_or(i64::MAX);
            self.expiry.get_or_create(&CertificateLabels { certificate }).set(time);
        };
        set("root", state.current.root_not_after());
        set("issuer", state.current.issuer().validity().not_after);
        for phase in PhaseName::ALL {
            let labels = PhaseLabels { phase: phase.word() };
            self.phase.get_or_create(&labels).set(i64::from(phase == state.phase.name()));
        }
    }

    pub(super) fn set_waiting(&self, count: usize) {
        self.waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
