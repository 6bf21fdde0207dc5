//! One request and its response: attempts, each to one endpoint, until one of them responds.
//!
//! ```text
//!   plan (head, rule, replay) ─▶ pick endpoint ─▶ connect ─▶ send ∥ receive ─▶ done
//!                                     ▲                          │ failed before anything was forwarded
//!                                     └──── retry allows ◀───────┘
//! ```

use std::{cell::Cell, io, net::SocketAddr, pin::pin, sync::Arc, time::Instant};

use ferrule_config::{HeaderChange, Timeouts, names::ERROR_HEADER};
use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

use super::{
    body::{Body, BodyError, Framing},
    buffer::{self, Buffer},
    head::{self, Version, field_space},
    reply::Cause,
    rewrite::{self, Persistence},
};
use crate::{
    balance::{self, Endpoint, Load},
    retry::{self, Budget, Failure, Replay},
    snapshot::Cluster,
    worker::{Direction, Worker},
};

/// A request as it is to be sent, with all that its response depends on.
pub(super) struct Plan<'a> {
    /// Rewritten head.
    pub head: &'a [u8],
    pub framing: Framing,
    pub version: Version,
    pub keep_alive: bool,
    pub to_head: bool,
    pub to_connect: bool,
    pub upgrade: bool,
    pub idempotent: bool,
    /// Where it goes.
    pub cluster: &'a Cluster,
    pub response_headers: &'a HeaderChange,
    pub timeouts: &'a Timeouts,
    pub budget: &'a Budget,
    pub direction: Direction,
    pub started: Instant,
}

/// How an exchange ended.
pub(super) enum End {
    /// The response was forwarded as a whole. `reusable`: the client's connection can carry another request.
    Responded { status: u16, reusable: bool },
    /// The connection speaks another protocol now.
    Tunnel { status: u16, upstream: TcpStream, pending: Buffer },
    /// Nothing was forwarded; the client is to be told why.
    Failed { cause: Cause, detail: String },
    /// The response broke off after it had begun, or the client is gone: the client's connection must be closed.
    Broken { status: Option<u16> },
}

/// Sends the request and forwards the response. `read` holds what the client has sent after the head; what of it
/// belongs to the request is used up.
pub(super) async fn run(client: &mut TcpStream, read: &mut Buffer, plan: &Plan<'_>, worker: &Worker) -> End {
    plan.budget.deposit(plan.started);
    let mut request = Outgoing::new(plan.framing, read);
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut stale = 0;
    loop {
        let random = |n| fastrand::usize(0..n);
        let Some(endpoint) = balance::pick(&plan.cluster.endpoints, &tried, Instant::now(), random) else {
            let detail =
                format!("{} has no ready endpoint for port {}", plan.cluster.service, plan.cluster.port);
            return End::Failed { cause: Cause::NoEndpoints, detail };
        };
        let attempt =
            Attempt { plan, worker, endpoint, attempts: tried.len() + 1, forwarded: Cell::new(None) };
        let (error, reused) = match attempt.run(client, read, &mut request).await {
            Ok(end) => return end,
            Err(failed) => failed,
        };
        // A connection that the peer closed while it idled says nothing about the endpoint: go on with the next
        // one to the same endpoint, which costs no retry, until a new connection is made.
        if reused && error.failure == Failure::Reset && attempt.may_repeat(&request) && stale < 8 {
            stale += 1;
            continue;
        }
        tried.push(endpoint.address);
        endpoint.load.observe(retry_penalty(), Instant::now());
        if !attempt.may_retry(error.failure, &request) {
            return End::Failed { cause: error.cause, detail: error.detail };
        }
        worker.telemetry.retry(plan.direction, &plan.cluster.service);
    }
}

/// Latency that a failed attempt counts as, so that the endpoint is avoided while others are there.
fn retry_penalty() -> std::time::Duration {
    std::time::Duration::from_secs(2)
}

/// The request's body on its way out. As long as all of it lies in the client's buffer, nothing of that is used
/// up and the request can be sent again.
struct Outgoing {
    body: Body,
    /// Bytes of the buffer that are the whole body.
    buffered: Option<usize>,
    /// Bytes were taken from the client and are gone.
    streamed: bool,
}

impl Outgoing {
    fn new(framing: Framing, read: &Buffer) -> Self {
        let body = Body::new(framing);
        let mut look = body.clone();
        let buffered = match look.advance(read.data()) {
            Ok(length) if look.is_done() => Some(length),
            // Malformed framing is found again, and answered, when it is streamed.
            _ => None,
        };
        Self { body, buffered, streamed: false }
    }

    fn replay(&self, idempotent: bool) -> Replay {
        Replay { idempotent, complete: !self.streamed }
    }
}

struct Attempt<'a> {
    plan: &'a Plan<'a>,
    worker: &'a Worker,
    endpoint: &'a Arc<Endpoint>,
    attempts: usize,
    /// Status of the response, once some of it was written to the client.
    forwarded: Cell<Option<u16>>,
}

/// An attempt that failed before anything was forwarded.
struct Failed {
    failure: Failure,
    cause: Cause,
    detail: String,
}

/// What the response left behind.
struct Received {
    status: u16,
    upstream_reusable: bool,
    client_reusable: bool,
    tunnel: bool,
}

enum SendError {
    Client,
    Upstream,
    Malformed(BodyError),
}

enum ReceiveError {
    Failed(Failed),
    Broken,
}

impl Attempt<'_> {
    async fn run(
        &self,
        client: &mut TcpStream,
        read: &mut Buffer,
        request: &mut Outgoing,
    ) -> Result<End, (Failed, bool)> {
        let connected = self.worker.connection(self.plan.direction, self.endpoint.address).await;
        let (mut upstream, is_new) = match connected {
            Ok(connection) => connection,
            Err(error) => return Err((self.connect_failed(&error), false)),
        };
        let load = Load::begin(self.endpoint);
        let mut response = Buffer::default();
        let received = match self.deadline() {
            None => self.talk(client, read, request, &mut upstream, &mut response).await,
            Some(deadline) => {
                let talk = self.talk(client, read, request, &mut upstream, &mut response);
                tokio::time::timeout_at(deadline.into(), talk).await.unwrap_or_else(|_| Err(self.timed_out()))
            }
        };
        drop(load);
        let received = match received {
            Ok(received) => received,
            Err(ReceiveError::Failed(failed)) => return Err((failed, !is_new)),
            Err(ReceiveError::Broken) => return Ok(End::Broken { status: self.forwarded.get() }),
        };
        let now = Instant::now();
        self.endpoint.load.observe(now.saturating_duration_since(self.plan.started), now);
        if let Some(length) = request.buffered {
            read.consume(length);
        }
        if received.tunnel {
            return Ok(End::Tunnel { status: received.status, upstream, pending: response });
        }
        if received.upstream_reusable && response.is_empty() {
            self.worker.pool(self.plan.direction).put(self.endpoint.address, upstream, now);
        }
        Ok(End::Responded { status: received.status, reusable: received.client_reusable })
    }

    fn may_repeat(&self, request: &Outgoing) -> bool {
        request.replay(self.plan.idempotent).complete && self.plan.idempotent
    }

    fn may_retry(&self, failure: Failure, request: &Outgoing) -> bool {
        retry::may_retry(failure, request.replay(self.plan.idempotent), self.attempts)
            && self.plan.budget.withdraw(Instant::now())
    }

    fn deadline(&self) -> Option<Instant> {
        let Timeouts { request, backend_request } = self.plan.timeouts;
        let set = |limit: &Option<ferrule_config::Duration>| limit.filter(|limit| !limit.is_zero());
        let request = set(request).map(|limit| self.plan.started + limit.get());
        let attempt = set(backend_request).map(|limit| Instant::now() + limit.get());
        request.into_iter().chain(attempt).min()
    }

    /// Sends and receives at once: a server may respond before it has read the whole request.
    async fn talk(
        &self,
        client: &mut TcpStream,
        read: &mut Buffer,
        request: &mut Outgoing,
        upstream: &mut TcpStream,
        response: &mut Buffer,
    ) -> Result<Received, ReceiveError> {
        let (mut client_read, mut client_write) = client.split();
        let (mut upstream_read, mut upstream_write) = upstream.split();
        if let Some(length) = request.buffered {
            // An endpoint that stops reading may still have responded, so a failed write is no failure yet.
            let _ = self.send_whole(&mut upstream_write, &read.data()[..length]).await;
            return self.receive(&mut upstream_read, &mut client_write, response, request).await;
        }
        if upstream_write.write_all(self.plan.head).await.is_err() {
            return Err(ReceiveError::Failed(
                self.reset("closed the connection before the request was sent"),
            ));
        }
        let replay = Outgoing { body: Body::new(Framing::None), buffered: None, streamed: true };
        request.streamed = true;
        let mut received = {
            let mut receiving = pin!(self.receive(&mut upstream_read, &mut client_write, response, &replay));
            let mut sending =
                pin!(stream_body(&mut request.body, read, &mut client_read, &mut upstream_write));
            let mut sent = false;
            loop {
                tokio::select! {
                    received = &mut receiving => break received?,
                    result = &mut sending, if !sent => match result {
                        Ok(()) | Err(SendError::Upstream) => sent = true,
                        Err(error) => return Err(self.request_failed(&error)),
                    },
                }
            }
        };
        if !received.tunnel && !request.body.is_done() {
            received.upstream_reusable = false;
            received.client_reusable = false;
        }
        Ok(received)
    }

    /// The client broke off or its body can't be framed: nobody is left to be answered, unless nothing was yet.
    fn request_failed(&self, error: &SendError) -> ReceiveError {
        match error {
            SendError::Malformed(error) if self.forwarded.get().is_none() => {
                let detail = format!("request body: {error}");
                ReceiveError::Failed(Failed { failure: Failure::Final, cause: Cause::BadRequest, detail })
            }
            _ => ReceiveError::Broken,
        }
    }

    async fn send_whole(&self, upstream: &mut WriteHalf<'_>, body: &[u8]) -> io::Result<()> {
        if body.is_empty() {
            return upstream.write_all(self.plan.head).await;
        }
        let mut slices = [io::IoSlice::new(self.plan.head), io::IoSlice::new(body)];
        let mut slices = slices.as_mut_slice();
        while !slices.is_empty() {
            let written = upstream.write_vectored(slices).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            io::IoSlice::advance_slices(&mut slices, written);
        }
        Ok(())
    }

    /// Forwards the response: interim ones (RFC 9110 §15.2) as they come, then the final one.
    async fn receive(
        &self,
        upstream: &mut ReadHalf<'_>,
        client: &mut WriteHalf<'_>,
        response: &mut Buffer,
        request: &Outgoing,
    ) -> Result<Received, ReceiveError> {
        let mut out = Scratch(buffer::take());
        loop {
            let (status, framing, mut received) = loop {
                match self.response_head(response, request, &mut out.0)? {
                    Some(parsed) => break parsed,
                    None => self.more(upstream, response).await?,
                }
            };
            if status < 200 && status != 101 {
                if self.plan.version == Version::Http11 {
                    self.write(client, &out.0, status).await?;
                }
                out.0.clear();
                continue;
            }
            let dechunk = self.dechunks(framing);
            let mut body = Body::new(framing);
            loop {
                let used = if dechunk {
                    append_content(&mut body, response, &mut out.0)
                } else {
                    advance(&mut body, response)
                };
                let Ok(used) = used else { return Err(ReceiveError::Broken) };
                if dechunk || !out.0.is_empty() {
                    if !dechunk {
                        out.0.extend_from_slice(&response.data()[..used]);
                    }
                    self.write(client, &out.0, status).await?;
                    out.0.clear();
                } else {
                    self.write(client, &response.data()[..used], status).await?;
                }
                response.consume(used);
                if body.is_done() {
                    break;
                }
                match response.fill(upstream).await {
                    Ok(0) if body.may_end() => break,
                    Ok(0) | Err(_) => return Err(ReceiveError::Broken),
                    Ok(_) => {}
                }
            }
            // Bytes beyond the response answer no request of ours: that connection is out of step.
            received.upstream_reusable &= response.is_empty();
            return Ok(received);
        }
    }

    /// Parses the head at the front of `response` and writes to `out` what the client is to see.
    fn response_head(
        &self,
        response: &mut Buffer,
        request: &Outgoing,
        out: &mut Vec<u8>,
    ) -> Result<Option<(u16, Framing, Received)>, ReceiveError> {
        let plan = self.plan;
        let mut space = field_space();
        let parsed = head::response(response.data(), &mut space, plan.to_head, plan.to_connect);
        let (head, length) = match parsed {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Ok(None),
            Err(error) => {
                let detail = format!("response of {}: {error}", self.endpoint.address);
                return Err(ReceiveError::Failed(Failed {
                    failure: Failure::Final,
                    cause: Cause::BadResponse,
                    detail,
                }));
            }
        };
        let unprocessed = plan.direction == Direction::Outbound
            && head.status == 503
            && head.fields.iter().any(|field| {
                field.name.eq_ignore_ascii_case(ERROR_HEADER) && Cause::proves_unprocessed(field.value)
            });
        if unprocessed
            && retry::may_retry(Failure::NotProcessed, request.replay(plan.idempotent), self.attempts)
        {
            let detail = format!("the application at {} takes no connections", self.endpoint.address);
            let failed = Failed { failure: Failure::NotProcessed, cause: Cause::Connect, detail };
            return Err(ReceiveError::Failed(failed));
        }
        let switches = head.status == 101;
        if switches && !plan.upgrade {
            let detail = format!("{} changed the protocol without being asked", self.endpoint.address);
            return Err(ReceiveError::Failed(Failed {
                failure: Failure::Final,
                cause: Cause::BadResponse,
                detail,
            }));
        }
        let tunnel = switches || (plan.to_connect && (200..300).contains(&head.status));
        let dechunk = self.dechunks(head.framing);
        let ends = head.framing == Framing::Close || dechunk || self.worker.drain.is_draining();
        let client_reusable = plan.keep_alive && !ends;
        let persistence = match (switches, tunnel || head.status < 200) {
            (true, _) => Persistence::Upgrade,
            (false, true) => Persistence::Implied,
            (false, false) => Persistence::new(client_reusable, plan.version),
        };
        let trusted = plan.direction == Direction::Outbound;
        rewrite::response(out, &head, plan.response_headers, persistence, trusted, dechunk);
        let (status, framing) = (head.status, head.framing);
        let received = Received { status, upstream_reusable: head.keep_alive, client_reusable, tunnel };
        response.consume(length);
        Ok(Some((status, framing, received)))
    }

    /// HTTP/1.0 has no chunked coding: its client gets the content and the end of the connection.
    fn dechunks(&self, framing: Framing) -> bool {
        framing == Framing::Chunked && self.plan.version == Version::Http10
    }

    async fn more(&self, upstream: &mut ReadHalf<'_>, response: &mut Buffer) -> Result<(), ReceiveError> {
        match response.fill(upstream).await {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) if self.forwarded.get().is_some() => Err(ReceiveError::Broken),
            Ok(0) if response.is_empty() => {
                Err(ReceiveError::Failed(self.reset("closed the connection before it responded")))
            }
            Ok(0) => {
                let detail =
                    format!("{} closed the connection within the response's head", self.endpoint.address);
                Err(ReceiveError::Failed(Failed {
                    failure: Failure::Reset,
                    cause: Cause::BadResponse,
                    detail,
                }))
            }
            Err(error) => Err(ReceiveError::Failed(self.reset(&format!("broke the connection: {error}")))),
        }
    }

    async fn write(&self, client: &mut WriteHalf<'_>, bytes: &[u8], status: u16) -> Result<(), ReceiveError> {
        self.forwarded.set(Some(status));
        client.write_all(bytes).await.map_err(|_| ReceiveError::Broken)
    }

    fn connect_failed(&self, error: &io::Error) -> Failed {
        let address = self.endpoint.address;
        let (cause, detail) = match self.plan.direction {
            Direction::Outbound => {
                (Cause::Connect, format!("connecting to {address} of {}: {error}", self.plan.cluster.service))
            }
            Direction::Inbound => {
                (Cause::AppConnect, format!("the application takes no connections at {address}: {error}"))
            }
        };
        Failed { failure: Failure::NotProcessed, cause, detail }
    }

    fn reset(&self, what: &str) -> Failed {
        let detail = format!("{} of {} {what}", self.endpoint.address, self.plan.cluster.service);
        Failed { failure: Failure::Reset, cause: Cause::Reset, detail }
    }

    fn timed_out(&self) -> ReceiveError {
        if self.forwarded.get().is_some() {
            return ReceiveError::Broken;
        }
        let detail = format!("no complete response of {} in time", self.plan.cluster.service);
        ReceiveError::Failed(Failed { failure: Failure::Final, cause: Cause::Timeout, detail })
    }
}

/// A vector from the thread's store that goes back there.
struct Scratch(Vec<u8>);

impl Drop for Scratch {
    fn drop(&mut self) {
        buffer::give_back(std::mem::take(&mut self.0));
    }
}

fn advance(body: &mut Body, buffer: &Buffer) -> Result<usize, BodyError> {
    body.advance(buffer.data())
}

/// Appends the content that is at hand, without its framing, and tells how many bytes it took.
fn append_content(body: &mut Body, buffer: &Buffer, out: &mut Vec<u8>) -> Result<usize, BodyError> {
    let mut used = 0;
    while used < buffer.data().len() && !body.is_done() {
        let step = body.step(&buffer.data()[used..])?;
        out.extend_from_slice(&buffer.data()[used..][step.content]);
        used += step.used;
    }
    Ok(used)
}

async fn stream_body(
    body: &mut Body,
    read: &mut Buffer,
    client: &mut ReadHalf<'_>,
    upstream: &mut WriteHalf<'_>,
) -> Result<(), SendError> {
    loop {
        let used = body.advance(read.data()).map_err(SendError::Malformed)?;
        upstream.write_all(&read.data()[..used]).await.map_err(|_| SendError::Upstream)?;
        read.consume(used);
        if body.is_done() {
            return Ok(());
        }
        match read.fill(client).await {
            Ok(0) | Err(_) => return Err(SendError::Client),
            Ok(_) => {}
        }
    }
}
