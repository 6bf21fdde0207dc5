//! The side that answers.

use std::sync::LazyLock;

use super::{MAX_FIELDS, head_end};
use crate::{
    content,
    session::{self, After},
};

/// A server of two bodies.
#[derive(Debug, Default)]
pub struct Server {
    pending: Vec<u8>,
}

static SMALL: LazyLock<Vec<u8>> = LazyLock::new(|| response("200 OK", &content::SMALL_BODY));
static LARGE: LazyLock<Vec<u8>> = LazyLock::new(|| response("200 OK", &content::LARGE_BODY));
static MISSING: LazyLock<Vec<u8>> = LazyLock::new(|| response("404 Not Found", b"no such path\n"));

fn response(status: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/octet-stream\r\ncontent-length: {length}\r\n\
         cache-control: no-store\r\nx-served-by: backend\r\n\r\n"
    )
    .into_bytes();
    response.extend_from_slice(body);
    response
}

impl session::Server for Server {
    fn receive(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<After, String> {
        while !bytes.is_empty() {
            let known = self.pending.len();
            let end = if known == 0 {
                head_end(bytes, 0)
            } else {
                self.pending.extend_from_slice(bytes);
                head_end(&self.pending, known)
            };
            let Some(end) = end else {
                if known == 0 {
                    self.pending.extend_from_slice(bytes);
                }
                return Ok(After::Open);
            };
            let head = if known == 0 { &bytes[..end] } else { &self.pending[..end] };
            let after = answer(head, out)?;
            bytes = &bytes[end - known..];
            self.pending.clear();
            if after == After::Close {
                return Ok(After::Close);
            }
        }
        Ok(After::Open)
    }
}

fn answer(head: &[u8], out: &mut Vec<u8>) -> Result<After, String> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    request.parse(head).map_err(|error| format!("not a request: {error}"))?;
    out.extend_from_slice(match request.path {
        Some(content::SMALL_PATH) => &SMALL,
        Some(content::LARGE_PATH) => &LARGE,
        _ => &MISSING,
    });
    let closes = request.headers.iter().any(|field| {
        field.name.eq_ignore_ascii_case("connection") && field.value.eq_ignore_ascii_case(b"close")
    });
    Ok(if closes || request.version == Some(0) { After::Close } else { After::Open })
}
