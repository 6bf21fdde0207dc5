//! One request and its response: attempts, each to one endpoint, until one of them responds.
//!
//! ```text
//!   plan (head, rule, replay) ─▶ pick endpoint ─▶ connect ─▶ send ∥ receive ─▶ done
//!                                     ▲                          │ failed before anything was forwarded
//!                                     └──── retry allows ◀───────┘
//! ```

mod attempt;
mod receive;
mod send;

use std::{net::SocketAddr, time::Instant};

use ferrule_config::{HeaderChange, Timeouts};
use tokio::net::TcpStream;

use self::{attempt::Attempt, send::Outgoing};
use super::timer::Timer;
use crate::{
    balance,
    buffer::Buffer,
    cause::Cause,
    http1::{body::Framing, head::Version},
    retry::{self, Budget, Failure},
    snapshot::Cluster,
    worker::{Direction, Worker},
};

/// Connections that their peer had closed while they idled, and that are passed over in one request.
const MOST_STALE: usize = 8;

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
    pub expects_continue: bool,
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
    /// Nothing was forwarded; the client is to be told why. `untouched`: what it has sent of the body still lies in
    /// the buffer.
    Failed { cause: Cause, detail: String, untouched: bool },
    /// The response broke off after it had begun, or the client is gone: the client's connection must be closed.
    Broken { status: Option<u16>, why: &'static str },
}

/// Sends the request and forwards the response. `read` holds what the client has sent after the head; what of it
/// belongs to the request is used up.
pub(super) async fn run(
    client: &mut TcpStream,
    read: &mut Buffer,
    timer: &mut Timer<'_>,
    plan: &Plan<'_>,
    worker: &Worker,
) -> End {
    let mut request = match Outgoing::new(plan.framing, read) {
        Ok(request) => request,
        Err(error) => {
            let detail = format!("request body: {error}");
            return End::Failed { cause: Cause::BadRequest, detail, untouched: false };
        }
    };
    plan.budget.deposit(plan.started);
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut stale = 0;
    loop {
        let random = |n| fastrand::usize(0..n);
        let Some(endpoint) = balance::pick(&plan.cluster.endpoints, &tried, Instant::now(), random) else {
            let detail =
                format!("{} has no ready endpoint for port {}", plan.cluster.service, plan.cluster.port);
            return End::Failed { cause: Cause::NoEndpoints, detail, untouched: true };
        };
        let attempt = Attempt::new(plan, worker, endpoint, tried.len() + 1);
        let (error, reused) = match attempt.run(client, read, timer, &mut request).await {
            Ok(end) => return end,
            Err(failed) => failed,
        };
        // A connection that the peer closed while it idled says nothing about the endpoint: go on with the next
        // one to the same endpoint, which costs no retry, until a new connection is made.
        let repeatable = plan.idempotent && request.replay(true).complete;
        if reused && error.failure == Failure::Reset && repeatable && stale < MOST_STALE {
            stale += 1;
            continue;
        }
        tried.push(endpoint.address);
        endpoint.load.observe(retry::PENALTY, Instant::now());
        if !attempt.may_retry(error.failure, &request) {
            let untouched = request.replay(true).complete;
            return End::Failed { cause: error.cause, detail: error.detail, untouched };
        }
        worker.telemetry.retry(plan.direction, &plan.cluster.service);
    }
}
