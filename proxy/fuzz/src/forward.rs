//! What the proxy makes of the bytes of a connection: its own parsers and its own rewriting, one message after another.

use ferrule_config::HeaderChange;
use ferrule_proxy::http1::{
    body::{Body, Framing},
    head::{self, field_space},
    rewrite::{self, Persistence},
};

/// A message as the proxy understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Understood {
    /// Method or status.
    pub start: String,
    /// Target of a request.
    pub target: String,
    pub content: Vec<u8>,
}

/// What goes to the endpoint, and what the proxy takes it for. Only whole messages; the first that is refused or
/// incomplete ends it.
pub fn requests(mut rest: &[u8]) -> (Vec<u8>, Vec<Understood>) {
    let (mut out, mut all) = (Vec::new(), Vec::new());
    loop {
        rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
        let mut space = field_space();
        let Ok(Some((head, length))) = head::request(rest, &mut space) else { return (out, all) };
        let Some((content, used)) = body(head.framing, &rest[length..]) else { return (out, all) };
        rewrite::request(&mut out, &head, &HeaderChange::default(), "shop.svc");
        out.extend_from_slice(&rest[length..length + used]);
        all.push(Understood { start: head.method.into(), target: head.target.into(), content });
        rest = &rest[length + used..];
    }
}

/// The same for the responses on one connection. `dechunk`: to a client of HTTP/1.0.
pub fn responses(mut rest: &[u8], to_head: bool, dechunk: bool) -> (Vec<u8>, Vec<Understood>) {
    let (mut out, mut all) = (Vec::new(), Vec::new());
    loop {
        let mut space = field_space();
        let Ok(Some((head, length))) = head::response(rest, &mut space, to_head, false) else {
            return (out, all);
        };
        let Some((content, used)) = body(head.framing, &rest[length..]) else { return (out, all) };
        let dechunk = dechunk && head.framing == Framing::Chunked;
        let ends = dechunk || head.framing == Framing::Close;
        let persistence = if ends { Persistence::Close } else { Persistence::Implied };
        rewrite::response(&mut out, &head, &HeaderChange::default(), persistence, false, dechunk);
        let sent = if dechunk { &content } else { &rest[length..length + used] };
        out.extend_from_slice(sent);
        all.push(Understood { start: head.status.to_string(), target: String::new(), content });
        if ends {
            return (out, all);
        }
        rest = &rest[length + used..];
    }
}

/// The content at the front of the bytes and how many they are; `None` when it is refused or incomplete.
fn body(framing: Framing, bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut body = Body::new(framing);
    let (mut content, mut used) = (Vec::new(), 0);
    while used < bytes.len() && !body.is_done() {
        let step = body.step(&bytes[used..]).ok()?;
        content.extend_from_slice(&bytes[used..][step.content]);
        used += step.used;
    }
    body.may_end().then_some((content, used))
}
