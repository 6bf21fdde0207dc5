//! What the compiler has to say about an object.

use crate::{api::MeshTLSStatus, controller::observe::Kind};

/// Everything about one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Kind of the object.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its uid, unless it comes from a file.
    pub uid: Option<String>,
    /// The generation that was looked at.
    pub generation: i64,
    /// One a condition type.
    pub findings: Vec<Finding>,
    /// Of a MeshTLS: the rest of its status.
    pub mesh_tls: Option<Box<MeshTLSStatus>>,
}

impl Verdict {
    /// The finding of this type, if there is one.
    #[must_use]
    pub fn finding(&self, condition: ConditionType) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.condition == condition)
    }

    /// Whether the object is accepted.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.finding(ConditionType::Accepted).is_some_and(|finding| finding.holds)
    }
}

/// A condition, without its history.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Finding {
    /// Its type.
    pub condition: ConditionType,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in a word.
    pub reason: Reason,
    /// Why, in words.
    pub message: String,
}

impl Finding {
    pub(super) fn good(condition: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { condition, holds: true, reason, message: message.into() }
    }

    pub(super) fn bad(condition: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { condition, holds: false, reason, message: message.into() }
    }
}

/// Types of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The object is valid and what it applies to exists.
    Accepted,
    /// Everything else that it names exists too.
    ResolvedRefs,
    /// The mesh acts on it.
    Enforced,
}

impl ConditionType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Accepted, Self::ResolvedRefs, Self::Enforced];

    /// As it is written in a status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Enforced => "Enforced",
        }
    }
}

/// Reasons of conditions; the first five are Gateway API's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It is valid and in force.
    Accepted,
    /// All that it names exists.
    ResolvedRefs,
    /// What it applies to does not exist.
    TargetNotFound,
    /// An older object of its kind decides on what it applies to.
    Conflicted,
    /// A Service that requests should go to does not exist, or has not that port.
    BackendNotFound,
    /// A Service that requests should go to has no endpoints, being a name outside of the cluster.
    UnsupportedBackend,
    /// No pod with a sidecar runs under a service account that it names.
    ServiceAccountNotFound,
    /// It contradicts itself or can't be read.
    Invalid,
    /// The mesh acts on it.
    Enforced,
    /// Strict waits, for there are clients that don't encrypt.
    PlaintextClients,
    /// Strict waits for sidecars that don't tell who comes without encryption.
    ReportsMissing,
    /// Strict waits until it has been looked for long enough.
    Observing,
    /// It is only tried.
    Audit,
    /// Pods that it is for have no sidecar.
    NoSidecar,
    /// This version of Ferrule does not act on it.
    NotImplemented,
}

impl Reason {
    /// As it is written in a status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::TargetNotFound => "TargetNotFound",
            Self::Conflicted => "Conflicted",
            Self::BackendNotFound => "BackendNotFound",
            Self::UnsupportedBackend => "UnsupportedBackend",
            Self::ServiceAccountNotFound => "ServiceAccountNotFound",
            Self::Invalid => "Invalid",
            Self::Enforced => "Enforced",
            Self::PlaintextClients => "PlaintextClients",
            Self::ReportsMissing => "ReportsMissing",
            Self::Observing => "Observing",
            Self::Audit => "Audit",
            Self::NoSidecar => "NoSidecar",
            Self::NotImplemented => "NotImplemented",
        }
    }
}
