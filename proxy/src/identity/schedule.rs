//! When to ask for the next certificate. Pure: time and chance are passed in.

use std::time::Duration;

/// Wait after the first failure; doubles with each further one.
const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// Longest wait after a failure, unless the service asks for more.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// The longest that the service may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// When another root signs, all sidecars renew; within this time, so that they don't all do it at once.
const EARLY: Duration = Duration::from_secs(300);

/// How long to wait with the renewal of a certificate that was just issued with this rest of life. The service says
/// when, within reason: neither at once for ever, nor so late that a failure could not be made good.
pub(super) fn renewal(asked: Duration, rest: Duration) -> Duration {
    asked.clamp(rest / 4, rest * 3 / 4)
}

/// How long to wait after this many failures in a row, with this rest of life in the certificate in force, if any.
pub(super) fn retry(failures: u32, asked: Option<Duration>, rest: Option<Duration>, chance: f64) -> Duration {
    let full = BACKOFF_BASE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(BACKOFF_MAX);
    let spread = full.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
    // Near the end there is no time to be lost.
    let most = rest.map_or(BACKOFF_MAX, |rest| (rest / 4).max(BACKOFF_BASE));
    spread.min(most).max(asked.unwrap_or_default().min(RETRY_AFTER_MAX))
}

/// How long to wait when another root has begun to sign.
pub(super) fn early(rest: Duration, chance: f64) -> Duration {
    EARLY.min(rest / 4).mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_renewal_is_when_the_service_says_within_reason() {
        assert_eq!(renewal(secs(40), secs(100)), secs(40));
        assert_eq!(renewal(secs(0), secs(100)), secs(25));
        assert_eq!(renewal(secs(1000), secs(100)), secs(75));
    }

    #[test]
    fn failures_wait_longer_each_time_up_to_a_minute() {
        let waits: Vec<_> = (1..9).map(|failures| retry(failures, None, None, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(retry(7, None, None, 0.0), secs(30));
    }

    #[test]
    fn near_the_end_there_is_no_time_to_be_lost() {
        assert_eq!(retry(20, None, Some(secs(40)), 1.0), secs(10));
        assert_eq!(retry(20, None, Some(secs(1)), 1.0), secs(1));
    }

    #[test]
    fn the_service_may_ask_for_more_but_not_for_ever() {
        assert_eq!(retry(1, Some(secs(20)), None, 1.0), secs(20));
        assert_eq!(retry(1, Some(secs(86_400)), None, 1.0), RETRY_AFTER_MAX);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_it_may_be(failures in any::<u32>(), rest in 0u64..1_000_000, chance in 0.0..1.0f64) {
            prop_assert!(retry(failures, None, Some(secs(rest)), chance) <= BACKOFF_MAX);
            prop_assert!(retry(failures, None, None, chance) >= BACKOFF_BASE / 2);
            prop_assert!(early(secs(rest), chance) <= secs(rest) / 4);
        }
    }
}
