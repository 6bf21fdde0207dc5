//! The encoder's view of its dynamic table: where a field or a name is, and what was sent just now.
//!
//! A hash only proposes; octets are always compared. All that can be compared lies in a table of 4096 bytes, so
//! fields that are made to collide cost no more than reading the table once, and the hash needs no secret.

use super::{DEFAULT_TABLE_SIZE, table::entry_size};

/// Entries of the smallest size that the encoder's table can hold.
const SLOTS: usize = DEFAULT_TABLE_SIZE / entry_size(b"", b"");

/// Unindexed fields that are remembered.
const REMEMBERED: usize = 64;

/// Hashes of a name and of the whole field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hashes {
    name: u64,
    field: u64,
}

impl Hashes {
    #[inline]
    pub(super) fn of(name: &[u8], value: &[u8]) -> Self {
        let name = hash(name, 0);
        Self { name, field: hash(value, name) }
    }
}

/// Finds entries of the encoder's table by their hash.
#[derive(Debug)]
pub(super) struct Index {
    fields: Chains,
    names: Chains,
    /// The newest entry's slot; older ones have the slots before it, all round.
    newest: u8,
}

impl Index {
    pub(super) const fn new() -> Self {
        Self { fields: Chains::new(), names: Chains::new(), newest: 0 }
    }

    /// Puts in what was inserted into the table.
    pub(super) fn insert(&mut self, hashes: Hashes) {
        self.newest = previous(self.newest, SLOTS - 1);
        self.fields.insert(hashes.field, self.newest);
        self.names.insert(hashes.name, self.newest);
    }

    /// Age of an entry with this field, among the `alive` newest.
    #[inline]
    pub(super) fn field(&self, hashes: Hashes, alive: usize, is_it: impl Fn(usize) -> bool) -> Option<usize> {
        self.fields.find(hashes.field, self.newest, alive, is_it)
    }

    /// Age of an entry with this name, among the `alive` newest.
    #[inline]
    pub(super) fn name(&self, hashes: Hashes, alive: usize, is_it: impl Fn(usize) -> bool) -> Option<usize> {
        self.names.find(hashes.name, self.newest, alive, is_it)
    }
}

/// The slot `age` entries before this one.
const fn previous(slot: u8, age: usize) -> u8 {
    // There are 128 slots.
    ((slot as usize + SLOTS - age) % SLOTS) as u8
}

/// For each hash its newest entry, for each entry the one before it. Entries that died need not be taken out:
/// a chain ends where its entries grow no older, or older than the table.
#[derive(Debug)]
struct Chains {
    heads: [u8; SLOTS],
    before: [u8; SLOTS],
    /// More bits of each entry's hash.
    tags: [u16; SLOTS],
}

impl Chains {
    const fn new() -> Self {
        Self { heads: [0; SLOTS], before: [0; SLOTS], tags: [0; SLOTS] }
    }

    fn insert(&mut self, hash: u64, slot: u8) {
        let (head, tag) = split(hash);
        self.before[usize::from(slot)] = self.heads[head];
        self.tags[usize::from(slot)] = tag;
        self.heads[head] = slot;
    }

    #[inline]
    fn find(&self, hash: u64, newest: u8, alive: usize, is_it: impl Fn(usize) -> bool) -> Option<usize> {
        let (head, tag) = split(hash);
        let mut slot = self.heads[head];
        let mut youngest = 0;
        loop {
            let age = (usize::from(newest) + SLOTS - usize::from(slot)) % SLOTS;
            if age < youngest || age >= alive {
                return None;
            }
            if self.tags[usize::from(slot)] == tag && is_it(age) {
                return Some(age);
            }
            youngest = age + 1;
            slot = self.before[usize::from(slot)];
        }
    }
}

#[inline]
fn split(hash: u64) -> (usize, u16) {
    ((hash >> 32) as usize % SLOTS, (hash >> 48) as u16)
}

/// The last fields that were sent without a place in the table.
#[derive(Debug)]
pub(super) struct Remembered {
    hashes: [u32; REMEMBERED],
    next: u8,
}

impl Remembered {
    pub(super) const fn new() -> Self {
        Self { hashes: [0; REMEMBERED], next: 0 }
    }

    /// Whether this field is among them; if not, now it is.
    pub(super) fn again(&mut self, hashes: Hashes) -> bool {
        // Zero is a place that was never used.
        let hash = hashes.field as u32 | 1;
        // All are compared, which several at a time are faster than leaving early.
        let again = self.hashes.iter().fold(false, |found, each| found | (*each == hash));
        if !again {
            self.hashes[usize::from(self.next)] = hash;
            self.next = (self.next + 1) % REMEMBERED as u8;
        }
        again
    }
}

/// A hash in the manner of wyhash: sixteen octets a step, mixed by a multiplication to twice the width.
#[inline]
fn hash(octets: &[u8], seed: u64) -> u64 {
    const ODD: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];
    let mix = |one: u64, other: u64| {
        let product = u128::from(one) * u128::from(other);
        product as u64 ^ (product >> 64) as u64
    };
    let mut sum = seed ^ (octets.len() as u64).wrapping_mul(ODD[0]);
    let mut rest = octets;
    while rest.len() > 16
        && let Some((step, after)) = rest.split_first_chunk::<16>()
    {
        sum = mix(word(step.first_chunk()) ^ ODD[0], word(step.last_chunk()) ^ sum);
        rest = after;
    }
    // What is left are up to sixteen octets; where both words overlap, the length tells them apart.
    let (first, last) = match rest.len() {
        8.. => (word(rest.first_chunk()), word(rest.last_chunk())),
        4.. => (half(rest.first_chunk()), half(rest.last_chunk())),
        1.. => (u64::from(rest[0]) << 8 | u64::from(rest[rest.len() / 2]), u64::from(rest[rest.len() - 1])),
        0 => (0, 0),
    };
    mix(first ^ ODD[1], mix(last ^ ODD[0], sum ^ ODD[1]) ^ sum)
}

#[inline]
fn word(octets: Option<&[u8; 8]>) -> u64 {
    octets.map_or(0, |octets| u64::from_le_bytes(*octets))
}

#[inline]
fn half(octets: Option<&[u8; 4]>) -> u64 {
    octets.map_or(0, |octets| u64::from(u32::from_le_bytes(*octets)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_newest_of_equal_entries_is_found_and_dead_ones_are_not() {
        let mut index = Index::new();
        let wanted = Hashes::of(b"x-user", b"beta");
        index.insert(wanted);
        for each in 0..5_u8 {
            index.insert(Hashes::of(b"x-user", &[each]));
        }
        assert_eq!(index.field(wanted, 6, |_| true), Some(5));
        assert_eq!(index.field(wanted, 5, |_| true), None, "evicted");
        assert_eq!(index.name(wanted, 6, |_| true), Some(0));
        index.insert(wanted);
        assert_eq!(index.field(wanted, 7, |_| true), Some(0));
        assert_eq!(index.field(wanted, 7, |age| age > 0), Some(6), "the one before it");
    }

    #[test]
    fn entries_are_found_as_long_as_they_live_however_many_were_inserted() {
        let mut index = Index::new();
        let field = |each: u32| Hashes::of(b"n", &each.to_le_bytes());
        for newest in 0..1000 {
            index.insert(field(newest));
            let alive = (newest as usize + 1).min(SLOTS);
            for age in 0..alive {
                let hashes = field(newest - age as u32);
                assert_eq!(index.field(hashes, alive, |each| each == age), Some(age));
            }
        }
    }

    #[test]
    fn colliding_entries_are_told_apart_and_the_search_ends() {
        let mut index = Index::new();
        let same = Hashes::of(b"a", b"b");
        for _ in 0..300 {
            index.insert(same);
        }
        for age in 0..SLOTS {
            assert_eq!(index.field(same, SLOTS, |each| each == age), Some(age));
        }
        assert_eq!(index.field(same, SLOTS, |_| false), None);
    }

    #[test]
    fn a_field_is_remembered_until_64_others_came() {
        let mut remembered = Remembered::new();
        let field = |each: u32| Hashes::of(b"n", &each.to_le_bytes());
        assert!(!remembered.again(field(0)));
        assert!(remembered.again(field(0)));
        for each in 1..64 {
            assert!(!remembered.again(field(each)));
        }
        assert!(remembered.again(field(0)));
        assert!(!remembered.again(field(64)));
        assert!(!remembered.again(field(0)), "forgotten");
    }

    #[test]
    fn every_octet_and_the_length_change_the_hash() {
        let mut seen = HashSet::new();
        for length in 0..70 {
            let mut octets = vec![0; length];
            assert!(seen.insert(hash(&octets, 1)));
            for place in 0..length {
                for bit in 0..8 {
                    octets[place] = 1 << bit;
                    assert!(seen.insert(hash(&octets, 1)), "length {length}, octet {place}, bit {bit}");
                }
                octets[place] = 0;
            }
        }
    }
}
