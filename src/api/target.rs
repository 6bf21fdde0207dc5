//! What a resource applies to: `targetRefs`, as in Gateway API's policy attachment (GEP-713).

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{OBJECT_NAME, PORT_NAME, SERVICE_NAME};

/// A Service of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceTarget {
    /// API group of the target. The core group, to which Service belongs, is written as the empty text.
    /// Default: the core group, the only one accepted.
    #[serde(default)]
    pub group: ServiceGroup,
    /// Kind of the target. Default: Service, the only one accepted.
    #[serde(default)]
    pub kind: ServiceKind,
    /// Name of the Service, in the namespace of this object.
    #[schemars(length(min = 1, max = 63), regex(pattern = SERVICE_NAME))]
    pub name: String,
    /// Only for this port of the Service (its `port`, not its `targetPort`). Default: all its ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
}

/// The pods of a Service of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodsTarget {
    /// API group of the target. The core group, to which Service belongs, is written as the empty text.
    /// Default: the core group, the only one accepted.
    #[serde(default)]
    pub group: ServiceGroup,
    /// Kind of the target. Default: Service, the only one accepted.
    #[serde(default)]
    pub kind: ServiceKind,
    /// Name of the Service, in the namespace of this object.
    #[schemars(length(min = 1, max = 63), regex(pattern = SERVICE_NAME))]
    pub name: String,
}

/// The core API group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ServiceGroup {
    /// Written as the empty text.
    #[default]
    #[serde(rename = "")]
    Core,
}

/// Kinds that a Route or a BalancerPolicy can apply to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ServiceKind {
    /// A Kubernetes Service.
    #[default]
    Service,
}

/// A Service of the same namespace, or one of its ports by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortTarget {
    /// API group of the target. The core group, to which Service belongs, is written as the empty text.
    /// Default: the core group, the only one accepted.
    #[serde(default)]
    pub group: ServiceGroup,
    /// Kind of the target. Default: Service, the only one accepted.
    #[serde(default)]
    pub kind: ServiceKind,
    /// Name of the Service, in the namespace of this object.
    #[schemars(length(min = 1, max = 63), regex(pattern = SERVICE_NAME))]
    pub name: String,
    /// Only for the port of this name. Default: all its ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = PORT_NAME))]
    pub section_name: Option<String>,
}

/// A Service or a Route of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = ("!has(self.group) || self.group == (self.kind == 'Route' ? 'ferrule.dev' : '')",
        "group: must be ferrule.dev for kind Route and empty for kind Service; leave it out to get it right"),
    validation = ("!has(self.sectionName) || self.kind == 'Route'",
        "sectionName: names a rule of a Route, so kind must be Route"),
    validation = ("self.kind != 'Service' || size(self.name) <= 63", "name: a Service's name has at most 63 characters")
)]
pub struct PolicyTarget {
    /// API group of the target. Default: the one that the kind belongs to, which is the empty text (the core
    /// group) for Service and ferrule.dev for Route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// Kind of the target: Service or Route. Default: Service.
    #[serde(default)]
    pub kind: PolicyTargetKind,
    /// Name of the target, in the namespace of this object.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub name: String,
    /// Only for the rule of this name; for kind Route. Default: the whole target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = SERVICE_NAME))]
    pub section_name: Option<String>,
}

/// Kinds that a policy can apply to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PolicyTargetKind {
    /// A Kubernetes Service.
    #[default]
    Service,
    /// A Ferrule Route.
    Route,
}
