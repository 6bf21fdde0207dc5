//! Peak EWMA: an endpoint's recent latency, quick to rise and slow to fall, times what it has to do.
//!
//! From Finagle (`PeakEwma` in `com.twitter.finagle.loadbalancer`), with Linkerd's defaults. A latency above
//! the average replaces it at once; one below it is mixed in with a weight that grows with the time since
//! the last. An idle average decays as if nothing had been slow, so a punished endpoint gets another chance.
//!
//! Cost is read and written without a lock by all threads. Two writers at once may lose one of the two
//! observations, which changes an estimate by one sample; torn values cannot occur.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Assumed latency of an endpoint that was never used (Linkerd's default).
pub const DEFAULT_LATENCY: Duration = Duration::from_millis(30);
/// Time in which an old observation loses about two thirds of its weight (Finagle's and Linkerd's default).
pub const DECAY: Duration = Duration::from_secs(10);

/// All stamps count from here.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Latency and load of one endpoint.
#[derive(Debug)]
pub struct PeakEwma {
    /// Seconds, as the bits of an `f64`.
    average: AtomicU64,
    /// Nanoseconds since [`START`] of the last observation.
    stamp: AtomicU64,
    /// Requests, or connections that carry no requests, that are under way.
    pending: AtomicU32,
}

impl PeakEwma {
    pub(super) fn new() -> Self {
        Self {
            average: AtomicU64::new(DEFAULT_LATENCY.as_secs_f64().to_bits()),
            stamp: AtomicU64::new(nanos(Instant::now())),
            pending: AtomicU32::new(0),
        }
    }

    /// Takes in that a request took this long.
    pub fn observe(&self, latency: Duration, now: Instant) {
        let latency = latency.as_secs_f64();
        let average = f64::from_bits(self.average.load(Relaxed));
        let next = if latency > average {
            latency
        } else {
            let keep = self.keep(now);
            average * keep + latency * (1.0 - keep)
        };
        self.average.store(next.to_bits(), Relaxed);
        self.stamp.store(nanos(now), Relaxed);
    }

    /// What one more request is expected to cost here: lower is better.
    #[must_use]
    pub fn cost(&self, now: Instant) -> f64 {
        self.scaled_cost(1.0, now)
    }

    /// The cost at an endpoint of another weight: `scale` is the mean weight of all endpoints over its own, so that
    /// twice the weight has twice the requests under way at the same cost.
    #[must_use]
    pub fn scaled_cost(&self, scale: f64, now: Instant) -> f64 {
        let average = f64::from_bits(self.average.load(Relaxed)) * self.keep(now);
        average * (f64::from(self.pending.load(Relaxed)) * scale + 1.0)
    }

    /// Requests under way.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.pending.load(Relaxed)
    }

    /// Weight that the past still has, from 1 (just now) to 0.
    fn keep(&self, now: Instant) -> f64 {
        let elapsed = nanos(now).saturating_sub(self.stamp.load(Relaxed));
        (-(Duration::from_nanos(elapsed).as_secs_f64()) / DECAY.as_secs_f64()).exp()
    }
}

fn nanos(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(*START).as_nanos()).unwrap_or(u64::MAX)
}

/// A request under way at an endpoint: counted until it is dropped.
#[derive(Debug)]
pub struct Load(Arc<super::Endpoint>);

impl Load {
    /// Counts one more request at this endpoint.
    #[must_use]
    pub fn begin(endpoint: &Arc<super::Endpoint>) -> Self {
        endpoint.load.pending.fetch_add(1, Relaxed);
        Self(Arc::clone(endpoint))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.load.pending.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Endpoint;

    fn endpoint() -> Arc<Endpoint> {
        Arc::new(Endpoint::new(([10, 0, 0, 1], 80).into()))
    }

    fn seconds(cost: f64, expected: f64) -> bool {
        (cost - expected).abs() < expected * 0.01
    }

    #[test]
    fn a_peak_counts_at_once() {
        let (endpoint, now) = (endpoint(), Instant::now());
        endpoint.load.observe(Duration::from_secs(2), now);
        assert!(seconds(endpoint.load.cost(now), 2.0));
    }

    #[test]
    fn a_peak_is_forgotten_with_time() {
        let (endpoint, now) = (endpoint(), Instant::now());
        endpoint.load.observe(Duration::from_secs(2), now);
        assert!(seconds(endpoint.load.cost(now + DECAY), 2.0 / std::f64::consts::E));
    }

    #[test]
    fn a_low_latency_pulls_down_slowly() {
        let (endpoint, now) = (endpoint(), Instant::now());
        endpoint.load.observe(Duration::from_secs(1), now);
        endpoint.load.observe(Duration::from_millis(1), now + Duration::from_millis(10));
        assert!(endpoint.load.cost(now + Duration::from_millis(10)) > 0.99);
    }

    #[test]
    fn each_request_under_way_adds_to_the_cost() {
        let (endpoint, now) = (endpoint(), Instant::now());
        endpoint.load.observe(Duration::from_secs(1), now);
        let first = Load::begin(&endpoint);
        let second = Load::begin(&endpoint);
        assert!(seconds(endpoint.load.cost(now), 3.0));
        drop((first, second));
        assert!(seconds(endpoint.load.cost(now), 1.0));
    }
}
