//! Counts of a split, and what chance allows.

/// How many standard deviations the accepted range reaches to either side: of a million honest runs, some 60
/// lie outside of it.
const DEVIATIONS: f64 = 4.0;

/// Answers of the two versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// From `backend-v1`.
    pub v1: u64,
    /// From `backend-v2`.
    pub v2: u64,
}

impl Counts {
    /// All answers.
    #[must_use]
    pub fn total(self) -> u64 {
        self.v1 + self.v2
    }

    /// Share of `backend-v2`, from 0 to 1; 0 when there is no answer.
    #[must_use]
    pub fn share(self) -> f64 {
        self.v2 as f64 / (self.total().max(1)) as f64
    }

    /// Between which shares of `backend-v2` the true one lies: Wilson's score interval (E. B. Wilson 1927),
    /// which is sound for shares near 0 and few answers as well.
    #[must_use]
    pub fn range(self) -> (f64, f64) {
        let total = self.total();
        if total == 0 {
            return (0.0, 1.0);
        }
        let (n, z) = (total as f64, DEVIATIONS * DEVIATIONS);
        let share = self.share();
        let middle = (share + z / (2.0 * n)) / (1.0 + z / n);
        let reach = DEVIATIONS * (share * (1.0 - share) / n + z / (4.0 * n * n)).sqrt() / (1.0 + z / n);
        ((middle - reach).max(0.0), (middle + reach).min(1.0))
    }

    /// Whether chance explains the difference to this share of `backend-v2`.
    #[must_use]
    pub fn agrees_with(self, share: f64) -> bool {
        let (low, high) = self.range();
        self.total() > 0 && (low..=high).contains(&share)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_chance_allows_is_accepted_and_what_it_does_not_is_refused() {
        assert!(Counts { v1: 4500, v2: 500 }.agrees_with(0.1));
        assert!(Counts { v1: 4450, v2: 550 }.agrees_with(0.1));
        assert!(!Counts { v1: 4300, v2: 700 }.agrees_with(0.1));
        assert!(!Counts { v1: 2700, v2: 2300 }.agrees_with(0.5));
        assert!(!Counts { v1: 5000, v2: 0 }.agrees_with(0.1));
    }

    #[test]
    fn no_answer_proves_nothing() {
        assert!(!Counts::default().agrees_with(0.5));
    }

    proptest! {
        #[test]
        fn the_range_holds_the_observed_share_and_stays_within_0_and_1(v1 in 0..100_000u64, v2 in 0..100_000u64) {
            let counts = Counts { v1, v2 };
            let (low, high) = counts.range();
            prop_assert!(0.0 <= low && low <= counts.share() + 1e-9 && counts.share() <= high + 1e-9 && high <= 1.0);
        }
    }
}
