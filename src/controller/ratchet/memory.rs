//! Who came plain, as far as sidecars told: what one told stays known when its pod is gone. Bounded.

use std::{collections::HashMap, net::IpAddr};

use ferrule_config::PlaintextClient as Reported;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::api::mesh_tls::PlaintextClient;

/// How long a client is remembered, as sidecars do.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(1);
/// Most that are remembered; who came longest ago is forgotten first.
const MAX_CLIENTS: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Who {
    address: IpAddr,
    workload: String,
    port: u16,
}

#[derive(Clone, Debug)]
struct Last {
    seen: Timestamp,
    pod: Option<String>,
}

/// Clients of the pods of one MeshTLS.
#[derive(Debug, Default)]
pub(super) struct Memory(HashMap<Who, Last>);

impl Memory {
    /// From what was listed by whoever led before, which may be this much too early.
    pub(super) fn restored(listed: &[PlaintextClient], late: SignedDuration, now: Timestamp) -> Self {
        let restore = |client: &PlaintextClient| {
            let PlaintextClient { address, pod, workload, port, last_seen } = client;
            let who = Who { address: address.parse().ok()?, workload: workload.clone(), port: *port };
            let seen = last_seen.0.checked_add(late).unwrap_or(now).min(now);
            Some((who, Last { seen, pod: pod.clone() }))
        };
        Self(listed.iter().filter_map(restore).collect())
    }

    /// A sidecar of this workload told of a client, which is this pod now.
    pub(super) fn saw(&mut self, client: &Reported, workload: &str, pod: Option<&String>, now: Timestamp) {
        let Reported { address, port, seconds_ago } = client;
        let ago = SignedDuration::from_secs(i64::try_from(*seconds_ago).unwrap_or(i64::MAX));
        let seen = now.checked_sub(ago).unwrap_or(Timestamp::MIN);
        let who = Who { address: *address, workload: workload.to_owned(), port: *port };
        let last = self.0.entry(who).or_insert_with(|| Last { seen, pod: pod.cloned() });
        if seen >= last.seen {
            last.seen = seen;
            // A pod that has ended has no name any more; what it was called is worth more than nothing.
            last.pod = pod.cloned().or_else(|| last.pod.take());
        }
    }

    /// Forgets who came too long ago, and those beyond the bound.
    pub(super) fn forget(&mut self, now: Timestamp) {
        self.0.retain(|_, last| now.duration_since(last.seen) < REMEMBERED);
        if self.0.len() > MAX_CLIENTS {
            let mut all: Vec<_> = self.0.drain().collect();
            all.sort_unstable_by_key(|(_, last)| std::cmp::Reverse(last.seen));
            all.truncate(MAX_CLIENTS);
            self.0 = all.into_iter().collect();
        }
    }

    /// Whether it is so far beyond the bound that it should not wait for the last of many answers.
    pub(super) fn is_overfull(&self) -> bool {
        self.0.len() > 2 * MAX_CLIENTS
    }

    /// Port and time of each.
    pub(super) fn all(&self) -> impl Iterator<Item = (u16, Timestamp)> {
        self.0.iter().map(|(who, last)| (who.port, last.seen))
    }

    /// The last ones first, at most so many, and how many there are.
    pub(super) fn list(&self, limit: usize, counts: impl Fn(u16) -> bool) -> (Vec<PlaintextClient>, usize) {
        let mut all: Vec<_> = self.0.iter().filter(|(who, _)| counts(who.port)).collect();
        all.sort_unstable_by(|(one, one_last), (other, other_last)| {
            other_last.seen.cmp(&one_last.seen).then_with(|| one.cmp(other))
        });
        let listed = all.iter().take(limit).map(|(who, last)| PlaintextClient {
            address: who.address.to_string(),
            pod: last.pod.clone(),
            workload: who.workload.clone(),
            port: who.port,
            last_seen: Time(Timestamp::from_second(last.seen.as_second()).unwrap_or(last.seen)),
        });
        (listed.collect(), all.len())
    }
}
