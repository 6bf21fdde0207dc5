//! Changing the root without an outage. Pure: state, wishes, answers of sidecars and the time come in; a step comes out.
//!
//! ```text
//!            Prepare                    Promote                     Retire
//!   Steady ──────────▶ Trusting(next) ──────────▶ Retiring(old) ──────────▶ Steady
//!     trust: A           trust: A, B                trust: B, A               trust: B
//!     signs: A           signs: A                   signs: B                  signs: B
//! ```
//!
//! Two sidecars verify each other at every moment:
//! - B signs only when every sidecar that runs trusts it. They were asked after every answer of the identity service
//!   that could still carry the old bundle had arrived ([`GRACE`]); and no sidecar goes back to an older bundle.
//! - A is dropped only when no certificate of it can be valid, or every sidecar that runs has one of B; again asked
//!   after the last one that A signed had arrived.
//! - A sidecar that starts meanwhile has no certificate, and gets bundle and certificate in one answer.

use std::time::{Duration, SystemTime};

use ferrule_config::identity::Report;

use super::{
    authority::Authority,
    certificate::seconds,
    issue::{self, IssueError},
    state::{Phase, State},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Rest of the life of a root that was made here in which its successor is made.
const ROOT_REST: Duration = DAY.saturating_mul(365);
/// Longest time from a decision to the write that it leads to.
pub(super) const HASTE: Duration = Duration::from_secs(5);
/// How old a replica's knowledge of the state may be when it signs.
pub(super) const FRESH: Duration = Duration::from_secs(10);
/// After a change of the state, before sidecars are asked whether they know of it: longer than any answer that was made
/// from the state before can be under way.
pub const GRACE: Duration = Duration::from_secs(60);
/// Beyond a certificate's end, for clocks that are slow and writes that are late.
const SKEW: Duration = Duration::from_secs(10 * 60);

/// What is wished for, and what is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inputs<'a> {
    /// The life of the certificates that are signed.
    pub life: Duration,
    /// How long after a change became known sidecars are asked about it: [`GRACE`].
    pub grace: Duration,
    /// The user's authority, if there is to be one. What can't be used is not given: the last good one stays.
    pub supplied: Option<&'a Authority>,
    /// Whether the authority is to be the user's.
    pub user_supplies: bool,
    /// The latest request for a rotation: any text, new for each.
    pub request: Option<&'a str>,
    /// The generation that is to be left without waiting for sidecars.
    pub force: Option<u64>,
    /// What the sidecars answered.
    pub census: Option<&'a Census>,
}

/// Answers of sidecars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// Which state they were asked about.
    pub generation: u64,
    /// How long the state had been known when the first one was asked. By the clock of whoever asks, which begins anew
    /// with each leader: what the state says of its time was decided before it was written, perhaps long before.
    pub after: Duration,
    /// How many run.
    pub sidecars: usize,
    /// Those that are waited for, or did not answer: `namespace/pod`.
    pub waiting: Vec<String>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// Certificates may live longer from now on.
    Lengthen,
    /// Make an issuer below the same root.
    RenewIssuer,
    /// Take over the user's new issuer below the same root.
    AdoptIssuer(Box<Authority>),
    /// Have another root trusted: the user's, or one to be made.
    Prepare(Option<Box<Authority>>),
    /// The user changed their mind before the next root signed anything.
    Abandon,
    /// Let the next root sign.
    Promote,
    /// Stop trusting the old root.
    Retire,
    /// A request that can't be followed: the root is the user's to change.
    Decline,
}

/// Whether a step waits for the answers of sidecars, and they may be asked now that the state has been known for so long.
#[must_use]
pub fn awaits_census(state: &State, grace: Duration, known_for: Duration) -> bool {
    state.phase != Phase::Steady && known_for >= grace
}

/// Whether a sidecar has to be waited for in this state.
#[must_use]
pub fn lags(state: &State, report: &Report) -> bool {
    // Without a certificate it does no TLS, and it gets the bundle together with the first one.
    if report.id.is_none() {
        return false;
    }
    let generation = report.bundle.as_ref().map_or(0, |bundle| bundle.generation);
    match &state.phase {
        Phase::Steady => false,
        Phase::Trusting { .. } => generation < state.generation,
        Phase::Retiring { .. } => {
            let new = |root: &String| state.current.roots().iter().any(|one| one.fingerprint() == *root);
            !report.root.as_ref().is_some_and(new)
        }
    }
}

/// The next step.
#[must_use]
pub fn decide(state: &State, inputs: &Inputs<'_>, now: SystemTime) -> Step {
    if inputs.life > state.longest {
        return Step::Lengthen;
    }
    let current = &state.current;
    let half = issue::ISSUER_LIFE / 2;
    let root_lasts = now + half < current.root_not_after();
    if current.is_self_made() && root_lasts && now + half >= current.issuer().validity().not_after {
        return Step::RenewIssuer;
    }
    match &state.phase {
        Phase::Steady => steady(state, inputs, now),
        Phase::Trusting { next, .. } => trusting(state, next, inputs, now),
        Phase::Retiring { until, .. } => {
            let over = now >= *until || inputs.force == Some(state.generation);
            if over || all_agree(state, inputs) { Step::Retire } else { Step::Keep }
        }
    }
}

fn steady(state: &State, inputs: &Inputs<'_>, now: SystemTime) -> Step {
    let current = &state.current;
    let requested = inputs.request.is_some() && inputs.request != state.handled.as_deref();
    if inputs.user_supplies {
        return match inputs.supplied {
            Some(supplied) if !supplied.has_roots_of(current) => {
                Step::Prepare(Some(Box::new(supplied.clone())))
            }
            Some(supplied) if supplied != current => Step::AdoptIssuer(Box::new(supplied.clone())),
            _ if requested => Step::Decline,
            _ => Step::Keep,
        };
    }
    let ends = now + ROOT_REST >= current.root_not_after();
    if !current.is_self_made() || requested || ends { Step::Prepare(None) } else { Step::Keep }
}

fn trusting(state: &State, next: &Authority, inputs: &Inputs<'_>, now: SystemTime) -> Step {
    if let Some(supplied) = inputs.supplied.filter(|supplied| inputs.user_supplies && *supplied != next) {
        // What was next has signed nothing, so it can be dropped.
        let back = supplied.has_roots_of(&state.current);
        return if back { Step::Abandon } else { Step::Prepare(Some(Box::new(supplied.clone()))) };
    }
    let forced = inputs.force == Some(state.generation);
    // Then nothing that the current one signed is valid, and waiting protects nobody.
    let expired = now >= state.current.not_after();
    if forced || expired || all_agree(state, inputs) { Step::Promote } else { Step::Keep }
}

fn all_agree(state: &State, inputs: &Inputs<'_>) -> bool {
    inputs.census.is_some_and(|census| {
        let Census { generation, after, sidecars: _, waiting } = census;
        *generation == state.generation && *after >= inputs.grace && waiting.is_empty()
    })
}

/// The state after a step; `None` when it is the same.
///
/// # Errors
/// [`IssueError`], when an authority can't be made.
pub fn carry_out(
    state: &State,
    step: Step,
    inputs: &Inputs<'_>,
    now: SystemTime,
) -> Result<Option<State>, IssueError> {
    let generation = seconds(now).max(state.generation + 1);
    let request = inputs.request.map(str::to_owned);
    let same = state.clone();
    let changed = match step {
        Step::Keep => return Ok(None),
        Step::Lengthen => State { longest: inputs.life, ..same },
        Step::RenewIssuer => State { current: issue::new_issuer(&state.current, now)?, ..same },
        Step::AdoptIssuer(supplied) => State { current: *supplied, ..same },
        Step::Decline => State { handled: request, ..same },
        Step::Abandon => State { generation, phase: Phase::Steady, ..same },
        Step::Prepare(supplied) => {
            let next = match supplied {
                Some(supplied) => supplied,
                None => Box::new(issue::authority(now)?),
            };
            State { generation, phase: Phase::Trusting { next, since: now }, handled: request, ..same }
        }
        Step::Promote => {
            let Phase::Trusting { next, .. } = &state.phase else { return Ok(None) };
            let until = now + FRESH + state.longest + SKEW;
            let old = state.current.roots().to_vec();
            let phase = Phase::Retiring { old, since: now, until };
            State { generation, current: (**next).clone(), phase, longest: inputs.life, ..same }
        }
        Step::Retire => State { generation, phase: Phase::Steady, ..same },
    };
    Ok(Some(changed))
}

#[cfg(test)]
mod tests;
