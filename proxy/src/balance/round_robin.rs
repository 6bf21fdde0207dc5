//! Smooth weighted round robin: one after another, and an endpoint of more weight more often, spread over the cycle
//! instead of in a row.
//!
//! The order is that of nginx (`ngx_http_upstream_round_robin.c`, commit 52327e0627f4): in each step every endpoint's
//! current weight grows by its weight; the greatest is picked and loses the sum of all. nginx steps under a lock with
//! every request. Here one whole cycle is stepped through when the snapshot is built, and a request takes the next
//! place of it with one atomic addition.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Longest cycle. Weights whose cycle would be longer are rounded to fit, each to at least 1; a cycle is never shorter
/// than the number of endpoints.
pub const MAX_CYCLE: usize = 4096;

/// One cycle, and where in it we are.
#[derive(Debug)]
pub struct Cycle {
    /// Indices in the order in which they are picked. Empty: all weights are equal and the order is 0, 1, 2….
    order: Box<[u32]>,
    count: usize,
    position: AtomicUsize,
}

impl Cycle {
    /// The cycle for these weights, each at least 1, begun at `start`: a random one, lest all proxies go in step.
    #[must_use]
    pub fn new(weights: &[u32], start: usize) -> Self {
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let order = if equal { Box::default() } else { order(&fitting(weights)) };
        Self { order, count: weights.len(), position: AtomicUsize::new(start) }
    }

    /// Picks of one cycle.
    #[must_use]
    pub fn length(&self) -> usize {
        if self.order.is_empty() { self.count } else { self.order.len() }
    }

    /// The next index; the list must not be empty.
    pub fn next(&self) -> usize {
        let position = self.position.fetch_add(1, Relaxed);
        match self.order.len() {
            0 => position % self.count,
            length => self.order[position % length] as usize,
        }
    }
}

/// The weights divided by their greatest common divisor, and made smaller when their sum is over [`MAX_CYCLE`].
fn fitting(weights: &[u32]) -> Vec<i64> {
    let divisor = weights.iter().fold(0, |divisor, &weight| gcd(divisor, u64::from(weight))).max(1);
    let sum = weights.iter().map(|&weight| u64::from(weight)).sum::<u64>() / divisor;
    let most = (MAX_CYCLE as u64).max(weights.len() as u64);
    let fit = |weight: u64| if sum <= most { weight } else { (weight * most / sum).max(1) };
    weights.iter().map(|&weight| i64::try_from(fit(u64::from(weight) / divisor)).unwrap_or(1)).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn order(weights: &[i64]) -> Box<[u32]> {
    let total: i64 = weights.iter().sum();
    let mut current = vec![0; weights.len()];
    let step = |_| {
        let mut best = 0;
        for (index, weight) in weights.iter().enumerate() {
            current[index] += weight;
            if current[index] > current[best] {
                best = index;
            }
        }
        current[best] -= total;
        u32::try_from(best).unwrap_or_default()
    };
    (0..total).map(step).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_order_is_nginx_s() {
        let cycle = Cycle::new(&[5, 1, 1], 0);
        let picks: Vec<_> = (0..7).map(|_| cycle.next()).collect();
        assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn equal_weights_go_one_after_another() {
        let cycle = Cycle::new(&[7, 7, 7], 1);
        let picks: Vec<_> = (0..6).map(|_| cycle.next()).collect();
        assert_eq!(picks, [1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_cycle_is_bounded_and_leaves_nobody_out() {
        let weights: Vec<u32> =
            (0..2000).map(|index| if index == 0 { 1 } else { 1000 - index % 3 }).collect();
        let cycle = Cycle::new(&weights, 0);
        assert!(cycle.length() <= MAX_CYCLE + weights.len(), "{}", cycle.length());
        let mut seen = vec![false; weights.len()];
        for _ in 0..cycle.length() {
            seen[cycle.next()] = true;
        }
        assert!(seen.into_iter().all(|seen| seen));
    }

    proptest! {
        #[test]
        fn each_gets_exactly_its_weight_in_a_cycle(weights in prop::collection::vec(1..40u32, 1..8), start: usize) {
            let cycle = Cycle::new(&weights, start);
            let mut counts = vec![0u32; weights.len()];
            for _ in 0..cycle.length() {
                counts[cycle.next()] += 1;
            }
            let (first, total) = (counts[0], counts.iter().sum::<u32>());
            let sum: u32 = weights.iter().sum();
            prop_assert!(first > 0);
            for (count, weight) in counts.iter().zip(&weights) {
                prop_assert_eq!(count * sum, weight * total);
            }
        }

        /// No endpoint is ever further from its share than one turn.
        #[test]
        fn turns_are_spread_over_the_cycle(weights in prop::collection::vec(1..40u32, 2..8)) {
            let cycle = Cycle::new(&weights, 0);
            let sum = f64::from(weights.iter().sum::<u32>());
            let mut counts = vec![0.0; weights.len()];
            for step in 1..=cycle.length() {
                counts[cycle.next()] += 1.0;
                for (count, &weight) in counts.iter().zip(&weights) {
                    let due = step as f64 * f64::from(weight) / sum;
                    prop_assert!((count - due).abs() <= weights.len() as f64, "{} of {}", count, due);
                }
            }
        }
    }
}
