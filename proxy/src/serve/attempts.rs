//! Which endpoint a request goes to, and to which next when that one failed it: the same for every protocol.

use std::{
    borrow::Cow,
    cell::Cell,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ferrule_config::{HeaderChange, Timeouts, names::ATTEMPT_HEADER};

use crate::{
    balance::{Affinity, Endpoint, Pick},
    cause::Cause,
    deadline,
    http2::fields::Fields,
    retry::{self, Budget, Failure, Policy, Replay},
    snapshot::{Cluster, Protocol},
    telemetry::{Notes, Use},
    tls::error::Failed,
    worker::{Direction, Worker},
};

/// Connections that their peer had closed while they idled, and that are passed over in one request.
const MOST_STALE: u32 = 8;

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
    /// When it is sent again.
    pub policy: &'a Policy,
    /// Bounds the retries.
    pub budget: &'a Budget,
    /// When its time is over, if it says that.
    pub until: Option<Instant>,
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

    /// When the request must have ended.
    pub fn deadline(&self) -> Option<Instant> {
        let request = self.timeouts.request.filter(|limit| !limit.is_zero());
        let request = request.map(|limit| self.started + limit.get());
        request.into_iter().chain(self.until).min()
    }

    /// How much time is left of a request that says when its time is over.
    fn left(&self) -> Option<Duration> {
        self.until.and(self.deadline()).map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// When an attempt that began at this time must have ended, and when its response must have begun.
    pub fn attempt_deadlines(&self, began: Instant) -> (Option<Instant>, Option<Instant>) {
        let whole = self.timeouts.backend_request.filter(|limit| !limit.is_zero());
        (whole.map(|limit| began + limit.get()), self.policy.per_try.map(|limit| began + limit))
    }

    /// Why the request's time is over.
    pub fn expired(&self) -> (Cause, String) {
        let service = &self.cluster.service;
        if self.until.is_some() && self.until == self.deadline() {
            return (
                Cause::Deadline,
                format!("the request's deadline passed before {service} had responded"),
            );
        }
        (Cause::Timeout, format!("no complete response of {service} in time"))
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

/// A request's head, as far as it tells whether the request is a retry of another sidecar's.
#[derive(Clone, Copy)]
pub enum Head<'a> {
    /// Of HTTP/1.
    Bytes(&'a [u8]),
    /// Of HTTP/2.
    Fields(&'a Fields),
}

impl Head<'_> {
    /// Whether it came as a retry. Only asked when an attempt has failed.
    fn is_retry(self) -> bool {
        let number =
            |value: &[u8]| std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<u32>().ok());
        let value = match self {
            Self::Fields(fields) => fields.value(ATTEMPT_HEADER.as_bytes()).map(number),
            Self::Bytes(head) => lines(head).find_map(|line| value_of(line, ATTEMPT_HEADER)).map(number),
        };
        value.is_some_and(|number| number.is_none_or(|number| number > 1))
    }
}

/// The attempts of a request.
pub struct Attempts<'a> {
    terms: &'a Terms<'a>,
    worker: &'a Worker,
    tried: Vec<SocketAddr>,
    stale: u32,
    /// That there is another attempt, after so many milliseconds: as small as it can be, for an idle connection has room
    /// for it.
    granted: Cell<u32>,
}

/// No other attempt has been granted.
const NOT_GRANTED: u32 = u32::MAX;

impl<'a> Attempts<'a> {
    /// Of a request that is about to be sent for the first time.
    pub fn begin(terms: &'a Terms<'a>, worker: &'a Worker) -> Self {
        terms.budget.deposit(terms.started);
        Self { terms, worker, tried: Vec::new(), stale: 0, granted: Cell::new(NOT_GRANTED) }
    }

    /// Where it goes next.
    ///
    /// # Errors
    /// What the client is told when there is no endpoint, or no time left.
    pub fn next(&self) -> Result<Attempt<'a>, (Cause, String)> {
        let Terms { cluster, started, affinity: Affinity { hash, session }, .. } = *self.terms;
        let began = if self.tried.is_empty() && self.stale == 0 { started } else { Instant::now() };
        if let Some(deadline) = self.terms.deadline()
            && deadline <= Instant::now()
        {
            return Err(self.terms.expired());
        }
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

    /// Grants another attempt after a failure of the attempt of this number, if policy, budget and time allow one. Whoever
    /// is granted it must report the failure, and gets it by [`Attempts::again`]. `after`: how long the endpoint wants the
    /// client to wait.
    pub fn grants(
        &self,
        failure: Failure,
        replay: Replay,
        (head, number): (Head<'_>, usize),
        after: Option<Duration>,
    ) -> bool {
        let Terms { policy, budget, .. } = self.terms;
        if after.is_some_and(|after| after > retry::MAX_RETRY_AFTER)
            || !policy.allows(failure, replay, number, || head.is_retry())
        {
            return false;
        }
        let now = Instant::now();
        let pause = policy.pause(number, fastrand::f64()).max(after.unwrap_or_default());
        // Nobody waits for an attempt that will have no time.
        let late = self.terms.deadline().is_some_and(|deadline| now + pause >= deadline);
        let granted = !late && budget.withdraw(now);
        if granted {
            let millis = u32::try_from(pause.as_millis()).unwrap_or(u32::MAX);
            self.granted.set(millis.min(NOT_GRANTED - 1));
        }
        granted
    }

    /// Whether there is another attempt after this one, which failed before anything was forwarded, and how long is to be
    /// waited before it. `reused`: it was made on a connection that had carried others before.
    pub fn again(
        &mut self,
        failed: &Attempt<'_>,
        (failure, cause): (Failure, Cause),
        reused: bool,
        replay: Replay,
        head: Head<'_>,
    ) -> Option<Duration> {
        // A connection that the peer closed while it idled says nothing about the endpoint: go on with the next
        // one to the same endpoint, which costs no retry, until a new connection is made.
        let repeatable = replay.idempotent && replay.complete;
        let granted = self.granted.get() != NOT_GRANTED;
        if reused && failure == Failure::Reset && repeatable && !granted && self.stale < MOST_STALE {
            self.stale += 1;
            let http2 = self.terms.cluster.protocol == Protocol::Http2;
            self.worker.recorder.pool(self.terms.direction, http2, Use::Stale);
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        self.tried.push(failed.endpoint.address);
        failed.endpoint.load.observe(retry::PENALTY, now);
        if !granted && !self.grants(failure, replay, (head, failed.number), None) {
            return None;
        }
        self.worker.telemetry.retry(self.terms.direction, &self.terms.cluster.service, cause);
        Some(Duration::from_millis(self.granted.replace(NOT_GRANTED).into()))
    }
}

/// What a head of HTTP/1 says in an attempt: which one it is, and how much time is left. Nothing where neither is to be
/// said: then it is as it was.
pub fn head_of_attempt(head: &[u8], terms: &Terms<'_>, number: usize) -> Option<Box<[u8]>> {
    if number < 2 && terms.until.is_none() {
        return None;
    }
    let left = terms.left();
    let mut out = Vec::with_capacity(head.len() + 64);
    for line in lines(head) {
        let deadline = deadline::NAMES.iter().find(|name| value_of(line, name).is_some());
        match (deadline, left) {
            (Some(name), Some(left)) => {
                // As it was written, but for what it says.
                out.extend_from_slice(&line[..name.len()]);
                out.extend_from_slice(format!(": {}\r\n", deadline::written(name, left)).as_bytes());
            }
            _ if number > 1 && value_of(line, ATTEMPT_HEADER).is_some() => {}
            _ => {
                out.extend_from_slice(line);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
    if number > 1 {
        out.extend_from_slice(format!("{ATTEMPT_HEADER}: {number}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    Some(out.into())
}

/// The same for a head of HTTP/2, as changes to it.
pub fn changes_of_attempt<'a>(
    head: &Fields,
    changes: &'a HeaderChange,
    terms: &Terms<'_>,
    number: usize,
) -> Cow<'a, HeaderChange> {
    if number < 2 && terms.until.is_none() {
        return Cow::Borrowed(changes);
    }
    let mut changes = changes.clone();
    let mut set = |name: &str, value: String| {
        changes.set.retain(|(each, _)| each != name);
        changes.set.push((name.to_owned(), value));
    };
    if number > 1 {
        set(ATTEMPT_HEADER, number.to_string());
    }
    if let Some(left) = terms.left() {
        for name in deadline::NAMES.iter().filter(|name| head.value(name.as_bytes()).is_some()) {
            set(name, deadline::written(name, left));
        }
    }
    Cow::Owned(changes)
}

/// The lines of a head that we have written: without the empty one that ends it.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|&byte| byte == b'\n')
        .filter_map(|line| line.strip_suffix(b"\r"))
        .filter(|line| !line.is_empty())
}

/// The value of a line, if it is a field of this name.
fn value_of<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    if start.eq_ignore_ascii_case(name.as_bytes()) { rest.strip_prefix(b":") } else { None }
}
