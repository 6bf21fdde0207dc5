//! Where a message body ends: pure.
//!
//! [`Body`] is fed the bytes of a connection and says which of them belong to the body and which of those are
//! its content. Anything that could be read in two ways is an error.

use std::ops::Range;

use thiserror::Error;

/// Largest line of a chunk's size, and largest trailer section, in bytes.
const MAX_TRAILERS: usize = 16 * 1024;

/// How a message's body is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// By `Content-Length`.
    Length(u64),
    /// By `Transfer-Encoding: chunked`.
    Chunked,
    /// By the end of the connection; only responses.
    Close,
}

/// Why a body's framing can't be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BodyError {
    /// RFC 9112 §7.1.
    #[error("chunk size is not a hexadecimal number")]
    Size,
    /// Chunk extensions (RFC 9112 §7.1.1) are refused: nobody uses them but smugglers.
    #[error("chunk extensions are not accepted")]
    Extension,
    /// A chunk's size line or content does not end in CR LF.
    #[error("a chunk does not end in CR LF")]
    LineEnd,
    /// A trailer line is not a field, or the section is larger than 16 KiB.
    #[error("trailer section is malformed or too large")]
    Trailers,
    /// A trailer that must not be one (RFC 9110 §6.5.1): merged with the head, as some recipients do, it would
    /// change framing, routing, authentication or the meaning of the content.
    #[error("trailer section has a field that belongs to the head")]
    TrailerField,
}

/// A body that is being read.
#[derive(Clone, Debug)]
pub struct Body {
    state: State,
    /// Name of the trailer field that is being read.
    name: Name,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    Length(u64),
    Close,
    /// Before or within the size line: value so far and number of digits.
    Size(u64, u8),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// Within the trailer section: bytes so far, and where in a line.
    Trailer(usize, Line),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Start,
    Name,
    Value,
    /// CR at the end of a field.
    Cr,
    /// CR of the empty line that ends the section.
    LastCr,
}

/// What [`Body::step`] found at the front of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes that belong to the body, framing included.
    pub used: usize,
    /// Those of them that are content.
    pub content: Range<usize>,
}

impl Body {
    /// A body with this framing, before its first byte.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size(0, 0),
            Framing::Close => State::Close,
        };
        Self { state, name: Name::default() }
    }

    /// Whether the last byte was seen.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the end of the connection is a proper end here.
    #[must_use]
    pub fn may_end(&self) -> bool {
        matches!(self.state, State::Done | State::Close)
    }

    /// Takes all bytes that belong to the body and returns how many they are.
    ///
    /// # Errors
    /// [`BodyError`]; the connection can't be used any further.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, BodyError> {
        let mut used = 0;
        while used < bytes.len() && !self.is_done() {
            used += self.step(&bytes[used..])?.used;
        }
        Ok(used)
    }

    /// Whether the trailer section has begun and not ended.
    #[must_use]
    pub fn is_in_trailers(&self) -> bool {
        matches!(self.state, State::Trailer(..))
    }

    /// Takes bytes up to the end of the first run of content, or to the beginning of the trailer section.
    ///
    /// # Errors
    /// [`BodyError`]; the connection can't be used any further.
    pub fn step(&mut self, bytes: &[u8]) -> Result<Step, BodyError> {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            let content = match self.state {
                State::Done => break,
                State::Close => rest.len(),
                State::Length(left) | State::Data(left) => {
                    usize::try_from(left).unwrap_or(usize::MAX).min(rest.len())
                }
                _ => {
                    self.state = self.framing_byte(rest[0])?;
                    used += 1;
                    if self.state == State::Trailer(0, Line::Start) {
                        return Ok(Step { used, content: used..used });
                    }
                    continue;
                }
            };
            self.state = match self.state {
                State::Length(left) if left == content as u64 => State::Done,
                State::Length(left) => State::Length(left - content as u64),
                State::Data(left) if left == content as u64 => State::DataCr,
                State::Data(left) => State::Data(left - content as u64),
                other => other,
            };
            return Ok(Step { used: used + content, content: used..used + content });
        }
        Ok(Step { used, content: used..used })
    }

    fn framing_byte(&mut self, byte: u8) -> Result<State, BodyError> {
        Ok(match (self.state, byte) {
            (State::Size(_, 0), b'\r') => return Err(BodyError::Size),
            (State::Size(size, _), b'\r') => State::SizeLf(size),
            (State::Size(_, 1..), b';' | b' ' | b'\t') => return Err(BodyError::Extension),
            (State::Size(size, digits), _) => {
                let digit = (byte as char).to_digit(16).ok_or(BodyError::Size)?;
                // Sixteen digits fill 64 bits; more would overflow or hide a number behind zeros.
                if digits == 16 {
                    return Err(BodyError::Size);
                }
                State::Size(size << 4 | u64::from(digit), digits + 1)
            }
            (State::SizeLf(0), b'\n') => State::Trailer(0, Line::Start),
            (State::SizeLf(size), b'\n') => State::Data(size),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size(0, 0),
            (State::Trailer(length, _), _) if length >= MAX_TRAILERS => return Err(BodyError::Trailers),
            (State::Trailer(length, line), byte) => match self.trailer_byte(line, byte)? {
                Some(line) => State::Trailer(length + 1, line),
                None => State::Done,
            },
            _ => return Err(BodyError::LineEnd),
        })
    }

    /// Follows one byte of the trailer section; `None` at its end.
    fn trailer_byte(&mut self, line: Line, byte: u8) -> Result<Option<Line>, BodyError> {
        Ok(Some(match (line, byte) {
            (Line::Start, b'\r') => Line::LastCr,
            (Line::LastCr, b'\n') => return Ok(None),
            (Line::Name, b':') if self.name.may_trail() => Line::Value,
            (Line::Name, b':') => return Err(BodyError::TrailerField),
            (Line::Start | Line::Name, byte) if is_token(byte) => {
                if line == Line::Start {
                    self.name = Name::default();
                }
                self.name.push(byte);
                Line::Name
            }
            (Line::Value, b'\r') => Line::Cr,
            (Line::Cr, b'\n') => Line::Start,
            (Line::Value, b'\t' | b' '..=b'~' | 0x80..) => Line::Value,
            _ => return Err(BodyError::Trailers),
        }))
    }
}

/// Fields that change what a message is or where it goes (RFC 9110 §6.5.1), and those of one connection alone.
const NO_TRAILERS: [&str; 22] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "www-authenticate",
];
const LONGEST_NAME: usize = 19;

/// Whether a field may stand in a trailer section.
#[must_use]
pub fn may_trail(name: &[u8]) -> bool {
    !NO_TRAILERS.iter().any(|refused| name.eq_ignore_ascii_case(refused.as_bytes()))
}

/// A name of which only as much is kept as can be refused; `_` counts as `-`, as it does where fields become
/// variables.
#[derive(Clone, Debug, Default)]
struct Name {
    bytes: [u8; LONGEST_NAME],
    length: usize,
}

impl Name {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = if byte == b'_' { b'-' } else { byte };
        }
        self.length += 1;
    }

    fn may_trail(&self) -> bool {
        self.bytes.get(..self.length).is_none_or(may_trail)
    }
}

/// A character of a token (RFC 9110 §5.6.2).
#[must_use]
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The content of a body, and how many bytes it took, fed in pieces of this size.
    fn read(framing: Framing, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, usize, bool), BodyError> {
        let mut body = Body::new(framing);
        let (mut content, mut used) = (Vec::new(), 0);
        while used < bytes.len() && !body.is_done() {
            let end = (used + piece).min(bytes.len());
            let step = body.step(&bytes[used..end])?;
            content.extend_from_slice(&bytes[used..end][step.content]);
            used += step.used;
        }
        Ok((content, used, body.is_done()))
    }

    #[test]
    fn a_length_ends_where_it_says() {
        assert_eq!(read(Framing::Length(3), b"abcdef", 2), Ok((b"abc".to_vec(), 3, true)));
        assert_eq!(read(Framing::Length(9), b"abc", 9), Ok((b"abc".to_vec(), 3, false)));
    }

    #[test]
    fn a_chunked_body_ends_after_its_trailers() {
        let bytes = b"3\r\nabc\r\n00A\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\nGET /";
        assert_eq!(
            read(Framing::Chunked, bytes, 100),
            Ok((b"abc0123456789".to_vec(), bytes.len() - 5, true))
        );
    }

    #[test]
    fn whatever_could_be_read_in_two_ways_is_refused() {
        for (bytes, error) in [
            (&b"\r\nabc"[..], BodyError::Size),
            (b"x\r\n", BodyError::Size),
            (b"+3\r\nabc", BodyError::Size),
            (b"0x3\r\nabc", BodyError::Size),
            (b" 3\r\nabc", BodyError::Size),
            (b"00000000000000003\r\nabc", BodyError::Size),
            (b"3;a=b\r\nabc", BodyError::Extension),
            (b"3 \r\nabc", BodyError::Extension),
            (b"3\nabc", BodyError::Size),
            (b"3\rabc", BodyError::LineEnd),
            (b"3\r\nabcd\r\n", BodyError::LineEnd),
            (b"3\r\nabc\n0\r\n\r\n", BodyError::LineEnd),
            (b"0\r\nno colon\r\n\r\n", BodyError::Trailers),
            (b"0\r\na: b\n\r\n", BodyError::Trailers),
            (b"0\r\n a: b\r\n\r\n", BodyError::Trailers),
            (b"0\r\n: b\r\n\r\n", BodyError::Trailers),
            (b"0\r\nContent-Length: 3\r\n\r\n", BodyError::TrailerField),
            (b"0\r\nx: 1\r\ntransfer_encoding: chunked\r\n\r\n", BodyError::TrailerField),
            (b"0\r\nhost:a\r\n\r\n", BodyError::TrailerField),
        ] {
            assert_eq!(read(Framing::Chunked, bytes, 100), Err(error), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_trailer_that_only_resembles_a_refused_one_passes() {
        for name in [
            "x-content-length",
            "content-lengthy",
            "hos",
            "proxy-authorization-of-another-kind",
            "grpc-status",
        ] {
            let bytes = format!("0\r\n{name}: 1\r\n\r\n");
            assert!(read(Framing::Chunked, bytes.as_bytes(), 1).expect(name).2);
        }
        assert!(NO_TRAILERS.iter().all(|name| name.len() <= LONGEST_NAME));
    }

    #[test]
    fn an_endless_trailer_section_is_refused() {
        let bytes = [b"0\r\na: ".as_slice(), &vec![b'x'; 20_000]].concat();
        assert_eq!(read(Framing::Chunked, &bytes, 1000), Err(BodyError::Trailers));
    }

    proptest! {
        #[test]
        fn how_the_bytes_arrive_does_not_matter(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            piece in 1..50usize,
        ) {
            let mut bytes = Vec::new();
            for chunk in &chunks {
                bytes.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\nt: v\r\n\r\n");
            let length = bytes.len();
            bytes.extend_from_slice(b"next");
            prop_assert_eq!(read(Framing::Chunked, &bytes, piece), Ok((chunks.concat(), length, true)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), piece in 1..50usize) {
            let _ = read(Framing::Chunked, &bytes, piece);
        }
    }
}
