//! Blocks of header fields (HPACK, RFC 7541), made once and sent again and again: the first one on a connection
//! puts the fields that stay the same into the peer's table, later ones name them by their index, as clients and
//! servers in production do.

use super::frame::DEFAULT_TABLE;

/// A field, and whether a real sender would put it into the table.
pub(super) struct Field {
    name: &'static str,
    value: String,
    indexed: bool,
}

/// A field that is the same in each message.
pub(super) fn stable(name: &'static str, value: impl Into<String>) -> Field {
    Field { name, value: value.into(), indexed: true }
}

/// A field that differs from message to message in production.
pub(super) fn volatile(name: &'static str, value: impl Into<String>) -> Field {
    Field { name, value: value.into(), indexed: false }
}

/// The same fields in their three encodings.
#[derive(Debug)]
pub(super) struct Block {
    first: Vec<u8>,
    again: Vec<u8>,
    plain: Vec<u8>,
}

/// What the peer's table allows on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Table {
    /// It is empty as yet.
    #[default]
    Empty,
    /// The block's fields are in it.
    Filled,
    /// The peer has a smaller one than the default; it has not been acknowledged in a block yet.
    Refused,
    /// It is not used.
    Unused,
}

impl Table {
    /// Takes the peer's SETTINGS_HEADER_TABLE_SIZE.
    pub fn limit(&mut self, size: u32) {
        if size < DEFAULT_TABLE && *self != Self::Unused {
            *self = Self::Refused;
        }
    }
}

/// Fields that the static table holds with their values (RFC 7541, appendix A).
const STATIC: [(&str, &str, u8); 4] =
    [(":method", "GET", 2), (":method", "POST", 3), (":scheme", "http", 6), (":status", "200", 8)];
const FIRST_DYNAMIC: usize = 62;
const INCREMENTAL: u8 = 0x40;
const WITHOUT_INDEX: u8 = 0;
const INDEXED: u8 = 0x80;
const TABLE_SIZE_ZERO: u8 = 0x20;

impl Block {
    pub fn new(fields: &[Field]) -> Self {
        let dynamic = fields.iter().filter(|field| field.indexed && fixed(field).is_none()).count();
        let (mut first, mut again, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        let mut added = 0;
        for field in fields {
            if let Some(index) = fixed(field) {
                for block in [&mut first, &mut again, &mut plain] {
                    block.push(INDEXED | index);
                }
                continue;
            }
            literal(&mut plain, WITHOUT_INDEX, field);
            if field.indexed {
                literal(&mut first, INCREMENTAL, field);
                added += 1;
                // The entry added last has the lowest index.
                let index = FIRST_DYNAMIC + dynamic - added;
                again.push(INDEXED | u8::try_from(index).expect("a few fields"));
            } else {
                literal(&mut first, WITHOUT_INDEX, field);
                literal(&mut again, WITHOUT_INDEX, field);
            }
        }
        Self { first, again, plain }
    }

    /// Appends the block to `out` as the peer's table allows.
    pub fn append(&self, out: &mut Vec<u8>, table: Table) {
        match table {
            Table::Empty => out.extend_from_slice(&self.first),
            Table::Filled => out.extend_from_slice(&self.again),
            Table::Unused => out.extend_from_slice(&self.plain),
            Table::Refused => {
                out.push(TABLE_SIZE_ZERO);
                out.extend_from_slice(&self.plain);
            }
        }
    }
}

impl Table {
    /// What holds after a block was sent.
    pub fn after(self) -> Self {
        match self {
            Self::Empty | Self::Filled => Self::Filled,
            Self::Refused | Self::Unused => Self::Unused,
        }
    }
}

fn fixed(field: &Field) -> Option<u8> {
    STATIC
        .iter()
        .find(|(name, value, _)| *name == field.name && *value == field.value)
        .map(|(.., index)| *index)
}

fn literal(block: &mut Vec<u8>, how: u8, field: &Field) {
    block.push(how);
    for text in [field.name, &field.value] {
        assert!(text.len() < 127, "a length fits its prefix");
        block.push(u8::try_from(text.len()).expect("below 127"));
        block.extend_from_slice(text.as_bytes());
    }
}

/// Whether a block of a response begins with `:status` 200, be it after changes of the table's size.
pub(super) fn is_ok(block: &[u8]) -> bool {
    let is_size = |byte: u8| byte & 0xe0 == 0x20;
    let mut rest = block;
    while let Some((&byte, after)) = rest.split_first() {
        if !is_size(byte) {
            break;
        }
        rest = after;
        // A size of 31 or more goes on in bytes whose highest bit says whether another one follows.
        if byte & 0x1f == 0x1f {
            let more = rest.iter().take_while(|byte| **byte & 0x80 != 0).count();
            rest = rest.get(more + 1..).unwrap_or_default();
        }
    }
    rest.first() == Some(&(INDEXED | 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_block_names_what_the_first_one_put_into_the_table() {
        let block =
            Block::new(&[stable(":method", "GET"), stable("a", "1"), volatile("id", "7"), stable("b", "2")]);
        assert_eq!(block.first, b"\x82\x40\x01a\x011\x00\x02id\x017\x40\x01b\x012");
        assert_eq!(block.again, b"\x82\xbf\x00\x02id\x017\xbe");
        assert_eq!(block.plain, b"\x82\x00\x01a\x011\x00\x02id\x017\x00\x01b\x012");
    }

    #[test]
    fn a_small_table_is_acknowledged_once() {
        let block = Block::new(&[stable("a", "1")]);
        let mut table = Table::Filled;
        table.limit(0);
        let mut out = Vec::new();
        block.append(&mut out, table);
        assert_eq!(out, b"\x20\x00\x01a\x011");
        out.clear();
        block.append(&mut out, table.after());
        assert_eq!(out, b"\x00\x01a\x011");
    }

    #[test]
    fn status_200_is_seen_after_a_change_of_the_tables_size() {
        assert!(is_ok(&[0x88, 0x40]));
        assert!(is_ok(&[0x20, 0x3f, 0xe1, 0x1f, 0x88]));
        assert!(!is_ok(&[0x8d]));
        assert!(!is_ok(&[]));
    }
}
