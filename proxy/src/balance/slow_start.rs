//! Slow start: what share of its weight an endpoint has that came a while ago. Pure.
//!
//! The weight grows linearly with the endpoint's age, as Envoy's `slow_start_config` has it with aggression 1, and is
//! never under a tenth (Envoy's `min_weight_percent`): an endpoint without requests would never warm up.

use std::time::{Duration, Instant};

/// Least share of its weight that an endpoint starts with.
pub const LEAST: f64 = 0.1;

/// The share of its weight that an endpoint has at `now`: [`LEAST`] to 1. `since`: when it came; `None` if it was there
/// from the beginning.
#[must_use]
pub fn factor(since: Option<Instant>, window: Duration, now: Instant) -> f64 {
    let Some(since) = since else { return 1.0 };
    let age = now.saturating_duration_since(since);
    if age >= window {
        return 1.0;
    }
    (age.as_secs_f64() / window.as_secs_f64()).max(LEAST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    #[test]
    fn an_endpoint_that_was_always_there_has_its_full_weight() {
        let now = Instant::now();
        assert!(factor(None, WINDOW, now) >= 1.0);
        assert!(factor(Some(now), Duration::ZERO, now) >= 1.0);
    }

    #[test]
    fn half_the_window_is_half_the_weight() {
        let since = Instant::now();
        let half = factor(Some(since), WINDOW, since + WINDOW / 2);
        assert!((half - 0.5).abs() < 1e-9, "{half}");
    }

    proptest! {
        #[test]
        fn the_share_only_grows_and_stays_in_bounds(earlier in 0..20_000u64, more in 0..20_000u64) {
            let since = Instant::now();
            let at = |millis| factor(Some(since), WINDOW, since + Duration::from_millis(millis));
            prop_assert!(at(earlier) <= at(earlier + more));
            prop_assert!((LEAST..=1.0).contains(&at(earlier)));
        }
    }
}
