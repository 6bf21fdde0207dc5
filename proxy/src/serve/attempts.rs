//! Which endpoint a request goes to, and to which next when that one failed it: the same for every protocol.

use std::{borrow::Cow, io, net::SocketAddr, sync::Arc, time::Instant};

use ferrule_config::{HeaderChange, Timeouts};

use crate::{
    balance::{Affinity, Endpoint, Pick},
    cause::Cause,
    retry::{self, Budget, Failure, Replay},
    snapshot::{Cluster, Protocol},
    telemetry::{Notes, Use},
    tls::error::Failed,
    worker::{Direction, Worker},
};

/// Connections that their peer had closed while they idled, and that are passed over in one request.
const MOST_STALE: usize = 8;

/// What was decided on a request, as far as it does not depend on what the request is spoken in.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// Where it goes.
    pub cluster: &'a Cluster,
    /// What ties it to an endpoint.
    pub affinity: Affinity,
    /// Changes on the way back.
    pub response_headers: &'a HeaderChange,
    /// Time limits.
    pub timeouts: &'a Timeouts,
    /// Bounds the retries.
    pub budget: &'a Budget,
    /// Which way it goes.
    pub direction: Direction,
    /// When it came.
    pub started: Instant,
    /// What becomes known of it.
    pub notes: &'a Notes,
}

impl<'a> Terms<'a> {
    /// Changes on the way back from this endpoint: the final response says also where the session is kept.
    pub fn final_headers(&self, endpoint: &Endpoint) -> Cow<'a, HeaderChange> {
        self.affinity.kept(&self.cluster.balancer, endpoint, self.response_headers)
    }

    /// When an attempt that began at this time must have ended.
    pub fn deadline(&self, began: Instant) -> Option<Instant> {
        let Timeouts { request, backend_request } = self.timeouts;
        let set = |limit: &Option<ferrule_config::Duration>| limit.filter(|limit| !limit.is_zero());
        let request = set(request).map(|limit| self.started + limit.get());
        let attempt = set(backend_request).map(|limit| began + limit.get());
        request.into_iter().chain(attempt).min()
    }

    /// Whether what an endpoint says of itself is believed: outbound a sidecar stands before it, or nobody is harmed.
    pub fn trusts_endpoint(&self) -> bool {
        self.direction == Direction::Outbound
    }

    /// What is said of an endpoint that takes no connection.
    pub fn not_connected(&self, address: SocketAddr, error: &io::Error) -> (Cause, String) {
        if let Some(failed) = Failed::within(error) {
            return (failed.cause, format!("TLS with {address} of {}: {failed}", self.cluster.service));
        }
        match self.direction {
            Direction::Outbound => {
                (Cause::Connect, format!("connecting to {address} of {}: {error}", self.cluster.service))
            }
            Direction::Inbound => {
                (Cause::AppConnect, format!("the application takes no connections at {address}: {error}"))
            }
        }
    }
}

/// One attempt.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// Where it goes.
    pub endpoint: &'a Arc<Endpoint>,
    /// How many there were, this one included.
    pub number: usize,
    /// When it began.
    pub began: Instant,
}

impl Attempt<'_> {
    /// The endpoint has responded as a whole: what that took says how fast it is.
    pub fn responded(&self) {
        let now = Instant::now();
        self.endpoint.load.observe(now.saturating_duration_since(self.began), now);
    }
}

/// The attempts of a request.
pub struct Attempts<'a> {
    terms: &'a Terms<'a>,
    worker: &'a Worker,
    tried: Vec<SocketAddr>,
    stale: usize,
}

impl<'a> Attempts<'a> {
    /// Of a request that is about to be sent for the first time.
    pub fn begin(terms: &'a Terms<'a>, worker: &'a Worker) -> Self {
        terms.budget.deposit(terms.started);
        Self { terms, worker, tried: Vec::new(), stale: 0 }
    }

    /// Where it goes next.
    ///
    /// # Errors
    /// What the client is told when there is no endpoint.
    pub fn next(&self) -> Result<Attempt<'a>, (Cause, String)> {
        let Terms { cluster, started, affinity: Affinity { hash, session }, .. } = *self.terms;
        let began = if self.tried.is_empty() && self.stale == 0 { started } else { Instant::now() };
        let pick = Pick { hash, session, tried: &self.tried, now: began };
        match cluster.balancer.pick(&pick, |n| fastrand::usize(0..n)) {
            Some(endpoint) => {
                let number = self.tried.len() + 1;
                self.worker.recorder.pick(&cluster.service);
                self.terms.notes.attempts.set(number);
                self.terms.notes.endpoint.set(Some(endpoint.address));
                Ok(Attempt { endpoint, number, began })
            }
            None => {
                let Cluster { service, port, .. } = cluster;
                Err((Cause::NoEndpoints, format!("{service} has no ready endpoint for port {port}")))
            }
        }
    }

    /// Whether there is another attempt after this one, which failed before anything was forwarded. `reused`: it was
    /// made on a connection that had carried others before.
    pub fn again(
        &mut self,
        failed: &Attempt<'_>,
        (failure, cause): (Failure, Cause),
        reused: bool,
        replay: Replay,
    ) -> bool {
        // A connection that the peer closed while it idled says nothing about the endpoint: go on with the next
        // one to the same endpoint, which costs no retry, until a new connection is made.
        let repeatable = replay.idempotent && replay.complete;
        if reused && failure == Failure::Reset && repeatable && self.stale < MOST_STALE {
            self.stale += 1;
            let http2 = self.terms.cluster.protocol == Protocol::Http2;
            self.worker.recorder.pool(self.terms.direction, http2, Use::Stale);
            return true;
        }
        let now = Instant::now();
        self.tried.push(failed.endpoint.address);
        failed.endpoint.load.observe(retry::PENALTY, now);
        let again = retry::may_retry(failure, replay, failed.number) && self.terms.budget.withdraw(now);
        if again {
            self.worker.telemetry.retry(self.terms.direction, &self.terms.cluster.service, cause);
        }
        again
    }
}
