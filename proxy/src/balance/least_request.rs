//! Least request: an endpoint costs what it has under way.
//!
//! With two random choices this is Envoy's `least_request` and Finagle's `p2cLeastLoaded`: Mitzenmacher, "The Power of
//! Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001.

/// What one more request is expected to cost at an endpoint that has this many under way: lower is better. `scale` is
/// the mean weight of all endpoints over the endpoint's own, so that twice the weight has twice the requests under way
/// at the same cost.
#[must_use]
pub fn cost(pending: u32, scale: f64) -> f64 {
    f64::from(pending) * scale + 1.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn more_under_way_costs_more(pending in 0..1000u32, scale in 0.01..100.0f64) {
            prop_assert!(cost(pending, scale) < cost(pending + 1, scale));
        }

        #[test]
        fn twice_the_weight_bears_twice_as_much(pending in 0..1000u32) {
            prop_assert!((cost(2 * pending, 0.5) - cost(pending, 1.0)).abs() < 1e-9);
        }
    }
}
