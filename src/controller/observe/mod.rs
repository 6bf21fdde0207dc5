//! What the cluster holds, as far as the compiler needs it: stores only, no client, no decision.
//!
//! Objects go in one by one, from a watch or from files, and each answers what it makes stale:
//!
//! ```
//! use ferrule::controller::observe::{Kind, Observed, Object, Need, Scope};
//! use serde_json::json;
//!
//! let mut observed = Observed::default();
//! let service = serde_json::from_value(json!({
//!     "apiVersion": "v1", "kind": "Service",
//!     "metadata": { "name": "cart", "namespace": "shop" },
//!     "spec": { "ports": [{ "port": 80 }] },
//! }))?;
//! let stale = observed.apply(Object::read(Kind::Service, service)?);
//! assert_eq!(stale, [(Scope::Namespace("shop".into()), Need::Compile)]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod object;
mod pod;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ferrule_config::peers;

pub(super) use object::binding_fingerprint;
pub use object::{
    AccessPolicy, Body, ConfigMap, Kind, MeshTls, Namespace, Object, ReadError, Resource, Service,
    fingerprint,
};
pub use pod::Pod;

use super::ratchet::{Key, Progress};
use crate::api::{BalancerPolicySpec, CircuitPolicySpec, RouteSpec};

/// A piece of the cluster that is compiled and applied independently of the others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// One namespace: its ConfigMaps and the status of its objects.
    Namespace(String),
    /// Who has which address, in the whole mesh.
    Peers,
    /// The ClusterRoleBinding that lets sidecars read what they need.
    ProxyBinding,
}

/// What a change asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// What is compiled is still right; compare it with what the cluster holds.
    Compare,
    /// Compile anew, then compare.
    Compile,
}

/// What a change makes stale.
pub type Stale = Vec<(Scope, Need)>;

/// Everything of one namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// The Namespace itself, once it was seen.
    pub namespace: Option<Namespace>,
    /// By name.
    pub services: BTreeMap<String, Service>,
    /// By name.
    pub routes: BTreeMap<String, Resource<RouteSpec>>,
    /// By name.
    pub balancer_policies: BTreeMap<String, Resource<BalancerPolicySpec>>,
    /// By name.
    pub circuit_policies: BTreeMap<String, Resource<CircuitPolicySpec>>,
    /// By name.
    pub mesh_tls: BTreeMap<String, MeshTls>,
    /// By name.
    pub access_policies: BTreeMap<String, AccessPolicy>,
    /// Those that have not ended, by name.
    pub pods: BTreeMap<String, Pod>,
    /// The ConfigMaps that the operator wrote, by name.
    pub config_maps: BTreeMap<String, ConfigMap>,
}

impl Observation {
    /// Whether it holds any of Ferrule's resources.
    #[must_use]
    pub fn has_resources(&self) -> bool {
        !(self.routes.is_empty()
            && self.balancer_policies.is_empty()
            && self.circuit_policies.is_empty()
            && self.mesh_tls.is_empty()
            && self.access_policies.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.namespace.is_none()
            && self.services.is_empty()
            && self.pods.is_empty()
            && self.config_maps.is_empty()
            && !self.has_resources()
    }
}

/// Everything that was observed.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    namespaces: BTreeMap<String, Observation>,
    proxy_binding: Option<u64>,
    never_injected: BTreeSet<String>,
    /// The operator's own namespace.
    system: Option<String>,
    /// There are no sidecars to ask who would be shut out.
    strict_at_once: bool,
    /// What sidecars were heard to say about each MeshTLS that wants Strict.
    progress: BTreeMap<Key, Progress>,
}

impl Observed {
    /// An empty one in which these namespaces do not count as injected, whatever their labels say.
    #[must_use]
    pub fn without_injection_in(namespaces: impl IntoIterator<Item = String>) -> Self {
        Self { never_injected: namespaces.into_iter().collect(), ..Self::default() }
    }

    /// The same, of an operator that lives in this namespace: what holds for the whole mesh stands there.
    #[must_use]
    pub fn with_system(self, namespace: impl Into<String>) -> Self {
        Self { system: Some(namespace.into()), ..self }
    }

    /// The same, with nobody to ask who comes without encryption: Strict takes hold at once.
    #[must_use]
    pub fn with_strict_at_once(self) -> Self {
        Self { strict_at_once: true, ..self }
    }

    /// Whether Strict takes hold at once.
    #[must_use]
    pub fn is_strict_at_once(&self) -> bool {
        self.strict_at_once
    }

    /// What is in the operator's own namespace, if anything is.
    #[must_use]
    pub fn system(&self) -> Option<&Observation> {
        self.namespaces.get(self.system.as_deref()?)
    }

    /// Name of the operator's own namespace, if that is known.
    #[must_use]
    pub fn system_name(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// Whether this is the operator's own namespace.
    #[must_use]
    pub fn is_system(&self, name: &str) -> bool {
        self.system.as_deref() == Some(name)
    }

    /// What is in a namespace, if anything is.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Observation> {
        self.namespaces.get(name)
    }

    /// The same, with the name as it is kept.
    #[must_use]
    pub fn namespace_and_name(&self, name: &str) -> Option<(&str, &Observation)> {
        self.namespaces.get_key_value(name).map(|(name, of)| (name.as_str(), of))
    }

    /// Names of all namespaces that hold anything.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.keys().map(String::as_str)
    }

    /// Whether pods of a namespace get sidecars.
    #[must_use]
    pub fn is_injected(&self, name: &str) -> bool {
        !self.never_injected.contains(name)
            && self
                .namespaces
                .get(name)
                .and_then(|of| of.namespace)
                .is_some_and(|namespace| namespace.injected)
    }

    /// Namespaces whose pods get sidecars, in order.
    pub fn injected(&self) -> impl Iterator<Item = &str> {
        self.namespaces().filter(|name| self.is_injected(name))
    }

    /// Fingerprint of the ClusterRoleBinding for sidecars, if there is one.
    #[must_use]
    pub fn proxy_binding(&self) -> Option<u64> {
        self.proxy_binding
    }

    /// How many objects of a kind there are.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        let all = self.namespaces.values();
        match kind {
            Kind::Namespace => all.filter(|of| of.namespace.is_some()).count(),
            Kind::Service => all.map(|of| of.services.len()).sum(),
            Kind::Route => all.map(|of| of.routes.len()).sum(),
            Kind::BalancerPolicy => all.map(|of| of.balancer_policies.len()).sum(),
            Kind::CircuitPolicy => all.map(|of| of.circuit_policies.len()).sum(),
            Kind::MeshTls => all.map(|of| of.mesh_tls.len()).sum(),
            Kind::AccessPolicy => all.map(|of| of.access_policies.len()).sum(),
            Kind::Pod => all.map(|of| of.pods.len()).sum(),
            Kind::ConfigMap => all.map(|of| of.config_maps.len()).sum(),
            Kind::ProxyBinding => usize::from(self.proxy_binding.is_some()),
        }
    }

    /// Takes in a new or changed object.
    pub fn apply(&mut self, object: Object) -> Stale {
        let Object { namespace, name, body } = object;
        if let Body::Pod(pod) = body {
            return match pod {
                Some(pod) => self.apply_pod(namespace, name, *pod),
                None => self.delete(Kind::Pod, &namespace, &name),
            };
        }
        if let Body::ProxyBinding(fingerprint) = body {
            let changed = self.proxy_binding.replace(fingerprint) != Some(fingerprint);
            return if changed { vec![(Scope::ProxyBinding, Need::Compare)] } else { Stale::new() };
        }
        let of = self.namespaces.entry(namespace.clone()).or_default();
        let need = match body {
            Body::Namespace(new) => {
                let old = of.namespace.replace(new);
                if old == Some(new) {
                    return Stale::new();
                }
                return vec![
                    (Scope::Namespace(namespace), Need::Compile),
                    (Scope::Peers, Need::Compile),
                    (Scope::ProxyBinding, Need::Compare),
                ];
            }
            Body::Service(new) => {
                let need = store(&mut of.services, name, new);
                // A MeshTLS may stand on its selector.
                if need.is_some() && !of.mesh_tls.is_empty() {
                    return vec![(Scope::Namespace(namespace), Need::Compile), (Scope::Peers, Need::Compile)];
                }
                need
            }
            Body::ConfigMap(new) => {
                let scope = config_map_scope(self.system.as_deref(), &namespace, &name);
                let need = store(&mut of.config_maps, name, new).map(|_| Need::Compare);
                return need.map(|need| (scope, need)).into_iter().collect();
            }
            Body::Route(new) => store_resource(&mut of.routes, name, *new),
            Body::BalancerPolicy(new) => store_resource(&mut of.balancer_policies, name, *new),
            Body::CircuitPolicy(new) => store_resource(&mut of.circuit_policies, name, *new),
            Body::MeshTls(new) => {
                let need = store_mesh_tls(&mut of.mesh_tls, name, *new);
                if need == Some(Need::Compile) {
                    return self.after_mesh_tls(&namespace);
                }
                need
            }
            Body::AccessPolicy(new) => {
                let need = store_access_policy(&mut of.access_policies, name, *new);
                if need == Some(Need::Compile) {
                    return self.after_access_policy(&namespace);
                }
                need
            }
            Body::Pod(_) | Body::ProxyBinding(_) => None,
        };
        need.map(|need| (Scope::Namespace(namespace), need)).into_iter().collect()
    }

    /// Takes in how a MeshTLS stands with those who don't encrypt; `None` if that is no question any more.
    pub fn tell_progress(&mut self, key: Key, progress: Option<Progress>) -> Stale {
        let namespace = key.namespace.clone();
        let before = match progress.clone() {
            Some(progress) => self.progress.insert(key, progress),
            None => self.progress.remove(&key),
        };
        if before == progress { Stale::new() } else { vec![(Scope::Namespace(namespace), Need::Compile)] }
    }

    /// How a MeshTLS stands with those who don't encrypt, if sidecars were asked.
    #[must_use]
    pub fn progress(&self, namespace: &str, name: &str) -> Option<&Progress> {
        self.progress.get(&Key { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// Forgets what sidecars were heard to say.
    pub fn forget_progress(&mut self) {
        self.progress.clear();
    }

    /// Which pods have these addresses, as `namespace/name`. One that several have, such as a node's, is nobody's.
    #[must_use]
    pub fn pods_at(&self, addresses: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, String> {
        let mut found: BTreeMap<IpAddr, Option<String>> = BTreeMap::new();
        if addresses.is_empty() {
            return BTreeMap::new();
        }
        for (namespace, of) in &self.namespaces {
            for (name, pod) in &of.pods {
                for address in pod.addresses.iter().filter(|address| addresses.contains(address)) {
                    let this = (!pod.host_network).then(|| format!("{namespace}/{name}"));
                    found.entry(*address).and_modify(|one| *one = None).or_insert(this);
                }
            }
        }
        found.into_iter().filter_map(|(address, pod)| Some((address, pod?))).collect()
    }

    /// A namespace without sidecars has nothing to compile pods to.
    fn apply_pod(&mut self, namespace: String, name: String, new: Pod) -> Stale {
        let injected = self.is_injected(&namespace);
        let (account, counts) = (new.account.clone(), new.injected);
        let had_account = self.has_account(&namespace, &account);
        let pods = &mut self.namespaces.entry(namespace.clone()).or_default().pods;
        let old = pods.insert(name.clone(), new);
        let new = &pods[&name];
        let same = old.as_ref().is_some_and(|old| old.compiles_like(new));
        let same_peer = old.as_ref().is_some_and(|old| old.is_peer_like(new))
            || !new.injected && old.is_none_or(|old| !old.injected);
        let mut stale = Stale::new();
        if counts && !had_account {
            stale.extend(self.after_account(&namespace, &account));
        }
        if injected && !same {
            stale.push((Scope::Namespace(namespace), Need::Compile));
        }
        if injected && !same_peer {
            stale.push((Scope::Peers, Need::Compile));
        }
        stale
    }

    /// One of this namespace has changed; those of the operator's hold for the whole mesh.
    fn after_mesh_tls(&self, namespace: &str) -> Stale {
        let mut names = BTreeSet::from([namespace]);
        if self.is_system(namespace) {
            names.extend(self.namespaces());
        }
        let mut stale: Stale =
            names.into_iter().map(|name| (Scope::Namespace(name.to_owned()), Need::Compile)).collect();
        stale.push((Scope::Peers, Need::Compile));
        stale
    }

    /// The same of an AccessPolicy.
    fn after_access_policy(&self, namespace: &str) -> Stale {
        let mut stale = self.after_mesh_tls(namespace);
        stale.retain(|(scope, _)| *scope != Scope::Peers);
        stale
    }

    /// Whether pods with a sidecar run under this service account.
    #[must_use]
    pub fn has_account(&self, namespace: &str, account: &str) -> bool {
        let pods = self.namespaces.get(namespace).map(|of| &of.pods);
        pods.is_some_and(|pods| pods.values().any(|pod| pod.injected && pod.account == account))
    }

    /// Namespaces whose policies name this service account, when the first pod has come under it, or the last has gone.
    fn after_account(&self, namespace: &str, account: &str) -> Stale {
        let whole = format!("{namespace}/{account}");
        let naming = self.namespaces.iter().filter(|(_, of)| {
            let specs = of.access_policies.values().filter_map(|policy| policy.resource.spec.as_ref().ok());
            specs.into_iter().any(|spec| spec.accounts().any(|named| named == whole))
        });
        naming.map(|(name, _)| (Scope::Namespace(name.clone()), Need::Compile)).collect()
    }

    /// Takes out an object.
    pub fn delete(&mut self, kind: Kind, namespace: &str, name: &str) -> Stale {
        if kind == Kind::ProxyBinding {
            let was = self.proxy_binding.take();
            return was.map(|_| (Scope::ProxyBinding, Need::Compare)).into_iter().collect();
        }
        let injected = self.is_injected(namespace);
        let pod =
            self.namespaces.get(namespace).and_then(|of| of.pods.get(name)).filter(|_| kind == Kind::Pod);
        let account = pod.filter(|pod| pod.injected).map(|pod| pod.account.clone());
        let Some(of) = self.namespaces.get_mut(namespace) else { return Stale::new() };
        let (was, need) = match kind {
            Kind::Namespace => (of.namespace.take().is_some(), Need::Compile),
            Kind::Service => (of.services.remove(name).is_some(), Need::Compile),
            Kind::Route => (of.routes.remove(name).is_some(), Need::Compile),
            Kind::BalancerPolicy => (of.balancer_policies.remove(name).is_some(), Need::Compile),
            Kind::CircuitPolicy => (of.circuit_policies.remove(name).is_some(), Need::Compile),
            Kind::MeshTls => (of.mesh_tls.remove(name).is_some(), Need::Compile),
            Kind::AccessPolicy => (of.access_policies.remove(name).is_some(), Need::Compile),
            Kind::Pod => (of.pods.remove(name).is_some() && injected, Need::Compile),
            Kind::ConfigMap => (of.config_maps.remove(name).is_some(), Need::Compare),
            Kind::ProxyBinding => (false, Need::Compare),
        };
        if of.is_empty() {
            self.namespaces.remove(namespace);
        }
        if !was {
            return Stale::new();
        }
        let this = (Scope::Namespace(namespace.to_owned()), need);
        match kind {
            Kind::MeshTls => self.after_mesh_tls(namespace),
            Kind::AccessPolicy => self.after_access_policy(namespace),
            Kind::ConfigMap => vec![(config_map_scope(self.system.as_deref(), namespace, name), need)],
            Kind::Namespace => {
                vec![this, (Scope::Peers, Need::Compile), (Scope::ProxyBinding, Need::Compare)]
            }
            Kind::Pod | Kind::Service => {
                let mut stale = vec![this, (Scope::Peers, Need::Compile)];
                let gone = account.filter(|account| !self.has_account(namespace, account));
                stale.extend(gone.into_iter().flat_map(|account| self.after_account(namespace, &account)));
                stale
            }
            _ => vec![this],
        }
    }

    /// Takes in the whole of a kind: what is not among the objects is gone.
    pub fn replace(&mut self, kind: Kind, objects: Vec<Object>) -> Stale {
        let present: BTreeSet<(String, String)> =
            objects.iter().map(|object| (object.namespace.clone(), object.name.clone())).collect();
        let gone: Vec<_> = self.names(kind).into_iter().filter(|name| !present.contains(name)).collect();
        let mut stale = Stale::new();
        for (namespace, name) in gone {
            stale.extend(self.delete(kind, &namespace, &name));
        }
        for object in objects {
            stale.extend(self.apply(object));
        }
        stale
    }

    /// Namespace and name of every object of a kind.
    fn names(&self, kind: Kind) -> Vec<(String, String)> {
        fn keys<T>(namespace: &str, map: &BTreeMap<String, T>) -> Vec<(String, String)> {
            map.keys().map(|name| (namespace.to_owned(), name.clone())).collect()
        }
        if kind == Kind::ProxyBinding {
            return self.proxy_binding.map(|_| (String::new(), String::new())).into_iter().collect();
        }
        let of_namespace = |(namespace, of): (&String, &Observation)| match kind {
            Kind::Namespace => {
                of.namespace.map(|_| (namespace.clone(), namespace.clone())).into_iter().collect()
            }
            Kind::Service => keys(namespace, &of.services),
            Kind::Route => keys(namespace, &of.routes),
            Kind::BalancerPolicy => keys(namespace, &of.balancer_policies),
            Kind::CircuitPolicy => keys(namespace, &of.circuit_policies),
            Kind::MeshTls => keys(namespace, &of.mesh_tls),
            Kind::AccessPolicy => keys(namespace, &of.access_policies),
            Kind::Pod => keys(namespace, &of.pods),
            Kind::ConfigMap => keys(namespace, &of.config_maps),
            Kind::ProxyBinding => Vec::new(),
        };
        self.namespaces.iter().flat_map(of_namespace).collect()
    }
}

fn config_map_scope(system: Option<&str>, namespace: &str, name: &str) -> Scope {
    let of_peers = system == Some(namespace) && peers::index(name).is_some();
    if of_peers { Scope::Peers } else { Scope::Namespace(namespace.to_owned()) }
}

fn store<T: PartialEq>(map: &mut BTreeMap<String, T>, name: String, new: T) -> Option<Need> {
    let changed = map.get(&name) != Some(&new);
    map.insert(name, new);
    changed.then_some(Need::Compile)
}

/// A status alone does not change what is compiled; it may be the echo of our own, or someone else's edit.
fn store_resource<S: PartialEq>(
    map: &mut BTreeMap<String, Resource<S>>,
    name: String,
    new: Resource<S>,
) -> Option<Need> {
    let need = match map.get(&name) {
        Some(old) if !old.compiles_like(&new) => Some(Need::Compile),
        Some(old) => (old.conditions != new.conditions).then_some(Need::Compare),
        None => Some(Need::Compile),
    };
    map.insert(name, new);
    need
}

/// As [`store_resource`]; what its status says of the mode in force is compiled too.
fn store_mesh_tls(map: &mut BTreeMap<String, MeshTls>, name: String, new: MeshTls) -> Option<Need> {
    let need = match map.get(&name) {
        Some(old) if !old.compiles_like(&new) => Some(Need::Compile),
        Some(old) => (*old != new).then_some(Need::Compare),
        None => Some(Need::Compile),
    };
    map.insert(name, new);
    need
}

/// As [`store_resource`].
fn store_access_policy(
    map: &mut BTreeMap<String, AccessPolicy>,
    name: String,
    new: AccessPolicy,
) -> Option<Need> {
    let need = match map.get(&name) {
        Some(old) if !old.resource.compiles_like(&new.resource) || old.unknown != new.unknown => {
            Some(Need::Compile)
        }
        Some(old) => (old.resource.conditions != new.resource.conditions).then_some(Need::Compare),
        None => Some(Need::Compile),
    };
    map.insert(name, new);
    need
}

#[cfg(test)]
mod tests;
