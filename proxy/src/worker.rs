//! What a worker thread has: everything that serving a connection needs, shared by the thread's tasks alone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use crate::direction::Direction;
use crate::{
    access::Guard,
    balance::Endpoint,
    drain::Drain,
    http2::{self, driver::Times, upstreams::Upstreams},
    limits::{Http2Limits, Limits},
    net,
    pool::Pool,
    stream::Stream,
    telemetry::{Recorder, Telemetry, Use},
    tls::{
        accept::Handshakes,
        alpn::Alpn,
        dial::{Dialer, Way},
        expected::Expected,
    },
};

/// An HTTP/2 connection without a request gives back its header tables after this time.
const REST: Duration = Duration::from_secs(60);

/// A worker thread's own things.
#[derive(Debug)]
pub struct Worker {
    /// Idle connections to endpoints of other pods.
    pub outbound: Pool,
    /// Idle connections to the application.
    pub inbound: Pool,
    /// HTTP/2 connections to endpoints of other pods.
    pub outbound_http2: Upstreams,
    /// HTTP/2 connections to the application.
    pub inbound_http2: Upstreams,
    /// How endpoints of other pods are dialled.
    pub dialer: Dialer,
    /// Handshakes of clients that are under way.
    pub handshakes: Handshakes,
    /// Who may call this pod.
    pub guard: Guard,
    /// Bounds on what a peer can make grow or last.
    pub limits: Limits,
    /// Counters, shared with the other threads.
    pub telemetry: Arc<Telemetry>,
    /// Counts this thread's requests.
    pub recorder: Recorder,
    /// Whether the process is ending.
    pub drain: Drain,
}

impl Worker {
    /// The pool for this direction: the two never share a connection, for a sidecar is trusted with other things
    /// than an application is.
    #[must_use]
    pub fn pool(&self, direction: Direction) -> &Pool {
        match direction {
            Direction::Outbound => &self.outbound,
            Direction::Inbound => &self.inbound,
        }
    }

    /// HTTP/2 connections for this direction.
    #[must_use]
    pub fn upstreams(&self, direction: Direction) -> &Upstreams {
        match direction {
            Direction::Outbound => &self.outbound_http2,
            Direction::Inbound => &self.inbound_http2,
        }
    }

    /// What every HTTP/2 connection of this thread has in common.
    #[must_use]
    pub fn http2_settings(&self) -> http2::upstreams::Settings<'_> {
        let Limits { head_bytes, fields, head, idle, client_stall, http2, .. } = self.limits;
        http2::upstreams::Settings {
            limits: Http2Limits { head_bytes, head_fields: fields, ..http2 },
            times: Times { idle, rest: REST, head, stall: client_stall },
            drain: &self.drain,
        }
    }

    /// Closes connections that have been idle for too long.
    pub fn sweep(&self, now: Instant) {
        self.outbound.sweep(now);
        self.inbound.sweep(now);
        self.outbound_http2.sweep(now, |secured| self.dialer.is_current(secured));
        self.inbound_http2.sweep(now, |_| true);
        for direction in [Direction::Outbound, Direction::Inbound] {
            self.recorder.idle(direction, false, self.pool(direction).len());
            self.recorder.idle(direction, true, self.upstreams(direction).idle());
        }
    }

    /// An idle connection to the endpoint, or a new one, for HTTP/1; and whether it is new. `expected`: who answers at
    /// endpoints of other pods. `repeatable`: see [`Pool::take`].
    ///
    /// # Errors
    /// Those of connecting.
    pub async fn connection(
        &self,
        direction: Direction,
        endpoint: &Endpoint,
        expected: Option<&Expected>,
        repeatable: bool,
    ) -> std::io::Result<(Stream, bool)> {
        let limit = self.limits.connecting(direction);
        let outbound = direction == Direction::Outbound;
        if outbound && !matches!(self.dialer.way(endpoint.address, expected)?, Way::Plain(_)) {
            // What it carries leaves nothing for another one.
            let made = self.dialer.connect(endpoint, expected, Alpn::Http1, limit, &self.limits).await;
            self.recorder.pool(direction, false, if made.is_ok() { Use::New } else { Use::Failed });
            return Ok((made?, true));
        }
        let count = |r#use| self.recorder.pool(direction, false, r#use);
        let pool = self.pool(direction);
        let idle = pool.len();
        let taken = pool.take(endpoint.address, repeatable);
        for _ in pool.len() + usize::from(taken.is_some())..idle {
            count(Use::Stale);
        }
        if let Some(stream) = taken {
            count(Use::Reused);
            return Ok((Stream::Plain(stream), false));
        }
        let made = match direction {
            Direction::Outbound => {
                self.dialer.connect(endpoint, expected, Alpn::Http1, limit, &self.limits).await
            }
            Direction::Inbound => {
                net::connect_either(endpoint.address, endpoint.other(), limit).await.map(Stream::Plain)
            }
        };
        count(if made.is_ok() { Use::New } else { Use::Failed });
        Ok((made?, true))
    }
}
