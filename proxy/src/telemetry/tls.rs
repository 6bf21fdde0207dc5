//! Encrypted connections between sidecars, and those that are not.

use super::{
    connection::OpenConnection,
    counters::Counters,
    exposition::{Family, Sample, Value},
    gather,
    value::{Counter, Gauge},
};
use crate::{cause::Cause, direction::Direction};

/// Metrics of encryption.
#[derive(Debug)]
pub struct TlsMetrics {
    handshakes: Counters<2>,
    plain: Counters<2>,
    refused: Counters<1>,
    open: [Gauge; 2],
}

impl TlsMetrics {
    pub(super) fn new(capped: &Counter) -> Self {
        Self {
            handshakes: Counters::new(gather::TLS_HANDSHAKES, ["direction", "result"], capped),
            plain: Counters::new(gather::PLAIN, ["direction", "reason"], capped),
            refused: Counters::new(gather::TLS_REFUSED, ["reason"], capped),
            open: Default::default(),
        }
    }

    /// Counts a handshake that has led to a connection.
    pub fn established(&self, direction: Direction, resumed: bool) {
        let result = if resumed { "resumed" } else { "full" };
        self.handshakes.of([direction.name().into(), result.into()]).inc();
    }

    /// Counts a handshake that has failed.
    pub fn failed(&self, direction: Direction, cause: Cause) {
        self.handshakes.of([direction.name().into(), cause.name().into()]).inc();
    }

    /// Counts a connection as open until the guard is dropped.
    #[must_use]
    pub fn open(&self, direction: Direction) -> OpenConnection {
        OpenConnection::new(&self.open[direction as usize])
    }

    /// Counts a connection that is not encrypted, for one of a fixed set of reasons.
    pub fn plain(&self, direction: Direction, reason: &'static str) {
        self.plain.of([direction.name().into(), reason.into()]).inc();
    }

    /// Counts a client that was refused because it must encrypt, for one of a fixed set of reasons.
    pub fn refused(&self, reason: &'static str) {
        self.refused.of([reason.into()]).inc();
    }

    /// What is told of it.
    pub(super) fn tell(&self) -> [Family; 4] {
        let open = [Direction::Outbound, Direction::Inbound].map(|direction| Sample {
            labels: vec![("direction", direction.name().into())],
            value: Value::Number(self.open[direction as usize].get() as f64),
            since: None,
        });
        [
            self.handshakes.tell(),
            Family { about: gather::TLS_OPEN, samples: open.into() },
            self.plain.tell(),
            self.refused.tell(),
        ]
    }
}
