//! Connections: what they carry, how that was told, and how long they last.

use std::{sync::Arc, time::SystemTime};

use super::{
    exposition::{Sample, Value},
    histogram::{Distribution, Histogram, TIME},
    label::OTHER,
    series,
    value::{Counter, Gauge},
};
use crate::direction::Direction;

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
    /// Label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Tcp => "tcp",
            Self::Passthrough => "passthrough",
        }
    }
}

/// By what the protocol of a connection was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The Service's `appProtocol`.
    AppProtocol,
    /// The client's first bytes.
    FirstBytes,
    /// The server spoke before its client did.
    ServerFirst,
    /// The server spoke first as it did before, so nobody waited for the client.
    Remembered,
    /// The client said so when it proved who it is.
    Handshake,
    /// The client's first bytes did not decide in time.
    TimeOut,
}

impl Told {
    /// Label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AppProtocol => "app-protocol",
            Self::FirstBytes => "first-bytes",
            Self::ServerFirst => "server-first",
            Self::Remembered => "remembered",
            Self::Handshake => "handshake",
            Self::TimeOut => "time-out",
        }
    }
}

/// A client's connection that is open.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl OpenConnection {
    /// Counted in this gauge until it is dropped.
    pub(super) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }

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

/// A connection of which it is known what it carries; its end is counted when this is dropped.
#[derive(Debug)]
pub struct CarriedConnection(pub(super) Counter);

impl Drop for CarriedConnection {
    fn drop(&mut self) {
        self.0.inc();
    }
}

/// Labels that connections which carry bytes are told by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConnectionKey {
    pub direction: Direction,
    pub service: Arc<str>,
}

impl ConnectionKey {
    pub(super) fn tell(&self, parts: &[&Histogram], since: SystemTime) -> Sample {
        let Self { direction, service } = self;
        Sample {
            labels: vec![("direction", direction.name().into()), ("service", service.into())],
            value: Value::Distribution(Box::new(Distribution::of(&TIME, parts.iter().copied()))),
            since: Some(since),
        }
    }
}

impl series::Key for ConnectionKey {
    fn other(&self) -> Self {
        Self { direction: self.direction, service: OTHER.into() }
    }
}

/// A Service's name.
impl series::Key for Arc<str> {
    fn other(&self) -> Self {
        OTHER.into()
    }
}

impl series::Cell for Histogram {
    fn total(&self) -> u64 {
        self.sum()
    }
}
