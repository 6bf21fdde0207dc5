//! Strict takes hold when it shuts nobody out, and then stays.
//!
//! ```text
//!   MeshTLS: spec, and what its status says is in force ──follow──▶ Ratchets ──due──▶ sidecars of its pods are asked
//!                        ▲                                             │                        │
//!                        │                                          Progress ◀──decide (pure)───┘
//!                        └────────── plan, apply ◀── compile ◀─────────┘
//! ```
//!
//! What has taken hold stands in the object's status and nowhere else: it is compiled to when it has come back on the
//! watch, so no crash of the operator opens what was closed. What was seen stands there too, as far as it is listed.

mod decide;
mod memory;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ferrule_config::{Modes, PlaintextReport, TlsMode};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

pub use decide::{Evidence, PodEvidence, decide};

use crate::api::mesh_tls::{MAX_LISTED_CLIENTS, PlaintextClient};
use memory::Memory;

/// How often sidecars are asked at most, and at least while Strict waits.
const PERIODS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// How often when it has taken hold, for the status alone.
const SLOW: Duration = Duration::from_secs(5 * 60);
/// Longer pauses where there are many pods: 200 questions a second.
const PER_POD: Duration = Duration::from_millis(5);
/// What is listed of a client is written again when it came this much later: a status is not a metric.
const REFRESH: SignedDuration = SignedDuration::from_secs(30);
/// Pods that are named where their reports are missing; the others are counted.
const NAMED: usize = 10;

/// Which MeshTLS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What is decided about: of anything else nothing was decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// Tells the object from a later one of the same name.
    pub uid: Option<String>,
    /// What it selects, in words.
    pub selection: String,
    /// What the user wants; no port is named that has the mode of all.
    pub wanted: Modes,
}

/// A MeshTLS that wants Strict somewhere, and is in force as far as its status says.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanting {
    /// Which.
    pub key: Key,
    /// What it wants.
    pub subject: Subject,
    /// What is in force.
    pub in_force: Modes,
    /// How long nobody may have come plain.
    pub quiet_for: Duration,
    /// Clients that its status lists.
    pub listed: Vec<PlaintextClient>,
}

impl Wanting {
    /// Whether Strict still waits somewhere.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.subject.wanted != self.in_force
    }
}

/// A pod to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace and name.
    pub name: String,
    /// Namespace and name of its workload.
    pub workload: String,
    /// Its address.
    pub address: IpAddr,
    /// Whether Strict waits for its answer; what others answer counts if they do.
    pub ready: bool,
}

/// What a pod's sidecar said, if it said anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who was asked.
    pub pod: Pod,
    /// The report.
    pub report: Option<PlaintextReport>,
}

/// How a MeshTLS stands with clients that don't encrypt.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// About what.
    pub subject: Subject,
    /// What to do.
    pub step: Step,
    /// Who came plain within the last hour to where Strict is wanted; the last ones first, at most 50.
    pub clients: Vec<PlaintextClient>,
    /// How many these are altogether.
    pub count: usize,
}

/// Whether Strict may take hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has.
    Held,
    /// It may.
    Hold,
    /// Not as long as somebody comes plain.
    Clients,
    /// Not before these ready pods are heard of.
    Missing {
        /// Some of them, as `namespace/name`.
        named: Vec<String>,
        /// How many there are.
        count: usize,
    },
    /// Nobody has come plain so far, and it has not been looked at for long enough.
    Observing {
        /// Until when.
        until: Timestamp,
    },
}

/// What is in force where the user wants one thing and another was in force before: Strict only where it was.
#[must_use]
pub fn in_force(wanted: &Modes, before: Option<&Modes>) -> Modes {
    let step = |wanted: TlsMode, before: Option<TlsMode>| match wanted {
        TlsMode::Strict if before != Some(TlsMode::Strict) => TlsMode::Permissive,
        wanted => wanted,
    };
    let mode = step(wanted.mode, before.map(|before| before.mode));
    let named = wanted.ports.keys().chain(before.into_iter().flat_map(|before| before.ports.keys()));
    let ports = named
        .map(|&port| (port, step(wanted.of(port), before.map(|before| before.of(port)))))
        .filter(|&(_, of_port)| of_port != mode)
        .collect();
    Modes { mode, ports, min_version: wanted.min_version }
}

/// Whether a user wants Strict anywhere.
#[must_use]
pub fn wants_strict(modes: &Modes) -> bool {
    modes.mode == TlsMode::Strict || modes.ports.values().any(|mode| *mode == TlsMode::Strict)
}

#[derive(Debug)]
struct Watched {
    wanting: Wanting,
    /// Since when this replica asks.
    since: Timestamp,
    next: Timestamp,
    asking: bool,
    memory: Memory,
    told: Option<Progress>,
}

/// All MeshTLS that want Strict: when their pods are asked, and what came of it. Pure; time is passed in.
#[derive(Debug, Default)]
pub struct Ratchets {
    watched: BTreeMap<Key, Watched>,
}

impl Ratchets {
    /// Takes in which there are. Gives those that are no question any more.
    pub fn follow(&mut self, wanting: Vec<Wanting>, now: Timestamp) -> Vec<Key> {
        let present: BTreeSet<Key> = wanting.iter().map(|one| one.key.clone()).collect();
        let gone: Vec<Key> = self.watched.keys().filter(|key| !present.contains(*key)).cloned().collect();
        for key in &gone {
            self.watched.remove(key);
        }
        for new in wanting {
            let pods = |of: &Wanting| (of.subject.uid.clone(), of.subject.selection.clone());
            match self.watched.get_mut(&new.key) {
                Some(watched) if pods(&watched.wanting) == pods(&new) => {
                    let asked = |of: &Wanting| (of.subject.clone(), of.in_force.clone(), of.quiet_for);
                    if asked(&watched.wanting) != asked(&new) {
                        watched.next = now;
                    }
                    watched.wanting = new;
                }
                _ => {
                    let memory = Memory::restored(&new.listed, REFRESH, now);
                    let key = new.key.clone();
                    let watched =
                        Watched { wanting: new, since: now, next: now, asking: false, memory, told: None };
                    self.watched.insert(key, watched);
                }
            }
        }
        gone
    }

    /// Those whose pods are to be asked now; each must be answered by [`Ratchets::answered`].
    pub fn due(&mut self, now: Timestamp) -> Vec<Key> {
        let due = self.watched.iter_mut().filter(|(_, watched)| !watched.asking && watched.next <= now);
        due.map(|(key, watched)| {
            watched.asking = true;
            key.clone()
        })
        .collect()
    }

    /// Takes in what sidecars said. `pods` are those that have the addresses of clients now; `chance` is a random number
    /// from 0 to 1 that keeps many from being asked together. Nothing if it is no question any more.
    pub fn answered(
        &mut self,
        key: &Key,
        answers: &[Answer],
        pods: &BTreeMap<IpAddr, String>,
        now: Timestamp,
        chance: f64,
    ) -> Option<Progress> {
        let watched = self.watched.get_mut(key)?;
        watched.asking = false;
        for Answer { pod, report } in answers {
            for client in report.iter().flat_map(|report| &report.plaintext_clients) {
                watched.memory.saw(client, &pod.workload, pods.get(&client.address), now);
            }
            if watched.memory.is_overfull() {
                watched.memory.forget(now);
            }
        }
        watched.memory.forget(now);
        let Watched { wanting, since, memory, told, .. } = watched;
        let wanted = &wanting.subject.wanted;
        let step = if wanting.waits() {
            let evidence = Evidence {
                since: *since,
                pods: answers.iter().map(|answer| PodEvidence::of(answer, now)).collect(),
                clients: memory
                    .all()
                    .filter(|(port, _)| wanted.of(*port) != wanting.in_force.of(*port))
                    .map(|(_, seen)| seen)
                    .collect(),
            };
            decide(wanting.quiet_for, &evidence, now)
        } else {
            Step::Held
        };
        watched.next = now + period(&step, wanting.quiet_for, answers.len()).mul_f64(0.75 + chance / 2.0);
        let (clients, count) = memory.list(MAX_LISTED_CLIENTS, |port| wanted.of(port) == TlsMode::Strict);
        let new = Progress { subject: wanting.subject.clone(), step, clients, count };
        let progress = told.take().filter(|old| is_as_good(old, &new)).unwrap_or(new);
        *told = Some(progress.clone());
        Some(progress)
    }

    /// How many wait, by the reason.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        let mut waiting = Waiting::default();
        for progress in self.watched.values().filter_map(|watched| watched.told.as_ref()) {
            match progress.step {
                Step::Held | Step::Hold => {}
                Step::Clients => waiting.clients += 1,
                Step::Missing { .. } => waiting.reports += 1,
                Step::Observing { .. } => waiting.time += 1,
            }
            waiting.plaintext_clients += progress.count;
        }
        waiting
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.watched.clear();
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// MeshTLS that wait for clients to end or to encrypt.
    pub clients: usize,
    /// Those that wait for sidecars to answer.
    pub reports: usize,
    /// Those that wait for time to pass.
    pub time: usize,
    /// Clients that came plain within the last hour to where Strict is wanted.
    pub plaintext_clients: usize,
}

fn period(step: &Step, quiet_for: Duration, pods: usize) -> Duration {
    let base = if *step == Step::Held { SLOW } else { (quiet_for / 4).clamp(PERIODS.0, PERIODS.1) };
    base.max(PER_POD.saturating_mul(u32::try_from(pods).unwrap_or(u32::MAX)))
}

/// Whether what was told says the same but for some seconds.
fn is_as_good(old: &Progress, new: &Progress) -> bool {
    let who = |of: &Progress| -> BTreeMap<_, Timestamp> {
        let each = of.clients.iter();
        each.map(|client| {
            ((client.address.clone(), client.workload.clone(), client.port), client.last_seen.0)
        })
        .collect()
    };
    let (before, after) = (who(old), who(new));
    (&old.subject, &old.step) == (&new.subject, &new.step)
        && old.count == new.count
        && before.keys().eq(after.keys())
        && before.iter().all(|(key, seen)| after[key].duration_since(*seen) < REFRESH)
}
