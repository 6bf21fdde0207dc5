//! Where a request goes: the rule that it falls under, and one of its backends. Pure but for chance.

use std::{net::IpAddr, sync::Arc, time::Instant};

use ferrule_config::{HeaderChange, Timeouts};

use super::attempts::Terms;
use crate::{
    balance::Affinity,
    cause::Cause,
    direction::Direction,
    route::Request,
    snapshot::{Backend, Cluster, Destination, Rule, Snapshot},
    telemetry::Notes,
};

static NO_CHANGE: HeaderChange = HeaderChange { set: Vec::new(), add: Vec::new(), remove: Vec::new() };
static NO_LIMIT: Timeouts = Timeouts { request: None, backend_request: None };

/// What was decided on a request.
pub(super) struct Decision<'a> {
    /// The rule that it falls under; none if the Service has no Route, or none that matches.
    rule: Option<&'a Rule>,
    /// Where it goes, or why it goes nowhere.
    pub target: Result<Arc<Cluster>, (Cause, String)>,
    affinity: Affinity,
}

impl<'a> Decision<'a> {
    /// Of a request that is answered without being looked at.
    pub fn refused(cause: Cause, detail: String) -> Self {
        Self { rule: None, target: Err((cause, detail)), affinity: Affinity::default() }
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
        let decision = Self::routed(snapshot, request);
        let Ok(cluster) = &decision.target else { return decision };
        Self { affinity: Affinity::of(&cluster.balancer, request, source), ..decision }
    }

    fn routed(snapshot: &'a Snapshot, request: &Request<'_>) -> Self {
        let affinity = Affinity::default();
        if snapshot.routes.is_empty() {
            return Self { rule: None, target: Ok(Arc::clone(&snapshot.cluster)), affinity };
        }
        let Some(found) = snapshot.routes.decide(request) else {
            let service = &snapshot.cluster.service;
            let detail =
                format!("no rule of a Route of {service} matches {} {}", request.method, request.path);
            return Self::refused(Cause::NoRoute, detail);
        };
        let rule = &snapshot.rules[found.rule];
        let target = match rule.backends.pick(|n| fastrand::u64(0..n)) {
            Some(Backend::Cluster(cluster)) => Ok(Arc::clone(cluster)),
            Some(Backend::Missing(name)) => {
                let detail = format!("rule {} sends to {name}, which is no port of a Service", rule.name);
                Err((Cause::BackendNotFound, detail))
            }
            None => {
                Err((Cause::NoBackend, format!("rule {} has no backend with a weight above 0", rule.name)))
            }
        };
        Self { rule: Some(rule), target, affinity }
    }

    /// Changes of the head on the way there.
    pub fn request_headers(&self) -> &'a HeaderChange {
        self.rule.map_or(&NO_CHANGE, |rule| &rule.request_headers)
    }

    /// How it is sent to this cluster.
    pub fn terms(
        &self,
        cluster: &'a Cluster,
        destination: &'a Destination,
        direction: Direction,
        started: Instant,
        notes: &'a Notes,
    ) -> Terms<'a> {
        Terms {
            cluster,
            response_headers: self.rule.map_or(&NO_CHANGE, |rule| &rule.response_headers),
            timeouts: self.rule.map_or(&NO_LIMIT, |rule| &rule.timeouts),
            affinity: self.affinity,
            budget: &destination.budget,
            direction,
            started,
            notes,
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
