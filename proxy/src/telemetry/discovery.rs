//! What discovery holds, and whether that was right.

use super::{
    counters::Counters,
    exposition::Family,
    gather,
    value::{Counter, Gauge},
};

/// Metrics of discovery.
#[derive(Debug)]
pub struct DiscoveryMetrics {
    /// Destinations that are held: ports of Services.
    pub destinations: Gauge,
    /// Addresses that are known to be no Service's.
    pub outside: Gauge,
    /// Lists that were compared with what is held.
    pub checks: Counter,
    mended: Counters<1>,
}

impl DiscoveryMetrics {
    pub(super) fn new(capped: &Counter) -> Self {
        Self {
            destinations: Gauge::default(),
            outside: Gauge::default(),
            checks: Counter::default(),
            mended: Counters::new(gather::MENDED, ["kind"], capped),
        }
    }

    /// Counts objects of a kind that a watch had missed.
    pub fn mended(&self, kind: &'static str, count: usize) {
        self.mended.of([kind.into()]).inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// What is told of it.
    pub(super) fn tell(&self) -> [Family; 4] {
        [
            Family::single(gather::DESTINATIONS, self.destinations.get() as f64),
            Family::single(gather::OUTSIDE, self.outside.get() as f64),
            Family::single(gather::CHECKS, self.checks.get() as f64),
            self.mended.tell(),
        ]
    }
}
