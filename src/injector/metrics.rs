//! What the injector counts, and whether it is ready to be called.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// How a review ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ReviewResult {
    /// The pod got a sidecar.
    Injected,
    /// The pod has its sidecar already. The API server asks again when others changed the pod after us, as
    /// its own admission of service accounts does.
    Unchanged,
    /// The pod was let through as it was.
    Skipped,
    /// The pod was refused: what it asks for can't be done.
    Refused,
    /// The request was not a review of a pod.
    Malformed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReviewLabels {
    result: ReviewResult,
}

/// The injector's metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    reviews: Family<ReviewLabels, Counter>,
    duration: Histogram,
    certificate_expiry: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        // 50 µs to 0.1 s: the pure part takes tens of microseconds, and 5 ms is the goal.
        let buckets = [0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.1];
        Self {
            reviews: Family::default(),
            duration: Histogram::new(buckets),
            certificate_expiry: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Makes the metrics part of what the registry renders.
    pub fn register(&self, registry: &mut Registry) {
        let Self { reviews, duration, certificate_expiry } = self;
        registry.register("ferrule_injector_reviews", "Admission reviews by result", reviews.clone());
        registry.register(
            "ferrule_injector_review_duration_seconds",
            "Time from the whole request to the response",
            duration.clone(),
        );
        registry.register(
            "ferrule_injector_certificate_expiry_timestamp_seconds",
            "When the webhook's serving certificate ends, in seconds since 1970",
            certificate_expiry.clone(),
        );
    }

    /// How many reviews ended like this so far.
    #[must_use]
    pub fn reviews(&self, result: ReviewResult) -> u64 {
        self.reviews.get_or_create(&ReviewLabels { result }).get()
    }

    pub(super) fn observe(&self, result: ReviewResult, took: Duration) {
        self.reviews.get_or_create(&ReviewLabels { result }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub(super) fn set_certificate_expiry(&self, timestamp: i64) {
        self.certificate_expiry.set(timestamp);
    }
}

/// Whether the webhook has a certificate that the API server trusts; clones share the state.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// True between the first certificate and the request to stop.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }
}
