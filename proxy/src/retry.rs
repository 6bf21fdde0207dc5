//! Whether a failed attempt may be followed by another: pure.
//!
//! Safe by proof: what an endpoint has provably not processed is sent again; what it may have processed only if
//! the method is idempotent (RFC 9110 §9.2.2). A budget bounds what retries add to the load of a destination.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// Attempts for one request, the first included.
pub const MAX_ATTEMPTS: usize = 4;

/// Latency that a failed attempt counts as, so that the endpoint is avoided while others are there.
pub const PENALTY: Duration = Duration::from_secs(2);

/// How an attempt failed before any of its response was forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The endpoint never saw it: no connection, or the endpoint's own sidecar says so.
    NotProcessed,
    /// The connection broke before the response began.
    Reset,
    /// Time was up, or the response was malformed.
    Final,
}

/// What of a request decides whether it may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Its method is idempotent.
    pub idempotent: bool,
    /// All of it is still at hand.
    pub complete: bool,
}

/// Whether the request may be sent once more after `attempts` of them.
#[must_use]
pub fn may_retry(failure: Failure, replay: Replay, attempts: usize) -> bool {
    let safe = match failure {
        Failure::NotProcessed => true,
        Failure::Reset => replay.idempotent,
        Failure::Final => false,
    };
    safe && replay.complete && attempts < MAX_ATTEMPTS
}

/// Bounds the retries to a share of the requests: Finagle's and Linkerd's defaults, 20 % and ten a second, over
/// ten seconds. A token bucket in thousandths of a retry: each request puts in its share, each retry takes
/// one out, and what is unused runs off with the window.
#[derive(Debug)]
pub struct Budget {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Thousandths of a retry that requests have paid in.
    paid: f64,
    /// Thousandths of the guaranteed minimum.
    reserve: f64,
    at: Instant,
}

const SHARE: f64 = 200.0;
const MINIMUM_PER_SECOND: f64 = 10_000.0;
const WINDOW: Duration = Duration::from_secs(10);

impl Budget {
    /// A budget in which nothing has happened yet: its minimum for the window is there.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let reserve = MINIMUM_PER_SECOND * WINDOW.as_secs_f64();
        Self { state: Mutex::new(State { paid: 0.0, reserve, at: now }) }
    }

    /// Notes a first attempt.
    pub fn deposit(&self, now: Instant) {
        self.with(now, |state| state.paid += SHARE);
    }

    /// Takes one retry out, if there is one.
    #[must_use]
    pub fn withdraw(&self, now: Instant) -> bool {
        self.with(now, |state| {
            for pot in [&mut state.paid, &mut state.reserve] {
                if *pot >= 1000.0 {
                    *pot -= 1000.0;
                    return true;
                }
            }
            false
        })
    }

    fn with<T>(&self, now: Instant, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(state.at).as_secs_f64();
        let window = WINDOW.as_secs_f64();
        state.paid *= (-elapsed / window).exp();
        state.reserve = (state.reserve + MINIMUM_PER_SECOND * elapsed).min(MINIMUM_PER_SECOND * window);
        state.at = state.at.max(now);
        act(&mut state)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POST: Replay = Replay { idempotent: false, complete: true };
    const GET: Replay = Replay { idempotent: true, complete: true };

    #[test]
    fn what_was_not_processed_is_sent_again() {
        assert!(may_retry(Failure::NotProcessed, POST, 1));
        assert!(may_retry(Failure::NotProcessed, GET, 1));
    }

    #[test]
    fn what_may_have_been_processed_needs_an_idempotent_method() {
        assert!(!may_retry(Failure::Reset, POST, 1));
        assert!(may_retry(Failure::Reset, GET, 1));
    }

    #[test]
    fn what_is_no_longer_at_hand_is_not_sent_again() {
        assert!(!may_retry(Failure::NotProcessed, Replay { complete: false, ..GET }, 1));
    }

    #[test]
    fn attempts_come_to_an_end() {
        assert!(!may_retry(Failure::NotProcessed, GET, MAX_ATTEMPTS));
        assert!(!may_retry(Failure::Final, GET, 1));
    }

    proptest! {
        #[test]
        fn retries_never_exceed_the_budget(requests in 0..5_000u32, steps in 1..50u32) {
            let start = Instant::now();
            let budget = Budget::new(start);
            let mut retries = 0u32;
            for step in 0..steps {
                let now = start + Duration::from_millis(u64::from(step) * 100);
                for _ in 0..requests / steps {
                    budget.deposit(now);
                }
                while budget.withdraw(now) {
                    retries += 1;
                }
            }
            let seconds = f64::from(steps) * 0.1;
            prop_assert!(f64::from(retries) <= f64::from(requests) * 0.2 + 100.0 + 10.0 * seconds);
        }
    }

    #[test]
    fn an_idle_destination_may_retry_a_little() {
        let now = Instant::now();
        let budget = Budget::new(now);
        let retries = (0..1000).filter(|_| budget.withdraw(now)).count();
        assert_eq!(retries, 100);
    }
}
