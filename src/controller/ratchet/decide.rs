//! Whether Strict may take hold: pure.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::{Answer, NAMED, Step};

/// What is known of a MeshTLS whose Strict waits.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Since when its pods are asked.
    pub since: Timestamp,
    /// What became of asking each of them.
    pub pods: Vec<PodEvidence>,
    /// When each client came last, on ports that are to become strict.
    pub clients: Vec<Timestamp>,
}

/// A pod that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvidence {
    /// Its namespace and name.
    pub name: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Since when its sidecar has been looking, if it answered.
    pub since: Option<Timestamp>,
}

impl PodEvidence {
    pub(super) fn of(answer: &Answer, now: Timestamp) -> Self {
        // One that does not say for how long may have begun just now.
        let observed = |seconds: Option<u64>| {
            now.checked_sub(Duration::from_secs(seconds.unwrap_or_default())).unwrap_or(Timestamp::MIN)
        };
        Self {
            name: answer.pod.name.clone(),
            ready: answer.pod.ready,
            since: answer.report.as_ref().map(|report| observed(report.observed_seconds)),
        }
    }
}

/// Strict takes hold when for so long nobody has come plain, as far as is known, and enough is known:
///
/// - every ready pod has answered. One that is not ready serves nobody, or nobody by a Service.
/// - all of the time is covered. A sidecar tells of the time since it began; what came to a pod that was there before it
///   was told by that pod, if it was asked by then. So either all sidecars are old enough, or they have been asked for
///   long enough.
#[must_use]
pub fn decide(quiet_for: Duration, evidence: &Evidence, now: Timestamp) -> Step {
    let Evidence { since, pods, clients } = evidence;
    let quiet_since = now.checked_sub(quiet_for).unwrap_or(Timestamp::MIN);
    if clients.iter().any(|seen| *seen > quiet_since) {
        return Step::Clients;
    }
    let mut missing = pods.iter().filter(|pod| pod.ready && pod.since.is_none()).peekable();
    if missing.peek().is_some() {
        let names: Vec<String> = missing.map(|pod| pod.name.clone()).collect();
        let count = names.len();
        let mut named = names;
        named.sort_unstable();
        named.truncate(NAMED);
        return Step::Missing { named, count };
    }
    let youngest = pods.iter().filter_map(|pod| pod.since).max();
    let covered = youngest.map_or(*since, |youngest| youngest.min(*since));
    if covered <= quiet_since {
        return Step::Hold;
    }
    let until = covered.checked_add(quiet_for).unwrap_or(Timestamp::MAX);
    Step::Observing { until: whole_seconds(until) }
}

/// Not before it: a status has no fractions of a second.
fn whole_seconds(time: Timestamp) -> Timestamp {
    let up = i64::from(time.subsec_nanosecond() > 0);
    Timestamp::from_second(time.as_second() + up).unwrap_or(time)
}
