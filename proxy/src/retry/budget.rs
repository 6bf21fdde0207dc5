//! Bounds what retries add to the load.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use ferrule_config::RetryBudget;

/// Bounds the retries to a share of the requests: Finagle's and Linkerd's defaults, 20 % and ten a second, over
/// ten seconds. A token bucket in thousandths of a retry: each request puts in its share, each retry takes
/// one out, and what is unused runs off with the window.
#[derive(Debug)]
pub struct Budget {
    terms: Terms,
    state: Mutex<State>,
}

/// What a budget gives.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Terms {
    /// Thousandths of a retry that a request pays in.
    share: f64,
    /// Thousandths of a retry that there are each second in any case.
    minimum: f64,
    /// In seconds.
    window: f64,
}

#[derive(Debug)]
struct State {
    /// Thousandths of a retry that requests have paid in.
    paid: f64,
    /// Thousandths of the guaranteed minimum.
    reserve: f64,
    at: Instant,
}

const DEFAULT: Terms = Terms { share: 200.0, minimum: 10_000.0, window: 10.0 };

impl Terms {
    fn new(RetryBudget { share, min_per_second, window }: &RetryBudget) -> Self {
        Self {
            share: f64::from(*share) / 10.0,
            minimum: f64::from(*min_per_second) * 1000.0,
            window: window.get().max(Duration::from_secs(1)).as_secs_f64(),
        }
    }
}

impl Budget {
    /// A budget in which nothing has happened yet: its minimum for the window is there.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self::with_terms(DEFAULT, now)
    }

    /// The same with other terms.
    #[must_use]
    pub fn of(budget: &RetryBudget, now: Instant) -> Self {
        Self::with_terms(Terms::new(budget), now)
    }

    fn with_terms(terms: Terms, now: Instant) -> Self {
        let reserve = terms.minimum * terms.window;
        Self { terms, state: Mutex::new(State { paid: 0.0, reserve, at: now }) }
    }

    /// Whether it is one with these terms.
    #[must_use]
    pub fn is_of(&self, budget: &RetryBudget) -> bool {
        self.terms == Terms::new(budget)
    }

    /// Notes a first attempt.
    pub fn deposit(&self, now: Instant) {
        self.with(now, |state| state.paid += self.terms.share);
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
        let Terms { minimum, window, .. } = self.terms;
        state.paid *= (-elapsed / window).exp();
        state.reserve = (state.reserve + minimum * elapsed).min(minimum * window);
        state.at = state.at.max(now);
        act(&mut state)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    #[test]
    fn a_budget_of_its_own_gives_what_it_says() {
        let budget = RetryBudget {
            share: 5000,
            min_per_second: 0,
            window: ferrule_config::Duration::from_millis(10_000),
        };
        let now = Instant::now();
        let of = Budget::of(&budget, now);
        assert!(of.is_of(&budget) && !of.is_of(&RetryBudget { share: 1, ..budget }));
        for _ in 0..10 {
            of.deposit(now);
        }
        assert_eq!((0..100).filter(|_| of.withdraw(now)).count(), 5);
    }
}
