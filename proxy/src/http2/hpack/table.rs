//! The dynamic table (RFC 7541 §2.3.2 and §4): what was sent lately, newest first, within a number of bytes.
//!
//! Octets of all entries lie in one piece of memory, in the order of their arrival. Evicting an entry only
//! forgets it; what is dead at the front is moved over when the memory is full. So nothing is allocated once
//! the table has found its size.

use std::collections::VecDeque;

/// What each entry counts beyond its octets (§4.1).
const OVERHEAD: usize = 32;

/// The first piece of memory.
const FIRST_CAPACITY: usize = 256;

/// Size of an entry as the table counts it (§4.1).
pub(super) const fn entry_size(name: &[u8], value: &[u8]) -> usize {
    name.len() + value.len() + OVERHEAD
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where its name begins; its value follows. Counted, wrapping, from the first octet that ever arrived.
    start: u32,
    name_len: u32,
    value_len: u32,
}

/// A dynamic table. The first insertion allocates.
#[derive(Debug)]
pub(super) struct Table {
    octets: Vec<u8>,
    /// The position of `octets[0]`.
    base: u32,
    /// Newest first.
    entries: VecDeque<Entry>,
    /// Sum of the entries' sizes.
    size: usize,
    max_size: usize,
}

impl Table {
    pub(super) const fn new(max_size: usize) -> Self {
        Self { octets: Vec::new(), base: 0, entries: VecDeque::new(), size: 0, max_size }
    }

    /// Number of entries.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(super) fn max_size(&self) -> usize {
        self.max_size
    }

    /// Sets the size and evicts what no longer fits (§4.3).
    pub(super) fn set_max_size(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.evict_to(max_size);
        if max_size == 0 {
            (self.octets, self.entries) = (Vec::new(), VecDeque::new());
        }
    }

    /// Gives back memory that no entry lies in.
    pub(super) fn shrink(&mut self) {
        let oldest = self.entries.back().map_or(self.end(), |entry| entry.start);
        let dead = oldest.wrapping_sub(self.base) as usize;
        self.octets.drain(..dead);
        self.base = oldest;
        self.octets.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    /// Name and value of the entry before which `age` others are newer.
    #[inline]
    pub(super) fn entry(&self, age: usize) -> Option<(&[u8], &[u8])> {
        let entry = self.entries.get(age)?;
        let start = entry.start.wrapping_sub(self.base) as usize;
        let octets = &self.octets[start..start + (entry.name_len + entry.value_len) as usize];
        Some(octets.split_at(entry.name_len as usize))
    }

    /// Inserts an entry and evicts as many as it needs; one that is larger than the table empties it (§4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        self.make_room(name.len() + value.len());
        let start = self.end();
        self.octets.extend_from_slice(name);
        self.octets.extend_from_slice(value);
        self.insert_end(start, name.len(), value.len());
    }

    /// Inserts an entry with the name of another, which may be evicted for it (§4.4).
    pub(super) fn insert_with_name_of(&mut self, age: usize, value: &[u8]) {
        let Some(&Entry { start: name, name_len, .. }) = self.entries.get(age) else { return };
        let name_len = name_len as usize;
        self.make_room(name_len + value.len());
        let start = self.end();
        let name = name.wrapping_sub(self.base) as usize;
        self.octets.extend_from_within(name..name + name_len);
        self.octets.extend_from_slice(value);
        self.insert_end(start, name_len, value.len());
    }

    /// Makes the last octets, from `start`, an entry.
    fn insert_end(&mut self, start: u32, name_len: usize, value_len: usize) {
        let size = name_len + value_len + OVERHEAD;
        if size > self.max_size {
            self.evict_to(0);
            self.octets.clear();
            self.base = start;
            return;
        }
        self.evict_to(self.max_size - size);
        self.size += size;
        // Both are less than `max_size`, which comes from a setting of 32 bits.
        self.entries.push_front(Entry { start, name_len: name_len as u32, value_len: value_len as u32 });
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= (oldest.name_len + oldest.value_len) as usize + OVERHEAD;
        }
    }

    /// The position behind the last octet.
    fn end(&self) -> u32 {
        self.base.wrapping_add(self.octets.len() as u32)
    }

    /// Makes room for `more` octets behind those that are there. Entries that are about to be evicted stay
    /// until the new one was copied, for it may take its name from one of them.
    #[inline]
    fn make_room(&mut self, more: usize) {
        if self.octets.capacity() - self.octets.len() < more {
            self.move_live(more);
        }
    }

    fn move_live(&mut self, more: usize) {
        let oldest = self.entries.back().map_or(self.end(), |entry| entry.start);
        let dead = oldest.wrapping_sub(self.base) as usize;
        let needed = self.octets.len() - dead + more;
        let capacity = self.octets.capacity();
        // A quarter that is dead makes moving the rest cheap: each octet is moved about three times at most.
        let enough = capacity >= 2 * self.max_size || 4 * dead >= capacity;
        if enough && needed <= capacity {
            self.octets.copy_within(dead.., 0);
            self.octets.truncate(self.octets.len() - dead);
        } else {
            let larger = (2 * capacity).max(FIRST_CAPACITY).min(2 * self.max_size).max(needed);
            let mut octets = Vec::with_capacity(larger);
            octets.extend_from_slice(&self.octets[dead..]);
            self.octets = octets;
        }
        self.base = oldest;
    }

    /// Memory of the octets, for tests.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.octets.capacity()
    }

    /// Sum of the entries' sizes, for tests.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The table as the RFC tells it.
    #[derive(Debug, Default)]
    struct Model {
        entries: Vec<(Vec<u8>, Vec<u8>)>,
        max_size: usize,
    }

    impl Model {
        fn size(&self) -> usize {
            self.entries.iter().map(|(name, value)| entry_size(name, value)).sum()
        }

        fn evict_to(&mut self, size: usize) {
            while self.size() > size {
                self.entries.pop();
            }
        }

        fn insert(&mut self, name: &[u8], value: &[u8]) {
            let size = entry_size(name, value);
            self.evict_to(self.max_size.saturating_sub(size));
            if size <= self.max_size {
                self.entries.insert(0, (name.to_vec(), value.to_vec()));
            } else {
                self.entries.clear();
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Vec<u8>, Vec<u8>),
        InsertWithNameOf(usize, Vec<u8>),
        Resize(usize),
        Shrink,
    }

    fn octets() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![9 => prop::collection::vec(any::<u8>(), 0..40), 1 => prop::collection::vec(any::<u8>(), 0..300)]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (octets(), octets()).prop_map(|(name, value)| Step::Insert(name, value)),
            4 => (0_usize..10, octets()).prop_map(|(age, value)| Step::InsertWithNameOf(age, value)),
            1 => prop_oneof![Just(0), Just(4096), 0_usize..600].prop_map(Step::Resize),
            1 => Just(Step::Shrink),
        ]
    }

    proptest! {
        #[test]
        fn the_table_does_what_the_rfc_says(
            steps in prop::collection::vec(step(), 0..200),
            base in prop_oneof![Just(0), (u32::MAX - 4000)..=u32::MAX],
        ) {
            let mut table = Table::new(512);
            table.base = base;
            let mut model = Model { max_size: 512, ..Model::default() };
            for step in steps {
                match step {
                    Step::Insert(name, value) => {
                        table.insert(&name, &value);
                        model.insert(&name, &value);
                    }
                    Step::InsertWithNameOf(age, value) => {
                        table.insert_with_name_of(age, &value);
                        if let Some((name, _)) = model.entries.get(age).cloned() {
                            model.insert(&name, &value);
                        }
                    }
                    Step::Resize(max_size) => {
                        table.set_max_size(max_size);
                        model.max_size = max_size;
                        model.evict_to(max_size);
                    }
                    Step::Shrink => table.shrink(),
                }
                let entries: Vec<_> = (0..table.len()).filter_map(|age| table.entry(age)).collect();
                let expected: Vec<_> = model.entries.iter().map(|(name, value)| (&name[..], &value[..])).collect();
                prop_assert_eq!(entries, expected);
                prop_assert_eq!(table.size(), model.size());
                prop_assert!(table.size() <= table.max_size());
                prop_assert_eq!(table.entry(table.len()), None);
            }
        }
    }

    #[test]
    fn memory_stays_within_twice_the_tables_size_and_comes_to_rest() {
        let mut table = Table::new(4096);
        let mut capacities = Vec::new();
        for round in 0..10_000_u32 {
            table.insert(b"x-request-id", &round.to_be_bytes());
            capacities.push(table.capacity());
        }
        assert_eq!(table.len(), 4096 / (32 + 12 + 4));
        assert!(table.capacity() <= 2 * 4096);
        assert_eq!(capacities[1000], table.capacity(), "no allocation in the steady state");
    }

    #[test]
    fn an_entry_can_take_its_name_from_the_one_it_evicts() {
        let mut table = Table::new(64);
        table.insert(b"name", b"old value");
        table.insert_with_name_of(0, b"new value, longer");
        assert_eq!(table.len(), 1);
        assert_eq!(table.entry(0), Some((&b"name"[..], &b"new value, longer"[..])));
    }

    #[test]
    fn a_shrunk_table_has_memory_for_its_entries_alone() {
        let mut table = Table::new(4096);
        for round in 0..1000_u32 {
            table.insert(b"x-request-id", &round.to_be_bytes());
        }
        let octets = table.len() * 16;
        table.shrink();
        assert_eq!(table.capacity(), octets);
        assert_eq!(table.entry(0), Some((&b"x-request-id"[..], &999_u32.to_be_bytes()[..])));
    }

    #[test]
    fn a_table_of_no_size_gives_its_memory_back() {
        let mut table = Table::new(4096);
        table.insert(b"name", b"value");
        table.set_max_size(0);
        assert_eq!((table.len(), table.capacity()), (0, 0));
    }
}
