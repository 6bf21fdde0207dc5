//! Header blocks to fields (RFC 7541 §3.2 and §6).

use super::{DEFAULT_TABLE_SIZE, HpackError, integer::Input, static_table::STATIC_TABLE, table::Table};

/// Memory for decoded strings that is kept from one block to the next.
const KEPT_SCRATCH: usize = 1024;

/// A decoded field. Its slices live as long as the call they are handed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name, as it came: whether it is lower case and a token is for the caller to check.
    pub name: &'a [u8],
    /// The value, as it came.
    pub value: &'a [u8],
    /// The sender wants no hop to index it. Who forwards it must send it so, too: see
    /// [`Encoder::field_never_indexed`](super::Encoder::field_never_indexed) (RFC 7541 §6.2.3).
    pub never_indexed: bool,
}

impl<'a> Field<'a> {
    /// A field that may be indexed.
    #[must_use]
    pub const fn new(name: &'a [u8], value: &'a [u8]) -> Self {
        Self { name, value, never_indexed: false }
    }
}

/// Decoder for one direction of one connection.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// What the peer may set its table to.
    limit: usize,
    /// The lowest limit since the last block, where the table is above it: the next block has to begin by
    /// going down to it.
    owed: Option<usize>,
    scratch: Scratch,
}

/// Memory for strings that were Huffman-coded.
#[derive(Debug, Default)]
struct Scratch {
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Decoder {
    /// `max_table_size`: what our SETTINGS_HEADER_TABLE_SIZE allows (bytes, RFC 7541 §4.1 sizes).
    ///
    /// The peer begins with 4096 bytes. If less is allowed here, it has to know that before its first block;
    /// otherwise begin with [`DEFAULT_TABLE_SIZE`] and call [`set_max_table_size`](Self::set_max_table_size)
    /// when it has acknowledged the setting.
    #[must_use]
    pub fn new(max_table_size: usize) -> Self {
        let mut decoder = Self {
            table: Table::new(DEFAULT_TABLE_SIZE),
            limit: DEFAULT_TABLE_SIZE,
            owed: None,
            scratch: Scratch::default(),
        };
        decoder.set_max_table_size(max_table_size);
        decoder
    }

    /// The peer has acknowledged another SETTINGS_HEADER_TABLE_SIZE. If its table is larger, its next block
    /// has to begin with a table size update (RFC 9113 §4.3.1).
    pub fn set_max_table_size(&mut self, size: usize) {
        // A setting has 32 bits.
        self.limit = size.min(u32::MAX as usize);
        if self.limit < self.table.max_size() {
            self.owed = Some(self.owed.map_or(self.limit, |owed| owed.min(self.limit)));
        }
    }

    /// Gives back what memory can be had again: the table itself has to stay, for the peer refers to it.
    pub fn shrink(&mut self) {
        self.table.shrink();
        self.scratch = Scratch::default();
    }

    /// Decodes one complete header block and hands out each field in order; the slices live for the call only.
    ///
    /// It goes on through the whole block even if `each` ignores fields, because the table must stay in step.
    /// One octet of a block can stand for a field as large as the table, so it is for `each` to stop adding up
    /// when a message has enough.
    ///
    /// # Errors
    /// Whatever breaks RFC 7541. The decoder can't be used any more then, nor can its connection.
    pub fn decode(&mut self, block: &[u8], mut each: impl FnMut(&[u8], &[u8])) -> Result<(), HpackError> {
        self.decode_fields(block, |field| each(field.name, field.value))
    }

    /// Like [`decode`](Self::decode), and says which fields are never to be indexed.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_fields(&mut self, block: &[u8], mut each: impl FnMut(Field<'_>)) -> Result<(), HpackError> {
        let mut input = Input::new(block);
        self.table_size_updates(&mut input)?;
        while let Some(first) = input.peek() {
            match first {
                0x80.. => {
                    let index = input.integer(7)?;
                    let (name, value) = entry(&self.table, index)?;
                    each(Field { name, value, never_indexed: false });
                }
                0x40.. => self.literal_to_index(&mut input, &mut each)?,
                0x20.. => return Err(HpackError::LateTableSize),
                _ => {
                    let index = input.integer(4)?;
                    let name = match index {
                        0 => input.string(&mut self.scratch.name)?,
                        _ => entry(&self.table, index)?.0,
                    };
                    let value = input.string(&mut self.scratch.value)?;
                    each(Field { name, value, never_indexed: first & 0x10 != 0 });
                }
            }
        }
        self.scratch.shrink();
        Ok(())
    }

    /// Dynamic table size updates, which only a block's beginning may have (§4.2 and §6.3).
    fn table_size_updates(&mut self, input: &mut Input<'_>) -> Result<(), HpackError> {
        while let Some(first) = input.peek() {
            if !(0x20..0x40).contains(&first) {
                return if self.owed.is_some() { Err(HpackError::MissingTableSize) } else { Ok(()) };
            }
            let size = input.integer(5)?;
            let limit = self.owed.take().unwrap_or(self.limit);
            if size as usize > limit {
                return Err(HpackError::TableTooLarge { size, limit });
            }
            self.table.set_max_size(size as usize);
        }
        Ok(())
    }

    /// A literal with incremental indexing (§6.2.1).
    fn literal_to_index(
        &mut self,
        input: &mut Input<'_>,
        each: &mut impl FnMut(Field<'_>),
    ) -> Result<(), HpackError> {
        let index = input.integer(6)?;
        if let Some(age) = (index as usize).checked_sub(STATIC_TABLE.len() + 1) {
            let (name, _) = self.table.entry(age).ok_or(HpackError::UnknownIndex(index))?;
            let value = input.string(&mut self.scratch.value)?;
            each(Field { name, value, never_indexed: false });
            self.table.insert_with_name_of(age, value);
            return Ok(());
        }
        let name = match index {
            0 => input.string(&mut self.scratch.name)?,
            _ => STATIC_TABLE[index as usize - 1].0,
        };
        let value = input.string(&mut self.scratch.value)?;
        each(Field { name, value, never_indexed: false });
        self.table.insert(name, value);
        Ok(())
    }

    /// Sizes of the table and of its memory, for tests.
    #[cfg(test)]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Memory kept for strings, for tests.
    #[cfg(test)]
    pub(super) fn scratch_len(&self) -> usize {
        self.scratch.name.capacity() + self.scratch.value.capacity()
    }
}

impl Scratch {
    /// Gives back what an unusually long string needed.
    fn shrink(&mut self) {
        for part in [&mut self.name, &mut self.value] {
            if part.capacity() > KEPT_SCRATCH {
                *part = Vec::new();
            }
        }
    }
}

/// The field at this index of both tables (§2.3.3).
#[inline]
fn entry(table: &Table, index: u32) -> Result<(&[u8], &[u8]), HpackError> {
    let place = (index as usize).checked_sub(1).ok_or(HpackError::UnknownIndex(index))?;
    if let Some(&field) = STATIC_TABLE.get(place) {
        return Ok(field);
    }
    table.entry(place - STATIC_TABLE.len()).ok_or(HpackError::UnknownIndex(index))
}
