//! What the test programs print, and the tests read: one JSON object a line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Body of `testserver`'s answer: the request as it came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// `VERSION` of the server.
    pub version: String,
    /// Name of its pod.
    pub pod: String,
    /// Method of the request.
    pub method: String,
    /// Its target, with the query.
    pub target: String,
    /// Its header fields in the order and with the case in which they came.
    pub headers: Vec<(String, String)>,
    /// Length of its body in bytes.
    pub body_length: usize,
    /// [`super::digest::checksum`] of its body.
    pub body_checksum: String,
}

/// A response as `testclient once` got it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// Header fields of the request, as they were sent.
    pub sent: Vec<(String, String)>,
    /// Status code.
    pub status: u16,
    /// Header fields in the order and with the case in which they came.
    pub headers: Vec<(String, String)>,
    /// Body as text.
    pub body: String,
    /// Time from the first byte sent to the last received, in microseconds.
    pub micros: u64,
}

impl Response {
    /// Value of the first header field of this name, whatever its case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// What `testclient load` did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Requests sent, or tried to be.
    pub requests: u64,
    /// Responses by the server's version.
    pub versions: BTreeMap<String, u64>,
    /// Responses by the server's pod.
    pub pods: BTreeMap<String, u64>,
    /// Responses by status code.
    pub statuses: BTreeMap<u16, u64>,
    /// Number of requests without a good response: no response, a status other than 2xx, a wrong body.
    pub failed: u64,
    /// The first of the failures.
    pub failures: Vec<Failure>,
    /// Connections opened.
    pub connections: u64,
    /// Time that responses took, in microseconds.
    pub latency: Latency,
}

/// A request without a good response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Wall clock, microseconds since 1970.
    pub wall_us: u64,
    /// Microseconds after the start of the load.
    pub elapsed_us: u64,
    /// Why.
    pub reason: String,
}

/// Distribution of the time that responses took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub min: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub max: u64,
}

impl Latency {
    /// The distribution of these samples; zeros if there are none.
    #[must_use]
    pub fn of(mut samples: Vec<u64>) -> Self {
        samples.sort_unstable();
        let rank = |share: f64| {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a rank among samples that fit into memory"
            )]
            let index = ((samples.len() as f64 * share).ceil() as usize).saturating_sub(1);
            samples.get(index).copied().unwrap_or(0)
        };
        Self { min: rank(0.0), p50: rank(0.5), p90: rank(0.9), p99: rank(0.99), max: rank(1.0) }
    }
}

/// A change of the version that answers, as `testclient watch-split` saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Version before; none for the very first response.
    pub from: Option<String>,
    /// Version now.
    pub to: String,
    /// Wall clock when the last response of `from` came in, microseconds since 1970.
    pub last_old_wall_us: Option<u64>,
    /// Wall clock when the first response of `to` came in, microseconds since 1970.
    pub first_new_wall_us: u64,
    /// The same, monotonic, in microseconds after the start.
    pub first_new_elapsed_us: u64,
}

/// Counts of 100 ms, as `testclient load --live` prints them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// Microseconds after the start of the load.
    pub elapsed_us: u64,
    /// Responses by version since the line before.
    pub versions: BTreeMap<String, u64>,
    /// Failures since the line before.
    pub failed: u64,
}

/// What `testclient tcp` saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpReport {
    /// Everything received, as text.
    pub received: String,
    /// Milliseconds from the connection's start to the first byte received.
    pub first_byte_ms: Option<u64>,
    /// Whether the other side ended the connection in order.
    pub closed: bool,
}

/// What `testclient lines` saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinesReport {
    /// Connections that were opened and answered their first line.
    pub opened: u64,
    /// Lines that came back as they were sent.
    pub lines: u64,
    /// Connections that the server ended with its goodbye, and that took lines after it.
    pub goodbyes: u64,
    /// Connections ended otherwise than by a goodbye or by the client, or that did not answer.
    pub failed: u64,
    /// The first of the failures, with the wall clock in microseconds.
    pub failures: Vec<String>,
    /// Lines answered by the server's pod.
    pub pods: BTreeMap<String, u64>,
}

/// What `testclient datagram` saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatagramReport {
    /// What came back.
    pub received: String,
    /// Whom it came from, as the client sees it.
    pub from: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let latency = Latency::of((1..=100).rev().collect());
        assert_eq!(latency, Latency { min: 1, p50: 50, p90: 90, p99: 99, max: 100 });
        assert_eq!(Latency::of(Vec::new()), Latency::default());
    }
}
