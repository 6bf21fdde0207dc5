//! Head in, head out: what the next hop is to see.
//!
//! A sidecar is to go unnoticed, so fields keep their order and their case and nothing is added: no `Via`, no
//! `X-Forwarded-For`. Dropped are only the hop-by-hop fields (RFC 9110 §7.6.1), which speak of a connection
//! that ends here.

use std::io::Write as _;

use ferrule_config::{HeaderChange, names::ERROR_HEADER};

use super::head::{Form, RequestHead, ResponseHead, Version};
use crate::{
    act::Rewritten,
    message::{Field, is_hop_by_hop, list},
};

/// Appends a request's head as the endpoint is to see it. `fallback_host` stands in for the `Host` that an
/// HTTP/1.0 client may leave out and HTTP/1.1, which we speak, must have; `namespace/name` becomes `name.namespace`.
pub fn request(out: &mut Vec<u8>, head: &RequestHead<'_>, changes: &HeaderChange, fallback_host: &str) {
    to(out, head, head.target, target_authority(head), changes, fallback_host);
}

/// The same for a request that is sent on with another path or host. Its target has the origin form, but for CONNECT and
/// `*`: there the host alone changes.
pub fn rewritten(
    out: &mut Vec<u8>,
    head: &RequestHead<'_>,
    rewritten: &Rewritten,
    changes: &HeaderChange,
    fallback_host: &str,
) {
    let target = rewritten.target.as_deref().unwrap_or(head.target);
    let authority = rewritten.host.as_deref().or(target_authority(head));
    to(out, head, target, authority, changes, fallback_host);
}

/// The authority that the target names.
fn target_authority<'a>(head: &RequestHead<'a>) -> Option<&'a str> {
    match head.form {
        Form::Absolute { authority, .. } => Some(authority),
        Form::Authority => Some(head.target),
        Form::Origin | Form::Asterisk => None,
    }
}

/// Appends the head with this target; with an authority, that is the host.
fn to(
    out: &mut Vec<u8>,
    head: &RequestHead<'_>,
    target: &str,
    authority: Option<&str>,
    changes: &HeaderChange,
    fallback_host: &str,
) {
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let has_host = head.fields.iter().any(|field| field.name.eq_ignore_ascii_case("host"));
    if !has_host {
        match (authority, fallback_host.split_once('/')) {
            (Some(authority), _) => field(out, "Host", authority.as_bytes()),
            (None, Some((namespace, name))) => field(out, "Host", format!("{name}.{namespace}").as_bytes()),
            (None, None) => field(out, "Host", fallback_host.as_bytes()),
        }
    }
    for each in forwarded(head.fields, changes) {
        match authority {
            // RFC 9112 §3.2.2: the target's authority wins over the field.
            Some(authority) if each.name.eq_ignore_ascii_case("host") => {
                field(out, each.name, authority.as_bytes());
            }
            _ => field(out, each.name, each.value),
        }
    }
    match (head.upgrade, head.takes_trailers) {
        (false, false) => {}
        (true, false) => field(out, "Connection", b"upgrade"),
        (false, true) => field(out, "Connection", b"te"),
        (true, true) => field(out, "Connection", b"upgrade, te"),
    }
    if head.upgrade {
        for each in head.fields.iter().filter(|each| each.name.eq_ignore_ascii_case("upgrade")) {
            field(out, each.name, each.value);
        }
    }
    if head.takes_trailers {
        // What else it says is of the client's own connection: codings that nobody uses.
        field(out, "TE", b"trailers");
    }
    added(out, changes);
    out.extend_from_slice(b"\r\n");
}

/// What a response's head says about the connection it goes out on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Further requests are welcome and the client knows that.
    Implied,
    /// Further requests are welcome and an HTTP/1.0 client must be told.
    KeepAlive,
    /// The connection is closed after this response.
    Close,
    /// The connection changes to another protocol.
    Upgrade,
}

impl Persistence {
    /// For a client of this version.
    #[must_use]
    pub fn new(keep_alive: bool, version: Version) -> Self {
        match (keep_alive, version) {
            (false, _) => Self::Close,
            (true, Version::Http10) => Self::KeepAlive,
            (true, Version::Http11) => Self::Implied,
        }
    }
}

/// Appends a response's head as the client is to see it. `trusted`: the peer is a sidecar, so a `ferrule-error`
/// field is its own word; from an application it would be a forgery and is dropped. `dechunk`: the body is
/// sent without its chunked coding.
pub fn response(
    out: &mut Vec<u8>,
    head: &ResponseHead<'_>,
    changes: &HeaderChange,
    persistence: Persistence,
    trusted: bool,
    dechunk: bool,
) {
    // Writing to a vector can't fail.
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", head.status, head.reason);
    for each in forwarded(head.fields, changes) {
        let forged = !trusted && each.name.eq_ignore_ascii_case(ERROR_HEADER);
        let coded = (dechunk || head.drops_framing) && each.name.eq_ignore_ascii_case("transfer-encoding")
            || head.drops_framing && each.name.eq_ignore_ascii_case("content-length");
        if !forged && !coded {
            field(out, each.name, each.value);
        }
    }
    added(out, changes);
    match persistence {
        Persistence::Implied => {}
        Persistence::KeepAlive => field(out, "Connection", b"keep-alive"),
        Persistence::Close => field(out, "Connection", b"close"),
        Persistence::Upgrade => {
            field(out, "Connection", b"upgrade");
            for each in head.fields.iter().filter(|each| each.name.eq_ignore_ascii_case("upgrade")) {
                field(out, each.name, each.value);
            }
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The fields that go on: not those of the connection, not those that the route removes or replaces.
fn forwarded<'a>(fields: &'a [Field<'a>], changes: &'a HeaderChange) -> impl Iterator<Item = &'a Field<'a>> {
    let nominates = fields.iter().any(|field| field.name.eq_ignore_ascii_case("connection"));
    fields.iter().filter(move |field| {
        let dropped = is_hop_by_hop(field.name)
            || (nominates && !is_essential(field.name) && is_nominated(fields, field.name))
            || changes.remove.iter().any(|name| field.name.eq_ignore_ascii_case(name))
            || changes.set.iter().any(|(name, _)| field.name.eq_ignore_ascii_case(name));
        !dropped
    })
}

/// Fields that a client can't take out by naming them in `Connection`: the next hop would read another message.
fn is_essential(name: &str) -> bool {
    ["host", "content-length", "transfer-encoding"]
        .iter()
        .any(|essential| name.eq_ignore_ascii_case(essential))
}

fn is_nominated(fields: &[Field<'_>], name: &str) -> bool {
    list(fields, "connection").any(|member| member.eq_ignore_ascii_case(name.as_bytes()))
}

fn added(out: &mut Vec<u8>, changes: &HeaderChange) {
    for (name, value) in changes.set.iter().chain(&changes.add) {
        field(out, name, value.as_bytes());
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::{self, field_space};

    fn forwarded_request(bytes: &str, changes: &HeaderChange) -> String {
        let mut space = field_space();
        let (head, _) = head::request(bytes.as_bytes(), &mut space).expect("valid").expect("complete");
        let mut out = Vec::new();
        request(&mut out, &head, changes, "shop.svc");
        String::from_utf8(out).expect("ASCII")
    }

    fn forwarded_response(bytes: &str, persistence: Persistence, trusted: bool) -> String {
        let mut space = field_space();
        let (head, _) =
            head::response(bytes.as_bytes(), &mut space, false, false).expect("valid").expect("complete");
        let mut out = Vec::new();
        response(&mut out, &head, &HeaderChange::default(), persistence, trusted, false);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn a_plain_request_passes_unchanged() {
        let bytes = "GET /a?b HTTP/1.1\r\nHost: x\r\nX-Case: Kept\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(forwarded_request(bytes, &HeaderChange::default()), bytes);
    }

    #[test]
    fn what_speaks_of_the_connection_is_dropped() {
        let bytes = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
                     Proxy-Connection: x\r\nTE: trailers\r\nUpgrade: h2c\r\nX: y\r\n\r\n";
        assert_eq!(
            forwarded_request(bytes, &HeaderChange::default()),
            "GET / HTTP/1.1\r\nHost: x\r\nX: y\r\n\r\n"
        );
    }

    #[test]
    fn framing_can_not_be_taken_out_by_nomination() {
        let bytes =
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: content-length, host\r\nContent-Length: 3\r\n\r\n";
        let expected = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(forwarded_request(bytes, &HeaderChange::default()), expected);
    }

    #[test]
    fn an_upgrade_goes_on() {
        let bytes = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let expected = "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(forwarded_request(bytes, &HeaderChange::default()), expected);
    }

    #[test]
    fn changes_of_the_route_apply_in_the_order_remove_set_add() {
        let changes = HeaderChange {
            set: vec![("x-set".into(), "new".into())],
            add: vec![("x-add".into(), "2".into())],
            remove: vec!["x-gone".into()],
        };
        let bytes = "GET / HTTP/1.1\r\nHost: x\r\nX-Set: a\r\nX-Gone: b\r\nX-Add: 1\r\nx-set: c\r\n\r\n";
        let expected = "GET / HTTP/1.1\r\nHost: x\r\nX-Add: 1\r\nx-set: new\r\nx-add: 2\r\n\r\n";
        assert_eq!(forwarded_request(bytes, &changes), expected);
    }

    #[test]
    fn an_old_client_gets_a_host() {
        let expected = "GET / HTTP/1.1\r\nHost: shop.svc\r\n\r\n";
        assert_eq!(forwarded_request("GET / HTTP/1.0\r\n\r\n", &HeaderChange::default()), expected);
    }

    #[test]
    fn the_authority_of_an_absolute_target_wins() {
        let bytes = "GET http://right:80/a HTTP/1.1\r\nHost: wrong\r\n\r\n";
        let expected = "GET http://right:80/a HTTP/1.1\r\nHost: right:80\r\n\r\n";
        assert_eq!(forwarded_request(bytes, &HeaderChange::default()), expected);
        let bytes = "CONNECT right:80 HTTP/1.1\r\nHost: wrong\r\n\r\n";
        let expected = "CONNECT right:80 HTTP/1.1\r\nHost: right:80\r\n\r\n";
        assert_eq!(forwarded_request(bytes, &HeaderChange::default()), expected);
    }

    #[test]
    fn that_the_client_takes_trailers_goes_on() {
        let bytes = "GET / HTTP/1.1\r\nHost: x\r\nTE: gzip;q=0.5, trailers\r\nConnection: TE\r\n\r\n";
        let expected = "GET / HTTP/1.1\r\nHost: x\r\nConnection: te\r\nTE: trailers\r\n\r\n";
        assert_eq!(forwarded_request(bytes, &HeaderChange::default()), expected);
    }

    #[test]
    fn an_upgrade_to_http2_does_not_go_on() {
        for protocol in ["h2c", "websocket, H2C", "HTTP/2.0"] {
            let bytes = format!(
                "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\n\
                 HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
            );
            assert_eq!(
                forwarded_request(&bytes, &HeaderChange::default()),
                "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
            );
        }
    }

    #[test]
    fn a_status_without_content_announces_none() {
        let bytes = "HTTP/1.1 204 x\r\nContent-Length: 0\r\nX: y\r\n\r\n";
        assert_eq!(forwarded_response(bytes, Persistence::Implied, true), "HTTP/1.1 204 x\r\nX: y\r\n\r\n");
    }

    #[test]
    fn an_application_can_not_forge_an_error_of_the_proxy() {
        let bytes = "HTTP/1.1 503 x\r\nFerrule-Error: app-connect\r\nX: y\r\n\r\n";
        assert_eq!(forwarded_response(bytes, Persistence::Implied, false), "HTTP/1.1 503 x\r\nX: y\r\n\r\n");
        assert_eq!(forwarded_response(bytes, Persistence::Implied, true), bytes);
    }

    #[test]
    fn a_response_says_what_becomes_of_the_connection() {
        let bytes = "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n";
        let close = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        assert_eq!(forwarded_response(bytes, Persistence::Close, false), close);
        let keep = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(forwarded_response(bytes, Persistence::KeepAlive, false), keep);
    }
}
