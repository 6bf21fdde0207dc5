//! Consistent hashing by Maglev's look-up table: keys are spread more evenly than on a ring of the same size, and
//! looked up with one division; when an endpoint comes or goes somewhat more keys move.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4. Weights as in
//! Envoy's `Maglev`: an endpoint of half the weight has every second turn when the table is filled.

use super::hash;

/// Size of the table unless it is set (the paper's small one, and Envoy's default): a prime.
pub const DEFAULT_SIZE: u32 = 65_537;
/// Greatest size of a table; 2 bytes an entry.
pub const MAX_SIZE: u32 = 65_537;
/// Endpoints that fit in a table; those after them get no keys.
const MAX_ENDPOINTS: usize = u16::MAX as usize;

/// A look-up table.
#[derive(Debug)]
pub struct Table {
    /// Index of the endpoint that each slot belongs to.
    slots: Box<[u16]>,
}

/// An endpoint's own order of the slots, as far as it has come.
struct Turn {
    slot: u64,
    skip: u64,
    /// Turns that its weight has earned it and that it has taken.
    earned: f64,
    taken: f64,
    weight: f64,
}

impl Table {
    /// A table for endpoints of these names and weights (each at least 1). A size that is no prime is raised to the
    /// next one, and one that has not a slot for each endpoint too.
    #[must_use]
    pub fn new<'a>(endpoints: impl Iterator<Item = (&'a str, u32)> + Clone, size: Option<u32>) -> Self {
        let count = endpoints.clone().count().min(MAX_ENDPOINTS);
        let least = u32::try_from(count).unwrap_or(u32::MAX);
        let size = u64::from(prime_from(size.unwrap_or(DEFAULT_SIZE).clamp(2, MAX_SIZE).max(least)));
        let heaviest = endpoints.clone().map(|(_, weight)| weight).max().unwrap_or(1);
        let turn = |(name, weight): (&str, u32)| {
            let hash = hash::of_bytes(name.as_bytes());
            Turn {
                slot: hash % size,
                skip: hash::mixed(hash) % (size - 1) + 1,
                earned: 0.0,
                taken: 0.0,
                weight: f64::from(weight) / f64::from(heaviest),
            }
        };
        let mut turns: Vec<_> = endpoints.take(count).map(turn).collect();
        const FREE: u16 = u16::MAX;
        let mut slots = vec![FREE; size as usize].into_boxed_slice();
        let mut left = if turns.is_empty() { 0 } else { slots.len() };
        let mut first_round = true;
        while left > 0 {
            for (index, turn) in turns.iter_mut().enumerate() {
                turn.earned += turn.weight;
                // In the first round each has its turn, however light: nobody is left out.
                if !first_round && turn.earned < turn.taken + 1.0 {
                    continue;
                }
                turn.taken += 1.0;
                while slots[turn.slot as usize] != FREE {
                    // Both are under the size: that is the remainder without a division.
                    turn.slot += turn.skip;
                    if turn.slot >= size {
                        turn.slot -= size;
                    }
                }
                slots[turn.slot as usize] = u16::try_from(index).unwrap_or_default();
                left -= 1;
                if left == 0 {
                    break;
                }
            }
            first_round = false;
        }
        Self { slots }
    }

    /// The indices of the endpoints from the slot of a hash on, once around.
    pub fn walk(&self, hash: u64) -> impl Iterator<Item = usize> {
        let start = (hash % self.slots.len() as u64) as usize;
        let (before, after) = self.slots.split_at(start);
        after.iter().chain(before).map(|index| usize::from(*index))
    }

    /// Number of slots.
    #[must_use]
    pub fn size(&self) -> usize {
        self.slots.len()
    }
}

/// The first prime that is not under `number`.
fn prime_from(number: u32) -> u32 {
    let is_prime = |number: u32| {
        number >= 2
            && (2..)
                .take_while(|divisor| divisor * divisor <= number)
                .all(|divisor| !number.is_multiple_of(divisor))
    };
    (number..).find(|&number| is_prime(number)).unwrap_or(DEFAULT_SIZE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("10.0.{}.{}:80", index / 250, index % 250)).collect()
    }

    fn table(names: &[String], size: Option<u32>) -> Table {
        Table::new(names.iter().map(|name| (name.as_str(), 1)), size)
    }

    fn counts(table: &Table, count: usize) -> Vec<usize> {
        let mut counts = vec![0; count];
        table.slots.iter().for_each(|index| counts[usize::from(*index)] += 1);
        counts
    }

    #[test]
    fn the_table_is_the_same_everywhere() {
        let table = table(&names(3), Some(13));
        assert_eq!(*table.slots, SLOTS, "sidecars of two versions would not agree");
    }
    const SLOTS: [u16; 13] = [0, 0, 0, 2, 1, 2, 0, 1, 2, 1, 2, 1, 0];

    #[test]
    fn a_size_becomes_a_prime_with_room_for_all() {
        assert_eq!(table(&names(3), None).size(), 65_537);
        assert_eq!(table(&names(3), Some(100)).size(), 101);
        assert_eq!(table(&names(200), Some(7)).size(), 211);
        assert_eq!(table(&names(3), Some(u32::MAX)).size(), 65_537);
    }

    #[test]
    fn weights_are_shares_of_the_slots() {
        let names = names(3);
        let table = Table::new(names.iter().map(String::as_str).zip([1, 2, 5]), Some(65_537));
        for (count, weight) in counts(&table, 3).into_iter().zip([1.0, 2.0, 5.0]) {
            let due = 65_537.0 * weight / 8.0;
            assert!((count as f64 - due).abs() <= 3.0, "{count} of {due}");
        }
    }

    #[test]
    fn nobody_is_left_out_however_light() {
        let names = names(100);
        let weights = (0..100).map(|index| if index < 99 { 1000 } else { 1 });
        let table = Table::new(names.iter().map(String::as_str).zip(weights), Some(101));
        assert!(counts(&table, 100).into_iter().all(|count| count > 0));
    }

    proptest! {
        /// The paper's first aim: almost equal shares.
        #[test]
        fn shares_differ_by_one_slot_at_most(count in 1..30usize) {
            let counts = counts(&table(&names(count), Some(1009)), count);
            let (least, most) = (counts.iter().min().expect("some"), counts.iter().max().expect("some"));
            prop_assert!(most - least <= 1, "{} to {}", least, most);
        }

        /// The paper's second: few keys of others move when one leaves.
        #[test]
        fn few_keys_of_others_move_when_one_leaves(count in 3..15usize, gone in 0..15usize) {
            let all = names(count);
            let gone = gone % count;
            let mut rest = all.clone();
            rest.remove(gone);
            let (before, after) = (table(&all, Some(4099)), table(&rest, Some(4099)));
            let kept = before.slots.iter().filter(|&&owner| usize::from(owner) != gone).count();
            let moved = before.slots.iter().zip(&after.slots).filter(|(old, new)| {
                let old = usize::from(**old);
                old != gone && all[old] != rest[usize::from(**new)]
            });
            let moved = moved.count();
            prop_assert!(moved * 5 < kept, "{} of {} moved", moved, kept);
        }

        #[test]
        fn a_walk_meets_every_endpoint(count in 1..20usize, key: u64) {
            let table = table(&names(count), Some(211));
            let mut seen = vec![false; count];
            table.walk(key).for_each(|index| seen[index] = true);
            prop_assert!(seen.into_iter().all(|seen| seen));
        }
    }
}
