//! What discovery holds, and whether that was right.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
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
    mended: Family<KindLabels, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

impl DiscoveryMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let destinations = Gauge::default();
        registry.register("destinations", "Ports of Services that are held", destinations.clone());
        let outside = Gauge::default();
        registry.register("outside_addresses", "Addresses known to be no Service's", outside.clone());
        let checks = Counter::default();
        registry.register("discovery_checks", "Lists compared with what is held", checks.clone());
        let mended = Family::default();
        registry.register(
            "discovery_mended",
            "Objects that a watch had missed and a check brought up to date",
            mended.clone(),
        );
        Self { destinations, outside, checks, mended }
    }

    /// Counts objects of a kind that a watch had missed.
    pub fn mended(&self, kind: &'static str, count: usize) {
        self.mended.get_or_create(&KindLabels { kind }).inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }
}
