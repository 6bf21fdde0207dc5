//! What happened, as metrics. Label sets are bounded: Services that this pod uses, rules of their Routes, known methods
//! and codes, names of causes; and each metric has a cap beyond that.
//!
//! ```text
//!   a request's end ──▶ recorder (the thread's own) ──▶ series ───┐
//!   a connection ─────▶ counters (any thread) ────────────────────┼──▶ gather ──▶ exposition: text, OpenMetrics,
//!   /proc and targets, when asked ────────────────────────────────┘               protobuf
//! ```
//!
//! `docs/observability.md` lists all of them; a test compares.

mod access_log;
mod connection;
mod counters;
mod discovery;
mod exposition;
mod flows;
mod gather;
mod histogram;
mod identity;
mod label;
mod pool;
mod process;
mod recorder;
mod request;
mod series;
mod targets;
mod tls;
mod value;

use std::sync::{Arc, Mutex, PoisonError};

pub use self::{
    access_log::{AccessLog, Filter, Options as AccessLogOptions, Record, Shape},
    connection::{Carried, CarriedConnection, OpenConnection, Told},
    discovery::DiscoveryMetrics,
    exposition::Format,
    flows::Flows,
    identity::IdentityMetrics,
    label::{GrpcStatus, Method},
    pool::Use,
    recorder::Recorder,
    request::{Notes, Outcome, Said, UNKNOWN_PEER},
    tls::TlsMetrics,
    value::{Counter, Gauge, Happened},
};
use self::{
    connection::ConnectionKey,
    counters::Counters,
    histogram::Histogram,
    pool::Pools,
    request::{RequestKey, Traffic, TrafficKey},
    series::Series,
    targets::Targets,
    value::Tally,
};
use crate::{cause::Cause, direction::Direction, limits::Limit, snapshot::Destination};

/// Sets of labels that requests are counted by.
const MOST_REQUESTS: usize = 2000;
/// Sets of labels that histograms are told by: each makes some forty classic series.
const MOST_HISTOGRAMS: usize = 250;

/// All metrics of the proxy.
#[derive(Debug)]
pub struct Telemetry {
    requests: Series<RequestKey, Tally>,
    traffic: Series<TrafficKey, Traffic>,
    picks: Series<Arc<str>, Tally>,
    carried: Series<ConnectionKey, Histogram>,
    /// What each worker thread counts of its pools; its place is the thread's number.
    threads: Mutex<Vec<Arc<Pools>>>,
    /// Destinations whose endpoints are told.
    targets: Targets,
    /// Client connections that are open, outbound and inbound.
    open: [Gauge; 2],
    connections: Counters<3>,
    closed: Counters<3>,
    failed: Counters<3>,
    detections: Counters<4>,
    retries: Counters<3>,
    bytes: Counters<3>,
    passed_through: Counters<3>,
    limits: Counters<2>,
    access: Counters<4>,
    access_log: Option<AccessLog>,
    /// Times that something was counted under `other` for want of room.
    capped: Counter,
    /// Configurations that were refused; the last good one stayed in force.
    pub config_refused: Counter,
    /// Snapshots that were put in force.
    pub snapshots: Happened,
    /// Answers and events from the API server.
    pub api_contacts: Happened,
    /// Watches that are established.
    pub watches: Gauge,
    /// Calls to the API server that failed.
    pub api_errors: Counter,
    /// What discovery holds, and whether that was right.
    pub discovery: DiscoveryMetrics,
    /// How it goes with the certificate.
    pub identity: IdentityMetrics,
    /// Encrypted connections, and those that are not.
    pub tls: TlsMetrics,
}

impl Default for Telemetry {
    fn default() -> Self {
        let capped = Counter::default();
        Self {
            requests: Series::new(MOST_REQUESTS, &capped),
            traffic: Series::new(MOST_HISTOGRAMS, &capped),
            picks: Series::new(MOST_HISTOGRAMS, &capped),
            carried: Series::new(MOST_HISTOGRAMS, &capped),
            threads: Mutex::default(),
            targets: Targets::default(),
            open: Default::default(),
            connections: Counters::new(gather::CONNECTIONS, ["direction", "service", "protocol"], &capped),
            closed: Counters::new(gather::CLOSED, ["direction", "service", "protocol"], &capped),
            failed: Counters::new(gather::FAILED, ["direction", "service", "error"], &capped),
            detections: Counters::new(
                gather::DETECTIONS,
                ["direction", "service", "by", "protocol"],
                &capped,
            ),
            retries: Counters::new(gather::RETRIES, ["direction", "service", "error"], &capped),
            bytes: Counters::new(gather::TCP_BYTES, ["direction", "service", "flow"], &capped),
            passed_through: Counters::new(gather::TLS, ["direction", "version", "server_name"], &capped),
            limits: Counters::new(gather::LIMITS, ["direction", "limit"], &capped),
            access: Counters::new(gather::ACCESS_REFUSED, ["policy", "reason", "mode", "carried"], &capped),
            discovery: DiscoveryMetrics::new(&capped),
            identity: IdentityMetrics::new(&capped),
            tls: TlsMetrics::new(&capped),
            access_log: None,
            capped,
            config_refused: Counter::default(),
            snapshots: Happened::default(),
            api_contacts: Happened::default(),
            watches: Gauge::default(),
            api_errors: Counter::default(),
        }
    }
}

impl Telemetry {
    /// Metrics at zero, and this access log.
    #[must_use]
    pub fn new(access_log: Option<AccessLog>) -> Self {
        Self { access_log, ..Self::default() }
    }

    /// The access log, if there is one.
    #[must_use]
    pub fn access_log(&self) -> Option<&AccessLog> {
        self.access_log.as_ref()
    }

    /// A thread's number, and where it counts what it does with its pools.
    fn thread(&self) -> (usize, Arc<Pools>) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let pools = Arc::new(Pools::default());
        threads.push(Arc::clone(&pools));
        (threads.len() - 1, pools)
    }

    /// Counts an attempt after one that failed for this cause.
    pub fn retry(&self, direction: Direction, service: &Arc<str>, cause: Cause) {
        self.retries.of([direction.name().into(), service.into(), cause.name().into()]).inc();
    }

    /// Counts a request or a connection that was ended by a limit.
    pub fn limit(&self, direction: Direction, limit: Limit) {
        self.limits.of([direction.name().into(), limit.name().into()]).inc();
    }

    /// Counts a request or a connection that a policy refuses, or would (`mode`). All but the policy's name are of a fixed set.
    pub fn access_refused(
        &self,
        policy: &Arc<str>,
        reason: &'static str,
        mode: &'static str,
        carried: &'static str,
    ) {
        self.access.of([policy.into(), reason.into(), mode.into(), carried.into()]).inc();
    }

    /// Counts a connection once it is known what it carries; its end, when the guard is dropped.
    #[must_use]
    pub fn connection(
        &self,
        direction: Direction,
        service: &Arc<str>,
        carried: Carried,
    ) -> CarriedConnection {
        let labels = [direction.name().into(), service.into(), carried.name().into()];
        self.connections.of(labels.clone()).inc();
        CarriedConnection(self.closed.of(labels))
    }

    /// The same for a connection whose protocol was told by this.
    #[must_use]
    pub fn decided(
        &self,
        direction: Direction,
        service: &Arc<str>,
        by: Told,
        carried: Carried,
    ) -> CarriedConnection {
        let labels = [direction.name().into(), service.into(), by.name().into(), carried.name().into()];
        self.detections.of(labels).inc();
        self.connection(direction, service, carried)
    }

    /// Counts a client's connection as open until the guard is dropped.
    #[must_use]
    pub fn open(&self, direction: Direction) -> OpenConnection {
        OpenConnection::new(&self.open[direction as usize])
    }

    /// Connections of this direction that are open.
    #[must_use]
    pub fn connections(&self, direction: Direction) -> i64 {
        self.open[direction as usize].get()
    }

    /// Tells from now on of the endpoints that this destination has, for as long as it is used.
    pub fn uses(&self, destination: &Arc<Destination>) {
        self.targets.add(destination);
    }

    /// All metrics, in this format.
    #[must_use]
    pub fn encode(&self, format: Format) -> Vec<u8> {
        format.encode(&self.gather())
    }
}

/// Who has sent a request that came in this direction. Outbound it is the pod's own application.
#[must_use]
pub fn peer(direction: Direction) -> &'static str {
    match direction {
        Direction::Outbound => "",
        Direction::Inbound => UNKNOWN_PEER,
    }
}

#[cfg(test)]
mod tests;
