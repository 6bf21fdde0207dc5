//! HPACK, the compression of HTTP/2's fields (RFC 7541). Pure: bytes in, fields out, and the other way round.
//!
//! ```text
//!   block ─▶ Decoder ─▶ integer, huffman ─▶ static_table │ table ─▶ each field
//!   field ─▶ Encoder ─▶ names (how to send it) ─▶ index (sent before?) ─▶ table ─▶ block
//! ```
//!
//! Both directions of a connection have a table of their own; the peer keeps a copy of it, so a block that was
//! begun has to be read to its end, whatever becomes of its message.

pub mod huffman;

mod decode;
mod encode;
mod index;
mod integer;
mod names;
mod static_table;
mod table;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use decode::{Decoder, Field};
pub use encode::Encoder;

/// Size of a dynamic table before SETTINGS_HEADER_TABLE_SIZE says otherwise (RFC 9113 §6.5.2).
pub const DEFAULT_TABLE_SIZE: usize = 4096;

/// Why a header block can't be read. The peer's table and ours are out of step from there on, so each is a
/// connection error of type COMPRESSION_ERROR (RFC 9113 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HpackError {
    /// An integer, a string or a field goes on beyond the block's end.
    #[error("the header block ends within a field")]
    Truncated,
    /// RFC 7541 §5.1: above 2³²−1, or written with more octets than that takes.
    #[error("the header block has an integer above 2^32-1")]
    IntegerOverflow,
    /// RFC 7541 §2.3.3 and §6.1: index 0, or one beyond both tables.
    #[error("the header block refers to field {0}, which is in neither table")]
    UnknownIndex(u32),
    /// RFC 7541 §5.2: the end-of-string symbol within a string.
    #[error("a Huffman-coded string has the end-of-string symbol inside")]
    EndOfStringInside,
    /// RFC 7541 §5.2: padding of 8 bits or more, or with a bit that is not one.
    #[error("a Huffman-coded string ends with wrong padding")]
    WrongPadding,
    /// RFC 7541 §6.3: above what our SETTINGS allow, or above a lower limit that was in force meanwhile.
    #[error("the header block sets its table to {size} bytes where at most {limit} are allowed")]
    TableTooLarge {
        /// What the peer wants.
        size: u32,
        /// What it may have.
        limit: usize,
    },
    /// RFC 7541 §4.2: a table size update after the block's first field.
    #[error("the header block changes its table's size after its first field")]
    LateTableSize,
    /// RFC 9113 §4.3.1: the limit was lowered, and the block after that begins without a table size update.
    #[error("the header block doesn't begin with the smaller table size that the peer has acknowledged")]
    MissingTableSize,
}
