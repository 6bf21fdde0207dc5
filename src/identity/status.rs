//! Where the mesh's authority stands, for people: part of ConfigMap `ferrule-trust` in the operator's namespace.

use serde::{Deserialize, Serialize};

use super::{
    certificate::seconds,
    rotation::Census,
    state::{PhaseName, State},
};

/// Sidecars that are named; the others are counted.
const NAMED: usize = 20;

/// Where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Phase of the rotation.
    pub phase: PhaseName,
    /// Number of the trust bundle.
    pub generation: u64,
    /// Since when the phase lasts, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// `ferrule` for a root made here, `Secret NAME` for the user's.
    pub source: String,
    /// SHA-256 of the roots that sign, in hexadecimal.
    pub roots: Vec<String>,
    /// When the first of them ends, in seconds since 1970.
    pub root_not_after: u64,
    /// When the issuer ends, in seconds since 1970.
    pub issuer_not_after: u64,
    /// SHA-256 of all roots that are trusted.
    pub trusted: Vec<String>,
    /// The request for a rotation that was acted on last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled: Option<String>,
    /// Sidecars that were asked, where the phase waits for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecars: Option<usize>,
    /// How many of them are waited for.
    #[serde(default)]
    pub waiting: usize,
    /// Names of some of those: `namespace/pod`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
    /// What is wrong, if anything is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Status {
    /// Of a state, with what sidecars answered about it.
    pub(super) fn new(
        state: &State,
        supplied: Option<&str>,
        census: Option<&Census>,
        problem: Option<String>,
    ) -> Self {
        let census = census.filter(|census| census.generation == state.generation);
        let waiting = census.map_or(&[][..], |census| &census.waiting);
        let source = match supplied {
            Some(name) if !state.current.is_self_made() => format!("Secret {name}"),
            _ => "ferrule".to_owned(),
        };
        Self {
            phase: state.phase.name(),
            generation: state.generation,
            since: state.phase.since().map(seconds),
            source,
            roots: state.current.roots().iter().map(super::certificate::Certificate::fingerprint).collect(),
            root_not_after: seconds(state.current.root_not_after()),
            issuer_not_after: seconds(state.current.issuer().validity().not_after),
            trusted: state.trusted().map(super::certificate::Certificate::fingerprint).collect(),
            handled: state.handled.clone(),
            sidecars: census.map(|census| census.sidecars),
            waiting: waiting.len(),
            waiting_for: waiting.iter().take(NAMED).cloned().collect(),
            problem,
        }
    }
}
