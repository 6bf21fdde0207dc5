//! What the controller counts.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{compile::Reason, observe::Kind, ratchet::Waiting};

/// What was being done when the API server did not do its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Operation {
    /// Listing and watching.
    Watch,
    /// Writing a ConfigMap.
    ApplyConfig,
    /// Deleting a ConfigMap.
    DeleteConfig,
    /// Writing a status.
    ApplyStatus,
    /// Writing the ClusterRoleBinding.
    ApplyBinding,
    /// Publishing an Event.
    PublishEvent,
    /// Taking or renewing the Lease.
    Lease,
}

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// As wanted.
    Ok,
    /// Not so.
    Error,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    result: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: Operation,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// The controller's metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    leader: Gauge<i64, AtomicI64>,
    compilations: Family<OutcomeLabels, Counter>,
    compile_duration: Histogram,
    applies: Family<OutcomeLabels, Counter>,
    apply_duration: Histogram,
    propagation: Histogram,
    queue: Gauge<i64, AtomicI64>,
    objects: Family<KindLabels, Gauge<i64, AtomicI64>>,
    watch_events: Family<KindLabels, Counter>,
    api_errors: Family<OperationLabels, Counter>,
    strict_waiting: Family<ReasonLabels, Gauge<i64, AtomicI64>>,
    plaintext_clients: Gauge<i64, AtomicI64>,
    inquiries: Family<OutcomeLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let short = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25];
        let long = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
        Self {
            leader: Gauge::default(),
            compilations: Family::default(),
            compile_duration: Histogram::new(short),
            applies: Family::default(),
            apply_duration: Histogram::new(long),
            propagation: Histogram::new(long),
            queue: Gauge::default(),
            objects: Family::default(),
            watch_events: Family::default(),
            api_errors: Family::default(),
            strict_waiting: Family::default(),
            plaintext_clients: Gauge::default(),
            inquiries: Family::default(),
        }
    }
}

impl Metrics {
    /// Makes the metrics part of what the registry renders.
    pub fn register(&self, registry: &mut Registry) {
        let Self {
            leader,
            compilations,
            compile_duration,
            applies,
            apply_duration,
            propagation,
            queue,
            objects,
            watch_events,
            api_errors,
            strict_waiting,
            plaintext_clients,
            inquiries,
        } = self.clone();
        let registry = registry.sub_registry_with_prefix("ferrule_operator");
        registry.register("leader", "1 if this replica writes, 0 if it stands by", leader);
        registry.register("compilations", "Compilations of one namespace, by result", compilations);
        registry.register_with_unit(
            "compile_duration",
            "Time to compile one namespace",
            Unit::Seconds,
            compile_duration,
        );
        registry.register("applies", "Times that what a scope lacked was written, by result", applies);
        registry.register_with_unit(
            "apply_duration",
            "Time to write what a scope lacked",
            Unit::Seconds,
            apply_duration,
        );
        let help = "Time from noticing a change to having written what follows from it";
        registry.register_with_unit("propagation", help, Unit::Seconds, propagation);
        registry.register("queue_depth", "Scopes that wait to be worked on", queue);
        registry.register("objects", "Objects observed, by kind", objects);
        registry.register("watch_events", "Events of watches, by kind", watch_events);
        registry.register("api_errors", "Requests to the API server that failed, by operation", api_errors);
        let help = "MeshTLS whose Strict waits, by the reason of their condition Enforced";
        registry.register("strict_waiting", help, strict_waiting);
        let help = "Clients that came without encryption within the last hour to where Strict is wanted";
        registry.register("plaintext_clients", help, plaintext_clients);
        let help = "Sidecars asked who comes without encryption, by result";
        registry.register("inquiries", help, inquiries);
    }

    /// How many namespaces were compiled so far.
    #[must_use]
    pub fn compilations(&self, result: Outcome) -> u64 {
        self.compilations.get_or_create(&OutcomeLabels { result }).get()
    }

    pub(super) fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    pub(super) fn compiled(&self, result: Outcome, took: Duration) {
        self.compilations.get_or_create(&OutcomeLabels { result }).inc();
        self.compile_duration.observe(took.as_secs_f64());
    }

    pub(super) fn applied(&self, result: Outcome, took: Duration, since_noticed: Duration) {
        self.applies.get_or_create(&OutcomeLabels { result }).inc();
        self.apply_duration.observe(took.as_secs_f64());
        if result == Outcome::Ok {
            self.propagation.observe(since_noticed.as_secs_f64());
        }
    }

    pub(super) fn set_queue(&self, depth: usize) {
        self.queue.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    pub(super) fn set_objects(&self, kind: Kind, count: usize) {
        let labels = KindLabels { kind: kind.word() };
        self.objects.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn set_waiting(&self, waiting: Waiting) {
        let Waiting { clients, reports, time, plaintext_clients } = waiting;
        for (reason, count) in [
            (Reason::PlaintextClients, clients),
            (Reason::ReportsMissing, reports),
            (Reason::Observing, time),
        ] {
            let gauge = self.strict_waiting.get_or_create(&ReasonLabels { reason: reason.as_str() });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.plaintext_clients.set(i64::try_from(plaintext_clients).unwrap_or(i64::MAX));
    }

    pub(super) fn asked(&self, result: Outcome) {
        self.inquiries.get_or_create(&OutcomeLabels { result }).inc();
    }

    pub(super) fn watch_event(&self, kind: Kind) {
        self.watch_events.get_or_create(&KindLabels { kind: kind.word() }).inc();
    }

    pub(super) fn api_error(&self, operation: Operation) {
        self.api_errors.get_or_create(&OperationLabels { operation }).inc();
    }
}

/// Longest time without a beat that still counts as alive. The loop beats every second.
const ALIVE_WITHIN: Duration = Duration::from_secs(15);

/// Whether the controller is ready and alive; clones share the state.
#[derive(Clone, Debug)]
pub struct Health {
    started: Instant,
    /// Bit per kind whose objects have all been seen.
    synced: Arc<AtomicU64>,
    /// Milliseconds from `started` to the last beat.
    beat: Arc<AtomicU64>,
}

impl Default for Health {
    fn default() -> Self {
        Self { started: Instant::now(), synced: Arc::default(), beat: Arc::default() }
    }
}

impl Health {
    /// All objects have been seen once, so this replica can lead.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    /// Kinds whose objects have not been seen yet.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let synced = self.synced.load(Ordering::Acquire);
        let kinds = Kind::ALL.into_iter().enumerate();
        kinds.filter(|(bit, _)| synced & (1 << bit) == 0).map(|(_, kind)| kind.word()).collect()
    }

    /// The loop goes round.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let beat = Duration::from_millis(self.beat.load(Ordering::Acquire));
        self.started.elapsed().saturating_sub(beat) < ALIVE_WITHIN
    }

    pub(super) fn beat(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat.store(millis, Ordering::Release);
    }

    pub(super) fn synced(&self, kind: Kind) {
        if let Some(bit) = Kind::ALL.into_iter().position(|one| one == kind) {
            self.synced.fetch_or(1 << bit, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_every_kind_has_been_seen() {
        let health = Health::default();
        for kind in Kind::ALL {
            assert!(!health.is_ready());
            assert!(health.missing().contains(&kind.word()));
            health.synced(kind);
        }
        assert!(health.is_ready());
    }

    #[test]
    fn metrics_carry_the_operators_prefix_and_their_units() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        metrics.compiled(Outcome::Ok, Duration::from_millis(1));
        metrics.api_error(Operation::ApplyStatus);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        assert!(text.contains("ferrule_operator_compilations_total{result=\"Ok\"} 1"), "{text}");
        assert!(text.contains("ferrule_operator_compile_duration_seconds_count 1"), "{text}");
        assert!(text.contains("ferrule_operator_api_errors_total{operation=\"ApplyStatus\"} 1"), "{text}");
    }
}
