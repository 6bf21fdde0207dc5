//! The fields that decide over framing and connection, found in one walk.

use super::{HeadError, Version};
use crate::{deadline::is_deadline, message::Field};

/// What `Transfer-Encoding` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// `chunked` alone.
    Chunked,
    /// Others, and `chunked` last.
    ThenChunked,
    /// Anything else: the end of the body can't be known.
    Other,
}

/// What `Connection` says (RFC 9110 §7.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
    pub te: bool,
}

impl Options {
    /// Whether the connection can carry another message (RFC 9112 §9.3).
    pub fn keep_alive(self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }
}

/// What was noted on a walk along the fields.
#[derive(Debug, Default)]
pub(super) struct Noted<'a> {
    pub host: Option<&'a [u8]>,
    pub hosts: usize,
    pub length: Option<u64>,
    pub coding: Option<Coding>,
    pub options: Options,
    pub upgrade: bool,
    pub te: bool,
    pub expects_continue: bool,
    /// A field tells of a deadline.
    pub deadline: bool,
}

impl<'a> Noted<'a> {
    /// Looks at each field once; its length alone tells most of them apart.
    pub fn new(fields: &[Field<'a>]) -> Result<Self, HeadError> {
        let mut noted = Self::default();
        for Field { name, value } in fields {
            match name.len() {
                2 if name.eq_ignore_ascii_case("te") => noted.te = true,
                4 if name.eq_ignore_ascii_case("host") => {
                    noted.hosts += 1;
                    noted.host = Some(value);
                }
                6 if name.eq_ignore_ascii_case("expect") => {
                    noted.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
                }
                7 if name.eq_ignore_ascii_case("upgrade") => noted.upgrade = true,
                10 if name.eq_ignore_ascii_case("connection") => noted.connection(value),
                12 | 16 | 30 if is_deadline(name.as_bytes()) => noted.deadline = true,
                14 if is_alike(name, "content-length") => noted.content_length(name, value)?,
                17 if is_alike(name, "transfer-encoding") => noted.transfer_encoding(name, value)?,
                _ => {}
            }
        }
        Ok(noted)
    }

    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            self.options.close |= option.eq_ignore_ascii_case(b"close");
            self.options.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.options.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
            self.options.te |= option.eq_ignore_ascii_case(b"te");
        }
    }

    fn content_length(&mut self, name: &str, value: &[u8]) -> Result<(), HeadError> {
        refuse_underscore(name)?;
        if self.length.is_some() {
            return Err(HeadError::Framing("more than one Content-Length"));
        }
        self.length = Some(content_length(value)?);
        Ok(())
    }

    fn transfer_encoding(&mut self, name: &str, value: &[u8]) -> Result<(), HeadError> {
        refuse_underscore(name)?;
        if self.coding.is_some() {
            return Err(HeadError::Framing("more than one Transfer-Encoding"));
        }
        let last = value.rsplit(|&byte| byte == b',').next().unwrap_or_default().trim_ascii();
        self.coding = Some(if value.eq_ignore_ascii_case(b"chunked") {
            Coding::Chunked
        } else if last.eq_ignore_ascii_case(b"chunked") {
            Coding::ThenChunked
        } else {
            Coding::Other
        });
        Ok(())
    }
}

/// Whether a name is `other`, or is taken for it where `_` and `-` are the same: in CGI's variables and all that
/// came after them.
fn is_alike(name: &str, other: &str) -> bool {
    name.bytes()
        .zip(other.bytes())
        .all(|(byte, other)| byte.eq_ignore_ascii_case(&other) || (byte == b'_' && other == b'-'))
}

fn refuse_underscore(name: &str) -> Result<(), HeadError> {
    if name.contains('_') {
        return Err(HeadError::Framing("a field that speaks of framing is written with an underscore"));
    }
    Ok(())
}

/// RFC 9110 §8.6: digits only; a list, a sign or a number beyond 64 bits is refused.
fn content_length(value: &[u8]) -> Result<u64, HeadError> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value)
        .ok()
        .filter(|_| digits)
        .and_then(|value| value.parse().ok())
        .ok_or(HeadError::Framing("Content-Length is not a number"))
}
