//! All metrics, put together when they are asked for.

use std::{
    sync::{Arc, PoisonError},
    time::Instant,
};

use super::{
    Telemetry,
    connection::ConnectionKey,
    exposition::{About, Family, Kind, Sample, Value},
    label::Text,
    pool, process,
    request::{RequestKey, Traffic},
    value::Tally,
};
use crate::direction::Direction;

const fn counter(name: &'static str, help: &'static str) -> About {
    About { name, help, kind: Kind::Counter }
}

const fn gauge(name: &'static str, help: &'static str) -> About {
    About { name, help, kind: Kind::Gauge }
}

const fn histogram(name: &'static str, help: &'static str) -> About {
    About { name, help, kind: Kind::Histogram }
}

const REQUESTS: About = counter("ferrule_requests_total", "Requests that came to their end.");
const DURATION: About =
    histogram("ferrule_request_duration_seconds", "From a request's head to the end of its response.");
const REQUEST_BYTES: About =
    histogram("ferrule_request_body_bytes", "Bytes of requests' bodies that endpoints were sent.");
const RESPONSE_BYTES: About =
    histogram("ferrule_response_body_bytes", "Bytes of responses' bodies that clients were sent.");
pub(super) const RETRIES: About =
    counter("ferrule_retries_total", "Attempts after the first, by how the one before failed.");
pub(super) const CONNECTIONS: About =
    counter("ferrule_connections_total", "Connections of clients, by what they carry.");
pub(super) const CLOSED: About = counter(
    "ferrule_connections_closed_total",
    "Connections of clients that have ended, by what they carried.",
);
pub(super) const FAILED: About = counter(
    "ferrule_connections_failed_total",
    "Connections that were reset because none to an endpoint could be made.",
);
const OPEN: About = gauge("ferrule_connections_open", "Connections of clients that are open.");
const CONNECTION_DURATION: About = histogram(
    "ferrule_tcp_connection_duration_seconds",
    "From the choice of protocol to the end of a connection that carried bytes.",
);
pub(super) const DETECTIONS: About =
    counter("ferrule_detections_total", "Connections, by what their protocol was told by.");
pub(super) const TCP_BYTES: About =
    counter("ferrule_tcp_bytes_total", "Bytes of connections that carry no requests.");
pub(super) const TLS: About = counter(
    "ferrule_tls_passed_through_total",
    "TLS connections carried as bytes, by the highest version offered and whether the server's name is seen.",
);
pub(super) const LIMITS: About =
    counter("ferrule_limit_exceeded_total", "Requests and connections ended by a limit.");
const ENDPOINTS: About = gauge("ferrule_balancer_endpoints", "Endpoints of Services that this pod sends to.");
const PICKS: About = counter("ferrule_balancer_picks_total", "Endpoints picked, once for each attempt.");
const POOL: About = counter(
    "ferrule_pool_connections_total",
    "Connections to endpoints that were asked for, by what came of it.",
);
const IDLE: About = gauge(
    "ferrule_pool_idle_connections",
    "Connections to endpoints that wait for a request, as of at most 5 s ago.",
);
const SNAPSHOTS: About =
    counter("ferrule_snapshots_total", "Changes of configuration or endpoints put in force.");
const SNAPSHOT_TIME: About = gauge(
    "ferrule_snapshot_timestamp_seconds",
    "When configuration or endpoints changed last, in seconds since 1970.",
);
const REFUSED: About = counter(
    "ferrule_config_refused_total",
    "Configurations that could not be used; the last good one stayed in force.",
);
const WATCHES: About = gauge("ferrule_watches", "Watches at the API server.");
const API_CONTACT: About = gauge(
    "ferrule_api_contact_timestamp_seconds",
    "When the API server was last heard of, in seconds since 1970.",
);
const API_ERRORS: About = counter("ferrule_api_errors_total", "Calls to the API server that failed.");
pub(super) const DESTINATIONS: About = gauge("ferrule_destinations", "Ports of Services that are held.");
pub(super) const OUTSIDE: About = gauge("ferrule_outside_addresses", "Addresses known to be no Service's.");
pub(super) const CHECKS: About =
    counter("ferrule_discovery_checks_total", "Lists compared with what is held.");
pub(super) const MENDED: About = counter(
    "ferrule_discovery_mended_total",
    "Objects that a watch had missed and a check brought up to date.",
);
pub(super) const CERTIFICATE_EXPIRY: About = gauge(
    "ferrule_identity_certificate_expiry_timestamp_seconds",
    "When the certificate in force ends, in seconds since 1970; 0 while there is none.",
);
pub(super) const TRUST_GENERATION: About = gauge(
    "ferrule_identity_trust_bundle_generation",
    "Number of the trust bundle in force; 0 while there is none.",
);
pub(super) const RENEWALS: About =
    counter("ferrule_identity_renewals_total", "Certificates that were obtained.");
pub(super) const RENEWAL_FAILURES: About = counter(
    "ferrule_identity_renewal_failures_total",
    "Attempts to get a certificate that failed, by cause.",
);
pub(super) const TLS_HANDSHAKES: About = counter(
    "ferrule_tls_handshakes_total",
    "Handshakes between sidecars, by what came of them: full, resumed, or the cause of a failure.",
);
pub(super) const TLS_OPEN: About =
    gauge("ferrule_tls_connections_open", "Encrypted connections between sidecars that are open.");
pub(super) const ACCESS_REFUSED: About = counter(
    "ferrule_access_refused_total",
    "Requests and connections that an AccessPolicy refuses, or would if it were in force.",
);
pub(super) const PLAIN: About = counter(
    "ferrule_plain_connections_total",
    "Connections between pods that are not encrypted, by the reason.",
);
pub(super) const TLS_REFUSED: About = counter(
    "ferrule_tls_refused_total",
    "Clients' connections that were reset because they must be encrypted.",
);
const LOG_LINES: About = counter("ferrule_access_log_lines_total", "Lines of the access log.");
const LOG_DROPPED: About = counter(
    "ferrule_access_log_dropped_total",
    "Lines that were dropped because whoever reads the access log was too slow.",
);
const CAPPED: About =
    counter("ferrule_metrics_capped_total", "Look-ups of labels that ended in `other` for want of room.");
const BUILD: About = gauge("ferrule_build_info", "Always 1; what this proxy was built from.");

impl Telemetry {
    /// All metrics as they are now.
    pub(super) fn gather(&self) -> Vec<Family> {
        let now = Instant::now();
        let [durations, request_bytes, response_bytes] = self.traffic(now);
        let (uses, idle) = {
            let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            pool::tell(threads.iter().map(|each| &**each))
        };
        let counted = |about, count: u64| Family::single(about, count as f64);
        let mut families = vec![
            Family { about: REQUESTS, samples: self.requests.each(now, RequestKey::tell) },
            Family { about: DURATION, samples: durations },
            Family { about: REQUEST_BYTES, samples: request_bytes },
            Family { about: RESPONSE_BYTES, samples: response_bytes },
            self.retries.tell(),
            self.connections.tell(),
            self.closed.tell(),
            self.failed.tell(),
            Family { about: OPEN, samples: self.open_connections() },
            Family { about: CONNECTION_DURATION, samples: self.carried.each(now, ConnectionKey::tell) },
            self.detections.tell(),
            self.bytes.tell(),
            self.passed_through.tell(),
            self.limits.tell(),
            self.access.tell(),
            Family { about: ENDPOINTS, samples: self.targets.endpoints() },
            Family { about: PICKS, samples: self.picks.each(now, picks) },
            Family { about: POOL, samples: uses },
            Family { about: IDLE, samples: idle },
            counted(SNAPSHOTS, self.snapshots.get()),
            last(SNAPSHOT_TIME, self.snapshots.last()),
            counted(REFUSED, self.config_refused.get()),
            Family::single(WATCHES, self.watches.get() as f64),
            last(API_CONTACT, self.api_contacts.last()),
            counted(API_ERRORS, self.api_errors.get()),
            counted(LOG_LINES, self.access_log.as_ref().map_or(0, |log| log.lines.get())),
            counted(LOG_DROPPED, self.access_log.as_ref().map_or(0, |log| log.dropped.get())),
            counted(CAPPED, self.capped.get()),
            Family {
                about: BUILD,
                samples: vec![sample(vec![("version", env!("CARGO_PKG_VERSION").into())], 1.0)],
            },
        ];
        families.extend(self.discovery.tell());
        families.extend(self.identity.tell());
        families.extend(self.tls.tell());
        families.extend(process::tell());
        for family in &mut families {
            family.samples.sort_by(|one, other| one.labels.cmp(&other.labels));
        }
        families
    }

    fn traffic(&self, now: Instant) -> [Vec<Sample>; 3] {
        let mut all = [Vec::new(), Vec::new(), Vec::new()];
        for samples in self.traffic.each(now, Traffic::tell) {
            for (all, sample) in all.iter_mut().zip(samples) {
                all.push(sample);
            }
        }
        all
    }

    /// By what they carry; those of which that is not known yet are `undecided`.
    fn open_connections(&self) -> Vec<Sample> {
        // In this order: what has ended had begun before.
        let ended = self.closed.each();
        let begun = self.connections.each();
        let labels =
            |labels: [Text; 3]| ["direction", "service", "protocol"].into_iter().zip(labels).collect();
        let mut decided = [0, 0];
        let mut samples = Vec::new();
        for (key, begun) in begun {
            let ended = ended.iter().find(|(each, _)| *each == key).map_or(0, |(_, ended)| *ended);
            let open = begun.saturating_sub(ended);
            let direction = DIRECTIONS.iter().position(|each| each.name() == key[0].as_str()).unwrap_or(0);
            decided[direction] += open;
            samples.push(sample(labels(key), open as f64));
        }
        for (direction, decided) in DIRECTIONS.into_iter().zip(decided) {
            let open = u64::try_from(self.connections(direction)).unwrap_or(0).saturating_sub(decided);
            samples
                .push(sample(labels([direction.name().into(), "".into(), "undecided".into()]), open as f64));
        }
        samples
    }
}

const DIRECTIONS: [Direction; 2] = [Direction::Outbound, Direction::Inbound];

fn picks(service: &Arc<str>, parts: &[&Tally], since: std::time::SystemTime) -> Sample {
    let value = Value::Number(parts.iter().map(|part| part.get()).sum::<u64>() as f64);
    Sample { labels: vec![("service", service.into())], value, since: Some(since) }
}

/// A time; nothing if it never was.
fn last(about: About, at: Option<f64>) -> Family {
    at.map_or(Family { about, samples: Vec::new() }, |at| Family::single(about, at))
}

fn sample(labels: Vec<(&'static str, Text)>, value: f64) -> Sample {
    Sample { labels, value: Value::Number(value), since: None }
}
