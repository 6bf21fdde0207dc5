//! What to write so that the cluster holds what was compiled: pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use ferrule_config::{names, peers, shard};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use crate::api::{MeshTLSStatus, mesh_tls::Mode};

use super::{
    compile::{Compiled, ConditionType, Reason, Verdict},
    observe::{Kind, Observation, Observed, fingerprint},
    status,
    writes::{Key, Writes},
};

/// What a namespace's proxies read, as the data of ConfigMaps, and what its objects are told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// With the fingerprint of each.
    shards: Vec<(shard::Data, u64)>,
    verdicts: Vec<Verdict>,
}

impl Desired {
    /// Cuts what was compiled into shards.
    ///
    /// # Errors
    /// [`shard::ShardError::TooLarge`]: then what is in the cluster is better left as it is.
    pub fn new(compiled: Compiled) -> Result<Self, shard::ShardError> {
        let Compiled { mesh, verdicts } = compiled;
        let shards = mesh.as_ref().map(shard::split).transpose()?.unwrap_or_default();
        Ok(Self { shards: with_fingerprints(shards), verdicts })
    }
}

/// What to write to one namespace, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// ConfigMaps that can't be changed and are in the way.
    pub replace: Vec<String>,
    /// ConfigMaps to apply.
    pub apply: Vec<ConfigWrite>,
    /// ConfigMaps to delete.
    pub delete: Vec<String>,
    /// Conditions to apply.
    pub status: Vec<StatusWrite>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { replace, apply, delete, status } = self;
        replace.is_empty() && apply.is_empty() && delete.is_empty() && status.is_empty()
    }
}

/// A ConfigMap to apply.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigWrite {
    /// Its name.
    pub name: String,
    /// Its data.
    pub data: shard::Data,
    /// Of the data.
    pub fingerprint: u64,
}

/// Conditions to apply.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusWrite {
    /// Kind of the object.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its uid, so that the status does not hit a later object of the same name.
    pub uid: Option<String>,
    /// All conditions of the operator.
    pub conditions: Vec<Condition>,
    /// Of a MeshTLS: the rest of its status.
    pub mesh_tls: Option<Box<MeshTLSStatus>>,
    /// Of the conditions without their times.
    pub fingerprint: u64,
    /// What has changed so that the user should hear of it.
    pub notice: Option<Notice>,
}

/// Something that users are told by an Event, once, when it becomes so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether it needs somebody's attention.
    pub warning: bool,
    /// In a word.
    pub reason: String,
    /// In words.
    pub message: String,
}

/// Compares what a namespace should hold with what it holds.
#[must_use]
pub fn plan(
    observed: &Observed,
    namespace: &str,
    desired: &Desired,
    writes: &Writes,
    now: Timestamp,
) -> Plan {
    let Some(of) = observed.namespace(namespace) else { return Plan::default() };
    // In a namespace that goes away, or whose own object has not been seen yet, nothing can be created.
    if of.namespace.is_none_or(|namespace| namespace.terminating) {
        return Plan::default();
    }
    let mut plan = Plan::default();
    plan_configuration(&mut plan, of, namespace, desired, writes);
    plan.status = desired
        .verdicts
        .iter()
        .filter_map(|verdict| status_write(of, namespace, verdict, writes, now))
        .collect();
    plan
}

fn plan_configuration(
    plan: &mut Plan,
    of: &Observation,
    namespace: &str,
    desired: &Desired,
    writes: &Writes,
) {
    plan_config_maps(plan, of, namespace, &desired.shards, shard::name, writes);
    // Readers start with the first shard: it comes last, when those that it names are there.
    plan.apply.reverse();
    let surplus = |name: &&String| shard::index(name).is_some_and(|index| index >= desired.shards.len());
    plan.delete = of.config_maps.keys().filter(surplus).cloned().collect();
}

/// Those that are not as they should be.
fn plan_config_maps(
    plan: &mut Plan,
    of: &Observation,
    namespace: &str,
    wanted: &[(shard::Data, u64)],
    name_of: fn(usize) -> String,
    writes: &Writes,
) {
    for (index, (data, fingerprint)) in wanted.iter().enumerate() {
        let name = name_of(index);
        let held = of.config_maps.get(&name);
        let key = Key { kind: Kind::ConfigMap, namespace: namespace.to_owned(), name: name.clone() };
        if held.is_some_and(|held| held.fingerprint == *fingerprint) || writes.covers(&key, *fingerprint) {
            continue;
        }
        if held.is_some_and(|held| held.immutable) {
            plan.replace.push(name.clone());
        }
        plan.apply.push(ConfigWrite { name, data: data.clone(), fingerprint: *fingerprint });
    }
}

/// Who has which address, as the data of ConfigMaps in the operator's namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DesiredPeers {
    /// With the fingerprint of each.
    shards: Vec<(shard::Data, u64)>,
}

impl DesiredPeers {
    /// Spreads addresses over the ConfigMaps.
    ///
    /// # Errors
    /// [`peers::PeersError::TooLarge`]: then what is in the cluster is better left as it is.
    pub fn new(addresses: &peers::Addresses) -> Result<Self, peers::PeersError> {
        Ok(Self { shards: with_fingerprints(peers::split(addresses)?) })
    }
}

/// Compares who should be known by address with who is.
#[must_use]
pub fn plan_peers(observed: &Observed, desired: &DesiredPeers, writes: &Writes) -> Plan {
    let mut plan = Plan::default();
    let (Some(system), Some(of)) = (observed.system_name(), observed.system()) else { return plan };
    if of.namespace.is_some_and(|namespace| !namespace.terminating) {
        plan_config_maps(&mut plan, of, system, &desired.shards, peers::name, writes);
    }
    plan
}

fn with_fingerprints(shards: Vec<shard::Data>) -> Vec<(shard::Data, u64)> {
    shards
        .into_iter()
        .map(|data| {
            let print = fingerprint(&data);
            (data, print)
        })
        .collect()
}

fn status_write(
    of: &Observation,
    namespace: &str,
    verdict: &Verdict,
    writes: &Writes,
    now: Timestamp,
) -> Option<StatusWrite> {
    let existing: &[Condition] = match verdict.kind {
        Kind::Route => &of.routes.get(&verdict.name)?.conditions,
        Kind::BalancerPolicy => &of.balancer_policies.get(&verdict.name)?.conditions,
        Kind::CircuitPolicy => &of.circuit_policies.get(&verdict.name)?.conditions,
        Kind::MeshTls => &of.mesh_tls.get(&verdict.name)?.resource.conditions,
        Kind::AccessPolicy => &of.access_policies.get(&verdict.name)?.resource.conditions,
        Kind::Namespace | Kind::Service | Kind::Pod | Kind::ConfigMap | Kind::ProxyBinding => return None,
    };
    let conditions = status::merge(existing, verdict, now);
    let rest =
        of.mesh_tls.get(&verdict.name).filter(|_| verdict.kind == Kind::MeshTls).map(|tls| &tls.status);
    let conditions = match conditions {
        Some(conditions) => conditions,
        None if rest == verdict.mesh_tls.as_deref() => return None,
        None => status::kept(existing),
    };
    let fingerprint = verdict_fingerprint(verdict);
    let key = Key { kind: verdict.kind, namespace: namespace.to_owned(), name: verdict.name.clone() };
    if writes.covers(&key, fingerprint) {
        return None;
    }
    let notice = notice(existing, verdict);
    let Verdict { kind, name, uid, mesh_tls, .. } = verdict.clone();
    Some(StatusWrite { kind, name, uid, conditions, mesh_tls, fingerprint, notice })
}

/// That it is refused, that clients keep Strict from taking hold, or that it has taken hold, if it was not so before.
fn notice(existing: &[Condition], verdict: &Verdict) -> Option<Notice> {
    let before = |kind: ConditionType| existing.iter().find(|condition| condition.type_ == kind.as_str());
    let finding = verdict.finding(ConditionType::Accepted)?;
    let was_refused = before(ConditionType::Accepted).is_some_and(|condition| condition.status == "False");
    if !finding.holds && !was_refused {
        return Some(Notice {
            warning: true,
            reason: finding.reason.as_str().to_owned(),
            message: finding.message.clone(),
        });
    }
    let finding = verdict.finding(ConditionType::Enforced)?;
    let reason = before(ConditionType::Enforced).map(|condition| condition.reason.as_str());
    let clients = Reason::PlaintextClients;
    if finding.reason == clients && reason != Some(clients.as_str()) {
        let (reason, message) = (clients.as_str().to_owned(), finding.message.clone());
        return Some(Notice { warning: true, reason, message });
    }
    let waited = [clients, Reason::ReportsMissing, Reason::Observing];
    let waited = waited.into_iter().any(|waited| reason == Some(waited.as_str()));
    let strict = verdict.mesh_tls.as_ref().is_some_and(|status| {
        let strict = |mode: Mode| mode == Mode::Strict;
        status.mode.is_some_and(strict) || status.ports.iter().any(|port| strict(port.mode))
    });
    (finding.holds && waited && strict).then(|| Notice {
        warning: false,
        reason: "StrictTookHold".to_owned(),
        message: "From now on connections that are not encrypted are refused".to_owned(),
    })
}

fn verdict_fingerprint(verdict: &Verdict) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&verdict.uid, verdict.generation, &verdict.findings).hash(&mut hasher);
    // Its times and texts have no hash of their own.
    let mesh_tls = verdict.mesh_tls.as_ref().map(|status| serde_json::to_string(status).unwrap_or_default());
    mesh_tls.hash(&mut hasher);
    hasher.finish()
}

/// The ClusterRoleBinding for sidecars as it should be, if it is not.
#[must_use]
pub fn plan_binding(observed: &Observed, writes: &Writes) -> Option<(serde_json::Value, u64)> {
    let subjects: Vec<_> = observed
        .injected()
        .map(|namespace| {
            serde_json::json!({
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Group",
                "name": format!("system:serviceaccounts:{namespace}"),
            })
        })
        .collect();
    let binding = serde_json::json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": names::PROXY_ROLE, "labels": { MANAGED_BY: MANAGER } },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": names::PROXY_ROLE },
        "subjects": subjects,
    });
    let fingerprint = super::observe::binding_fingerprint(&binding);
    let written = writes.covers(&binding_key(), fingerprint);
    (observed.proxy_binding() != Some(fingerprint) && !written).then_some((binding, fingerprint))
}

/// The key of the binding.
#[must_use]
pub fn binding_key() -> Key {
    Key { kind: Kind::ProxyBinding, namespace: String::new(), name: String::new() }
}

/// Label of what the operator keeps.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub const MANAGER: &str = "ferrule";

#[cfg(test)]
mod tests;
