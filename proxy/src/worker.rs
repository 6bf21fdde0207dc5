//! What a worker thread has: everything that serving a connection needs, shared by the thread's tasks alone.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    drain::Drain,
    http2::{self, connection::Times, upstreams::Upstreams},
    pool::Pool,
    telemetry::Telemetry,
};

/// Which way a connection crosses the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the pod's application to the mesh.
    Outbound,
    /// From the mesh to the pod's application.
    Inbound,
}

impl Direction {
    /// Label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// Bounds on what a peer can make grow or last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `FERRULE_LIMIT_CONNECT`: establishing a connection to an endpoint. Default: 1 s (Linkerd's).
    pub connect: Duration,
    /// `FERRULE_LIMIT_HEAD_TIME`: from the first byte of a request's head to its last; then 408. Default: 30 s.
    pub head: Duration,
    /// `FERRULE_LIMIT_IDLE`: without a request on a client's connection; then it is closed. Default: 1 h (Envoy's).
    pub idle: Duration,
    /// `FERRULE_LIMIT_DETECT`: how long a silent client may delay the choice of protocol. Default: 50 ms.
    pub detect: Duration,
    /// `FERRULE_LIMIT_CLIENT_STALL`: in a message, without a byte from the client or taken by it; then 408, or the
    /// end of a response that has begun. Default: 5 min (Envoy's `stream_idle_timeout`).
    pub client_stall: Duration,
    /// `FERRULE_LIMIT_ENDPOINT_STALL`: the same for the endpoint; then 504. Default: 1 h, for responses that
    /// are waited for long, and streams of events, know no shorter one.
    pub endpoint_stall: Duration,
    /// `FERRULE_LIMIT_HEAD_BYTES`: a head's size; then 431, or 502 for a response's. Default: 64 KiB (Envoy: 60,
    /// HAProxy: 16).
    pub head_bytes: usize,
    /// `FERRULE_LIMIT_FIELDS`: fields of a head; then 431 or 502. Default: 128 (Envoy: 100, HAProxy: 101).
    pub fields: usize,
    /// `FERRULE_LIMIT_REQUEST_LINE`: bytes of a request line; then 414. Default: 16 KiB (RFC 9112 §3 asks for 8000
    /// bytes; nginx: 8 KiB, HAProxy: 16 KiB with the fields).
    pub request_line: usize,
    /// `FERRULE_LIMIT_INTERIM_RESPONSES`: interim responses before the final one; then 502. Default: 64.
    pub interim_responses: usize,
    /// What is HTTP/2's own.
    pub http2: http2::core::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(3600),
            detect: Duration::from_millis(50),
            client_stall: Duration::from_secs(300),
            endpoint_stall: Duration::from_secs(3600),
            head_bytes: 64 * 1024,
            fields: 128,
            request_line: 16 * 1024,
            interim_responses: 64,
            http2: http2::core::Limits::default(),
        }
    }
}

/// A limit that was exceeded, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// [`Limits::head`].
    HeadTime,
    /// [`Limits::idle`].
    Idle,
    /// [`Limits::client_stall`].
    ClientStall,
    /// [`Limits::endpoint_stall`].
    EndpointStall,
    /// [`Limits::head_bytes`].
    HeadBytes,
    /// [`Limits::fields`].
    Fields,
    /// [`Limits::request_line`].
    RequestLine,
    /// [`Limits::interim_responses`].
    InterimResponses,
}

impl Limit {
    /// Label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HeadTime => "head-time",
            Self::Idle => "idle",
            Self::ClientStall => "client-stall",
            Self::EndpointStall => "endpoint-stall",
            Self::HeadBytes => "head-bytes",
            Self::Fields => "fields",
            Self::RequestLine => "request-line",
            Self::InterimResponses => "interim-responses",
        }
    }
}

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
    /// Bounds on what a peer can make grow or last.
    pub limits: Limits,
    /// Counters, shared with the other threads.
    pub telemetry: Arc<Telemetry>,
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
        let Limits { head_bytes, fields, head, idle, client_stall, connect, http2, .. } = self.limits;
        http2::upstreams::Settings {
            connect,
            limits: http2::core::Limits { head_bytes, head_fields: fields, ..http2 },
            times: Times { idle, head, stall: client_stall },
            drain: &self.drain,
        }
    }

    /// Closes connections that have been idle for too long.
    pub fn sweep(&self, now: Instant) {
        self.outbound.sweep(now);
        self.inbound.sweep(now);
        self.outbound_http2.sweep(now);
        self.inbound_http2.sweep(now);
    }

    /// An idle connection to the endpoint, or a new one; and whether it is new.
    ///
    /// # Errors
    /// Those of connecting.
    pub async fn connection(
        &self,
        direction: Direction,
        endpoint: SocketAddr,
    ) -> std::io::Result<(tokio::net::TcpStream, bool)> {
        if let Some(stream) = self.pool(direction).take(endpoint) {
            return Ok((stream, false));
        }
        Ok((crate::net::connect(endpoint, self.limits.connect).await?, true))
    }
}
