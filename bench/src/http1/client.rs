//! The side that asks.

use super::{MAX_FIELDS, head_end};
use crate::{content, session};

/// Whether the connection is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// It is.
    Keep,
    /// The request says `Connection: close`.
    Close,
}

/// A client that sends one and the same request, and checks that it gets one and the same body.
#[derive(Debug)]
pub struct Client {
    request: Vec<u8>,
    expected: &'static [u8],
    /// The part of a head that has come.
    pending: Vec<u8>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A head comes.
    Head,
    /// So much of the body has come.
    Body(usize),
}

impl Client {
    /// A client for this path, whose body is `expected`.
    #[must_use]
    pub fn new(path: &str, expected: &'static [u8], persistence: Persistence) -> Self {
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: items.bench\r\n");
        for (name, value) in content::REQUEST_FIELDS {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if persistence == Persistence::Close {
            request.push_str("connection: close\r\n");
        }
        request.push_str("\r\n");
        Self { request: request.into_bytes(), expected, pending: Vec::new(), state: State::Head }
    }
}

impl session::Client for Client {
    fn open(&mut self, _out: &mut Vec<u8>) {}

    fn start(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.request);
    }

    fn receive(&mut self, mut bytes: &[u8], _out: &mut Vec<u8>) -> Result<usize, String> {
        let mut complete = 0;
        while !bytes.is_empty() {
            match &mut self.state {
                State::Head => {
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
                        return Ok(complete);
                    };
                    let head = if known == 0 { &bytes[..end] } else { &self.pending[..end] };
                    check(head, self.expected.len())?;
                    bytes = &bytes[end - known..];
                    self.pending.clear();
                    self.state = State::Body(0);
                }
                State::Body(come) => {
                    let count = bytes.len().min(self.expected.len() - *come);
                    if bytes[..count] != self.expected[*come..*come + count] {
                        return Err(format!("the body differs after byte {come}"));
                    }
                    *come += count;
                    bytes = &bytes[count..];
                    if *come == self.expected.len() {
                        complete += 1;
                        self.state = State::Head;
                    }
                }
            }
        }
        Ok(complete)
    }
}

fn check(head: &[u8], expected: usize) -> Result<(), String> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    response.parse(head).map_err(|error| format!("not a response: {error}"))?;
    if response.code != Some(200) {
        return Err(format!("not 200: {}", String::from_utf8_lossy(head).trim_end().replace("\r\n", " | ")));
    }
    let length = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
    if length != Some(expected) {
        return Err(format!("Content-Length is {length:?}, {expected} was expected"));
    }
    Ok(())
}
