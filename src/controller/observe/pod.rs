//! Pods, reduced to what encryption needs to know of them.
//!
//! Those of all namespaces are kept: a namespace may be labelled at any time, and a client that does not encrypt is
//! told by its name, wherever it runs. A pod takes one to two kilobytes.

use std::{collections::BTreeMap, net::IpAddr};

use ferrule_config::names::{EXCLUDE_INBOUND_PORTS_ANNOTATION, INJECTED_ANNOTATION, PROXY_CONTAINER};
use kube::core::ObjectMeta;
use serde_json::Value;

/// A pod that has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its addresses, sorted; none before it is on a node.
    pub addresses: Vec<IpAddr>,
    /// Its service account.
    pub account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// It has a sidecar, which may not run yet: nothing else of it can be reached before.
    pub injected: bool,
    /// Its addresses are those of its node.
    pub host_network: bool,
    /// Ports at which its sidecar does not stand, sorted.
    pub bypassed: Vec<u16>,
    /// It is ready, and not about to end.
    pub ready: bool,
    /// Name of what it belongs to: of a Deployment, a StatefulSet, a Job or the like; its own if it stands alone.
    pub workload: String,
}

impl Pod {
    /// Whether it compiles to the same: addresses count where they are told apart from those of sidecars.
    pub(super) fn compiles_like(&self, other: &Self) -> bool {
        let Self { addresses, account, labels, injected, host_network, bypassed, ready: _, workload: _ } =
            self;
        (account, labels, injected, host_network, bypassed)
            == (&other.account, &other.labels, &other.injected, &other.host_network, &other.bypassed)
            && (*injected || *addresses == other.addresses)
    }

    /// Whether it is known by the same addresses as the same one.
    pub(super) fn is_peer_like(&self, other: &Self) -> bool {
        self.compiles_like(other) && self.addresses == other.addresses
    }
}

/// `None` for one that has ended: its address may be another's by now.
pub(super) fn read(metadata: &ObjectMeta, data: &Value) -> Option<Pod> {
    let text = |path: &str| data.pointer(path).and_then(Value::as_str);
    if matches!(text("/status/phase"), Some("Succeeded" | "Failed")) {
        return None;
    }
    let listed = data.pointer("/status/podIPs").and_then(Value::as_array).into_iter().flatten();
    let listed = listed.filter_map(|entry| entry.get("ip").and_then(Value::as_str));
    let mut addresses: Vec<IpAddr> =
        listed.chain(text("/status/podIP")).filter_map(|address| address.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let containers = data.pointer("/spec/initContainers").and_then(Value::as_array).into_iter().flatten();
    let has_proxy = containers
        .filter_map(|container| container.get("name").and_then(Value::as_str))
        .any(|name| name == PROXY_CONTAINER);
    let annotated = metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key(INJECTED_ANNOTATION));
    Some(Pod {
        addresses,
        account: text("/spec/serviceAccountName")
            .filter(|account| !account.is_empty())
            .unwrap_or("default")
            .to_owned(),
        labels: metadata.labels.clone().unwrap_or_default(),
        // The annotation alone may have been copied along with a template.
        injected: annotated && has_proxy,
        host_network: data.pointer("/spec/hostNetwork").and_then(Value::as_bool).unwrap_or_default(),
        bypassed: bypassed(metadata),
        ready: metadata.deletion_timestamp.is_none() && is_ready(data),
        workload: workload(metadata),
    })
}

/// What is no port was refused when the pod was made, and is left out where nobody asked.
fn bypassed(metadata: &ObjectMeta) -> Vec<u16> {
    let annotations = metadata.annotations.as_ref();
    let listed = annotations.and_then(|annotations| annotations.get(EXCLUDE_INBOUND_PORTS_ANNOTATION));
    let mut ports: Vec<u16> = listed
        .iter()
        .flat_map(|ports| ports.split(','))
        .filter_map(|port| port.trim().parse().ok())
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn is_ready(data: &Value) -> bool {
    let conditions = data.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let mut conditions = conditions.map(|condition| (condition.get("type"), condition.get("status")));
    conditions.any(|(kind, status)| {
        kind.and_then(Value::as_str) == Some("Ready") && status.and_then(Value::as_str) == Some("True")
    })
}

/// A ReplicaSet has the name of its Deployment and the hash of the template, which is a label of the pod too.
fn workload(metadata: &ObjectMeta) -> String {
    let mut owners = metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.name.as_str());
    let hash = metadata.labels.as_ref().and_then(|labels| labels.get("pod-template-hash"));
    let name = match (owner, hash) {
        (Some(owner), Some(hash)) => {
            owner.strip_suffix(hash.as_str()).and_then(|name| name.strip_suffix('-')).unwrap_or(owner)
        }
        (Some(owner), None) => owner,
        (None, _) => metadata.name.as_deref().unwrap_or_default(),
    };
    name.to_owned()
}
