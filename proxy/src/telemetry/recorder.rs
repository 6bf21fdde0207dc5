//! A worker thread's way to the metrics of requests: what it counted lately it finds again without a lock, a hash or
//! an allocation, and what it adds to there no other thread writes.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    Notes, Outcome, Record, Said, Telemetry,
    connection::ConnectionKey,
    flows::Flows,
    histogram::{Histogram, TIME},
    pool::{Pools, Use},
    request::{RequestKey, Traffic},
    series::is_told,
    value::Tally,
};
use crate::{cause::Cause, direction::Direction, net, stream::Stream, tls::error::Failed};

/// Combinations of labels that a thread keeps at hand. A pod has a few that matter.
const KEPT: usize = 32;

/// Counts what one thread does.
#[derive(Debug)]
pub struct Recorder {
    telemetry: Arc<Telemetry>,
    /// Which of the threads this is.
    thread: usize,
    /// The most used ones come first, roughly.
    recent: RefCell<Vec<Recent>>,
    picks: RefCell<Vec<(Arc<str>, Arc<Tally>)>>,
    pools: Arc<Pools>,
    /// Where a line is put together.
    line: RefCell<String>,
}

#[derive(Debug)]
struct Recent {
    key: RequestKey,
    requests: Arc<Tally>,
    traffic: Arc<Traffic>,
}

impl Recorder {
    /// A thread that has counted nothing yet.
    #[must_use]
    pub fn new(telemetry: Arc<Telemetry>) -> Self {
        let (thread, pools) = telemetry.thread();
        Self {
            telemetry,
            thread,
            recent: RefCell::default(),
            picks: RefCell::default(),
            pools,
            line: RefCell::default(),
        }
    }

    /// Counts a request.
    pub fn request(&self, outcome: &Outcome<'_>) {
        let mut recent = self.recent.borrow_mut();
        let found = recent.iter().position(|each| each.key.is(outcome));
        let place = found.unwrap_or_else(|| {
            if recent.len() == KEPT {
                recent.pop();
            }
            recent.push(self.look_up(outcome));
            recent.len() - 1
        });
        if !(is_told(&recent[place].requests) && is_told(&recent[place].traffic)) {
            recent[place] = self.look_up(outcome);
        }
        let Recent { requests, traffic, .. } = &recent[place];
        requests.add(1);
        traffic.observe(outcome);
        // It moves half way to the front, so one that is seldom used does not displace the others.
        recent.swap(place, place / 2);
    }

    /// Whether requests are also told by a line each.
    #[must_use]
    pub fn is_logging(&self) -> bool {
        self.telemetry.access_log.is_some()
    }

    /// The notes of a request that begins.
    #[must_use]
    pub fn notes(&self) -> Notes {
        Notes { is_timed: self.is_logging(), ..Notes::default() }
    }

    /// The other end of a client's connection, if it will be told.
    #[must_use]
    pub fn peer(&self, client: &Stream) -> Option<SocketAddr> {
        if self.is_logging() { client.peer_addr().ok() } else { None }
    }

    /// Tells of a request by a line, if they are wanted.
    pub fn log(&self, outcome: &Outcome<'_>, notes: &Notes, said: &Said<'_>) {
        let now = Instant::now();
        let first_byte = notes.first_byte.get();
        // What came after its head is known to be as long ago as the outcome says.
        let policy = notes.policy.borrow();
        let policy =
            |tried| policy.as_ref().filter(|(_, audited)| *audited == tried).map_or("", |(name, _)| name);
        let since = |at: Instant| outcome.took.saturating_sub(now.saturating_duration_since(at));
        self.line(&Record {
            time: before(outcome.took),
            direction: outcome.direction.name(),
            service: outcome.service,
            route: outcome.route,
            protocol: said.protocol,
            method: said.method,
            host: said.host,
            path: said.path,
            status: Some(outcome.status),
            grpc: outcome.grpc,
            cause: outcome.cause.unwrap_or_default(),
            policy: policy(false),
            audited_by: policy(true),
            peer: said.peer,
            endpoint: notes.endpoint.get(),
            attempts: notes.attempts.get(),
            request_bytes: outcome.request_bytes,
            response_bytes: outcome.response_bytes,
            took: outcome.took,
            first_byte: first_byte.map(since),
            traceparent: said.traceparent,
            request_id: said.request_id,
        });
    }

    fn line(&self, record: &Record<'_>) {
        if let Some(log) = &self.telemetry.access_log {
            let record = Record { peer: record.peer.map(net::canonical), ..*record };
            log.log(&record, &mut self.line.borrow_mut());
        }
    }

    /// Counts an endpoint of a Service that was picked.
    pub fn pick(&self, service: &Arc<str>) {
        let mut picks = self.picks.borrow_mut();
        let found = picks.iter().position(|(each, tally)| **each == **service && is_told(tally));
        let place = found.unwrap_or_else(|| {
            picks.retain(|(_, tally)| is_told(tally));
            if picks.len() == KEPT {
                picks.pop();
            }
            let key = Arc::clone(service);
            let tally = self.telemetry.picks.cell(self.thread, key, Instant::now(), Tally::default);
            picks.push((Arc::clone(service), tally));
            picks.len() - 1
        });
        picks[place].1.add(1);
        picks.swap(place, place / 2);
    }

    /// Counts what became of the wish for a connection.
    pub fn pool(&self, direction: Direction, http2: bool, r#use: Use) {
        self.pools.of(direction, http2, r#use).add(1);
    }

    /// Tells how many connections are idle.
    pub fn idle(&self, direction: Direction, http2: bool, connections: usize) {
        self.pools.idle(direction, http2).set(connections as u64);
    }

    /// A connection that carries bytes from here on.
    #[must_use]
    pub fn flows<'a>(
        &'a self,
        direction: Direction,
        service: &Arc<str>,
        client: &Stream,
        endpoint: SocketAddr,
    ) -> Flows<'a> {
        let bytes = |flow: &'static str| {
            self.telemetry.bytes.of([direction.name().into(), service.into(), flow.into()])
        };
        Flows {
            recorder: self,
            direction,
            service: Arc::clone(service),
            peer: self.peer(client),
            endpoint,
            began: Instant::now(),
            totals: [bytes("sent"), bytes("received")],
            own: Default::default(),
            is_broken: Cell::new(false),
        }
    }

    /// Counts a connection that came to nothing, for no endpoint took it, or because it is not allowed.
    pub fn not_carried(&self, direction: Direction, service: &Arc<str>, client: &Stream, error: &io::Error) {
        let error = match (Failed::within(error), error.kind(), direction) {
            (Some(failed), ..) => failed.cause,
            (None, io::ErrorKind::NotFound, _) => Cause::NoEndpoints,
            (None, io::ErrorKind::PermissionDenied, Direction::Inbound) => Cause::AccessDenied,
            (None, _, Direction::Outbound) => Cause::Connect,
            (None, _, Direction::Inbound) => Cause::AppConnect,
        };
        self.telemetry.failed.of([direction.name().into(), service.into(), error.name().into()]).inc();
        self.line(&Record {
            time: SystemTime::now(),
            direction: direction.name(),
            service,
            protocol: "TCP",
            cause: error.name(),
            peer: self.peer(client),
            ..Record::default()
        });
    }

    /// Counts a connection that carried bytes and has ended.
    pub(super) fn carried(&self, flows: &Flows<'_>) {
        let key = ConnectionKey { direction: flows.direction, service: Arc::clone(&flows.service) };
        let new = || Histogram::new(&TIME);
        let cell = self.telemetry.carried.cell(self.thread, key, Instant::now(), new);
        let took = flows.began.elapsed();
        cell.observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        let [request_bytes, response_bytes] = [0, 1].map(|way: usize| flows.own[way].get());
        self.line(&Record {
            time: before(took),
            direction: flows.direction.name(),
            service: &flows.service,
            protocol: "TCP",
            cause: if flows.is_broken.get() { "broken" } else { "" },
            peer: flows.peer,
            endpoint: Some(flows.endpoint),
            request_bytes,
            response_bytes,
            took,
            ..Record::default()
        });
    }

    /// Counts a TLS connection that is passed through.
    pub(super) fn tls(&self, direction: Direction, version: &'static str, has_name: bool) {
        let name = if has_name { "yes" } else { "no" };
        self.telemetry.passed_through.of([direction.name().into(), version.into(), name.into()]).inc();
    }

    fn look_up(&self, outcome: &Outcome<'_>) -> Recent {
        let (key, now) = (RequestKey::of(outcome), Instant::now());
        let requests = self.telemetry.requests.cell(self.thread, key.clone(), now, Tally::default);
        let traffic = self.telemetry.traffic.cell(self.thread, key.traffic(), now, Traffic::new);
        Recent { key, requests, traffic }
    }
}

fn before(took: Duration) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(took).unwrap_or(now)
}
