//! Consistent hashing on a ring: every endpoint stands at many points of it, and a key goes to the next point from its
//! own hash on. When an endpoint comes or goes only the keys between its points and those before them move.
//!
//! Karger et al., "Consistent Hashing and Random Trees", STOC 1997; points and weights as in Envoy's `RingHash`
//! (`source/extensions/load_balancing_policies/ring_hash`), which is libketama's but for the hash: the points of an
//! endpoint are the hashes of `ADDRESS_0`, `ADDRESS_1`…, so the ring is the same in every sidecar.

use std::fmt::Write as _;

use super::hash;

/// Least points on the ring unless it is set (Envoy's default).
pub const DEFAULT_SIZE: usize = 1024;
/// Most points that can be asked for: 16 bytes each.
pub const MAX_SIZE: usize = 65_536;
/// Most points that very unequal weights can lead to, or one for each endpoint.
const MAX_POINTS: usize = 4 * MAX_SIZE;

/// A ring of points.
#[derive(Debug)]
pub struct Ring {
    /// By hash; the index of the endpoint that stands there.
    points: Box<[(u64, u32)]>,
}

impl Ring {
    /// A ring of at least `size` points for endpoints of these names and weights (each at least 1).
    #[must_use]
    pub fn new<'a>(endpoints: impl Iterator<Item = (&'a str, u32)> + Clone, size: Option<u32>) -> Self {
        let size = size.map_or(DEFAULT_SIZE, |size| (size as usize).clamp(1, MAX_SIZE)) as f64;
        let sum: f64 = endpoints.clone().map(|(_, weight)| f64::from(weight)).sum();
        let least = endpoints.clone().map(|(_, weight)| f64::from(weight) / sum).fold(1.0, f64::min);
        // So many points to the lightest that all have a whole number of them in proportion, as far as that is bounded.
        // The subtractions keep an error in the last digit from becoming a point.
        let scale = ((least * size - 1e-6).ceil() / least).min(MAX_POINTS as f64);
        let mut points = Vec::with_capacity(scale as usize + 1);
        let (mut due, mut name) = (0.0, String::new());
        for (index, (address, weight)) in endpoints.enumerate() {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            due += scale * f64::from(weight) / sum;
            let mut number = 0;
            // Nobody is left out, however light.
            while number == 0 || (points.len() as f64) < due - 1e-6 {
                name.clear();
                // Writing to a string can't fail.
                let _ = write!(name, "{address}_{number}");
                points.push((hash::of_bytes(name.as_bytes()), index));
                number += 1;
            }
        }
        points.sort_unstable();
        Self { points: points.into() }
    }

    /// The indices of the endpoints from a hash on, once around; an endpoint comes as often as it has points.
    pub fn walk(&self, hash: u64) -> impl Iterator<Item = usize> {
        let start = self.points.partition_point(|(point, _)| *point < hash);
        let (before, after) = self.points.split_at(start);
        after.iter().chain(before).map(|(_, index)| *index as usize)
    }

    /// Number of points.
    #[must_use]
    pub fn size(&self) -> usize {
        self.points.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("10.0.{}.{}:80", index / 250, index % 250)).collect()
    }

    fn ring(names: &[String], size: Option<u32>) -> Ring {
        Ring::new(names.iter().map(|name| (name.as_str(), 1)), size)
    }

    fn first(ring: &Ring, key: u64) -> usize {
        ring.walk(hash::mixed(key)).next().expect("a point")
    }

    #[test]
    fn the_ring_is_the_same_everywhere() {
        let ring = ring(&names(3), None);
        let owners: Vec<_> = (0..12).map(|key| first(&ring, key)).collect();
        assert_eq!(owners, OWNERS, "sidecars of two versions would not agree");
    }
    const OWNERS: [usize; 12] = [0, 1, 1, 0, 0, 1, 1, 2, 0, 1, 2, 2];

    #[test]
    fn weights_are_shares_of_the_points() {
        let names = names(3);
        let ring = Ring::new(names.iter().map(String::as_str).zip([1, 2, 5]), Some(1024));
        let mut counts = [0; 3];
        ring.points.iter().for_each(|(_, index)| counts[*index as usize] += 1);
        assert_eq!(counts, [128, 256, 640]);
    }

    #[test]
    fn a_ring_is_bounded_and_leaves_nobody_out() {
        let names = names(300);
        let weights = (0..300).map(|index| if index < 299 { 1000 } else { 1 });
        let ring = Ring::new(names.iter().map(String::as_str).zip(weights), Some(u32::MAX));
        assert!(ring.size() <= MAX_POINTS + names.len());
        assert!(ring.points.iter().any(|(_, index)| *index == 299));
    }

    proptest! {
        #[test]
        fn only_keys_of_the_one_that_left_move(count in 2..12usize, gone in 0..12usize, keys in prop::collection::vec(any::<u64>(), 50)) {
            let all = names(count);
            let gone = gone % count;
            let mut rest = all.clone();
            rest.remove(gone);
            // The same number of points to each, as in a ring of a size that both divide.
            let (before, after) = (ring(&all, Some(100 * count as u32)), ring(&rest, Some(100 * (count as u32 - 1))));
            for key in keys {
                let owner = first(&before, key);
                if owner != gone {
                    prop_assert_eq!(&all[owner], &rest[first(&after, key)]);
                }
            }
        }

        #[test]
        fn a_walk_meets_every_endpoint(count in 1..20usize, key: u64) {
            let ring = ring(&names(count), None);
            let mut seen = vec![false; count];
            ring.walk(key).for_each(|index| seen[index] = true);
            prop_assert!(seen.into_iter().all(|seen| seen));
        }
    }
}
