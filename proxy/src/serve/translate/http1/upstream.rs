//! An endpoint that speaks HTTP/1, for a client that speaks HTTP/2.

use std::io;

use tokio::io::AsyncWriteExt;

use super::{Coding, Writer, field, incoming::Incoming};
use crate::{
    buffer::Buffer,
    http1::{
        body::Framing,
        head::{self, field_space},
    },
    http2::{fields::Fields, hpack::Field, stream::Piece, streams::Ended},
    message::{is_hop_by_hop, list},
    serve::translate::{Plan, Receiver, Sender, fields, upstream::Respond},
    stream::{Shared, Stream},
};

/// A connection that carries one request.
#[derive(Debug)]
pub struct Upstream {
    stream: Stream,
    coding: Coding,
    to_head: bool,
    to_connect: bool,
}

impl Upstream {
    /// Sends the head of a request; `end`: it has no content.
    ///
    /// # Errors
    /// Those of writing.
    pub async fn new(mut stream: Stream, plan: &Plan<'_>, end: bool) -> io::Result<Self> {
        let mut out = crate::buffer::take();
        let coding = write_head(&mut out, plan, end);
        let written = stream.write_all(&out).await;
        crate::buffer::give_back(out);
        written?;
        let method = plan.head.method();
        Ok(Self { stream, coding, to_head: method == "HEAD", to_connect: method == "CONNECT" })
    }

    /// Both directions of it.
    pub fn split(&self) -> (RequestSender<'_>, Response<'_>) {
        let (from, to) = (Shared(&self.stream), Shared(&self.stream));
        let done = self.coding == Coding::None;
        let sender = RequestSender(Writer::new(to, self.coding, done));
        let response = Response {
            from,
            read: Buffer::default(),
            body: Incoming::new(Framing::None),
            to_head: self.to_head,
            to_connect: self.to_connect,
            keep_alive: false,
        };
        (sender, response)
    }

    /// The connection, for the next request.
    #[must_use]
    pub fn into_stream(self) -> Stream {
        self.stream
    }
}

/// Appends the head and tells how content is to be delimited.
fn write_head(out: &mut Vec<u8>, plan: &Plan<'_>, end: bool) -> Coding {
    let head = plan.head;
    let connect = head.method() == "CONNECT";
    let target = if connect { head.authority() } else { head.path() };
    for part in [head.method(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let mut length = None;
    let mut cookies = Vec::new();
    fields::request(head, plan.request_headers, &mut |Field { name, value, .. }| match name {
        b":authority" => field(out, b"host", value),
        _ if name.starts_with(b":") => {}
        // It speaks of the connection in HTTP/1 (RFC 9110 §10.1.4).
        b"te" => {
            field(out, b"connection", b"te");
            field(out, name, value);
        }
        // RFC 9113 §8.2.3: crumbs are one field in HTTP/1.
        b"cookie" => {
            if !cookies.is_empty() {
                cookies.extend_from_slice(b"; ");
            }
            cookies.extend_from_slice(value);
        }
        b"content-length" => {
            length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            field(out, name, value);
        }
        _ => field(out, name, value),
    });
    if !cookies.is_empty() {
        field(out, b"cookie", &cookies);
    }
    let coding = match length {
        _ if connect => Coding::Close,
        Some(0) => Coding::None,
        Some(length) => Coding::Length(length),
        None if end => Coding::None,
        None => {
            field(out, b"transfer-encoding", b"chunked");
            Coding::Chunked
        }
    };
    // RFC 9110 §8.6: a method that anticipates content says that there is none.
    if coding == Coding::None && length.is_none() && matches!(head.method(), "POST" | "PUT" | "PATCH") {
        field(out, b"content-length", b"0");
    }
    out.extend_from_slice(b"\r\n");
    coding
}

/// The request's content on its way to the endpoint.
#[derive(Debug)]
pub struct RequestSender<'a>(Writer<'a>);

impl RequestSender<'_> {
    /// Whether all of the request was sent.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.done
    }
}

impl Sender for RequestSender<'_> {
    async fn content(&mut self, content: &[u8], end: bool) -> Result<(), Ended> {
        self.0.content(content, end).await
    }

    async fn trailers(&mut self, trailers: &Fields) -> Result<(), Ended> {
        self.0.trailers(trailers).await
    }
}

/// The endpoint's response.
#[derive(Debug)]
pub struct Response<'a> {
    from: Shared<'a>,
    read: Buffer,
    body: Incoming,
    to_head: bool,
    to_connect: bool,
    keep_alive: bool,
}

impl Response<'_> {
    /// Whether the connection can carry another request.
    #[must_use]
    pub fn is_reusable(&self) -> bool {
        self.keep_alive && self.body.is_done() && self.read.is_empty()
    }

    fn parse(&mut self) -> Result<Option<Fields>, Ended> {
        let mut space = field_space();
        let parsed = head::response(self.read.data(), &mut space, self.to_head, self.to_connect);
        let Some((head, length)) = parsed.map_err(|_| Ended::Faulty)? else { return Ok(None) };
        let mut fields = Fields::take();
        fields.push(b":status", head.status.to_string().as_bytes());
        for each in head.fields {
            let nominated =
                list(head.fields, "connection").any(|name| name.eq_ignore_ascii_case(each.name.as_bytes()));
            let framing = each.name.eq_ignore_ascii_case("transfer-encoding")
                || (head.drops_framing && each.name.eq_ignore_ascii_case("content-length"));
            if !framing && !nominated && !is_hop_by_hop(each.name) {
                fields.push_lower(each.name.as_bytes(), each.value);
            }
        }
        // An endpoint may switch protocols only when it was asked to, and HTTP/2 has no way to ask.
        fields.as_response().map_err(|_| Ended::Faulty)?;
        let tunnel = self.to_connect && matches!(head.status, 200..=299);
        self.body = Incoming::new(if tunnel { Framing::Close } else { head.framing });
        self.keep_alive = head.keep_alive && !tunnel;
        self.read.consume(length);
        Ok(Some(fields))
    }
}

impl Respond for Response<'_> {
    async fn head(&mut self) -> Result<Fields, Ended> {
        loop {
            if let Some(fields) = self.parse()? {
                return Ok(fields);
            }
            match self.read.fill(&mut self.from).await {
                Ok(0) if !self.read.is_empty() => return Err(Ended::Faulty),
                Ok(0) | Err(_) => return Err(Ended::Gone),
                Ok(_) => {}
            }
        }
    }

    fn is_ended(&self) -> bool {
        self.body.is_done()
    }
}

impl Receiver for Response<'_> {
    async fn piece(&mut self, into: &mut Vec<u8>) -> Result<Piece, Ended> {
        self.body.piece(&mut self.read, &mut self.from, into).await
    }
}
