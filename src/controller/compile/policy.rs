//! Policies that are stored and not acted on yet; their status says so.

use crate::{
    api::{CircuitPolicySpec, PolicyTarget, PolicyTargetKind},
    controller::observe::{Kind, Observation, Resource},
};

use super::{
    finding::{ConditionType, Finding, Reason, Verdict},
    verdict,
};

/// What the CircuitPolicies of a namespace are told.
pub(super) fn compile(of: &Observation) -> Vec<Verdict> {
    let told = of.circuit_policies.iter().map(|(name, resource)| {
        verdict(Kind::CircuitPolicy, name, resource, findings(resource, |spec| circuit_policy(of, spec)))
    });
    told.collect()
}

fn findings<S>(resource: &Resource<S>, check: impl Fn(&S) -> Result<(), (Reason, String)>) -> Vec<Finding> {
    let checked = match &resource.spec {
        Ok(spec) => check(spec),
        Err(error) => Err((Reason::Invalid, error.clone())),
    };
    let accepted = match checked {
        Ok(()) => Finding::good(
            ConditionType::Accepted,
            Reason::Accepted,
            "It is valid and what it applies to exists",
        ),
        Err((reason, message)) => Finding::bad(ConditionType::Accepted, reason, message),
    };
    let message = "This version of Ferrule does not enforce it yet: traffic flows as if it were not there";
    vec![accepted, Finding::bad(ConditionType::Enforced, Reason::NotImplemented, message)]
}

fn circuit_policy(of: &Observation, spec: &CircuitPolicySpec) -> Result<(), (Reason, String)> {
    let CircuitPolicySpec { target_refs, breaker, bulkhead, ejection, health_check, fallback: _ } = spec;
    let invalid = |message: &str| Err((Reason::Invalid, message.to_owned()));
    if target_refs.is_empty() {
        return invalid("spec.targetRefs: name at least one target");
    }
    if breaker.is_none() && bulkhead.is_none() && ejection.is_none() && health_check.is_none() {
        return invalid("spec: give at least one of breaker, bulkhead, ejection and healthCheck");
    }
    all_found(target_refs.iter().filter_map(|target| policy_target(of, target)))
}

fn policy_target(of: &Observation, target: &PolicyTarget) -> Option<String> {
    let PolicyTarget { group: _, kind, name, section_name } = target;
    match kind {
        PolicyTargetKind::Service => (!of.services.contains_key(name))
            .then(|| format!("Service {name} does not exist in this namespace")),
        PolicyTargetKind::Route => {
            let Some(route) = of.routes.get(name) else {
                return Some(format!("Route {name} does not exist in this namespace"));
            };
            let section = section_name.as_ref()?;
            let rules = route.spec.as_ref().ok().into_iter().flat_map(|spec| &spec.rules);
            let found = rules.filter_map(|rule| rule.name.as_ref()).any(|name| name == section);
            (!found).then(|| format!("Route {name} has no rule named {section}"))
        }
    }
}

fn all_found(missing: impl Iterator<Item = String>) -> Result<(), (Reason, String)> {
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() { Ok(()) } else { Err((Reason::TargetNotFound, missing.join("; "))) }
}
