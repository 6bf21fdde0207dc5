//! Heads of requests and responses: bytes to meaning, strictly and without a copy.
//!
//! Whatever another parser could understand differently is refused (RFC 9112 §11): the message that we frame
//! must be the message that the next hop frames.

use thiserror::Error;

use super::body::Framing;
use crate::message::{Field, list};

/// Most fields of a head. More: 431 (RFC 6585 §5).
pub const MAX_FIELDS: usize = 128;
/// Largest head in bytes. More: 431.
pub const MAX_HEAD: usize = 64 * 1024;

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadError {
    /// The start line or a field is not as RFC 9112 §2 to §5 say.
    #[error("malformed head: {0}")]
    Malformed(&'static str),
    /// `Content-Length` or `Transfer-Encoding` do not give one framing (RFC 9112 §6).
    #[error("ambiguous framing: {0}")]
    Framing(&'static str),
    /// More than [`MAX_FIELDS`] or [`MAX_HEAD`].
    #[error("head has more than {MAX_FIELDS} fields or {MAX_HEAD} bytes")]
    TooLarge,
    /// A transfer coding other than `chunked` (RFC 9112 §6.1: 501).
    #[error("transfer coding other than chunked")]
    Coding,
    /// Not HTTP/1.0 or 1.1.
    #[error("HTTP version is not supported")]
    Version,
}

/// HTTP/1.0 or HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// A request's head, borrowed from the bytes it was read from.
#[derive(Debug)]
pub struct RequestHead<'a> {
    /// Method.
    pub method: &'a str,
    /// Request target in any of its four forms (RFC 9112 §3.2).
    pub target: &'a str,
    /// Version of the client.
    pub version: Version,
    /// Fields in their order.
    pub fields: &'a [Field<'a>],
    /// How its body ends.
    pub framing: Framing,
    /// Whether the client wants to send further requests on this connection.
    pub keep_alive: bool,
    /// Whether it asks for another protocol with `Upgrade`.
    pub upgrade: bool,
}

impl<'a> RequestHead<'a> {
    /// Path of the target without query: `/` for an absolute form without path, `*` and the authority as they are.
    #[must_use]
    pub fn path(&self) -> &'a str {
        let target = match self.target.split_once("://") {
            Some((_, rest)) if !self.target.starts_with('/') => match rest.find(['/', '?']) {
                Some(start) => &rest[start..],
                None => "/",
            },
            _ => self.target,
        };
        match target.split('?').next() {
            Some("") | None => "/",
            Some(path) => path,
        }
    }
}

/// A response's head, borrowed from the bytes it was read from.
#[derive(Debug)]
pub struct ResponseHead<'a> {
    /// Status code, 100 to 999.
    pub status: u16,
    /// Reason phrase.
    pub reason: &'a str,
    /// Fields in their order.
    pub fields: &'a [Field<'a>],
    /// How its body ends.
    pub framing: Framing,
    /// Whether the server takes further requests on this connection.
    pub keep_alive: bool,
}

/// Space for the fields of a head while it is looked at.
pub type FieldSpace<'a> = [Field<'a>; MAX_FIELDS];

/// An empty [`FieldSpace`].
#[must_use]
pub fn field_space<'a>() -> FieldSpace<'a> {
    [httparse::EMPTY_HEADER; MAX_FIELDS]
}

/// Parses a request's head and tells its length; `None` while it is incomplete.
///
/// # Errors
/// [`HeadError`]: the request must be answered with an error and the connection closed.
pub fn request<'a>(
    bytes: &'a [u8],
    space: &'a mut FieldSpace<'a>,
) -> Result<Option<(RequestHead<'a>, usize)>, HeadError> {
    let mut request = httparse::Request::new(space);
    let length = match request.parse(bytes).map_err(malformed)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return incomplete(bytes),
    };
    strict_lines(bytes, length)?;
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(HeadError::Malformed("request line"));
    };
    let fields: &'a [Field<'a>] = request.headers;
    let version = version(minor);
    check_host(fields, version)?;
    let framing = match lengths(fields)? {
        Lengths { coding: Coding::None, length: None } => Framing::None,
        Lengths { coding: Coding::None, length: Some(length) } => Framing::Length(length),
        Lengths { coding: Coding::Chunked, length: None } if version == Version::Http11 => Framing::Chunked,
        Lengths { coding: Coding::Chunked, length: None } => {
            return Err(HeadError::Framing("Transfer-Encoding in an HTTP/1.0 request"));
        }
        Lengths { coding: Coding::Chunked, length: Some(_) } => {
            return Err(HeadError::Framing("both Transfer-Encoding and Content-Length"));
        }
        Lengths { coding: Coding::Other, .. } => return Err(HeadError::Coding),
    };
    let upgrade = version == Version::Http11 && nominates(fields, "upgrade") && has(fields, "upgrade");
    let head = RequestHead {
        method,
        target,
        version,
        fields,
        framing,
        keep_alive: keep_alive(fields, version),
        upgrade,
    };
    Ok(Some((head, length)))
}

/// Parses a response's head and tells its length; `None` while it is incomplete. `to_head` and `to_connect`:
/// the method of the request, for it decides over the body (RFC 9112 §6.3).
///
/// # Errors
/// [`HeadError`]: the response must not be forwarded and its connection must be closed.
pub fn response<'a>(
    bytes: &'a [u8],
    space: &'a mut FieldSpace<'a>,
    to_head: bool,
    to_connect: bool,
) -> Result<Option<(ResponseHead<'a>, usize)>, HeadError> {
    let mut response = httparse::Response::new(space);
    let length = match response.parse(bytes).map_err(malformed)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return incomplete(bytes),
    };
    strict_lines(bytes, length)?;
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Err(HeadError::Malformed("status line"));
    };
    if !(100..=999).contains(&status) {
        return Err(HeadError::Malformed("status code"));
    }
    let reason = response.reason.unwrap_or_default();
    let fields: &'a [Field<'a>] = response.headers;
    let version = version(minor);
    let bodiless =
        to_head || matches!(status, 100..=199 | 204 | 304) || (to_connect && matches!(status, 200..=299));
    let framing = match lengths(fields)? {
        Lengths { coding: Coding::Chunked, length: Some(_) } => {
            return Err(HeadError::Framing("both Transfer-Encoding and Content-Length"));
        }
        Lengths { coding: Coding::Chunked, .. } if version == Version::Http10 => {
            return Err(HeadError::Framing("Transfer-Encoding in an HTTP/1.0 response"));
        }
        Lengths { coding: Coding::Other, .. } => return Err(HeadError::Coding),
        _ if bodiless => Framing::None,
        Lengths { coding: Coding::Chunked, .. } => Framing::Chunked,
        Lengths { length: Some(length), .. } => Framing::Length(length),
        Lengths { .. } => Framing::Close,
    };
    let keep_alive = framing != Framing::Close && keep_alive(fields, version);
    Ok(Some((ResponseHead { status, reason, fields, framing, keep_alive }, length)))
}

fn malformed(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        httparse::Error::Version => HeadError::Version,
        httparse::Error::HeaderName => HeadError::Malformed("field name"),
        httparse::Error::HeaderValue => HeadError::Malformed("field value"),
        httparse::Error::NewLine => HeadError::Malformed("line end"),
        httparse::Error::Status => HeadError::Malformed("status"),
        httparse::Error::Token => HeadError::Malformed("start line"),
    }
}

fn incomplete<T>(bytes: &[u8]) -> Result<Option<T>, HeadError> {
    if bytes.len() >= MAX_HEAD { Err(HeadError::TooLarge) } else { Ok(None) }
}

/// The parser takes a bare LF for a line end, and skips empty lines before the start line; a stricter or laxer
/// hop would see another message. Every line must end in CR LF and the first must not be empty.
fn strict_lines(bytes: &[u8], length: usize) -> Result<(), HeadError> {
    if length > MAX_HEAD {
        return Err(HeadError::TooLarge);
    }
    if matches!(bytes.first(), Some(b'\r' | b'\n')) {
        return Err(HeadError::Malformed("empty line before the start line"));
    }
    let head = &bytes[..length];
    let bare = head.iter().enumerate().any(|(at, &byte)| byte == b'\n' && (at == 0 || head[at - 1] != b'\r'));
    if bare { Err(HeadError::Malformed("line ends in a bare LF")) } else { Ok(()) }
}

fn version(minor: u8) -> Version {
    if minor == 0 { Version::Http10 } else { Version::Http11 }
}

/// RFC 9112 §3.2: exactly one `Host` in HTTP/1.1, and never more than one.
fn check_host(fields: &[Field<'_>], version: Version) -> Result<(), HeadError> {
    match fields.iter().filter(|field| field.name.eq_ignore_ascii_case("host")).count() {
        1 => Ok(()),
        0 if version == Version::Http10 => Ok(()),
        0 => Err(HeadError::Malformed("Host is missing")),
        _ => Err(HeadError::Malformed("more than one Host")),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Coding {
    None,
    Chunked,
    Other,
}

struct Lengths {
    coding: Coding,
    length: Option<u64>,
}

fn lengths(fields: &[Field<'_>]) -> Result<Lengths, HeadError> {
    let mut lengths = Lengths { coding: Coding::None, length: None };
    for field in fields {
        if field.name.eq_ignore_ascii_case("content-length") {
            if lengths.length.is_some() {
                return Err(HeadError::Framing("more than one Content-Length"));
            }
            lengths.length = Some(content_length(field.value)?);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            if lengths.coding != Coding::None {
                return Err(HeadError::Framing("more than one Transfer-Encoding"));
            }
            let chunked = field.value.eq_ignore_ascii_case(b"chunked");
            lengths.coding = if chunked { Coding::Chunked } else { Coding::Other };
        }
    }
    Ok(lengths)
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

fn keep_alive(fields: &[Field<'_>], version: Version) -> bool {
    match version {
        Version::Http11 => !nominates(fields, "close"),
        Version::Http10 => nominates(fields, "keep-alive") && !nominates(fields, "close"),
    }
}

fn nominates(fields: &[Field<'_>], option: &str) -> bool {
    list(fields, "connection").any(|member| member.eq_ignore_ascii_case(option.as_bytes()))
}

fn has(fields: &[Field<'_>], name: &str) -> bool {
    fields.iter().any(|field| field.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The framing of a request with these lines after `Host`, or why it is refused.
    fn framing(lines: &str) -> Result<Framing, HeadError> {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut space = field_space();
        let (head, length) = request(bytes.as_bytes(), &mut space)?.expect("it is complete");
        assert_eq!(length, bytes.len());
        Ok(head.framing)
    }

    fn refused(bytes: &[u8]) -> bool {
        request(bytes, &mut field_space()).is_err()
    }

    #[test]
    fn one_framing_or_none() {
        use Framing::{Chunked, Length, None};
        for (lines, expected) in [
            ("", Ok(None)),
            ("Content-Length: 0\r\n", Ok(Length(0))),
            ("content-length: 12\r\n", Ok(Length(12))),
            ("Transfer-Encoding: chunked\r\n", Ok(Chunked)),
            ("Transfer-Encoding: Chunked\r\n", Ok(Chunked)),
        ] {
            assert_eq!(framing(lines), expected, "{lines}");
        }
        for lines in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: \r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: \x0bchunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "X: a\r\n b\r\n",
            "X: a\nY: b\r\n",
            "X: a\rY: b\r\n",
            "X: a\0b\r\n",
            "X y: a\r\n",
            ": a\r\n",
            "Host: b\r\n",
        ] {
            assert!(framing(lines).is_err(), "{}", lines.escape_debug());
        }
    }

    #[test]
    fn a_request_line_is_taken_by_the_letter() {
        for bytes in [
            &b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"GET / HTTP/1.1\nHost: a\n\n",
            b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            b"GET / http/1.1\r\nHost: a\r\n\r\n",
            b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert!(refused(bytes), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_head_that_never_ends_is_refused() {
        let bytes = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ".as_slice(), &vec![b'x'; MAX_HEAD]].concat();
        assert_eq!(request(&bytes, &mut field_space()).err(), Some(HeadError::TooLarge));
        let many: String = (0..MAX_FIELDS).map(|n| format!("x{n}: y\r\n")).collect();
        assert_eq!(framing(&many), Err(HeadError::TooLarge));
    }

    #[test]
    fn the_path_is_found_in_every_form_of_the_target() {
        for (target, path) in [
            ("/a/b?c=d", "/a/b"),
            ("/", "/"),
            ("http://host/a?b", "/a"),
            ("http://host", "/"),
            ("http://host?x", "/"),
            ("/redirect?to=http://host/x", "/redirect"),
            ("/http://x", "/http://x"),
            ("*", "*"),
        ] {
            let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut space = field_space();
            let (head, _) = request(bytes.as_bytes(), &mut space).expect("valid").expect("complete");
            assert_eq!(head.path(), path, "{target}");
        }
    }

    fn response_framing(bytes: &str, to_head: bool, to_connect: bool) -> Result<Framing, HeadError> {
        let mut space = field_space();
        let (head, _) = response(bytes.as_bytes(), &mut space, to_head, to_connect)?.expect("complete");
        Ok(head.framing)
    }

    #[test]
    fn a_response_is_held_to_the_same_standard() {
        for (bytes, head, connect, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, false, Framing::Length(5)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, false, Framing::None),
            ("HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", false, false, Framing::None),
            ("HTTP/1.1 204 x\r\n\r\n", false, false, Framing::None),
            ("HTTP/1.1 101 x\r\nUpgrade: x\r\n\r\n", false, false, Framing::None),
            ("HTTP/1.1 200 OK\r\n\r\n", false, false, Framing::Close),
            ("HTTP/1.1 200 OK\r\n\r\n", false, true, Framing::None),
            ("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", false, false, Framing::Chunked),
        ] {
            assert_eq!(response_framing(bytes, head, connect), Ok(expected), "{bytes}");
        }
        for bytes in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 99 OK\r\n\r\n",
            "HTTP/1.1 200 OK\nX: y\n\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        ] {
            assert!(response_framing(bytes, false, false).is_err(), "{}", bytes.escape_debug());
        }
    }

    #[test]
    fn persistence_follows_version_and_connection_field() {
        for (line, options, expected) in [
            ("HTTP/1.1", "", true),
            ("HTTP/1.1", "Connection: close\r\n", false),
            ("HTTP/1.1", "Connection: x, Close\r\n", false),
            ("HTTP/1.0", "", false),
            ("HTTP/1.0", "Connection: keep-alive\r\n", true),
        ] {
            let bytes = format!("GET / {line}\r\nHost: a\r\n{options}\r\n");
            let mut space = field_space();
            let (head, _) = request(bytes.as_bytes(), &mut space).expect("valid").expect("complete");
            assert_eq!(head.keep_alive, expected, "{line} {options}");
        }
    }
}
