//! From what was observed to what the proxies read and what the users are told: pure.
//!
//! ```text
//!   Routes           ─parse─▶ valid ones ─by Service─▶ entries in order of precedence ──┐
//!   BalancerPolicies ─parse─▶ valid ones ─by Service and port─▶ the oldest ─────────────┴─▶ Mesh
//!      │               └── do targets and backends exist, does an older one decide? ──┐
//!      └── what is wrong, and in which field ─────────────────────────────────────────┴──▶ status.conditions
//! ```
//!
//! A namespace depends on nothing outside of itself, so namespaces are compiled one by one. The result
//! depends on the objects alone, never on the order in which they came.

mod balancer;
mod balancer_policy;
mod finding;
mod header;
mod policy;
mod precedence;
mod route;
mod target;

use std::collections::BTreeMap;

use ferrule_config::{FORMAT, Mesh};

pub use finding::{ConditionType, Finding, Reason, Verdict};

use super::observe::{Kind, Observed, Resource};

/// What a namespace compiles to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// What its proxies read; none when nobody in it takes part in the mesh.
    pub mesh: Option<Mesh>,
    /// What each of its objects is told, Routes first, by kind and name.
    pub verdicts: Vec<Verdict>,
}

/// Compiles one namespace. One that is not known compiles to nothing.
#[must_use]
pub fn compile(observed: &Observed, namespace: &str) -> Compiled {
    let Some(of) = observed.namespace(namespace) else { return Compiled::default() };
    let injected = observed.is_injected(namespace);
    if !injected && !of.has_resources() {
        return Compiled::default();
    }
    let (mut services, mut verdicts) = route::compile(namespace, of);
    let (balancers, told) = balancer_policy::compile(of);
    for (name, balancers) in balancers {
        services.entry(name).or_default().balancers = balancers;
    }
    verdicts.extend(told);
    verdicts.extend(policy::compile(of));
    let mesh = Mesh { format: FORMAT, namespace: namespace.to_owned(), services, ..Mesh::default() };
    Compiled { mesh: Some(mesh), verdicts }
}

/// Compiles every namespace, by name; for those who have no use for the difference, such as a directory of
/// files.
#[must_use]
pub fn compile_all(observed: &Observed) -> BTreeMap<String, Compiled> {
    observed.namespaces().map(|name| (name.to_owned(), compile(observed, name))).collect()
}

fn verdict<S>(kind: Kind, name: &str, resource: &Resource<S>, findings: Vec<Finding>) -> Verdict {
    Verdict {
        kind,
        name: name.to_owned(),
        uid: resource.uid.clone(),
        generation: resource.generation,
        findings,
    }
}

#[cfg(test)]
mod tests;
