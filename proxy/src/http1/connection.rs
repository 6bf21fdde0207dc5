//! One client connection: requests one after another until either side has had enough.

use std::time::Instant;

use ferrule_config::{HeaderChange, Timeouts};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use super::{
    buffer::{self, Buffer},
    exchange::{self, End, Plan},
    head::{self, HeadError, RequestHead, Version, field_space},
    reply::{self, Cause},
    rewrite::{self, Persistence},
};
use crate::{
    drain::Phase,
    message::is_idempotent,
    route::{self, Request},
    snapshot::{Backend, Cluster, Destination, Snapshot},
    tcp,
    telemetry::Outcome,
    worker::{Direction, Worker},
};

static NO_CHANGE: HeaderChange = HeaderChange { set: Vec::new(), add: Vec::new(), remove: Vec::new() };
static NO_LIMIT: Timeouts = Timeouts { request: None, backend_request: None };

/// Serves the requests of a client. `read` holds what was already read from it.
pub async fn serve(
    mut client: TcpStream,
    mut read: Buffer,
    destination: &Destination,
    worker: &Worker,
    direction: Direction,
) {
    while let Some(length) = next_head(&mut client, &mut read, worker).await {
        match length {
            Ok(()) => {}
            Err(cause) => return refuse(&mut client, worker, direction, destination, cause).await,
        }
        match one_request(&mut client, &mut read, destination, worker, direction).await {
            Next::Request => {}
            Next::Close => return close(client).await,
            Next::Reset => return crate::net::reset(client),
            Next::Tunnel(upstream, pending) => {
                let _ = tcp::relay(client, read, upstream, pending).await;
                return;
            }
        }
    }
}

enum Next {
    Request,
    Close,
    Reset,
    Tunnel(TcpStream, Buffer),
}

/// Waits until a complete head lies at the front of `read`. `None`: there is no further request.
async fn next_head(
    client: &mut TcpStream,
    read: &mut Buffer,
    worker: &Worker,
) -> Option<Result<(), (Cause, String)>> {
    if read.is_empty() {
        // An idle connection holds no buffer.
        read.release();
        tokio::select! {
            biased;
            readable = client.readable() => readable.ok()?,
            () = worker.drain.reached(Phase::Closing) => return None,
            () = tokio::time::sleep(worker.limits.idle) => return None,
        }
    }
    let arrival = async {
        loop {
            if has_end(read.data()) {
                return Some(Ok(()));
            }
            if read.data().len() > head::MAX_HEAD {
                return Some(Err((Cause::HeadTooLarge, HeadError::TooLarge.to_string())));
            }
            match read.fill(client).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    };
    timeout(worker.limits.head, arrival).await.unwrap_or_else(|_| {
        let detail = format!("the request's head was not complete within {:?}", worker.limits.head);
        Some(Err((Cause::HeadTimeout, detail)))
    })
}

/// Whether the end of a head is there; also one that only a lax parser takes for an end, to be refused at once.
fn has_end(bytes: &[u8]) -> bool {
    let limit = bytes.len().min(head::MAX_HEAD + 4);
    bytes[..limit].windows(2).any(|pair| pair == b"\n\n")
        || bytes[..limit].windows(4).any(|four| four == b"\r\n\r\n")
}

async fn one_request(
    client: &mut TcpStream,
    read: &mut Buffer,
    destination: &Destination,
    worker: &Worker,
    direction: Direction,
) -> Next {
    let started = Instant::now();
    let snapshot = destination.now();
    let mut out = buffer::take();
    let decided = decide(read, &snapshot, &mut out);
    let decided = match decided {
        Ok(decided) => decided,
        Err((cause, detail)) => {
            buffer::give_back(out);
            refuse(client, worker, direction, destination, (cause, detail)).await;
            return Next::Close;
        }
    };
    let rule = decided.rule.map(|index| &snapshot.rules[index]);
    let (end, framing) = match decided.target {
        Err((cause, detail)) => (End::Failed { cause, detail }, decided.info.framing),
        Ok(cluster) => {
            let Info { framing, version, keep_alive, to_head, to_connect, upgrade, idempotent } =
                decided.info;
            let plan = Plan {
                head: &out,
                framing,
                version,
                keep_alive,
                to_head,
                to_connect,
                upgrade,
                idempotent,
                cluster: &cluster,
                response_headers: rule.map_or(&NO_CHANGE, |rule| &rule.response_headers),
                timeouts: rule.map_or(&NO_LIMIT, |rule| &rule.timeouts),
                budget: &destination.budget,
                direction,
                started,
            };
            (exchange::run(client, read, &plan, worker).await, framing)
        }
    };
    buffer::give_back(out);
    let (status, cause) = match &end {
        End::Responded { status, .. } | End::Tunnel { status, .. } => (*status, None),
        End::Failed { cause, .. } => (cause.status().0, Some(cause.name())),
        End::Broken { status } => (status.unwrap_or(0), Some("broken")),
    };
    worker.telemetry.request(&Outcome {
        direction,
        service: &snapshot.cluster.service,
        route: rule.map_or("", |rule| &rule.name),
        status,
        cause,
        took: started.elapsed(),
    });
    match end {
        End::Responded { reusable: true, .. } => Next::Request,
        End::Responded { reusable: false, .. } => Next::Close,
        End::Tunnel { upstream, pending, .. } => Next::Tunnel(upstream, pending),
        End::Broken { .. } => Next::Reset,
        End::Failed { cause, detail } => {
            let whole = skip_body(read, framing);
            let keep = decided.info.keep_alive && whole && !worker.drain.is_draining();
            let persistence = Persistence::new(keep, decided.info.version);
            match answer(client, cause, &detail, persistence, decided.info.to_head).await {
                Ok(()) if keep => Next::Request,
                _ => Next::Close,
            }
        }
    }
}

/// What of a request's head is still needed when the head is gone.
#[derive(Clone, Copy)]
struct Info {
    framing: super::body::Framing,
    version: Version,
    keep_alive: bool,
    to_head: bool,
    to_connect: bool,
    upgrade: bool,
    idempotent: bool,
}

struct Decided {
    info: Info,
    rule: Option<usize>,
    target: Result<std::sync::Arc<Cluster>, (Cause, String)>,
}

/// Reads the head at the front of `read`, decides where the request goes, and writes to `out` what is sent there.
fn decide(read: &mut Buffer, snapshot: &Snapshot, out: &mut Vec<u8>) -> Result<Decided, (Cause, String)> {
    let mut space = field_space();
    let parsed =
        head::request(read.data(), &mut space).map_err(|error| (Cause::from(error), error.to_string()))?;
    let Some((head, length)) = parsed else {
        return Err((Cause::BadRequest, "the head ends before it is complete".into()));
    };
    let rule = if snapshot.routes.is_empty() {
        None
    } else {
        let request = Request { method: head.method, path: head.path(), fields: head.fields };
        route::decide(&snapshot.routes, &request)
    };
    let target = target(snapshot, rule, &head);
    let changes = rule.map_or(&NO_CHANGE, |index| &snapshot.rules[index].request_headers);
    rewrite::request(out, &head, changes, &snapshot.cluster.service);
    let info = Info {
        framing: head.framing,
        version: head.version,
        keep_alive: head.keep_alive,
        to_head: head.method == "HEAD",
        to_connect: head.method == "CONNECT",
        upgrade: head.upgrade,
        idempotent: is_idempotent(head.method),
    };
    read.consume(length);
    Ok(Decided { info, rule, target })
}

fn target(
    snapshot: &Snapshot,
    rule: Option<usize>,
    head: &RequestHead<'_>,
) -> Result<std::sync::Arc<Cluster>, (Cause, String)> {
    let service = &snapshot.cluster.service;
    let Some(index) = rule else {
        if snapshot.routes.is_empty() {
            return Ok(std::sync::Arc::clone(&snapshot.cluster));
        }
        let detail = format!("no rule of a Route of {service} matches {} {}", head.method, head.path());
        return Err((Cause::NoRoute, detail));
    };
    let rule = &snapshot.rules[index];
    match rule.backends.pick(|n| fastrand::u64(0..n)) {
        Some(Backend::Cluster(cluster)) => Ok(std::sync::Arc::clone(cluster)),
        Some(Backend::Missing(name)) => {
            let detail = format!("rule {} sends to {name}, which is no port of a Service", rule.name);
            Err((Cause::BackendNotFound, detail))
        }
        None => Err((Cause::NoBackend, format!("rule {} has no backend with a weight above 0", rule.name))),
    }
}

/// Uses up a request's body if all of it is at hand; otherwise the connection can't be used again.
fn skip_body(read: &mut Buffer, framing: super::body::Framing) -> bool {
    let mut body = super::body::Body::new(framing);
    let Ok(length) = body.advance(read.data()) else { return false };
    if body.is_done() {
        read.consume(length);
    }
    body.is_done()
}

/// Answers what can't be understood and ends the connection: what follows has no known beginning.
async fn refuse(
    client: &mut TcpStream,
    worker: &Worker,
    direction: Direction,
    destination: &Destination,
    (cause, detail): (Cause, String),
) {
    worker.telemetry.request(&Outcome {
        direction,
        service: &destination.now().cluster.service,
        route: "",
        status: cause.status().0,
        cause: Some(cause.name()),
        took: std::time::Duration::ZERO,
    });
    let _ = answer(client, cause, &detail, Persistence::Close, false).await;
    let _ = client.shutdown().await;
    drain_input(client).await;
}

async fn answer(
    client: &mut TcpStream,
    cause: Cause,
    detail: &str,
    persistence: Persistence,
    to_head: bool,
) -> std::io::Result<()> {
    let mut out = buffer::take();
    reply::write(&mut out, cause, detail, persistence, to_head);
    let result = client.write_all(&out).await;
    buffer::give_back(out);
    result
}

/// Closes in stages (RFC 9112 §9.6): a close while the client still sends would reset the connection and take
/// the response with it.
async fn close(mut client: TcpStream) {
    if client.shutdown().await.is_ok() {
        drain_input(&mut client).await;
    }
}

/// Reads and drops what the client still sends, for a bounded time and amount.
async fn drain_input(client: &mut TcpStream) {
    const MOST: usize = 256 * 1024;
    let drain = async {
        let mut buffer = Buffer::default();
        let mut total = 0;
        while let Ok(count @ 1..) = buffer.fill(client).await {
            buffer.consume(buffer.data().len());
            total += count;
            if total > MOST {
                break;
            }
        }
    };
    let _ = timeout(std::time::Duration::from_secs(1), drain).await;
}
