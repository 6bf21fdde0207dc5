//! The Kubernetes objects that the proxy reads, as far as it reads them: what is not here is not kept.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Namespace.
    pub namespace: String,
    /// Name within it.
    pub name: String,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `metadata` of any object.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Name.
    pub name: String,
    /// Namespace; `default` when a file leaves it out.
    pub namespace: String,
    /// Version, for watches.
    pub resource_version: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Metadata {
    /// Namespace and name.
    #[must_use]
    pub fn full_name(&self) -> Name {
        let namespace = if self.namespace.is_empty() { "default" } else { &self.namespace };
        Name { namespace: namespace.to_owned(), name: self.name.clone() }
    }
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Metadata.
    pub metadata: Metadata,
    /// Specification.
    pub spec: ServiceSpec,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// Primary address; `None` as text for headless ones.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// All addresses, one of each family.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// `ClientIP`: a client's connections are to go to one endpoint.
    pub session_affinity: Option<String>,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Name; empty when there is only one.
    pub name: String,
    /// Number.
    pub port: u16,
    /// `TCP` when absent.
    pub protocol: Option<String>,
    /// What it speaks.
    pub app_protocol: Option<String>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// Metadata.
    pub metadata: Metadata,
    /// Endpoints.
    #[serde(deserialize_with = "nullable")]
    pub endpoints: Vec<Endpoint>,
    /// Ports that they all have.
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<EndpointPort>,
}

impl EndpointSlice {
    /// Label that names the Service of a slice.
    pub const SERVICE: &str = "kubernetes.io/service-name";

    /// The Service that it belongs to.
    #[must_use]
    pub fn service(&self) -> Option<Name> {
        let name = self.metadata.labels.get(Self::SERVICE)?;
        Some(Name { name: name.clone(), ..self.metadata.full_name() })
    }
}

/// An endpoint of a slice.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Addresses; only the first counts, the others are the same endpoint.
    pub addresses: Vec<String>,
    /// Whether it can be used.
    pub conditions: Conditions,
    /// Host name of its pod, if that has one.
    pub hostname: Option<String>,
    /// What it is: a pod, as a rule.
    pub target_ref: Option<TargetRef>,
    /// Name of its node.
    pub node_name: Option<String>,
    /// Zone of its node.
    pub zone: Option<String>,
    /// Whose clients should use it.
    pub hints: Option<Hints>,
}

/// The object that an endpoint stands for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Whose clients should use an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hints {
    /// Those of these zones.
    #[serde(deserialize_with = "nullable")]
    pub for_zones: Vec<Hint>,
    /// Those of these nodes.
    #[serde(deserialize_with = "nullable")]
    pub for_nodes: Vec<Hint>,
}

/// A zone or a node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Hint {
    /// Its name.
    pub name: String,
}

/// Whether an endpoint can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Takes traffic; absent means yes.
    pub ready: Option<bool>,
    /// Would take traffic were it not ending; absent means as `ready`.
    pub serving: Option<bool>,
    /// Is ending.
    pub terminating: Option<bool>,
}

/// A port of a slice.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// Name of the Service's port.
    pub name: Option<String>,
    /// Number at the endpoint.
    pub port: Option<u16>,
    /// `TCP` when absent.
    pub protocol: Option<String>,
}

/// A ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ConfigMap {
    /// Metadata.
    pub metadata: Metadata,
    /// Data.
    pub data: BTreeMap<String, String>,
}

/// The API writes `null` for an empty list here.
fn nullable<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Option::<Vec<T>>::deserialize(deserializer).map(Option::unwrap_or_default)
}
