//! Heads of requests and responses: bytes to meaning, strictly and without a copy.
//!
//! Whatever another parser could understand differently is refused (RFC 9112 §11): the message that we frame
//! must be the message that the next hop frames.

mod fields;
mod scan;
mod target;
#[cfg(test)]
mod tests;

use std::mem::MaybeUninit;

use thiserror::Error;

use self::fields::{Coding, Noted};
pub use self::{
    scan::Scan,
    target::{Form, is_authority},
};
use super::body::Framing;
use crate::{
    limits::Limit,
    message::{Field, list},
};

/// Most fields that a head can have, whatever the settings say.
pub const MAX_FIELDS: usize = 256;
/// Largest head in bytes, whatever the settings say.
pub const MAX_HEAD: usize = 1024 * 1024;

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadError {
    /// The start line or a field is not as RFC 9112 §2 to §5 say.
    #[error("malformed head: {0}")]
    Malformed(&'static str),
    /// `Content-Length` or `Transfer-Encoding` do not give one framing (RFC 9112 §6).
    #[error("ambiguous framing: {0}")]
    Framing(&'static str),
    /// More fields than are allowed (RFC 6585 §5: 431).
    #[error("head has too many fields")]
    TooManyFields,
    /// More bytes than are allowed (RFC 6585 §5: 431).
    #[error("head is too large")]
    TooLarge,
    /// The request line is longer than is allowed (RFC 9112 §3: 414).
    #[error("request line is too long")]
    LineTooLong,
    /// A transfer coding other than `chunked` (RFC 9112 §6.1: 501).
    #[error("transfer coding other than chunked")]
    Coding,
    /// Not HTTP/1.0 or 1.1.
    #[error("HTTP version is not supported")]
    Version,
}

impl HeadError {
    /// The limit that was exceeded, if that was the reason.
    #[must_use]
    pub fn limit(self) -> Option<Limit> {
        match self {
            Self::TooManyFields => Some(Limit::Fields),
            Self::TooLarge => Some(Limit::HeadBytes),
            Self::LineTooLong => Some(Limit::RequestLine),
            Self::Malformed(_) | Self::Framing(_) | Self::Coding | Self::Version => None,
        }
    }
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
    /// Request target.
    pub target: &'a str,
    /// Which of the four forms the target has (RFC 9112 §3.2).
    pub form: Form<'a>,
    /// Version of the client.
    pub version: Version,
    /// Fields in their order.
    pub fields: &'a [Field<'a>],
    /// Value of the `Host` field; empty if there is none.
    pub host: &'a [u8],
    /// How its body ends.
    pub framing: Framing,
    /// Whether the client wants to send further requests on this connection.
    pub keep_alive: bool,
    /// Whether it asks for another protocol with `Upgrade`, and may have it: HTTP/2 is not to be reached so, and a
    /// request with a body stays as it is.
    pub upgrade: bool,
    /// Whether the client waits for an interim response before it sends the body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// Whether the client says that it takes trailers (RFC 9110 §10.1.4).
    pub takes_trailers: bool,
    /// Whether a field tells of a deadline.
    pub has_deadline: bool,
}

impl<'a> RequestHead<'a> {
    /// Path of the target without query: `/` for an absolute form without path, `*` and the authority as they are.
    #[must_use]
    pub fn path(&self) -> &'a str {
        match self.path_and_query().split('?').next() {
            Some("") | None => "/",
            Some(path) => path,
        }
    }

    /// What follows the question mark of the target.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.path_and_query().split_once('?').map(|(_, query)| query)
    }

    /// Host that it is for, and maybe a port: the target's if that names one (RFC 9112 §3.2.2).
    #[must_use]
    pub fn authority(&self) -> &'a [u8] {
        match self.form {
            Form::Absolute { authority, .. } => authority.as_bytes(),
            Form::Authority => self.target.as_bytes(),
            Form::Origin | Form::Asterisk => self.host,
        }
    }

    fn path_and_query(&self) -> &'a str {
        match self.form {
            Form::Absolute { after, .. } => after,
            Form::Origin | Form::Authority | Form::Asterisk => self.target,
        }
    }

    /// Bytes of the request line without its end.
    #[must_use]
    pub fn line_length(&self) -> usize {
        self.method.len() + self.target.len() + "  HTTP/1.1".len()
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
    /// Whether the fields that speak of framing are to be dropped, for this status has no content and a recipient
    /// could wait for some (RFC 9110 §8.6 and §9.3.6).
    pub drops_framing: bool,
}

/// Space for the fields of a head while it is looked at.
pub type FieldSpace<'a> = [MaybeUninit<Field<'a>>; MAX_FIELDS];

/// A [`FieldSpace`]; it is not filled, so it costs nothing.
#[must_use]
pub fn field_space<'a>() -> FieldSpace<'a> {
    [const { MaybeUninit::uninit() }; MAX_FIELDS]
}

/// Parses a request's head and tells its length; `None` while it is incomplete.
///
/// # Errors
/// [`HeadError`]: the request must be answered with an error and the connection closed.
pub fn request<'a>(
    bytes: &'a [u8],
    space: &'a mut FieldSpace<'a>,
) -> Result<Option<(RequestHead<'a>, usize)>, HeadError> {
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(bytes, space);
    let Some(length) = complete(bytes, parsed)? else { return Ok(None) };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(HeadError::Malformed("request line"));
    };
    let fields: &'a [Field<'a>] = request.headers;
    let version = version(minor);
    let form = target::form(method, target)?;
    let noted = Noted::new(fields)?;
    check_host(&noted, version)?;
    let framing = match (noted.coding, noted.length) {
        (None, None) => Framing::None,
        (None, Some(length)) => Framing::Length(length),
        (Some(_), _) if version == Version::Http10 => {
            return Err(HeadError::Framing("Transfer-Encoding in an HTTP/1.0 request"));
        }
        (Some(_), Some(_)) => return Err(HeadError::Framing("both Transfer-Encoding and Content-Length")),
        (Some(Coding::Chunked), None) => Framing::Chunked,
        (Some(Coding::ThenChunked), None) => return Err(HeadError::Coding),
        (Some(Coding::Other), None) => {
            return Err(HeadError::Framing("the last transfer coding is not chunked"));
        }
    };
    if form == Form::Authority && framing != Framing::None {
        return Err(HeadError::Framing("CONNECT has no content"));
    }
    let modern = version == Version::Http11;
    let bare = matches!(framing, Framing::None | Framing::Length(0));
    let upgrade = modern && bare && noted.upgrade && noted.options.upgrade && !asks_for_http2(fields);
    let takes_trailers = noted.te
        && noted.options.te
        && list(fields, "te").any(|member| member.eq_ignore_ascii_case(b"trailers"));
    let head = RequestHead {
        method,
        target,
        form,
        version,
        fields,
        host: noted.host.unwrap_or_default(),
        framing,
        keep_alive: noted.options.keep_alive(version),
        upgrade,
        expects_continue: modern && noted.expects_continue,
        takes_trailers,
        has_deadline: noted.deadline,
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
    let mut response = httparse::Response::new(&mut []);
    let parsed =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, space);
    let Some(length) = complete(bytes, parsed)? else { return Ok(None) };
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Err(HeadError::Malformed("status line"));
    };
    if !(100..=999).contains(&status) {
        return Err(HeadError::Malformed("status code"));
    }
    let reason = response.reason.unwrap_or_default();
    let fields: &'a [Field<'a>] = response.headers;
    let version = version(minor);
    let noted = Noted::new(fields)?;
    match (noted.coding, noted.length) {
        (Some(_), _) if version == Version::Http10 => {
            return Err(HeadError::Framing("Transfer-Encoding in an HTTP/1.0 response"));
        }
        (Some(_), Some(_)) => return Err(HeadError::Framing("both Transfer-Encoding and Content-Length")),
        (Some(Coding::ThenChunked | Coding::Other), _) => return Err(HeadError::Coding),
        _ => {}
    }
    let tunnel = to_connect && matches!(status, 200..=299);
    // RFC 9112 §6.1 and RFC 9110 §8.6: a server must not send these; some clients would wait for the content.
    let never = matches!(status, 100..=199 | 204);
    if never && (noted.coding.is_some() || noted.length.is_some_and(|length| length > 0)) {
        return Err(HeadError::Framing("a status without content announces some"));
    }
    let framing = if to_head || never || tunnel || status == 304 {
        Framing::None
    } else if noted.coding.is_some() {
        Framing::Chunked
    } else {
        noted.length.map_or(Framing::Close, Framing::Length)
    };
    let keep_alive = framing != Framing::Close && noted.options.keep_alive(version);
    let head = ResponseHead { status, reason, fields, framing, keep_alive, drops_framing: never || tunnel };
    Ok(Some((head, length)))
}

/// The length of a head that the parser took, if it is one that every other parser takes alike.
fn complete(bytes: &[u8], parsed: httparse::Result<usize>) -> Result<Option<usize>, HeadError> {
    match parsed {
        Ok(httparse::Status::Complete(length)) if length > MAX_HEAD => Err(HeadError::TooLarge),
        Ok(httparse::Status::Complete(length)) => scan::strict_lines(&bytes[..length]).map(|()| Some(length)),
        Ok(httparse::Status::Partial) if bytes.len() >= MAX_HEAD => Err(HeadError::TooLarge),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(malformed(bytes, error)),
    }
}

fn malformed(bytes: &[u8], error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::Version if names_a_version(bytes) => HeadError::Version,
        httparse::Error::Version => HeadError::Malformed("HTTP version"),
        httparse::Error::HeaderName => HeadError::Malformed("field name"),
        httparse::Error::HeaderValue => HeadError::Malformed("field value"),
        httparse::Error::NewLine => HeadError::Malformed("line end"),
        httparse::Error::Status => HeadError::Malformed("status"),
        httparse::Error::Token => HeadError::Malformed("start line"),
    }
}

/// Whether the start line is one of RFC 9112 but for its version, which is written as §2.3 has it and not one of ours.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let parts = line.splitn(4, |&byte| byte == b' ').collect::<Vec<_>>();
    matches!(parts.as_slice(), [_, target, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]]
        if !target.is_empty() && major.is_ascii_digit() && minor.is_ascii_digit())
}

fn version(minor: u8) -> Version {
    if minor == 0 { Version::Http10 } else { Version::Http11 }
}

/// RFC 9112 §3.2: exactly one `Host` in HTTP/1.1, never more than one, and a valid one.
fn check_host(noted: &Noted<'_>, version: Version) -> Result<(), HeadError> {
    match noted.host {
        _ if noted.hosts > 1 => Err(HeadError::Malformed("more than one Host")),
        None if version == Version::Http10 => Ok(()),
        None => Err(HeadError::Malformed("Host is missing")),
        Some(host) if host.is_empty() || is_authority(host) => Ok(()),
        Some(_) => Err(HeadError::Malformed("Host is not a host and a port")),
    }
}

/// RFC 9113 §3.1 has done away with the upgrade to HTTP/2, and through a proxy that does not take part in it, it
/// is a way past all that the proxy decides.
fn asks_for_http2(fields: &[Field<'_>]) -> bool {
    list(fields, "upgrade").any(|protocol| {
        let name = protocol.split(|&byte| byte == b'/').next().unwrap_or_default();
        let version = &protocol[name.len()..];
        name.eq_ignore_ascii_case(b"h2c")
            || name.eq_ignore_ascii_case(b"h2")
            || (name.eq_ignore_ascii_case(b"http") && version != b"/1.1")
    })
}
