//! Responses that the proxy makes itself: each names its cause in the `ferrule-error` header.

use std::io::Write as _;

use ferrule_config::names::ERROR_HEADER;

use super::{head::HeadError, rewrite::Persistence};
use crate::{act::Answer, cause::Cause};

impl From<HeadError> for Cause {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Malformed(_) | HeadError::Framing(_) => Self::BadRequest,
            HeadError::TooManyFields | HeadError::TooLarge => Self::HeadTooLarge,
            HeadError::LineTooLong => Self::UriTooLong,
            HeadError::Coding => Self::UnknownCoding,
            HeadError::Version => Self::UnknownVersion,
        }
    }
}

/// Appends a whole response. `detail` is for the reader at three in the morning; `to_head`: without its body.
pub fn write(out: &mut Vec<u8>, cause: Cause, detail: &str, persistence: Persistence, to_head: bool) {
    let (status, reason) = cause.status();
    let connection = match persistence {
        Persistence::Implied | Persistence::Upgrade => "",
        Persistence::KeepAlive => "connection: keep-alive\r\n",
        Persistence::Close => "connection: close\r\n",
    };
    let detail: String = detail.chars().filter(|char| !char.is_control()).take(500).collect();
    let length = "ferrule: \n".len() + detail.len();
    // Writing to a vector can't fail.
    let _ = write!(
        out,
        "HTTP/1.1 {status} {reason}\r\n{ERROR_HEADER}: {}\r\ncontent-type: text/plain; charset=utf-8\r\n\
         content-length: {length}\r\n{connection}\r\n",
        cause.name(),
    );
    if !to_head {
        let _ = writeln!(out, "ferrule: {detail}");
    }
}

/// Appends a whole response that a Route asks for. `to_head`: without its body.
pub fn answer(out: &mut Vec<u8>, answer: &Answer, persistence: Persistence, to_head: bool) {
    // Writing to a vector can't fail.
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", answer.status, answer.reason());
    for (name, value) in &answer.fields {
        let _ = write!(out, "{name}: {value}\r\n");
    }
    if answer.has_content() {
        let _ = write!(out, "content-length: {}\r\n", answer.body.len());
    }
    match persistence {
        Persistence::Implied | Persistence::Upgrade => {}
        Persistence::KeepAlive => out.extend_from_slice(b"connection: keep-alive\r\n"),
        Persistence::Close => out.extend_from_slice(b"connection: close\r\n"),
    }
    out.extend_from_slice(b"\r\n");
    if !to_head {
        out.extend_from_slice(answer.body.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_fits_the_body() {
        let mut out = Vec::new();
        write(&mut out, Cause::NoRoute, "no rule of shop/cart matches GET /ä\r\n", Persistence::Close, false);
        let text = String::from_utf8(out).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\nferrule-error: no-route\r\n"));
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert!(head.contains("connection: close"));
    }
}
