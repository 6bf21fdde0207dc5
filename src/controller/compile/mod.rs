//! From what was observed to what the proxies read and what the users are told: pure.
//!
//! ```text
//!   Routes           ─parse─▶ valid ones ─by Service─▶ entries in order of precedence ──┐
//!   BalancerPolicies ─parse─▶ valid ones ─by Service and port─▶ the oldest ─────────────┼─▶ Mesh
//!   AccessPolicies   ─parse─▶ all of them ──────────────────────────────────────┬───────┤
//!   MeshTLS          ─parse─▶ valid ones ─by pods─▶ the narrowest, the oldest ──┬───────┤
//!   Pods             ─by Service─▶ who answers, and what they accept of it ◀────┘ ──────┘
//!      │               └── do targets and backends exist, does an older one decide? ──┐
//!      └── what is wrong, and in which field ─────────────────────────────────────────┴──▶ status.conditions
//! ```
//!
//! A namespace depends on nothing outside of itself but the MeshTLS and the AccessPolicies that hold for the whole
//! mesh, and the service accounts that AccessPolicies name, so namespaces are
//! compiled one by one. The result depends on the objects alone, never on the order in which they came.

mod access_policy;
mod act;
mod balancer;
mod balancer_policy;
mod finding;
mod header;
mod mesh_tls;
mod peers;
mod policy;
mod precedence;
mod retry;
mod route;
mod strict;
mod target;

use std::collections::BTreeMap;

use ferrule_config::{
    FORMAT, Mesh,
    peers::{Addresses, Peer},
};

pub use finding::{ConditionType, Finding, Reason, Verdict};
pub use strict::{pods_of, wanting_strict};

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
    let (tls, told) = mesh_tls::compile(observed, namespace, of);
    verdicts.extend(told);
    if injected {
        for (name, peers) in peers::compile(of, &tls) {
            services.entry(name).or_default().peers = Some(peers);
        }
    }
    let (access, told) = access_policy::compile(observed, namespace, of);
    verdicts.extend(told);
    let mesh = Mesh { format: FORMAT, namespace: namespace.to_owned(), services, tls, access };
    Compiled { mesh: Some(mesh), verdicts }
}

/// Compiles every namespace, by name; for those who have no use for the difference, such as a directory of
/// files.
#[must_use]
pub fn compile_all(observed: &Observed) -> BTreeMap<String, Compiled> {
    observed.namespaces().map(|name| (name.to_owned(), compile(observed, name))).collect()
}

/// Who has which address: all pods of the mesh that have a sidecar and an address of their own.
#[must_use]
pub fn compile_peers(observed: &Observed) -> Addresses {
    let mut addresses = Addresses::new();
    for namespace in observed.injected() {
        let Some(of) = observed.namespace(namespace) else { continue };
        let tls = mesh_tls::in_force(observed, namespace, of);
        for pod in of.pods.values().filter(|pod| pod.injected && !pod.host_network) {
            for address in &pod.addresses {
                let peer = Peer {
                    namespace: namespace.to_owned(),
                    account: pod.account.clone(),
                    modes: peers::accepted(&tls, pod),
                };
                addresses.insert(*address, peer);
            }
        }
    }
    addresses
}

fn verdict<S>(kind: Kind, name: &str, resource: &Resource<S>, findings: Vec<Finding>) -> Verdict {
    Verdict {
        kind,
        name: name.to_owned(),
        uid: resource.uid.clone(),
        generation: resource.generation,
        findings,
        mesh_tls: None,
    }
}

#[cfg(test)]
mod tests;
