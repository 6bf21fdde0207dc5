//! What the access log tells of an HTTP/1 request.

use crate::{
    http1::head::{self, Form, Version, field_space},
    telemetry::{Notes, Outcome, Recorder, Said},
};

/// What is known without the head.
pub(super) fn said(version: Version) -> Said<'static> {
    let protocol = match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
    };
    Said { protocol, ..Said::default() }
}

/// Tells of a request. The head is the one that was rewritten for the endpoint: the client's own is gone.
pub(super) fn request(
    recorder: &Recorder,
    outcome: &Outcome<'_>,
    notes: &Notes,
    head: &[u8],
    said: Said<'_>,
) {
    let mut space = field_space();
    let Ok(Some((head, _))) = head::request(head, &mut space) else {
        return recorder.log(outcome, notes, &said);
    };
    let field = |name: &str| {
        head.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    };
    let (host, path) = match head.form {
        Form::Authority => (head.target.as_bytes(), ""),
        Form::Absolute { authority, after } => (authority.as_bytes(), after),
        Form::Origin | Form::Asterisk => (field("host").unwrap_or_default(), head.target),
    };
    let (traceparent, request_id) = (field("traceparent"), field("x-request-id"));
    recorder.log(outcome, notes, &Said { method: head.method, host, path, traceparent, request_id, ..said });
}
