//! Bounds on what a peer can make grow or last, with their defaults.

use std::time::Duration;

use crate::direction::Direction;

/// Bounds on what a peer can make grow or last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `FERRULE_LIMIT_CONNECT`: establishing a connection to an endpoint. Default: 1 s (Linkerd's).
    pub connect: Duration,
    /// `FERRULE_LIMIT_CONNECT_LAST`: the same where there is no other endpoint to go on to, which are the pod's own
    /// application, and for connections that carry bytes the last endpoint to be tried. Who has more clients waiting
    /// than its listener holds answers only when the kernel asks again: after 1 s and after 3 s (RFC 6298). Default: 5 s
    /// (Envoy's).
    pub connect_last: Duration,
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
    /// `FERRULE_LIMIT_CONNECTIONS`: connections of clients that are open in each direction; further ones are reset.
    /// Default: 32,768.
    pub connections: usize,
    /// `FERRULE_LIMIT_TLS_HANDSHAKE`: a handshake between sidecars, from its first byte to its last; then the connection is
    /// reset. Default: 5 s.
    pub tls_handshake: Duration,
    /// `FERRULE_LIMIT_TLS_HANDSHAKES`: handshakes of clients that are under way at once, for each thread; further ones are
    /// reset. Default: 512.
    pub tls_handshakes: usize,
    /// What is HTTP/2's own.
    pub http2: Http2Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            connect_last: Duration::from_secs(5),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(3600),
            detect: Duration::from_millis(50),
            client_stall: Duration::from_secs(300),
            endpoint_stall: Duration::from_secs(3600),
            head_bytes: 64 * 1024,
            fields: 128,
            request_line: 16 * 1024,
            interim_responses: 64,
            connections: 32_768,
            tls_handshake: Duration::from_secs(5),
            tls_handshakes: 512,
            http2: Http2Limits::default(),
        }
    }
}

impl Limits {
    /// Time for establishing a connection on which requests are sent. Outbound ones have somewhere else to go, or are
    /// answered.
    #[must_use]
    pub fn connecting(&self, direction: Direction) -> Duration {
        match direction {
            Direction::Outbound => self.connect,
            Direction::Inbound => self.connect_last,
        }
    }
}

/// Bounds of an HTTP/2 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Limits {
    /// `FERRULE_LIMIT_HTTP2_STREAMS`: streams that the peer may have open at once; more are refused (REFUSED_STREAM).
    /// Default: 256 (Envoy: 1024, HAProxy: 100, nginx: 128).
    pub streams: u32,
    /// Bytes of a field section, as [`Limits::head_bytes`] says; compressed, and decompressed as RFC 9113 §6.5.2
    /// counts. A request beyond it is answered with 431, a block that does not end with ENHANCE_YOUR_CALM.
    pub head_bytes: usize,
    /// Fields of a section, as [`Limits::fields`] says; then 431.
    pub head_fields: usize,
    /// `FERRULE_LIMIT_HTTP2_STREAM_WINDOW`: bytes that a peer may send ahead on a stream. Default: 256 KiB.
    pub stream_window: u32,
    /// `FERRULE_LIMIT_HTTP2_WINDOW`: bytes that a peer may send ahead on a connection. Default: 1 MiB.
    pub connection_window: u32,
    /// Frames a second that ask for nothing; beyond, the connection ends with ENHANCE_YOUR_CALM.
    pub rates: Rates,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            streams: 256,
            head_bytes: 64 * 1024,
            head_fields: 128,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            rates: Rates::default(),
        }
    }
}

/// Most frames of a kind a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// `FERRULE_LIMIT_HTTP2_RESETS`: streams that the peer cancels, and stream errors that it provokes. Default: 500.
    pub resets: u32,
    /// `FERRULE_LIMIT_HTTP2_SETTINGS`: SETTINGS and their acknowledgements. Default: 50.
    pub settings: u32,
    /// `FERRULE_LIMIT_HTTP2_PINGS`: PING and its answers, beyond one for each DATA frame, for gRPC measures the round trip while
    /// content flows. Default: 100.
    pub pings: u32,
    /// `FERRULE_LIMIT_HTTP2_EMPTY`: DATA and CONTINUATION without content, PRIORITY, GOAWAY, and frames of unknown
    /// types. Default: 1,000.
    pub empty: u32,
    /// `FERRULE_LIMIT_HTTP2_WINDOW_UPDATES`: WINDOW_UPDATE for each DATA frame that was sent, however long ago; besides,
    /// two for each stream and a hundred a second. Default: 10 (Envoy's
    /// `max_inbound_window_update_frames_per_data_frame_sent`).
    pub window_updates: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self { resets: 500, settings: 50, pings: 100, empty: 1000, window_updates: 10 }
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
    /// [`Limits::connections`].
    Connections,
    /// [`Limits::tls_handshake`].
    TlsHandshake,
    /// [`Limits::tls_handshakes`].
    TlsHandshakes,
    /// [`Http2Limits::streams`].
    Http2Streams,
    /// [`Rates::resets`].
    Http2Resets,
    /// [`Rates::settings`].
    Http2Settings,
    /// [`Rates::pings`].
    Http2Pings,
    /// [`Rates::empty`].
    Http2Empty,
    /// [`Rates::window_updates`].
    Http2WindowUpdates,
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
            Self::Connections => "connections",
            Self::TlsHandshake => "tls-handshake-time",
            Self::TlsHandshakes => "tls-handshakes",
            Self::Http2Streams => "http2-streams",
            Self::Http2Resets => "http2-resets",
            Self::Http2Settings => "http2-settings",
            Self::Http2Pings => "http2-pings",
            Self::Http2Empty => "http2-empty",
            Self::Http2WindowUpdates => "http2-window-updates",
        }
    }
}
