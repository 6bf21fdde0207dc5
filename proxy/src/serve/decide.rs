//! Where a request goes: the rule that it falls under, what that does with it, and one of its backends. Pure but for
//! chance.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ferrule_config::{HeaderChange, Timeouts};

use super::attempts::Terms;
use crate::{
    act::{self, Acted, Answer, Rewritten},
    balance::Affinity,
    cause::Cause,
    direction::Direction,
    retry::{self, Policy},
    route::{Found, Request},
    snapshot::{Backend, Changes, Cluster, Destination, Rule, Snapshot},
    telemetry::Notes,
};

static NO_CHANGE: HeaderChange = HeaderChange { set: Vec::new(), add: Vec::new(), remove: Vec::new() };
static NO_LIMIT: Timeouts = Timeouts { request: None, backend_request: None };

/// Where a request goes.
pub(super) enum Target {
    /// To an endpoint of this port of a Service.
    Cluster(Arc<Cluster>),
    /// Nowhere, for this reason.
    Refused(Cause, String),
    /// Nowhere, for this is the answer.
    Answer(Box<Answer>),
}

/// What was decided on a request.
pub(super) struct Decision<'a> {
    /// The rule that it falls under; none if the Service has no Route, or none that matches.
    rule: Option<&'a Rule>,
    /// Where it goes.
    pub target: Target,
    affinity: Affinity,
    /// Those of the backend, in the place of the rule's.
    changes: Option<&'a Changes>,
    /// What few rules do.
    rare: Option<Box<Rare>>,
}

/// What few rules do with a request.
#[derive(Default)]
struct Rare {
    delay: Option<Duration>,
    rewritten: Option<Rewritten>,
    response_headers: Option<HeaderChange>,
}

impl<'a> Decision<'a> {
    /// Of a request that is answered without being looked at.
    pub fn refused(cause: Cause, detail: String) -> Self {
        Self::to(None, Target::Refused(cause, detail))
    }

    fn to(rule: Option<&'a Rule>, target: Target) -> Self {
        Self { rule, target, affinity: Affinity::default(), changes: None, rare: None }
    }

    /// Of a request that an AccessPolicy refuses. Its name is for the log: whoever is refused has no use for it but a bad one.
    pub fn denied() -> Self {
        let detail = "access denied: who sends this may not do it here; the log and the metrics of the sidecar name the policy";
        Self::refused(Cause::AccessDenied, detail.to_owned())
    }

    /// Decides on a request. `source`: gives the client's address.
    pub fn new(
        snapshot: &'a Snapshot,
        request: &Request<'_>,
        source: impl FnOnce() -> Option<IpAddr>,
    ) -> Self {
        let mut decision = Self::routed(snapshot, request);
        if let Target::Cluster(cluster) = &decision.target {
            decision.affinity = Affinity::of(&cluster.balancer, request, source);
        }
        decision
    }

    fn routed(snapshot: &'a Snapshot, request: &Request<'_>) -> Self {
        if snapshot.routes.is_empty() {
            return Self::to(None, Target::Cluster(Arc::clone(&snapshot.cluster)));
        }
        if request.method == "OPTIONS"
            && let Some(preflight) = Self::preflight(snapshot, request)
        {
            return preflight;
        }
        let Some(found) = snapshot.routes.decide(request) else {
            let service = &snapshot.cluster.service;
            let detail =
                format!("no rule of a Route of {service} matches {} {}", request.method, request.path);
            return Self::refused(Cause::NoRoute, detail);
        };
        let rule = &snapshot.rules[found.rule];
        match &rule.actions {
            None => Self::picked(rule),
            Some(actions) => Self::acted(rule, actions, request, found),
        }
    }

    /// The answer to a preflight request, by the rule that the request which it asks for would fall under.
    fn preflight(snapshot: &'a Snapshot, request: &Request<'_>) -> Option<Self> {
        let answers =
            |rule: &&Rule| rule.actions.as_ref().is_some_and(|actions| actions.answers_preflights());
        snapshot.rules.iter().find(answers)?;
        let method = act::preflight_method(request)?;
        let found = snapshot.routes.decide(&Request { method, ..*request })?;
        let rule = &snapshot.rules[found.rule];
        let answer = rule.actions.as_ref()?.preflight(request)?;
        Some(Self::to(Some(rule), Target::Answer(Box::new(answer))))
    }

    /// Does what the rule does beside sending the request on.
    fn acted(rule: &'a Rule, actions: &act::Actions, request: &Request<'_>, found: Found) -> Self {
        let Ok(acted) = actions.act(request, found, |n| fastrand::u32(0..n)) else {
            let detail = format!("rule {} would write a path or host that none must have", rule.name);
            return Self::to(Some(rule), Target::Refused(Cause::BadRequest, detail));
        };
        let Acted { delay, answer, rewritten, response_headers } = acted;
        let decision = match answer {
            Some(answer) => Self::to(Some(rule), Target::Answer(Box::new(answer))),
            None => Self::picked(rule),
        };
        // CORS comes after what the rule and the backend change.
        let response_headers = response_headers.map(|changes| decision.response_headers().then(&changes));
        Self { rare: Some(Box::new(Rare { delay, rewritten, response_headers })), ..decision }
    }

    /// To one of the rule's backends.
    fn picked(rule: &'a Rule) -> Self {
        match rule.backends.pick(|n| fastrand::u64(0..n)) {
            Some(Backend::Cluster(cluster)) => Self::to(Some(rule), Target::Cluster(Arc::clone(cluster))),
            Some(Backend::Changed(cluster, changes)) => {
                Self { changes: Some(changes), ..Self::to(Some(rule), Target::Cluster(Arc::clone(cluster))) }
            }
            Some(Backend::Missing(name)) => {
                let detail = format!("rule {} sends to {name}, which is no port of a Service", rule.name);
                Self::to(Some(rule), Target::Refused(Cause::BackendNotFound, detail))
            }
            None => {
                let detail = format!("rule {} has no backend with a weight above 0", rule.name);
                Self::to(Some(rule), Target::Refused(Cause::NoBackend, detail))
            }
        }
    }

    /// Changes of the head on the way there.
    pub fn request_headers(&self) -> &'a HeaderChange {
        match (self.changes, self.rule) {
            (Some(changes), _) => &changes.request_headers,
            (None, Some(rule)) => &rule.request_headers,
            (None, None) => &NO_CHANGE,
        }
    }

    /// Changes of the head on the way back.
    fn response_headers(&self) -> &'a HeaderChange {
        match (self.changes, self.rule) {
            (Some(changes), _) => &changes.response_headers,
            (None, Some(rule)) => &rule.response_headers,
            (None, None) => &NO_CHANGE,
        }
    }

    /// How it is sent on, if not as it came.
    pub fn rewritten(&self) -> Option<&Rewritten> {
        self.rare.as_ref()?.rewritten.as_ref()
    }

    /// How long it waits first, as the rule wants it to: no longer than the rule's time limit.
    pub fn delay(&self) -> Option<Duration> {
        let delay = self.rare.as_ref()?.delay?;
        let limit = self.rule.and_then(|rule| rule.timeouts.request).filter(|limit| !limit.is_zero());
        Some(limit.map_or(delay, |limit| delay.min(limit.get())))
    }

    fn policy(&self) -> &'a Policy {
        self.rule.and_then(|rule| rule.retry.as_deref()).unwrap_or(&retry::DEFAULT)
    }

    /// Whether the rule says when it is sent again: then its content is kept, if it is not long.
    pub fn keeps_content(&self) -> bool {
        self.rule.is_some_and(|rule| rule.retry.is_some())
    }

    /// How it is sent to this cluster. `until`: when its time is over, if it says that.
    pub fn terms<'b>(
        &'b self,
        cluster: &'b Cluster,
        destination: &'b Destination,
        direction: Direction,
        (started, until): (Instant, Option<Instant>),
        notes: &'b Notes,
    ) -> Terms<'b> {
        let rare = self.rare.as_ref().and_then(|rare| rare.response_headers.as_ref());
        Terms {
            cluster,
            response_headers: rare.unwrap_or(self.response_headers()),
            timeouts: self.rule.map_or(&NO_LIMIT, |rule| &rule.timeouts),
            affinity: self.affinity,
            policy: self.policy(),
            budget: self.rule.and_then(|rule| rule.budget.as_deref()).unwrap_or(&destination.budget),
            until,
            direction,
            started,
            notes,
        }
    }

    /// The error that was asked for, if the answer is one.
    pub fn cause(&self) -> Option<&'static str> {
        match &self.target {
            Target::Answer(answer) => answer.cause,
            Target::Cluster(_) | Target::Refused(..) => None,
        }
    }

    /// Name of the rule, for metrics.
    pub fn route(&self) -> &'a str {
        self.rule.map_or("", |rule| &rule.name)
    }
}

/// No changes: they were applied already.
pub(super) fn no_change() -> &'static HeaderChange {
    &NO_CHANGE
}
