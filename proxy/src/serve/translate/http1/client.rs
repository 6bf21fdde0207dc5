//! A client that speaks HTTP/1, for an endpoint that speaks HTTP/2.

use std::{io::Write as _, rc::Rc};

use ferrule_config::HeaderChange;

use super::{Coding, Writer, field, incoming::Incoming};
use crate::{
    buffer::Buffer,
    http1::{
        body::{Body, Framing},
        head::{self, Form, Version, field_space},
        rewrite::Persistence,
    },
    http2::{fields::Fields, hpack::Field, stream::Piece, streams::Ended},
    message::{is_hop_by_hop, list},
    serve::translate::{self, Outcome, Plan, Receiver, Responder, Sender, fields},
    stream::{Shared, Stream},
    worker::Worker,
};

/// A client and what it has to be told of its connection.
pub struct Client<'a> {
    /// Its connection.
    pub stream: &'a Stream,
    /// What it has sent after the request's head.
    pub read: &'a mut Buffer,
    /// How its request's body ends.
    pub framing: Framing,
    /// The version that it speaks.
    pub version: Version,
    /// Whether it wants to send further requests.
    pub keep_alive: bool,
}

/// Sends a request to an endpoint that speaks HTTP/2. Returns how it ended, and whether the client's connection can
/// carry another request.
pub async fn run(client: Client<'_>, plan: &Plan<'_>, worker: &Rc<Worker>) -> (Outcome, bool) {
    let Client { stream, read, framing, version, keep_alive } = client;
    let (from, to) = (Shared(stream), Shared(stream));
    // What a tunnel carries ends with the connection (RFC 9110 §9.3.6).
    let tunnel = plan.head.method() == "CONNECT";
    let framing = if tunnel { Framing::Close } else { framing };
    let plan = &Plan { end: plan.end && !tunnel, ..*plan };
    let mut look = Body::new(framing);
    let whole = look.advance(read.data()).is_ok() && look.is_done();
    let mut body = RequestBody { from, read, body: Incoming::new(framing) };
    let mut reply = Reply {
        to: Writer::new(to, Coding::None, false),
        version,
        keep_alive: keep_alive && !worker.drain.is_draining(),
        to_head: plan.head.method() == "HEAD",
        tunnel,
    };
    let outcome = translate::run(&mut body, whole, &mut reply, plan, worker).await;
    let reusable = body.body.is_done() && reply.keep_alive && reply.to.done;
    let failed_early = matches!(outcome, Outcome::Failed(..)) && body.body.is_done();
    (outcome, reusable || failed_early)
}

/// A request's head as HTTP/2 has it.
///
/// # Errors
/// Why there is no such head in HTTP/2.
pub fn request_fields(bytes: &[u8]) -> Result<Fields, &'static str> {
    let mut space = field_space();
    let Ok(Some((head, _))) = head::request(bytes, &mut space) else { return Err("the head is not valid") };
    let host = head.fields.iter().find(|field| field.name.eq_ignore_ascii_case("host"));
    let mut fields = Fields::take();
    fields.push(b":method", head.method.as_bytes());
    match head.form {
        Form::Authority => fields.push(b":authority", head.target.as_bytes()),
        Form::Absolute { authority, after } => {
            let path = match after {
                "" => "/".to_owned(),
                query if query.starts_with('?') => format!("/{query}"),
                path => path.to_owned(),
            };
            fields.push(b":scheme", b"http");
            fields.push(b":authority", authority.as_bytes());
            fields.push(b":path", path.as_bytes());
        }
        Form::Origin | Form::Asterisk => {
            fields.push(b":scheme", b"http");
            fields.push(b":authority", host.map(|host| host.value).unwrap_or_default());
            fields.push(b":path", head.target.as_bytes());
        }
    }
    for each in head.fields {
        let dropped = is_hop_by_hop(each.name)
            || ["host", "transfer-encoding"].iter().any(|name| each.name.eq_ignore_ascii_case(name))
            || list(head.fields, "connection").any(|name| name.eq_ignore_ascii_case(each.name.as_bytes()));
        if !dropped {
            fields.push_lower(each.name.as_bytes(), each.value);
        }
    }
    if head.takes_trailers {
        fields.push(b"te", b"trailers");
    }
    match fields.as_request() {
        Ok(_) => Ok(fields),
        Err(malformed) => Err(malformed.0),
    }
}

struct RequestBody<'a> {
    from: Shared<'a>,
    read: &'a mut Buffer,
    body: Incoming,
}

impl Receiver for RequestBody<'_> {
    async fn piece(&mut self, into: &mut Vec<u8>) -> Result<Piece, Ended> {
        self.body.piece(self.read, &mut self.from, into).await
    }
}

struct Reply<'a> {
    to: Writer<'a>,
    version: Version,
    keep_alive: bool,
    to_head: bool,
    /// It answers a CONNECT.
    tunnel: bool,
}

impl<'a> Responder for Reply<'a> {
    async fn head(
        &mut self,
        head: &Fields,
        end: bool,
        changes: &HeaderChange,
        trusted: bool,
    ) -> Result<(), Ended> {
        let status = head.status();
        let interim = status < 200;
        if interim && self.version == Version::Http10 {
            return Ok(());
        }
        let phrase = http::StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("");
        let mut out = std::mem::take(self.to.held());
        let _ = write!(out, "HTTP/1.1 {status} {phrase}\r\n");
        let mut length = None;
        let tunnel = self.tunnel && matches!(status, 200..=299);
        fields::response(head, changes, trusted, &mut |Field { name, value, .. }| {
            if tunnel && name == b"content-length" {
                return;
            }
            if name == b"content-length" {
                length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            }
            if !name.starts_with(b":") {
                field(&mut out, name, value);
            }
        });
        if !interim {
            let bodiless = self.to_head || matches!(status, 204 | 304);
            self.to.coding = match length {
                _ if tunnel => Coding::Close,
                _ if bodiless => Coding::None,
                Some(length) => Coding::Length(length),
                None if end => {
                    field(&mut out, b"content-length", b"0");
                    Coding::None
                }
                None if self.version == Version::Http11 => {
                    field(&mut out, b"transfer-encoding", b"chunked");
                    Coding::Chunked
                }
                None => Coding::Close,
            };
            self.keep_alive &= self.to.coding != Coding::Close;
            match Persistence::new(self.keep_alive, self.version) {
                _ if tunnel => {}
                Persistence::Close => field(&mut out, b"connection", b"close"),
                Persistence::KeepAlive => field(&mut out, b"connection", b"keep-alive"),
                Persistence::Implied | Persistence::Upgrade => {}
            }
        }
        out.extend_from_slice(b"\r\n");
        self.to.held = out;
        self.to.done = end && !interim;
        // Content that is there already goes out with it.
        if end || interim { self.to.flush().await } else { Ok(()) }
    }

    fn gone(&self) -> impl Future<Output = ()> + use<'a> {
        let (Shared(stream), tunnel) = (self.to.to, self.tunnel);
        async move {
            if tunnel {
                // It may close its side and still read.
                std::future::pending::<()>().await;
            }
            stream.gone().await;
        }
    }
}

impl Sender for Reply<'_> {
    async fn content(&mut self, content: &[u8], end: bool) -> Result<(), Ended> {
        self.to.content(content, end).await
    }

    async fn trailers(&mut self, trailers: &Fields) -> Result<(), Ended> {
        self.to.trailers(trailers).await
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        self.to.flush().await
    }
}
