//! What happened, as Prometheus metrics. Label sets are bounded: Services that this pod uses, rules of their
//! Routes, status codes, and names of causes.

mod discovery;
mod recorder;

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

pub use self::{discovery::DiscoveryMetrics, recorder::Recorder};
use crate::{direction::Direction, limits::Limit, tcp::client_hello::ClientHello};

/// One request that came to its end.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// Which way it went.
    pub direction: Direction,
    /// `namespace/name` of the Service that it was for; inbound: the application's port.
    pub service: &'a str,
    /// Rule that it fell under, or nothing.
    pub route: &'a str,
    /// Status code that the client saw; 0 when it saw none.
    pub status: u16,
    /// Why the proxy answered by itself or broke off.
    pub cause: Option<&'static str>,
    /// From its head to its end.
    pub took: Duration,
}

/// All metrics of the proxy.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<ServiceLabels, Histogram>,
    retries: Family<ServiceLabels, Counter>,
    connections: Family<ConnectionLabels, Counter>,
    open: Family<DirectionLabels, Gauge>,
    bytes: Family<BytesLabels, Counter>,
    tls: Family<TlsLabels, Counter>,
    limits: Family<LimitLabels, Counter>,
    /// Configurations that were refused; the last good one stayed in force.
    pub config_refused: Counter,
    /// Snapshots that were put in force.
    pub snapshots: Counter,
    /// Watches that are established.
    pub watches: Gauge,
    /// Calls to the API server that failed.
    pub api_errors: Counter,
    /// What discovery holds, and whether that was right.
    pub discovery: DiscoveryMetrics,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    direction: &'static str,
    service: Arc<str>,
    route: Arc<str>,
    status: u16,
    error: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ServiceLabels {
    direction: &'static str,
    service: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ConnectionLabels {
    direction: &'static str,
    service: Arc<str>,
    protocol: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DirectionLabels {
    direction: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BytesLabels {
    direction: &'static str,
    flow: &'static str,
}

/// Never the server's name itself: clients choose it freely.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TlsLabels {
    direction: &'static str,
    version: &'static str,
    server_name: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LimitLabels {
    direction: &'static str,
    limit: &'static str,
}

/// What a connection was found to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// HTTP/1 requests.
    Http1,
    /// HTTP/2 requests.
    Http2,
    /// Bytes, to an endpoint that we chose.
    Tcp,
    /// Bytes, to the address that the client chose.
    Passthrough,
}

impl Carried {
    fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Tcp => "tcp",
            Self::Passthrough => "passthrough",
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ferrule");
        let requests = Family::default();
        registry.register("requests", "Requests that came to their end", requests.clone());
        // 0.5 ms to about 16 s.
        let durations = Family::new_with_constructor(
            (|| Histogram::new(exponential_buckets(0.0005, 2.0, 16))) as fn() -> Histogram,
        );
        registry.register(
            "request_duration_seconds",
            "From a request's head to the end of its response",
            durations.clone(),
        );
        let retries = Family::default();
        registry.register("retries", "Attempts after the first", retries.clone());
        let connections = Family::default();
        registry.register("connections", "Connections accepted, by what they carry", connections.clone());
        let open = Family::default();
        registry.register("connections_open", "Connections of clients that are open", open.clone());
        let bytes = Family::default();
        registry.register("tcp_bytes", "Bytes of connections that carry no requests", bytes.clone());
        let tls = Family::default();
        registry.register(
            "tls_passed_through",
            "TLS connections carried as bytes, by the highest version offered and whether the server's name is seen",
            tls.clone(),
        );
        let limits = Family::default();
        registry.register("limit_exceeded", "Requests and connections ended by a limit", limits.clone());
        let config_refused = Counter::default();
        registry.register(
            "config_refused",
            "Configurations that could not be used; the last good one stayed in force",
            config_refused.clone(),
        );
        let snapshots = Counter::default();
        registry.register(
            "snapshots",
            "Changes of configuration or endpoints put in force",
            snapshots.clone(),
        );
        let watches = Gauge::default();
        registry.register("watches", "Watches at the API server", watches.clone());
        let api_errors = Counter::default();
        registry.register("api_errors", "Calls to the API server that failed", api_errors.clone());
        let discovery = DiscoveryMetrics::register(&mut registry);
        Self {
            registry,
            requests,
            durations,
            retries,
            connections,
            open,
            bytes,
            tls,
            limits,
            config_refused,
            snapshots,
            watches,
            api_errors,
            discovery,
        }
    }
}

impl Telemetry {
    /// What counts requests of this outcome, and their durations.
    fn of_requests(&self, outcome: &Outcome<'_>) -> (Counter, Histogram) {
        let Outcome { direction, service, route, status, cause, took: _ } = *outcome;
        let service: Arc<str> = service.into();
        let direction = direction.name();
        let error = cause.unwrap_or("");
        let labels =
            RequestLabels { direction, service: Arc::clone(&service), route: route.into(), status, error };
        let requests = self.requests.get_or_create(&labels).clone();
        (requests, self.durations.get_or_create(&ServiceLabels { direction, service }).clone())
    }

    /// Counts an attempt after the first.
    pub fn retry(&self, direction: Direction, service: &Arc<str>) {
        let labels = ServiceLabels { direction: direction.name(), service: Arc::clone(service) };
        self.retries.get_or_create(&labels).inc();
    }

    /// Counts a request or a connection that was ended by a limit.
    pub fn limit(&self, direction: Direction, limit: Limit) {
        let labels = LimitLabels { direction: direction.name(), limit: limit.name() };
        self.limits.get_or_create(&labels).inc();
    }

    /// Counts a connection once it is known what it carries.
    pub fn connection(&self, direction: Direction, service: &Arc<str>, carried: Carried) {
        let labels = ConnectionLabels {
            direction: direction.name(),
            service: Arc::clone(service),
            protocol: carried.name(),
        };
        self.connections.get_or_create(&labels).inc();
    }

    /// Counts a client's connection as open until the guard is dropped.
    #[must_use]
    pub fn open(&self, direction: Direction) -> OpenConnection {
        let gauge = self.open.get_or_create(&DirectionLabels { direction: direction.name() }).clone();
        gauge.inc();
        OpenConnection(gauge)
    }

    /// Connections of this direction that are open.
    #[must_use]
    pub fn connections(&self, direction: Direction) -> i64 {
        self.open.get_or_create(&DirectionLabels { direction: direction.name() }).get()
    }

    /// Counters for a connection that carries no requests.
    #[must_use]
    pub fn flows(&self, direction: Direction) -> Flows {
        let direction = direction.name();
        let bytes = |flow| self.bytes.get_or_create(&BytesLabels { direction, flow }).clone();
        Flows { sent: bytes("sent"), received: bytes("received"), tls: self.tls.clone(), direction }
    }

    /// The metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// A connection that is open.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl OpenConnection {
    /// Connections of this direction that are open now, this one included.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.0.get()
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What a connection that carries no requests counts while it lasts, so that a long one is seen before its end.
#[derive(Clone, Debug)]
pub struct Flows {
    /// Bytes from the client that the endpoint's socket has taken.
    pub sent: Counter,
    /// Bytes from the endpoint that the client's socket has taken.
    pub received: Counter,
    tls: Family<TlsLabels, Counter>,
    direction: &'static str,
}

impl Flows {
    /// Counts a client's greeting, and logs the server's name.
    pub fn tls(&self, hello: &ClientHello) {
        let ClientHello { server_name, version, encrypted } = hello;
        let (direction, version) = (self.direction, version.name());
        tracing::debug!(direction, server_name, version, encrypted, "TLS passed through");
        let seen = if server_name.is_some() { "yes" } else { "no" };
        self.tls.get_or_create(&TlsLabels { direction, version, server_name: seen }).inc();
    }
}
