//! What counts and delays are allowed to be.

use std::ops::RangeInclusive;

/// Standard deviations that a count may be off: by chance alone once in some 16,000 times.
const Z: f64 = 4.0;

/// Counts to expect of `n` requests that each hit with probability `share`.
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "counts of a test"
)]
pub fn binomial_range(n: u64, share: f64) -> RangeInclusive<u64> {
    let mean = n as f64 * share;
    let deviation = Z * (n as f64 * share * (1.0 - share)).sqrt();
    (mean - deviation).max(0.0).ceil() as u64..=(mean + deviation).min(n as f64).floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_narrow_with_the_share() {
        assert_eq!(binomial_range(2000, 0.1), 147..=253);
        assert_eq!(binomial_range(2000, 0.0), 0..=0);
        assert_eq!(binomial_range(2000, 1.0), 2000..=2000);
    }
}
