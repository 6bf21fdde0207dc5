//! Which rule a request falls under: pure, first match wins.
//!
//! The operator has put the entries in order of precedence; the first that matches decides. A [`Table`] finds it without
//! walking past all of them.
//!
//! ```text
//!   entries ─▶ Table ─┬─ exact paths: by hash      ┐
//!                     ├─ prefixes: tree of segments │ ─▶ Group ─┬─ by the value of a header: by hash
//!                     └─ regular expressions: list  ┘           └─ the others: list
//! ```

mod condition;
mod group;
mod prefixes;
mod table;

pub use self::{
    condition::fault,
    table::{Found, Table},
};
use crate::message::Field;

/// What of a request decides its route.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// Method, as received.
    pub method: &'a str,
    /// Path without query, as received (not percent-decoded).
    pub path: &'a str,
    /// What follows the question mark, as received.
    pub query: Option<&'a str>,
    /// Host that it is for, and maybe a port, as received.
    pub authority: &'a [u8],
    /// Header fields, as received.
    pub fields: &'a [Field<'a>],
}
