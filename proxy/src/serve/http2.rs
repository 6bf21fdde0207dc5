//! A client's HTTP/2 connection: each of its requests is decided on and forwarded on its own.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use ferrule_config::names::ERROR_HEADER;

use super::{
    decide::{Decision, Target},
    translate::{self, Outcome, Plan},
};
use crate::{
    access::{Asked, Check},
    act::Answer,
    balance::Affinity,
    buffer::Buffer,
    cause::Cause,
    deadline,
    http1::head::MAX_FIELDS,
    http2::{self, connection::Connection, core::Role, driver::Event, fields::Fields, frame::Code, hpack},
    message::Field,
    peer::Caller,
    route::Request,
    snapshot::{Destination, Protocol, Snapshot},
    stream::Stream,
    telemetry::{self, GrpcStatus, Method, Notes, Said},
    worker::{Direction, Worker},
};

/// Serves the requests of a client. `read` holds what was already read from it.
pub async fn serve(
    client: Stream,
    read: Buffer,
    destination: &Arc<Destination>,
    worker: &Rc<Worker>,
    direction: Direction,
    caller: Option<Rc<Caller>>,
) {
    let peer = client.peer_addr().ok();
    let settings = worker.http2_settings();
    let connection = Connection::new(Role::Server, settings.limits);
    let tell = |event| match event {
        Event::Opened(stream) => {
            let (destination, worker, caller) = (Arc::clone(destination), Rc::clone(worker), caller.clone());
            tokio::task::spawn_local(async move {
                request(&stream, &destination, peer, &worker, direction, caller.as_deref()).await;
            });
        }
        Event::Exceeded(limit) => worker.telemetry.limit(direction, limit),
    };
    let driven = connection.drive(client, read, settings.times, settings.drain, tell).await;
    if let Err(error) = driven {
        tracing::debug!(?direction, %error, "HTTP/2 connection ended");
    }
}

async fn request(
    stream: &http2::stream::Stream,
    destination: &Destination,
    peer: Option<SocketAddr>,
    worker: &Rc<Worker>,
    direction: Direction,
    caller: Option<&Caller>,
) {
    let started = Instant::now();
    let notes = worker.recorder.notes();
    let snapshot = destination.now();
    let head = stream.request_head();
    let decision = decide(&snapshot, &head, peer.map(|peer| peer.ip()), worker.guard.check(caller), &notes);
    let until = deadline::of(head.iter(), started);
    let rewritten = decision.rewritten().map(|rewritten| {
        let target = rewritten.target.as_deref().map(str::as_bytes);
        head.rewritten(target, rewritten.host.as_deref().map(str::as_bytes))
    });
    if let Some(delay) = decision.delay() {
        tokio::time::sleep(delay).await;
    }
    let outcome = match &decision.target {
        Target::Refused(cause, detail) => Outcome::Failed(*cause, detail.clone()),
        Target::Answer(answer) => {
            tell(stream, answer, head.method() == "HEAD").await;
            notes.grpc.set(answer.grpc.map_or(GrpcStatus::None, GrpcStatus::Code));
            Outcome::Responded(answer.status)
        }
        Target::Cluster(_) if matches!(rewritten, Some(Err(_))) => {
            Outcome::Failed(Cause::BadRequest, "the rewritten request is malformed".to_owned())
        }
        Target::Cluster(cluster) => {
            let plan = Plan {
                head: rewritten.as_ref().and_then(|head| head.as_ref().ok()).unwrap_or(&head),
                end: stream.is_at_end(),
                http2: cluster.protocol != Protocol::Http1,
                request_headers: caller.map_or_else(|| decision.request_headers(), Caller::headers),
                terms: decision.terms(cluster, destination, direction, (started, until), &notes),
            };
            let whole = translate::is_whole(stream);
            translate::run(&mut &*stream, whole, &mut &*stream, &plan, worker).await
        }
    };
    let (status, cause) = match &outcome {
        Outcome::Responded(status) => (*status, decision.cause()),
        Outcome::Failed(cause, _) => (cause.status().0, Some(cause.name())),
        Outcome::Broken(status) => (status.unwrap_or(0), Some("broken")),
    };
    match &outcome {
        Outcome::Responded(_) => {}
        Outcome::Failed(cause, detail) => {
            if let Some(code) = answer(stream, &head, *cause, detail).await {
                notes.grpc.set(GrpcStatus::Code(code));
            }
        }
        Outcome::Broken(_) => stream.reset(Code::CANCEL),
    }
    let method = Method::of(head.method());
    let ended = telemetry::Outcome {
        direction,
        service: &snapshot.cluster.service,
        route: decision.route(),
        method,
        status,
        grpc: notes.grpc.get(),
        peer: telemetry::peer(direction),
        cause,
        took: started.elapsed(),
        request_bytes: notes.request_bytes.get(),
        response_bytes: notes.response_bytes.get(),
    };
    worker.recorder.request(&ended);
    if worker.recorder.is_logging() {
        let said = Said {
            protocol: "HTTP/2",
            method: head.method(),
            host: head.authority().as_bytes(),
            path: head.path(),
            traceparent: head.value(b"traceparent"),
            request_id: head.value(b"x-request-id"),
            peer,
        };
        worker.recorder.log(&ended, &notes, &said);
    }
    head.give_back();
}

fn decide<'a>(
    snapshot: &'a Snapshot,
    head: &Fields,
    source: Option<IpAddr>,
    check: Option<Check<'_>>,
    notes: &Notes,
) -> Decision<'a> {
    if head.is_empty() {
        let detail = "the request's fields are too many or too large".to_owned();
        return Decision::refused(Cause::HeadTooLarge, detail);
    }
    let mut space = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let unseen = snapshot.routes.is_empty()
        && !Affinity::needs_fields(&snapshot.cluster.balancer)
        && !check.as_ref().is_some_and(Check::needs_fields);
    let fields: &[Field<'_>] = if unseen { &[] } else { head.view(&mut space) };
    let (path, query) = match head.path().split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (head.path(), None),
    };
    let path = if path.is_empty() { "/" } else { path };
    if check.is_some_and(|check| check.refuses(&Asked { method: head.method(), path, fields }, notes)) {
        return Decision::denied();
    }
    let authority = head.authority().as_bytes();
    Decision::new(snapshot, &Request { method: head.method(), path, query, authority, fields }, || source)
}

/// Gives the answer that a Route asks for.
async fn tell(stream: &http2::stream::Stream, answer: &Answer, to_head: bool) {
    let end = to_head || answer.body.is_empty();
    stream.send_section(end, |each| {
        each(hpack::Field::new(b":status", answer.status.to_string().as_bytes()));
        for (name, value) in &answer.fields {
            each(hpack::Field::new(name.as_bytes(), value.as_bytes()));
        }
        if answer.has_content() && answer.grpc.is_none() {
            each(hpack::Field::new(b"content-length", answer.body.len().to_string().as_bytes()));
        }
    });
    if !end {
        // A client that does not take the answer has ended the stream.
        let _ = stream.send(answer.body.as_bytes(), true).await;
    }
}

/// Answers in the place of an endpoint: to gRPC as gRPC has it, trailers alone, with a status of its own, which is
/// returned.
async fn answer(stream: &http2::stream::Stream, head: &Fields, cause: Cause, detail: &str) -> Option<u8> {
    let grpc = head.is_grpc();
    let text: String = detail.chars().filter(|char| !char.is_control()).take(500).collect();
    if grpc {
        let code = cause.grpc_status();
        stream.send_section(true, |each| {
            each(hpack::Field::new(b":status", b"200"));
            each(hpack::Field::new(b"content-type", b"application/grpc"));
            each(hpack::Field::new(b"grpc-status", code.to_string().as_bytes()));
            each(hpack::Field::new(b"grpc-message", percent_encoded(&format!("ferrule: {text}")).as_bytes()));
            each(hpack::Field::new(ERROR_HEADER.as_bytes(), cause.name().as_bytes()));
        });
        return Some(code);
    }
    let body = format!("ferrule: {text}\n");
    let to_head = head.method() == "HEAD";
    stream.send_section(to_head, |each| {
        each(hpack::Field::new(b":status", cause.status().0.to_string().as_bytes()));
        each(hpack::Field::new(ERROR_HEADER.as_bytes(), cause.name().as_bytes()));
        each(hpack::Field::new(b"content-type", b"text/plain; charset=utf-8"));
        each(hpack::Field::new(b"content-length", body.len().to_string().as_bytes()));
    });
    if !to_head {
        // A client that does not take the answer has ended the stream.
        let _ = stream.send(body.as_bytes(), true).await;
    }
    None
}

/// As gRPC wants its messages: printable ASCII but the percent sign stays.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(byte as char);
        } else {
            // Writing to a string can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
