//! Objects as they come from the API server or from a file, reduced to what matters.

use std::collections::{BTreeMap, hash_map::DefaultHasher};
use std::hash::{Hash as _, Hasher as _};

use ferrule_config::{access::UnknownAccess, names, peers, shard};
use k8s_openapi::{
    api::{core::v1, rbac::v1::ClusterRoleBinding},
    apimachinery::pkg::apis::meta::v1::Condition,
    jiff::Timestamp,
};
use kube::core::{ApiResource, DynamicObject};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::pod::{self, Pod};
use crate::api::{
    AccessPolicy as AccessPolicyResource, AccessPolicySpec, BalancerPolicy, BalancerPolicySpec,
    CircuitPolicy, CircuitPolicySpec, MeshTLS, MeshTLSSpec, MeshTLSStatus, Route, RouteSpec,
};

/// Kinds of objects that are observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` Namespace.
    Namespace,
    /// `v1` Service.
    Service,
    /// Ferrule's Route.
    Route,
    /// Ferrule's BalancerPolicy.
    BalancerPolicy,
    /// Ferrule's CircuitPolicy.
    CircuitPolicy,
    /// Ferrule's MeshTLS.
    MeshTls,
    /// Ferrule's AccessPolicy.
    AccessPolicy,
    /// `v1` Pod that has not ended.
    Pod,
    /// `v1` ConfigMap that the operator wrote.
    ConfigMap,
    /// The ClusterRoleBinding that lets sidecars read what they need.
    ProxyBinding,
}

impl Kind {
    /// All of them, those first that others refer to.
    pub const ALL: [Self; 10] = [
        Self::Namespace,
        Self::Service,
        Self::Route,
        Self::BalancerPolicy,
        Self::CircuitPolicy,
        Self::MeshTls,
        Self::AccessPolicy,
        Self::Pod,
        Self::ConfigMap,
        Self::ProxyBinding,
    ];

    /// The kind of an object with this `apiVersion` and `kind`, if it is one that is observed.
    #[must_use]
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|this| {
            let resource = this.api_resource();
            resource.api_version == api_version && resource.kind == kind
        })
    }

    /// Group, version, kind and plural.
    #[must_use]
    pub fn api_resource(self) -> ApiResource {
        match self {
            Self::Namespace => ApiResource::erase::<v1::Namespace>(&()),
            Self::Service => ApiResource::erase::<v1::Service>(&()),
            Self::Route => ApiResource::erase::<Route>(&()),
            Self::BalancerPolicy => ApiResource::erase::<BalancerPolicy>(&()),
            Self::CircuitPolicy => ApiResource::erase::<CircuitPolicy>(&()),
            Self::MeshTls => ApiResource::erase::<MeshTLS>(&()),
            Self::AccessPolicy => ApiResource::erase::<AccessPolicyResource>(&()),
            Self::Pod => ApiResource::erase::<v1::Pod>(&()),
            Self::ConfigMap => ApiResource::erase::<v1::ConfigMap>(&()),
            Self::ProxyBinding => ApiResource::erase::<ClusterRoleBinding>(&()),
        }
    }

    /// The word for it in messages, logs and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Service => "Service",
            Self::Route => "Route",
            Self::BalancerPolicy => "BalancerPolicy",
            Self::CircuitPolicy => "CircuitPolicy",
            Self::MeshTls => "MeshTLS",
            Self::AccessPolicy => "AccessPolicy",
            Self::Pod => "Pod",
            Self::ConfigMap => "ConfigMap",
            Self::ProxyBinding => "ClusterRoleBinding",
        }
    }
}

/// Why an object can't be taken in at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It has no name.
    #[error("an object of kind {} has no metadata.name", kind.word())]
    Nameless {
        /// Its kind.
        kind: Kind,
    },
    /// It is not what its kind says.
    #[error("{} {namespace}/{name}: {problem}", kind.word())]
    Malformed {
        /// Its kind.
        kind: Kind,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What is wrong, with the path of the field.
        problem: String,
    },
}

/// An object, reduced.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its namespace; its own name if it is a Namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it says.
    pub body: Body,
}

/// What an object says.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is what its type is")]
pub enum Body {
    Namespace(Namespace),
    Service(Service),
    Route(Box<Resource<RouteSpec>>),
    BalancerPolicy(Box<Resource<BalancerPolicySpec>>),
    CircuitPolicy(Box<Resource<CircuitPolicySpec>>),
    MeshTls(Box<MeshTls>),
    AccessPolicy(Box<AccessPolicy>),
    /// Nothing if it has ended.
    Pod(Option<Box<Pod>>),
    ConfigMap(ConfigMap),
    ProxyBinding(u64),
}

/// A Namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its label asks for injection.
    pub injected: bool,
    /// It is being deleted: nothing can be created there.
    pub terminating: bool,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its ports, in order.
    pub ports: Vec<u16>,
    /// Names of those ports that have one, in order.
    pub port_names: Vec<String>,
    /// It stands for a name outside of the cluster, so it has no endpoints.
    pub external: bool,
    /// Labels of the pods behind it; none if its endpoints are not made from pods.
    pub selector: BTreeMap<String, String>,
}

/// A ConfigMap that the operator wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigMap {
    /// Of the keys that the operator writes; see [`fingerprint`].
    pub fingerprint: u64,
    /// It can't be changed, only deleted.
    pub immutable: bool,
}

/// One of Ferrule's resources.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource<S> {
    /// Tells it from a later object of the same name.
    pub uid: Option<String>,
    /// Number of the specification's version.
    pub generation: i64,
    /// When it was created; of two that contradict each other the older one is right.
    pub created: Option<Timestamp>,
    /// What the user wants, or why it can't be read.
    pub spec: Result<S, String>,
    /// What its status says now.
    pub conditions: Vec<Condition>,
}

/// A MeshTLS. Its status is not only for people: what has taken hold stands there alone.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshTls {
    /// What the user wants.
    pub resource: Resource<MeshTLSSpec>,
    /// What is in force, without the conditions, which the resource has.
    pub status: MeshTLSStatus,
}

/// An AccessPolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessPolicy {
    /// What the user wants.
    pub resource: Resource<AccessPolicySpec>,
    /// If that can't be read: what can, for those whom it was to protect.
    pub unknown: Option<UnknownAccess>,
}

impl MeshTls {
    /// Whether it compiles to the same.
    pub(super) fn compiles_like(&self, other: &Self) -> bool {
        let in_force = |of: &Self| {
            let MeshTLSStatus { mode, ports, selection, conditions: _, .. } = of.status.clone();
            (mode, ports, selection)
        };
        self.resource.compiles_like(&other.resource) && in_force(self) == in_force(other)
    }
}

impl<S: PartialEq> Resource<S> {
    /// Whether it compiles to the same, whatever its status.
    pub(super) fn compiles_like(&self, other: &Self) -> bool {
        let Self { uid, generation, created, spec, conditions: _ } = self;
        (uid, generation, created, spec) == (&other.uid, &other.generation, &other.created, &other.spec)
    }
}

impl Object {
    /// Reads an object of a known kind. A specification of Ferrule's that can't be read is kept with the
    /// reason, so that its status can say so; anything else that is wrong is an error.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(kind: Kind, object: DynamicObject) -> Result<Self, ReadError> {
        let DynamicObject { types: _, metadata, data } = object;
        let name = metadata.name.clone().ok_or(ReadError::Nameless { kind })?;
        let namespace = match kind {
            Kind::Namespace => name.clone(),
            // A file may leave it out, as with kubectl.
            _ if namespaced(kind) => metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
            _ => String::new(),
        };
        let malformed = |problem| ReadError::Malformed {
            kind,
            namespace: namespace.clone(),
            name: name.clone(),
            problem,
        };
        let body = match kind {
            Kind::Namespace => Body::Namespace(Namespace {
                injected: metadata
                    .labels
                    .iter()
                    .flatten()
                    .any(|(key, value)| key == names::INJECT_LABEL && value == "enabled"),
                terminating: metadata.deletion_timestamp.is_some(),
            }),
            Kind::Service => Body::Service(service(&data).map_err(malformed)?),
            Kind::Pod => Body::Pod(pod::read(&metadata, &data).map(Box::new)),
            Kind::ConfigMap => Body::ConfigMap(config_map(&data).map_err(malformed)?),
            Kind::ProxyBinding => Body::ProxyBinding(binding_fingerprint(&data)),
            Kind::Route => Body::Route(Box::new(resource(metadata, &data))),
            Kind::BalancerPolicy => Body::BalancerPolicy(Box::new(resource(metadata, &data))),
            Kind::CircuitPolicy => Body::CircuitPolicy(Box::new(resource(metadata, &data))),
            Kind::AccessPolicy => Body::AccessPolicy(Box::new(access_policy(metadata, &data))),
            Kind::MeshTls => Body::MeshTls(Box::new(MeshTls {
                resource: resource(metadata, &data),
                status: mesh_tls_status(&data),
            })),
        };
        // A binding is looked at by its only name, so it needs none here.
        let name = if kind == Kind::ProxyBinding { String::new() } else { name };
        Ok(Self { namespace, name, body })
    }
}

fn namespaced(kind: Kind) -> bool {
    !matches!(kind, Kind::Namespace | Kind::ProxyBinding)
}

fn service(data: &Value) -> Result<Service, String> {
    let spec: v1::ServiceSpec = part(data, "spec")?;
    let ports = spec.ports.unwrap_or_default();
    Ok(Service {
        external: spec.type_.as_deref() == Some("ExternalName"),
        port_names: ports
            .iter()
            .filter_map(|port| port.name.clone())
            .filter(|name| !name.is_empty())
            .collect(),
        ports: ports.iter().filter_map(|port| u16::try_from(port.port).ok()).collect(),
        selector: spec.selector.unwrap_or_default(),
    })
}

fn config_map(data: &Value) -> Result<ConfigMap, String> {
    let content: BTreeMap<String, String> =
        if data.get("data").is_some() { part(data, "data")? } else { BTreeMap::new() };
    let immutable = data.get("immutable").and_then(Value::as_bool).unwrap_or_default();
    Ok(ConfigMap { fingerprint: fingerprint(&content), immutable })
}

/// Of the subjects and the role of a ClusterRoleBinding.
pub(in crate::controller) fn binding_fingerprint(data: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    for subject in data.get("subjects").and_then(Value::as_array).into_iter().flatten() {
        for key in ["kind", "name", "namespace"] {
            subject.get(key).and_then(Value::as_str).hash(&mut hasher);
        }
    }
    data.pointer("/roleRef/name").and_then(Value::as_str).hash(&mut hasher);
    hasher.finish()
}

/// What [`shard::split`] and [`peers::split`] write; a test compares them.
pub(super) const WRITTEN_KEYS: [&str; 4] = ["mesh.json", "shards", "digest", peers::KEY];

/// Tells whether a ConfigMap holds what was written. Keys that the operator does not write are left out:
/// server-side apply leaves them alone, and a proxy does not read them.
#[must_use]
pub fn fingerprint(data: &shard::Data) -> u64 {
    let mut hasher = DefaultHasher::new();
    for key in WRITTEN_KEYS {
        data.get(key).hash(&mut hasher);
    }
    hasher.finish()
}

fn resource<S: DeserializeOwned>(metadata: kube::core::ObjectMeta, data: &Value) -> Resource<S> {
    let conditions = data.pointer("/status/conditions").and_then(Value::as_array);
    Resource {
        uid: metadata.uid,
        generation: metadata.generation.unwrap_or_default(),
        created: metadata.creation_timestamp.map(|time| time.0),
        spec: part(data, "spec"),
        // A condition that can't be read is nobody's we know; ours are written anew.
        conditions: conditions
            .into_iter()
            .flatten()
            .filter_map(|one| Condition::deserialize(one).ok())
            .collect(),
    }
}

fn access_policy(metadata: kube::core::ObjectMeta, data: &Value) -> AccessPolicy {
    let resource: Resource<AccessPolicySpec> = resource(metadata, data);
    let unknown = resource.spec.as_ref().err();
    let spec = data.get("spec").unwrap_or(&Value::Null);
    let unknown = unknown.map(|problem| UnknownAccess::of(spec, problem.clone()));
    AccessPolicy { resource, unknown }
}

/// Field by field: one that can't be read must not take with it what has taken hold.
fn mesh_tls_status(data: &Value) -> MeshTLSStatus {
    fn field<T: DeserializeOwned>(data: &Value, name: &str) -> Option<T> {
        T::deserialize(data.get("status")?.get(name)?).ok()
    }
    MeshTLSStatus {
        conditions: Vec::new(),
        mode: field(data, "mode"),
        ports: field(data, "ports").unwrap_or_default(),
        selection: field(data, "selection"),
        plaintext_clients: field(data, "plaintextClients").unwrap_or_default(),
        plaintext_client_count: field(data, "plaintextClientCount"),
    }
}

/// A part of an object as a type; the error names the field.
fn part<T: DeserializeOwned>(data: &Value, key: &'static str) -> Result<T, String> {
    let value = data.get(key).ok_or_else(|| format!("{key}: is missing"))?;
    serde_path_to_error::deserialize(value).map_err(|error| match error.path().to_string().as_str() {
        "." => format!("{key}: {}", error.inner()),
        path => format!("{key}.{path}: {}", error.inner()),
    })
}
