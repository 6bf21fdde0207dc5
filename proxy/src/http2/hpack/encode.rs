//! Fields to header blocks (RFC 7541 §6).
//!
//! A field gets a place in the table when it is sent for the second time within a short while. Fields that never
//! come again, whatever their name, thus never drive out those that do, and a connection that carries a single
//! request keeps no table at all.
//!
//! Strings are sent as they are: the wire between two proxies carries bytes for less than coding and decoding
//! them costs, and what repeats is one octet anyway (`benches/hpack.rs` has both sides of it).

use super::{
    DEFAULT_TABLE_SIZE,
    index::{Hashes, Index, Remembered},
    integer::{put_integer, put_string},
    names::{self, Habit},
    static_table::STATIC_TABLE,
    table::{Table, entry_size},
};

/// The largest dynamic table that is used, whatever the peer allows.
const MAX_TABLE_SIZE: usize = DEFAULT_TABLE_SIZE;

/// An entry larger than the table by this fraction stays out of it: two of them would keep driving each other out.
const LARGEST_ENTRY: usize = 2;

/// A representation's first octet: flags and bits of the index (§6).
type Form = (u8, u32);
const INDEXED: Form = (0x80, 7);
const LITERAL_TO_INDEX: Form = (0x40, 6);
const TABLE_SIZE: Form = (0x20, 5);
const LITERAL_NEVER_INDEXED: Form = (0x10, 4);
const LITERAL: Form = (0x00, 4);

/// Encoder for one direction of one connection.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    /// Allocated by the first field that may come again.
    memory: Option<Box<Memory>>,
    /// The size that the peer's copy of the table has.
    announced: usize,
    /// The smallest size since then.
    smallest: usize,
}

/// What tells whether a field was sent before: more than a kilobyte.
#[derive(Debug)]
struct Memory {
    index: Index,
    remembered: Remembered,
}

impl Default for Memory {
    fn default() -> Self {
        Self { index: Index::new(), remembered: Remembered::new() }
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder with a dynamic table of at most 4096 bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            table: Table::new(MAX_TABLE_SIZE),
            memory: None,
            announced: MAX_TABLE_SIZE,
            smallest: MAX_TABLE_SIZE,
        }
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE. The next block begins with what changed by it (§4.2). More than
    /// 4096 bytes are never used. Not to be called between the fields of a block.
    pub fn set_max_table_size(&mut self, size: usize) {
        let size = size.min(MAX_TABLE_SIZE);
        self.table.set_max_size(size);
        self.smallest = self.smallest.min(size);
    }

    /// Gives all memory back. The next block begins by emptying the peer's copy of the table. Not to be called between
    /// the fields of a block.
    pub fn forget(&mut self) {
        self.memory = None;
        if self.table.len() > 0 {
            let size = self.table.max_size();
            self.table.set_max_size(0);
            self.table.set_max_size(size);
            self.smallest = 0;
        }
    }

    /// To be called before the first field of each block.
    #[inline]
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        let size = self.table.max_size();
        if size != self.announced || self.smallest < self.announced {
            self.announce(size, out);
        }
    }

    /// The smallest size first, so that the peer evicts what was evicted here; then the one in force.
    fn announce(&mut self, size: usize, out: &mut Vec<u8>) {
        let (flags, bits) = TABLE_SIZE;
        if self.smallest < self.announced.min(size) {
            put_integer(self.smallest, bits, flags, out);
        }
        put_integer(size, bits, flags, out);
        (self.announced, self.smallest) = (size, size);
    }

    /// Appends a field. `name` is lower case already.
    pub fn field(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let Some(known) = names::find(name) else {
            self.repeating_field(0, name, value, out);
            return;
        };
        if let Some(index) = known.with_value(value) {
            put_index(index, out);
            return;
        }
        let index = usize::from(known.index);
        match known.habit(value) {
            Habit::Repeats => self.repeating_field(index, name, value, out),
            Habit::Varies => put_literal(LITERAL, index, name, value, out),
            Habit::Sensitive => put_literal(LITERAL_NEVER_INDEXED, index, name, value, out),
        }
    }

    /// Appends a field that came as one never to be indexed, or ought to be one.
    pub fn field_never_indexed(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let index = names::find(name).map_or(0, |known| usize::from(known.index));
        put_literal(LITERAL_NEVER_INDEXED, index, name, value, out);
    }

    /// A field that may be in the table, or come into it. `index` is its name's in the static table, or 0.
    fn repeating_field(&mut self, index: usize, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        if entry_size(name, value) > self.table.max_size() / LARGEST_ENTRY {
            put_literal(LITERAL, index, name, value, out);
            return;
        }
        let Memory { index: known, remembered } = &mut **self.memory.get_or_insert_default();
        let hashes = Hashes::of(name, value);
        let alive = self.table.len();
        let same_field = |age| self.table.entry(age) == Some((name, value));
        if let Some(age) = known.field(hashes, alive, same_field) {
            put_index(STATIC_TABLE.len() + 1 + age, out);
            return;
        }
        let index = if index > 0 {
            index
        } else {
            let same_name = |age| self.table.entry(age).is_some_and(|(each, _)| each == name);
            known.name(hashes, alive, same_name).map_or(0, |age| STATIC_TABLE.len() + 1 + age)
        };
        if remembered.again(hashes) {
            put_literal(LITERAL_TO_INDEX, index, name, value, out);
            self.table.insert(name, value);
            known.insert(hashes);
        } else {
            put_literal(LITERAL, index, name, value, out);
        }
    }

    /// Whether anything was allocated, for tests.
    #[cfg(test)]
    pub(in crate::http2) fn holds_memory(&self) -> bool {
        self.memory.is_some() || self.table.capacity() > 0
    }

    /// The table, for tests.
    #[cfg(test)]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }
}

#[inline]
fn put_index(index: usize, out: &mut Vec<u8>) {
    let (flags, bits) = INDEXED;
    put_integer(index, bits, flags, out);
}

/// A literal (§6.2); `index` is its name's, or 0.
#[inline]
fn put_literal((flags, bits): Form, index: usize, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 16);
    put_integer(index, bits, flags, out);
    if index == 0 {
        put_string(name, out);
    }
    put_string(value, out);
}
