//! Which endpoint gets the next request: pure decisions over counters that the data path keeps.
//!
//! ```text
//!   Balancer (tiers, panic, sessions) ─▶ group (an algorithm over equally good endpoints, weights, slow start)
//!       ▲ members, zones                    └─▶ peak_ewma  least_request  round_robin  random  ring_hash  maglev
//! ```

mod balancer;
mod endpoint;
mod group;
pub mod hash;
pub mod key;
pub mod least_request;
pub mod maglev;
mod member;
mod peak_ewma;
pub mod random;
pub mod ring_hash;
pub mod round_robin;
pub mod session;
pub mod slow_start;
pub mod zones;

pub use balancer::{Balancer, Pick};
pub use endpoint::Endpoint;
pub use member::{Hints, Locality, Member, State};
pub use peak_ewma::{Load, PeakEwma};

use std::{net::SocketAddr, sync::Arc, time::Instant};

/// Picks by the power of two choices: of two random endpoints the one with the lower cost (Mitzenmacher,
/// "The Power of Two Choices in Randomized Load Balancing", 2001).
///
/// Endpoints in `tried` are taken only when there is no other. `random(n)` gives a uniform number in `0..n`.
#[must_use]
pub fn pick<'a>(
    endpoints: &'a [Arc<Endpoint>],
    tried: &[SocketAddr],
    now: Instant,
    mut random: impl FnMut(usize) -> usize,
) -> Option<&'a Arc<Endpoint>> {
    match endpoints {
        [] => None,
        [only] => Some(only),
        _ if tried.is_empty() => Some(better_of_two(endpoints.len(), |index| &endpoints[index], now, random)),
        _ => {
            let fresh: Vec<_> =
                endpoints.iter().filter(|endpoint| !tried.contains(&endpoint.address)).collect();
            match fresh.as_slice() {
                [] => Some(&endpoints[random(endpoints.len())]),
                [only] => Some(only),
                _ => Some(better_of_two(fresh.len(), |index| fresh[index], now, random)),
            }
        }
    }
}

fn better_of_two<'a>(
    count: usize,
    at: impl Fn(usize) -> &'a Arc<Endpoint>,
    now: Instant,
    mut random: impl FnMut(usize) -> usize,
) -> &'a Arc<Endpoint> {
    let first = random(count);
    let mut second = random(count - 1);
    // Without this shift the two could be the same one.
    if second >= first {
        second += 1;
    }
    let (first, second) = (at(first), at(second));
    if second.load.cost(now) < first.load.cost(now) { second } else { first }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn endpoints(count: u16) -> Vec<Arc<Endpoint>> {
        (0..count).map(|port| Arc::new(Endpoint::new(([10, 0, 0, 1], 1000 + port).into()))).collect()
    }

    #[test]
    fn nothing_is_picked_from_nothing() {
        assert!(pick(&[], &[], Instant::now(), |_| 0).is_none());
    }

    #[test]
    fn a_slow_endpoint_loses_against_a_fast_one() {
        let now = Instant::now();
        let endpoints = endpoints(2);
        endpoints[0].load.observe(Duration::from_secs(1), now);
        for first in 0..2 {
            let picked = pick(&endpoints, &[], now, |n| first % n).expect("there are two");
            assert_eq!(picked.address, endpoints[1].address);
        }
    }

    #[test]
    fn an_endpoint_that_was_tried_is_taken_only_when_there_is_no_other() {
        let now = Instant::now();
        let two = endpoints(2);
        let tried = [two[0].address];
        assert_eq!(pick(&two, &tried, now, |_| 0).expect("other").address, two[1].address);
        let tried = [two[0].address, two[1].address];
        assert!(pick(&two, &tried, now, |_| 0).is_some());
    }

    proptest! {
        #[test]
        fn a_pick_is_always_one_of_the_endpoints(count in 1..20u16, seed: u64, tried in 0..20usize) {
            let endpoints = endpoints(count);
            let tried: Vec<_> = endpoints.iter().take(tried).map(|endpoint| endpoint.address).collect();
            let mut random = fastrand::Rng::with_seed(seed);
            let picked = pick(&endpoints, &tried, Instant::now(), |n| random.usize(0..n)).expect("not empty");
            prop_assert!(endpoints.iter().any(|endpoint| endpoint.address == picked.address));
            prop_assert!(tried.len() == endpoints.len() || !tried.contains(&picked.address));
        }
    }
}
