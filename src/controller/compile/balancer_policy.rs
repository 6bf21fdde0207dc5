//! BalancerPolicies: which one decides on which Service and port.

use std::collections::BTreeMap;

use ferrule_config::{Balancer, PortBalancer};
use k8s_openapi::jiff::Timestamp;

use crate::{
    api::{BalancerPolicySpec, PortTarget},
    controller::observe::{Kind, Observation, Resource},
};

use super::{
    balancer,
    finding::{ConditionType, Finding, Reason, Verdict},
    target, verdict,
};

/// A policy that is sound in itself; whether its targets exist and are its own is another question.
struct Parsed<'a> {
    name: &'a str,
    created: Option<Timestamp>,
    targets: &'a [PortTarget],
    balancer: Balancer,
}

/// By Service and name of the port; no name stands for the whole Service.
type Deciders<'a> = BTreeMap<(&'a str, Option<&'a str>), &'a Parsed<'a>>;

/// What the BalancerPolicies of a namespace make of its Services, and what they are told.
pub(super) fn compile(of: &Observation) -> (BTreeMap<String, Vec<PortBalancer>>, Vec<Verdict>) {
    let parsed: Vec<_> = of.balancer_policies.iter().map(|(name, resource)| parse(name, resource)).collect();
    let mut in_order: Vec<&Parsed<'_>> = parsed.iter().flatten().collect();
    in_order.sort_by_key(|policy| (policy.created, policy.name));
    let deciders = deciders(of, &in_order);
    let verdicts = of
        .balancer_policies
        .iter()
        .zip(&parsed)
        .map(|((name, resource), parsed)| {
            let findings = match parsed {
                Ok(parsed) => judge(of, parsed, &deciders),
                Err(problem) => refused(Reason::Invalid, &format!("{problem}; the policy is not in force")),
            };
            verdict(Kind::BalancerPolicy, name, resource, findings)
        })
        .collect();
    (balancers(&deciders), verdicts)
}

fn parse<'a>(name: &'a str, resource: &'a Resource<BalancerPolicySpec>) -> Result<Parsed<'a>, String> {
    let spec = resource.spec.as_ref().map_err(Clone::clone)?;
    let balancer = balancer::parse(spec).map_err(|error| error.to_string())?;
    Ok(Parsed { name, created: resource.created, targets: &spec.target_refs, balancer })
}

/// The first policy for each target decides.
fn deciders<'a>(of: &Observation, in_order: &[&'a Parsed<'a>]) -> Deciders<'a> {
    let mut deciders = Deciders::new();
    for policy in in_order {
        for target in policy.targets.iter().filter(|target| target::unbalanceable(of, target).is_none()) {
            deciders.entry(key(target)).or_insert(policy);
        }
    }
    deciders
}

fn key(target: &PortTarget) -> (&str, Option<&str>) {
    (&target.name, target.section_name.as_deref())
}

/// Those of ports first, as they come first in the proxy.
fn balancers(deciders: &Deciders<'_>) -> BTreeMap<String, Vec<PortBalancer>> {
    let mut balancers: BTreeMap<String, Vec<PortBalancer>> = BTreeMap::new();
    for ((service, port), policy) in deciders {
        let balancer = policy.balancer.clone();
        let port_name = port.map(str::to_owned);
        balancers.entry((*service).to_owned()).or_default().push(PortBalancer { port_name, balancer });
    }
    for ports in balancers.values_mut() {
        ports.sort_by_key(|port| port.port_name.is_none());
    }
    balancers
}

/// Where the policy is in force, and why it is not where it is not.
fn judge(of: &Observation, policy: &Parsed<'_>, deciders: &Deciders<'_>) -> Vec<Finding> {
    let mut in_force = Vec::new();
    let mut problems: Vec<(Reason, String)> = Vec::new();
    for target in policy.targets {
        if let Some(problem) = target::unbalanceable(of, target) {
            problems.push(problem);
            continue;
        }
        match deciders.get(&key(target)) {
            Some(other) if other.name != policy.name => {
                problems.push((Reason::Conflicted, lost(target, other)));
            }
            _ => in_force.push(title(target)),
        }
    }
    let Some((reason, _)) = problems.first() else {
        return vec![
            Finding::good(ConditionType::Accepted, Reason::Accepted, "The policy is in force"),
            Finding::good(ConditionType::Enforced, Reason::Enforced, "Proxies are told to balance by it"),
        ];
    };
    let problem = problems.iter().map(|(_, problem)| problem.as_str()).collect::<Vec<_>>().join("; ");
    if in_force.is_empty() {
        return refused(*reason, &format!("{problem}; the policy is not in force"));
    }
    let in_force = format!("the policy is in force for {}", in_force.join(", "));
    vec![
        Finding::bad(ConditionType::Accepted, *reason, format!("{problem}; {in_force}")),
        Finding::good(ConditionType::Enforced, Reason::Enforced, format!("In part: {in_force}")),
    ]
}

fn refused(reason: Reason, message: &str) -> Vec<Finding> {
    vec![
        Finding::bad(ConditionType::Accepted, reason, message),
        Finding::bad(ConditionType::Enforced, reason, "It is not in force; the condition Accepted says why"),
    ]
}

fn lost(target: &PortTarget, to: &Parsed<'_>) -> String {
    let (target, other) = (title(target), to.name);
    format!("BalancerPolicy {other} decides on {target}: of several the oldest does, then the first by name")
}

fn title(target: &PortTarget) -> String {
    match key(target) {
        (name, Some(port)) => format!("port {port} of Service {name}"),
        (name, None) => format!("Service {name}"),
    }
}
