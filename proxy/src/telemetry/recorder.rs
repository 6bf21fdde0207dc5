//! A worker thread's way to the metrics of requests: what it counted lately it finds again without a lock, a hash or
//! an allocation, and what it adds to there no other thread writes.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use tokio::net::TcpStream;

use super::{
    Outcome, Telemetry,
    connection::ConnectionKey,
    flows::Flows,
    histogram::{Histogram, TIME},
    pool::{Pools, Use},
    request::{RequestKey, Traffic},
    series::is_told,
    value::Tally,
};
use crate::{cause::Cause, direction::Direction};

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
        Self { telemetry, thread, recent: RefCell::default(), picks: RefCell::default(), pools }
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
        _client: &TcpStream,
        endpoint: SocketAddr,
    ) -> Flows<'a> {
        let bytes = |flow: &'static str| {
            self.telemetry.bytes.of([direction.name().into(), service.into(), flow.into()])
        };
        Flows {
            recorder: self,
            direction,
            service: Arc::clone(service),
            peer: None,
            endpoint,
            began: Instant::now(),
            totals: [bytes("sent"), bytes("received")],
            own: Default::default(),
            is_broken: Cell::new(false),
        }
    }

    /// Counts a connection that came to nothing, for no endpoint took it.
    pub fn not_carried(
        &self,
        direction: Direction,
        service: &Arc<str>,
        _client: &TcpStream,
        error: &io::Error,
    ) {
        let error = match (error.kind(), direction) {
            (io::ErrorKind::NotFound, _) => Cause::NoEndpoints,
            (_, Direction::Outbound) => Cause::Connect,
            (_, Direction::Inbound) => Cause::AppConnect,
        };
        self.telemetry.failed.of([direction.name().into(), service.into(), error.name().into()]).inc();
    }

    /// Counts a connection that carried bytes and has ended.
    pub(super) fn carried(&self, flows: &Flows<'_>) {
        let key = ConnectionKey { direction: flows.direction, service: Arc::clone(&flows.service) };
        let new = || Histogram::new(&TIME);
        let cell = self.telemetry.carried.cell(self.thread, key, Instant::now(), new);
        cell.observe(u64::try_from(flows.began.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts a TLS connection that is passed through.
    pub(super) fn tls(&self, direction: Direction, version: &'static str, has_name: bool) {
        let name = if has_name { "yes" } else { "no" };
        self.telemetry.tls.of([direction.name().into(), version.into(), name.into()]).inc();
    }

    fn look_up(&self, outcome: &Outcome<'_>) -> Recent {
        let (key, now) = (RequestKey::of(outcome), Instant::now());
        let requests = self.telemetry.requests.cell(self.thread, key.clone(), now, Tally::default);
        let traffic = self.telemetry.traffic.cell(self.thread, key.traffic(), now, Traffic::new);
        Recent { key, requests, traffic }
    }
}
