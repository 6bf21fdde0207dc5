//! A client's HTTP/1 connection: requests one after another until either side has had enough.

mod exchange;
mod log;
mod timer;

use std::{
    future::{Future, poll_fn},
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt, time::timeout};

use self::{
    exchange::{End, Plan},
    timer::Timer,
};
use super::{
    attempts::Terms,
    decide::{self, Decision, Target},
    translate,
};
use crate::{
    access::{self, Asked, Check, Held, Policy, Subject, Verdict},
    buffer::{self, Buffer},
    cause::Cause,
    deadline,
    drain::Phase,
    http1::{
        body::{Body, Framing},
        head::{self, HeadError, Scan, Version, field_space},
        reply,
        rewrite::{self, Persistence},
    },
    limits::{Limit, Limits},
    message::is_idempotent,
    peer::Caller,
    route::Request,
    snapshot::{Cluster, Destination, Protocol, Snapshot},
    stream::Stream,
    tcp,
    telemetry::{self, GrpcStatus, Method, Notes, Outcome, Said},
    worker::{Direction, Worker},
};

/// How long a client is listened to after its last response.
const LINGER: Duration = Duration::from_secs(5);
/// How much it may send meanwhile.
const LINGER_BYTES: usize = 64 * 1024 * 1024;

/// Serves the requests of a client. `read` holds what was already read from it.
pub async fn serve(
    mut client: Stream,
    mut read: Buffer,
    destination: &Destination,
    worker: &Rc<Worker>,
    direction: Direction,
    caller: Option<&Rc<Caller>>,
) {
    let peer = worker.recorder.peer(&client).map(Box::new);
    let context = Context { destination, worker, direction, caller, peer };
    let sleep = pin!(tokio::time::sleep(worker.limits.idle));
    let mut timer = Timer::new(sleep);
    let mut closing = pin!(worker.drain.reached(Phase::Closing));
    loop {
        match context.next_head(&mut client, &mut read, &mut timer, closing.as_mut()).await {
            Arrival::Head => {}
            Arrival::Nothing => return,
            Arrival::Refused(refusal) => return context.refuse(client, refusal).await,
        }
        match context.one_request(&mut client, &mut read, &mut timer).await {
            Next::Request => {}
            Next::Close => return close(client).await,
            Next::Refuse(refusal) => return context.refuse(client, refusal).await,
            Next::Reset => return client.reset(),
            Next::Tunnel(upstream, pending, head) => {
                let Ok(held) = tunnel(worker, caller, head) else { return client.reset() };
                let service = Arc::clone(&destination.now().cluster.service);
                let Ok(endpoint) = upstream.peer_addr() else { return };
                let flows = worker.recorder.flows(direction, &service, &client, endpoint);
                let revoked = access::revoked(held.as_deref());
                return tcp::relay(client, read, upstream, pending, &flows, revoked).await;
            }
        }
    }
}

/// What a connection is served with.
struct Context<'a> {
    destination: &'a Destination,
    worker: &'a Rc<Worker>,
    direction: Direction,
    /// Who has connected, if it is somebody else than the application of this pod.
    caller: Option<&'a Rc<Caller>>,
    /// The other end of the connection, if it will be told; else it takes no room.
    peer: Option<Box<SocketAddr>>,
}

/// Why a head is not served.
struct Refusal {
    cause: Cause,
    detail: String,
    limit: Option<Limit>,
}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Self {
        Self { cause: error.into(), detail: error.to_string(), limit: error.limit() }
    }
}

enum Arrival {
    /// A head lies at the front of the buffer, or what is certain to be none.
    Head,
    /// There is no further request.
    Nothing,
    Refused(Refusal),
}

enum Next {
    Request,
    Close,
    Refuse(Refusal),
    Reset,
    /// With the head of the request that has led to it, as the endpoint was sent it.
    Tunnel(Stream, Buffer, Vec<u8>),
}

impl Context<'_> {
    /// Waits until a complete head lies at the front of `read`.
    async fn next_head(
        &self,
        client: &mut Stream,
        read: &mut Buffer,
        timer: &mut Timer<'_>,
        mut closing: Pin<&mut impl Future<Output = ()>>,
    ) -> Arrival {
        let Limits { head, idle, head_bytes, request_line, .. } = self.worker.limits;
        let mut skipped = false;
        loop {
            if read.is_empty() {
                // An idle connection holds no buffer.
                read.release();
                tokio::select! {
                    biased;
                    readable = poll_fn(|context| client.poll_readable(context)) => {
                        if readable.is_err() {
                            return Arrival::Nothing;
                        }
                    }
                    () = closing.as_mut() => return Arrival::Nothing,
                    () = timer.until(Instant::now() + idle) => {
                        self.worker.telemetry.limit(self.direction, Limit::Idle);
                        return Arrival::Nothing;
                    }
                }
            }
            let deadline = Instant::now() + head;
            let mut scan = Scan::default();
            loop {
                // RFC 9112 §2.2: one empty line before a request is ignored; old clients end a body with it.
                if !skipped && read.data().starts_with(b"\r\n") {
                    read.consume(2);
                    skipped = true;
                    if read.is_empty() {
                        break;
                    }
                }
                if scan.is_decidable(read.data()) || (scan.is_due(read.data()) && is_hopeless(read.data())) {
                    return Arrival::Head;
                }
                if scan.first_line() > request_line {
                    return Arrival::Refused(HeadError::LineTooLong.into());
                }
                if read.data().len() > head_bytes {
                    return Arrival::Refused(HeadError::TooLarge.into());
                }
                tokio::select! {
                    biased;
                    filled = read.fill(client) => match filled {
                        Ok(0) | Err(_) => return Arrival::Nothing,
                        Ok(_) => {}
                    },
                    () = timer.until(deadline) => return Arrival::Refused(Refusal {
                        cause: Cause::HeadTimeout,
                        detail: format!("the request's head was not complete within {head:?}"),
                        limit: Some(Limit::HeadTime),
                    }),
                }
            }
        }
    }

    async fn one_request(&self, client: &mut Stream, read: &mut Buffer, timer: &mut Timer<'_>) -> Next {
        let Self { destination, worker, direction, caller, ref peer } = *self;
        let started = Instant::now();
        let snapshot = destination.now();
        let notes = worker.recorder.notes();
        let mut out = buffer::take();
        let source = || Some(client.peer_addr().ok()?.ip());
        // None of these in a variable of its own: a connection would have room for it while it idles.
        let (info, until, decision) = match decide(
            read,
            &snapshot,
            source,
            (&worker.limits, started),
            Inbound {
                caller: caller.map(|caller| &**caller),
                check: worker.guard.check(caller.map(|caller| &**caller)),
                notes: &notes,
            },
            &mut out,
        ) {
            Ok(decided) => decided,
            Err(refusal) => {
                buffer::give_back(out);
                return Next::Refuse(refusal);
            }
        };
        if let Some(delay) = decision.delay() {
            // Boxed, as what few requests need.
            Box::pin(tokio::time::sleep(delay)).await;
        }
        let end = match &decision.target {
            Target::Refused(cause, detail) => {
                End::Failed { cause: *cause, detail: detail.clone(), untouched: true }
            }
            Target::Answer(answer) => End::Answered(answer),
            Target::Cluster(cluster)
                if cluster.protocol == Protocol::Http2
                    || self.shares(cluster, info)
                    || self.keeps(&decision, read, info) =>
            {
                // Boxed, or every connection would have room for it while it idles.
                Box::pin(self.translate(
                    client,
                    read,
                    &out,
                    info,
                    cluster.protocol == Protocol::Http2,
                    &decision.terms(cluster, destination, direction, (started, until), &notes),
                ))
                .await
            }
            Target::Cluster(cluster) => {
                let Info {
                    framing,
                    version,
                    keep_alive,
                    to_head,
                    to_connect,
                    upgrade,
                    expects_continue,
                    idempotent,
                    method: _,
                } = info;
                let plan = Plan {
                    head: &out,
                    framing,
                    version,
                    keep_alive,
                    to_head,
                    to_connect,
                    upgrade,
                    expects_continue,
                    idempotent,
                    terms: decision.terms(cluster, destination, direction, (started, until), &notes),
                };
                exchange::run(client, read, timer, &plan, worker).await
            }
        };
        let (status, cause) = match &end {
            End::Responded { status, .. } | End::Tunnel { status, .. } => (*status, None),
            End::Failed { cause, .. } => (cause.status().0, Some(cause.name())),
            End::Answered(answer) => {
                notes.grpc.set(answer.grpc.map_or(GrpcStatus::None, GrpcStatus::Code));
                (answer.status, answer.cause)
            }
            End::Broken { status, why } => (status.unwrap_or(0), Some(*why)),
        };
        let outcome = Outcome {
            direction,
            service: &snapshot.cluster.service,
            route: decision.route(),
            method: info.method,
            status,
            grpc: notes.grpc.get(),
            peer: telemetry::peer(direction),
            cause,
            took: started.elapsed(),
            request_bytes: notes.request_bytes.get(),
            response_bytes: notes.response_bytes.get(),
        };
        worker.recorder.request(&outcome);
        if worker.recorder.is_logging() {
            let peer = peer.as_deref().copied();
            log::request(&worker.recorder, &outcome, &notes, &out, Said { peer, ..log::said(info.version) });
        }
        if let End::Tunnel { upstream, pending, .. } = end {
            return Next::Tunnel(upstream, pending, out);
        }
        buffer::give_back(out);
        let Info { framing, keep_alive, version, to_head, .. } = info;
        let mut may_keep = || keep_alive && skip_body(read, framing) && !worker.drain.is_draining();
        // Both answers are sent at the same place below: a connection has room for each such place while it idles.
        let (keep, out) = match end {
            End::Responded { reusable: true, .. } => return Next::Request,
            End::Responded { reusable: false, .. } => return Next::Close,
            End::Tunnel { .. } | End::Broken { .. } => return Next::Reset,
            End::Answered(answer) => {
                let (keep, mut out) = (may_keep(), buffer::take());
                reply::answer(&mut out, answer, Persistence::new(keep, version), to_head);
                (keep, out)
            }
            End::Failed { cause, detail, untouched } => {
                let (keep, mut out) = (untouched && may_keep(), buffer::take());
                reply::write(&mut out, cause, &detail, Persistence::new(keep, version), to_head);
                (keep, out)
            }
        };
        match send(client, out).await {
            Ok(()) if keep => Next::Request,
            _ => Next::Close,
        }
    }

    /// Whether the request goes to another sidecar on a connection that it shares with others, as HTTP/2. What changes
    /// the protocol has no place there.
    fn shares(&self, cluster: &Cluster, info: Info) -> bool {
        self.direction == Direction::Outbound
            && !info.upgrade
            && !info.to_connect
            && self.worker.dialer.encrypts(cluster.expected.as_deref())
    }

    /// Whether the request's content is to be kept for another attempt while it comes.
    fn keeps(&self, decision: &Decision<'_>, read: &Buffer, info: Info) -> bool {
        decision.keeps_content()
            && self.direction == Direction::Outbound
            && !info.upgrade
            && !info.to_connect
            && !is_at_hand(read, info.framing)
    }

    /// Sends a request to an endpoint that speaks HTTP/2, or on a connection that does. `http2`: the endpoint does.
    async fn translate(
        &self,
        client: &mut Stream,
        read: &mut Buffer,
        head: &[u8],
        info: Info,
        http2: bool,
        terms: &Terms<'_>,
    ) -> End<'static> {
        let Info { framing, version, keep_alive, .. } = info;
        let client = translate::http1::Client { stream: client, read, framing, version, keep_alive };
        let head = match translate::http1::request_fields(head) {
            Ok(head) => head,
            Err(detail) => {
                return End::Failed { cause: Cause::BadRequest, detail: detail.to_owned(), untouched: true };
            }
        };
        let plan = translate::Plan {
            head: &head,
            end: matches!(framing, Framing::None | Framing::Length(0)),
            http2,
            // They are in the head already.
            request_headers: decide::no_change(),
            terms: *terms,
        };
        let (outcome, reusable) = translate::http1::run(client, &plan, self.worker).await;
        head.give_back();
        match (outcome, reusable) {
            (translate::Outcome::Responded(status), reusable) => End::Responded { status, reusable },
            (translate::Outcome::Failed(cause, detail), untouched) => {
                End::Failed { cause, detail, untouched }
            }
            (translate::Outcome::Broken(status), _) => End::Broken { status, why: "broken" },
        }
    }

    /// Answers what can't be understood and ends the connection: what follows has no known beginning.
    async fn refuse(&self, mut client: Stream, Refusal { cause, detail, limit }: Refusal) {
        let Self { destination, worker, direction, caller: _, ref peer } = *self;
        if let Some(limit) = limit {
            worker.telemetry.limit(direction, limit);
        }
        let service = Arc::clone(&destination.now().cluster.service);
        let outcome = Outcome {
            direction,
            service: &service,
            route: "",
            method: Method::Unknown,
            status: cause.status().0,
            grpc: GrpcStatus::None,
            peer: telemetry::peer(direction),
            cause: Some(cause.name()),
            took: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
        };
        worker.recorder.request(&outcome);
        let said = Said { peer: peer.as_deref().copied(), ..log::said(Version::Http11) };
        worker.recorder.log(&outcome, &worker.recorder.notes(), &said);
        let mut out = buffer::take();
        reply::write(&mut out, cause, &detail, Persistence::Close, false);
        if send(&mut client, out).await.is_ok() {
            close(client).await;
        }
    }
}

/// Whether no more bytes can make this a head.
fn is_hopeless(bytes: &[u8]) -> bool {
    head::request(bytes, &mut field_space()).is_err()
}

/// What of a request's head is still needed when the head is gone.
#[derive(Clone, Copy)]
struct Info {
    framing: Framing,
    version: Version,
    keep_alive: bool,
    to_head: bool,
    to_connect: bool,
    upgrade: bool,
    expects_continue: bool,
    idempotent: bool,
    method: Method,
}

/// What an inbound request is decided by beside itself; all of it nothing outbound.
struct Inbound<'a> {
    caller: Option<&'a Caller>,
    check: Option<Check<'a>>,
    notes: &'a Notes,
}

/// Holds a connection that has changed its protocol to what its request is allowed; nothing outbound.
///
/// # Errors
/// It is not allowed any more.
fn tunnel(worker: &Worker, caller: Option<&Rc<Caller>>, head: Vec<u8>) -> Result<Option<Rc<Held>>, ()> {
    let kept: Option<Box<[u8]>> = caller.map(|_| head.as_slice().into());
    buffer::give_back(head);
    let (Some(caller), Some(head)) = (caller, kept) else { return Ok(None) };
    let decide = move |policy: &Policy, subject: &Subject<'_>| {
        let mut space = field_space();
        let Ok(Some((head, _))) = head::request(&head, &mut space) else {
            return policy.decide(subject, None);
        };
        let asked = Asked { method: head.method, path: head.path(), fields: head.fields };
        match policy.decide(subject, Some(&asked)) {
            // It was told of the request.
            Verdict::Audited(_) => Verdict::Allowed,
            verdict => verdict,
        }
    };
    worker.guard.hold(caller, decide).map(Some).ok_or(())
}

/// Reads the head at the front of `read`, decides where the request goes, and writes to `out` what is sent there. Tells also
/// when the request's time is over, if it says that.
fn decide<'a>(
    read: &mut Buffer,
    snapshot: &'a Snapshot,
    source: impl FnOnce() -> Option<IpAddr>,
    (limits, started): (&Limits, Instant),
    inbound: Inbound<'_>,
    out: &mut Vec<u8>,
) -> Result<(Info, Option<Instant>, Decision<'a>), Refusal> {
    let mut space = field_space();
    let Some((head, length)) = head::request(read.data(), &mut space)? else {
        return Err(HeadError::Malformed("line ends in a bare LF").into());
    };
    if head.line_length() > limits.request_line {
        return Err(HeadError::LineTooLong.into());
    }
    if length > limits.head_bytes {
        return Err(HeadError::TooLarge.into());
    }
    if head.fields.len() > limits.fields {
        return Err(HeadError::TooManyFields.into());
    }
    let request = Request {
        method: head.method,
        path: head.path(),
        query: head.query(),
        authority: head.authority(),
        fields: head.fields,
    };
    let Request { method, path, fields, .. } = request;
    let Inbound { caller, check, notes } = inbound;
    let decision = match check {
        Some(check) if check.refuses(&Asked { method, path, fields }, notes) => Decision::denied(),
        _ => Decision::new(snapshot, &request, source),
    };
    let changes = caller.map_or_else(|| decision.request_headers(), Caller::headers);
    match decision.rewritten() {
        None => rewrite::request(out, &head, changes, &snapshot.cluster.service),
        Some(rewritten) => {
            let target = rewritten.target.as_deref().unwrap_or(head.target);
            if head.line_length() - head.target.len() + target.len() > limits.request_line {
                return Err(HeadError::LineTooLong.into());
            }
            rewrite::rewritten(out, &head, rewritten, changes, &snapshot.cluster.service);
        }
    }
    let until = if head.has_deadline {
        deadline::of(head.fields.iter().map(|field| (field.name.as_bytes(), field.value)), started)
    } else {
        None
    };
    let info = Info {
        framing: head.framing,
        version: head.version,
        keep_alive: head.keep_alive,
        to_head: head.method == "HEAD",
        to_connect: head.method == "CONNECT",
        upgrade: head.upgrade,
        expects_continue: head.expects_continue,
        idempotent: is_idempotent(head.method),
        method: Method::of(head.method),
    };
    read.consume(length);
    Ok((info, until, decision))
}

/// Whether all of a request's body lies in the buffer.
fn is_at_hand(read: &Buffer, framing: Framing) -> bool {
    let mut body = Body::new(framing);
    body.advance(read.data()).is_ok() && body.is_done()
}

/// Uses up a request's body if all of it is at hand; otherwise the connection can't be used again.
fn skip_body(read: &mut Buffer, framing: Framing) -> bool {
    let mut body = Body::new(framing);
    let Ok(length) = body.advance(read.data()) else { return false };
    if body.is_done() {
        read.consume(length);
    }
    body.is_done()
}

/// Sends an answer of the proxy's own.
async fn send(client: &mut Stream, out: Vec<u8>) -> std::io::Result<()> {
    let result = client.write_all(&out).await;
    buffer::give_back(out);
    result
}

/// Closes in stages (RFC 9112 §9.6): a close while the client still sends would reset the connection and take
/// the response with it.
async fn close(mut client: Stream) {
    if client.shutdown().await.is_ok() {
        drain_input(&mut client).await;
    }
}

/// Reads and drops what the client still sends, for a bounded time and amount.
async fn drain_input(client: &mut Stream) {
    let drain = async {
        let mut buffer = Buffer::default();
        let mut total = 0;
        while let Ok(count @ 1..) = buffer.fill(client).await {
            buffer.consume(buffer.data().len());
            total += count;
            if total > LINGER_BYTES {
                break;
            }
        }
    };
    let _ = timeout(LINGER, drain).await;
}
