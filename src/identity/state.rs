//! What the Secret of the mesh's authority holds: who signs, who signs next, whose certificates are still about.
//!
//! The rotation of a root is nothing but steps from one such state to the next, each one write of the Secret against the
//! version that was read. So it goes on wherever it stands, whichever replica leads and whenever one dies.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ferrule_config::trust;
use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    authority::{Authority, AuthorityError, Key, Parts},
    certificate::{Certificate, seconds},
    life::LONGEST,
};

/// Keys of the authority that signs: those of cert-manager, and the root's key.
pub(super) const CURRENT: Parts =
    Parts { roots: "ca.crt", chain: "tls.crt", key: "tls.key", root_key: "ca.key" };
const NEXT: Parts =
    Parts { roots: "next-ca.crt", chain: "next-tls.crt", key: "next-tls.key", root_key: "next-ca.key" };
const OLD_ROOTS: &str = "old-ca.crt";
const ROTATION: &str = "rotation.json";

/// `data` of the Secret.
pub(super) type Data = BTreeMap<String, ByteString>;

/// Where the authority stands.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Number of the trust bundle; a later bundle has a higher one.
    pub generation: u64,
    /// Who signs.
    pub current: Authority,
    /// Whether its root is being changed.
    pub phase: Phase,
    /// The longest life of any certificate that `current` may have signed.
    pub longest: Duration,
    /// The last request for a rotation that was acted on.
    pub handled: Option<String>,
}

/// Where a rotation stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// There is none.
    Steady,
    /// The next root is trusted and signs nothing yet.
    Trusting {
        /// Who signs next.
        next: Box<Authority>,
        /// Since when.
        since: SystemTime,
    },
    /// The new root signs; certificates of the old one may still be about.
    Retiring {
        /// Roots that nothing is signed by any more.
        old: Vec<Certificate>,
        /// Since when.
        since: SystemTime,
        /// When the last certificate of the old root has ended.
        until: SystemTime,
    },
}

/// Why the Secret's content can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StateError {
    /// A part of an authority.
    #[error("{0}")]
    Authority(#[from] AuthorityError),
    /// What says where the rotation stands.
    #[error("key {ROTATION:?} can't be read: {0}")]
    Rotation(String),
}

/// The part of the state that is neither certificate nor key.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rotation {
    generation: u64,
    phase: PhaseName,
    #[serde(default)]
    since: u64,
    #[serde(default)]
    until: u64,
    longest_seconds: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handled: Option<String>,
}

/// The name of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub enum PhaseName {
    /// [`Phase::Steady`].
    Steady,
    /// [`Phase::Trusting`].
    Trusting,
    /// [`Phase::Retiring`].
    Retiring,
}

impl PhaseName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Steady, Self::Trusting, Self::Retiring];

    /// In lower case, for metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Trusting => "trusting",
            Self::Retiring => "retiring",
        }
    }
}

impl Phase {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> PhaseName {
        match self {
            Self::Steady => PhaseName::Steady,
            Self::Trusting { .. } => PhaseName::Trusting,
            Self::Retiring { .. } => PhaseName::Retiring,
        }
    }

    /// Since when it lasts, unless it is the steady one.
    #[must_use]
    pub fn since(&self) -> Option<SystemTime> {
        match self {
            Self::Steady => None,
            Self::Trusting { since, .. } | Self::Retiring { since, .. } => Some(*since),
        }
    }
}

impl State {
    /// The first state of a mesh.
    #[must_use]
    pub fn new(current: Authority, longest: Duration, now: SystemTime) -> Self {
        Self { generation: seconds(now).max(1), current, phase: Phase::Steady, longest, handled: None }
    }

    /// Roots that are trusted, the one first that signs.
    pub fn trusted(&self) -> impl Iterator<Item = &Certificate> {
        let others: &[Certificate] = match &self.phase {
            Phase::Steady => &[],
            Phase::Trusting { next, .. } => next.roots(),
            Phase::Retiring { old, .. } => old,
        };
        let current = self.current.roots();
        current.iter().chain(others.iter().filter(move |other| !current.contains(other)))
    }

    /// The trust bundle.
    #[must_use]
    pub fn bundle(&self) -> String {
        trust::write(self.generation, self.trusted().map(Certificate::pem))
    }

    pub(super) fn parse(data: &Data) -> Result<Self, StateError> {
        let current = authority(data, CURRENT)?;
        let rotation = data.get(ROTATION).map_or(&[][..], |bytes| &bytes.0);
        let rotation: Rotation =
            serde_json::from_slice(rotation).map_err(|error| StateError::Rotation(error.to_string()))?;
        let Rotation { generation, phase, since, until, longest_seconds, handled } = rotation;
        let time = |seconds: u64| {
            let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
            time.ok_or_else(|| StateError::Rotation("a time is out of range".to_owned()))
        };
        let phase = match phase {
            PhaseName::Steady => Phase::Steady,
            PhaseName::Trusting => {
                Phase::Trusting { next: Box::new(authority(data, NEXT)?), since: time(since)? }
            }
            PhaseName::Retiring => {
                let old = Certificate::parse_all(text(data, OLD_ROOTS)?)
                    .map_err(|error| AuthorityError::Certificates(OLD_ROOTS, error))?;
                Phase::Retiring { old, since: time(since)?, until: time(until)? }
            }
        };
        let longest = Duration::from_secs(longest_seconds).min(LONGEST);
        Ok(Self { generation, current, phase, longest, handled })
    }

    pub(super) fn to_data(&self) -> Data {
        let Self { generation, current, phase, longest, handled } = self;
        let mut data = Data::new();
        put(&mut data, CURRENT, current);
        let until = match phase {
            Phase::Steady => UNIX_EPOCH,
            Phase::Trusting { next, .. } => {
                put(&mut data, NEXT, next);
                UNIX_EPOCH
            }
            Phase::Retiring { old, until, .. } => {
                let roots: String = old.iter().map(Certificate::pem).collect();
                data.insert(OLD_ROOTS.to_owned(), ByteString(roots.into_bytes()));
                *until
            }
        };
        let rotation = Rotation {
            generation: *generation,
            phase: phase.name(),
            since: phase.since().map_or(0, seconds),
            until: seconds(until),
            longest_seconds: longest.as_secs(),
            handled: handled.clone(),
        };
        let rotation = serde_json::to_vec(&rotation).unwrap_or_default();
        data.insert(ROTATION.to_owned(), ByteString(rotation));
        data
    }
}

fn put(data: &mut Data, parts: Parts, authority: &Authority) {
    let (roots, chain, key, root_key) = authority.to_pem();
    let all = [
        (parts.roots, Some(roots.as_str())),
        (parts.chain, Some(chain.as_str())),
        (parts.key, Some(key)),
        (parts.root_key, root_key),
    ];
    for (part, pem) in all {
        if let Some(pem) = pem {
            data.insert(part.to_owned(), ByteString(pem.as_bytes().to_vec()));
        }
    }
}

fn authority(data: &Data, parts: Parts) -> Result<Authority, AuthorityError> {
    let key = Key::new(text(data, parts.key)?.to_owned());
    let root_key = match data.contains_key(parts.root_key) {
        true => Some(Key::new(text(data, parts.root_key)?.to_owned())),
        false => None,
    };
    Authority::new(parts, text(data, parts.roots)?, text(data, parts.chain)?, key, root_key)
}

fn text<'a>(data: &'a Data, part: &'static str) -> Result<&'a str, AuthorityError> {
    let bytes = data.get(part).filter(|bytes| !bytes.0.is_empty()).ok_or(AuthorityError::Missing(part))?;
    std::str::from_utf8(&bytes.0).map_err(|_| AuthorityError::NotText(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::issue;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn now() -> SystemTime {
        UNIX_EPOCH + DAY * 20_000
    }

    fn made() -> Authority {
        issue::authority(now()).expect("made")
    }

    fn phases() -> [Phase; 3] {
        let old = made().roots().to_vec();
        [
            Phase::Steady,
            Phase::Trusting { next: Box::new(made()), since: now() },
            Phase::Retiring { old, since: now(), until: now() + DAY },
        ]
    }

    #[test]
    fn a_state_survives_its_secret() {
        for phase in phases() {
            let state = State { phase, handled: Some("x".into()), ..State::new(made(), DAY, now()) };
            assert_eq!(State::parse(&state.to_data()), Ok(state));
        }
    }

    #[test]
    fn a_bundle_has_all_that_is_trusted_and_the_signing_root_first() {
        for (phase, count) in phases().into_iter().zip([1, 2, 2]) {
            let state = State { phase, ..State::new(made(), DAY, now()) };
            let bundle = state.bundle();
            assert_eq!(trust::generation(&bundle), Some(state.generation));
            let roots = Certificate::parse_all(&bundle).expect("certificates");
            assert_eq!(roots.len(), count);
            assert_eq!(&roots[0], &state.current.roots()[0]);
        }
    }

    #[test]
    fn a_spoilt_secret_is_an_error_that_names_the_part() {
        let state = State { phase: phases()[1].clone(), ..State::new(made(), DAY, now()) };
        for part in state.to_data().keys() {
            for value in [None, Some("garbage")] {
                let mut data = state.to_data();
                data.remove(part);
                if let Some(value) = value {
                    data.insert(part.clone(), ByteString(value.into()));
                }
                // A root's key is not needed to sign.
                let optional = value.is_none() && part.ends_with("ca.key");
                let error = State::parse(&data).err().map(|error| error.to_string());
                assert!(optional || error.is_some_and(|error| error.contains(part.as_str())), "{part}");
            }
        }
    }
}
