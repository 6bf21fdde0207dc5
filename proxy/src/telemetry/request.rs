//! What is known of a request: while it goes on, and when it has ended.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    exposition::{Sample, Value},
    histogram::{Distribution, Histogram, SIZE, TIME},
    label::{self, GrpcStatus, Method, OTHER, Text},
    series,
    value::Tally,
};
use crate::direction::Direction;

/// Who an inbound request comes from, as long as nobody has proved who he is.
pub const UNKNOWN_PEER: &str = "unknown";

/// What only the access log tells of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said<'a> {
    /// As the client speaks it.
    pub protocol: &'static str,
    /// The method as it was sent.
    pub method: &'a str,
    /// Host that was asked for.
    pub host: &'a [u8],
    /// Path and query.
    pub path: &'a str,
    /// The `traceparent` field.
    pub traceparent: Option<&'a [u8]>,
    /// The `x-request-id` field.
    pub request_id: Option<&'a [u8]>,
    /// The other end of the client's connection.
    pub peer: Option<SocketAddr>,
}

/// What is noted of a request on its way, by whoever comes to know it.
#[derive(Debug, Default)]
pub struct Notes {
    /// Attempts that were made.
    pub attempts: Cell<usize>,
    /// Where the last one went.
    pub endpoint: Cell<Option<SocketAddr>>,
    /// When the endpoint's response began; noted only if somebody wants to know.
    pub first_byte: Cell<Option<Instant>>,
    /// Whether somebody does.
    pub is_timed: bool,
    /// Bytes of the request's body that an endpoint was sent, as they are framed on the client's side.
    pub request_bytes: Cell<u64>,
    /// Bytes of the response's body that the client was sent, likewise.
    pub response_bytes: Cell<u64>,
    /// What gRPC says of the call.
    pub grpc: Cell<GrpcStatus>,
    /// The AccessPolicy that refuses it, or would if it were in force (`true`).
    pub policy: RefCell<Option<(Arc<str>, bool)>>,
}

impl Notes {
    /// The endpoint's response begins.
    pub fn responds(&self) {
        if self.is_timed && self.first_byte.get().is_none() {
            self.first_byte.set(Some(Instant::now()));
        }
    }

    /// More of the request's body was sent to the endpoint.
    pub fn sent(&self, bytes: usize) {
        self.request_bytes.set(self.request_bytes.get() + bytes as u64);
    }

    /// More of the response's body was sent to the client.
    pub fn received(&self, bytes: usize) {
        self.response_bytes.set(self.response_bytes.get() + bytes as u64);
    }
}

/// One request that came to its end.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// Which way it went.
    pub direction: Direction,
    /// `namespace/name` of the Service that it was for; inbound: the application's port.
    pub service: &'a str,
    /// Rule that it fell under, or nothing.
    pub route: &'a str,
    /// Its method.
    pub method: Method,
    /// Status code that the client saw; 0 when it saw none.
    pub status: u16,
    /// What gRPC says.
    pub grpc: GrpcStatus,
    /// Who sent it, inbound: an identity that was proved, or [`UNKNOWN_PEER`]. Outbound: nothing.
    pub peer: &'a str,
    /// Why the proxy answered by itself or broke off.
    pub cause: Option<&'static str>,
    /// From its head to its end.
    pub took: Duration,
    /// Size of its body.
    pub request_bytes: u64,
    /// Size of the response's body.
    pub response_bytes: u64,
}

/// Labels that requests are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RequestKey {
    pub direction: Direction,
    pub service: Arc<str>,
    pub route: Arc<str>,
    pub method: Method,
    pub status: u16,
    pub grpc: GrpcStatus,
    pub peer: Arc<str>,
    pub cause: &'static str,
}

/// Labels that durations and sizes are told by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TrafficKey {
    pub direction: Direction,
    pub service: Arc<str>,
    pub route: Arc<str>,
}

/// How long the requests of one kind took, and how large they were.
#[derive(Debug)]
pub(super) struct Traffic {
    pub took: Histogram,
    pub request_bytes: Histogram,
    pub response_bytes: Histogram,
    requests: Tally,
}

impl Traffic {
    pub(super) fn new() -> Self {
        Self {
            took: Histogram::new(&TIME),
            request_bytes: Histogram::new(&SIZE),
            response_bytes: Histogram::new(&SIZE),
            requests: Tally::default(),
        }
    }

    pub(super) fn observe(&self, outcome: &Outcome<'_>) {
        self.requests.add(1);
        self.took.observe(u64::try_from(outcome.took.as_nanos()).unwrap_or(u64::MAX));
        self.request_bytes.observe(outcome.request_bytes);
        self.response_bytes.observe(outcome.response_bytes);
    }

    /// Series of its three histograms.
    pub(super) fn tell(key: &TrafficKey, parts: &[&Self], since: SystemTime) -> [Sample; 3] {
        let TrafficKey { direction, service, route } = key;
        let labels: Vec<(&'static str, Text)> = vec![
            ("direction", direction.name().into()),
            ("service", service.into()),
            ("route", route.into()),
        ];
        let sample = |distribution| Sample {
            labels: labels.clone(),
            value: Value::Distribution(Box::new(distribution)),
            since: Some(since),
        };
        [
            sample(Distribution::of(&TIME, parts.iter().map(|part| &part.took))),
            sample(Distribution::of(&SIZE, parts.iter().map(|part| &part.request_bytes))),
            sample(Distribution::of(&SIZE, parts.iter().map(|part| &part.response_bytes))),
        ]
    }
}

impl RequestKey {
    /// Labels of a request.
    pub(super) fn of(outcome: &Outcome<'_>) -> Self {
        Self {
            direction: outcome.direction,
            service: outcome.service.into(),
            route: outcome.route.into(),
            method: outcome.method,
            status: outcome.status,
            grpc: outcome.grpc,
            peer: outcome.peer.into(),
            cause: outcome.cause.unwrap_or(""),
        }
    }

    /// Whether a request has these labels; those that differ most often come first.
    pub(super) fn is(&self, outcome: &Outcome<'_>) -> bool {
        self.status == outcome.status
            && self.direction == outcome.direction
            && self.method == outcome.method
            && self.grpc == outcome.grpc
            && self.cause == outcome.cause.unwrap_or("")
            && *self.service == *outcome.service
            && *self.route == *outcome.route
            && *self.peer == *outcome.peer
    }

    /// Labels that durations and sizes are told by.
    pub(super) fn traffic(&self) -> TrafficKey {
        let Self { direction, service, route, .. } = self;
        TrafficKey { direction: *direction, service: Arc::clone(service), route: Arc::clone(route) }
    }

    /// The series of this key.
    pub(super) fn tell(&self, parts: &[&Tally], since: SystemTime) -> Sample {
        let Self { direction, service, route, method, status, grpc, peer, cause } = self;
        let grpc: Text = match grpc.name() {
            std::borrow::Cow::Borrowed(name) => name.into(),
            std::borrow::Cow::Owned(code) => code.into(),
        };
        Sample {
            labels: vec![
                ("direction", direction.name().into()),
                ("service", service.into()),
                ("route", route.into()),
                ("method", method.name().into()),
                ("status", label::status(*status)),
                ("grpc_status", grpc),
                ("peer", peer.into()),
                ("error", (*cause).into()),
            ],
            value: Value::Number(parts.iter().map(|part| part.get()).sum::<u64>() as f64),
            since: Some(since),
        }
    }
}

impl series::Key for RequestKey {
    fn other(&self) -> Self {
        Self {
            direction: self.direction,
            service: OTHER.into(),
            route: OTHER.into(),
            method: Method::Other,
            status: u16::MAX,
            grpc: GrpcStatus::Other,
            peer: OTHER.into(),
            cause: self.cause,
        }
    }
}

impl series::Key for TrafficKey {
    fn other(&self) -> Self {
        Self { direction: self.direction, service: OTHER.into(), route: OTHER.into() }
    }
}

impl series::Cell for Traffic {
    fn total(&self) -> u64 {
        self.requests.get()
    }
}

impl series::Cell for Tally {
    fn total(&self) -> u64 {
        self.get()
    }
}
