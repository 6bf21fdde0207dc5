//! `MeshTLS`: whether traffic between pods of the mesh is encrypted.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ServiceTarget, Status};

/// MeshTLS says whether pods accept only encrypted connections of known identity. In the operator's own
/// namespace it holds for the whole mesh; elsewhere for its namespace, or for the Services that it names. The
/// narrower one decides.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "ferrule.dev",
    version = "v1alpha1",
    kind = "MeshTLS",
    plural = "meshtlses",
    namespaced,
    status = "Status",
    shortname = "fmtls",
    category = "ferrule",
    derive = "PartialEq",
    doc = "MeshTLS says whether pods accept only encrypted connections of known identity. In the operator's own namespace it holds for the whole mesh; elsewhere for its namespace, or for the Services that it names. This version of Ferrule stores it and does not enforce it yet; see the condition Enforced.",
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.mode",
        description = "What connections are accepted"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status",
        description = "Whether it is valid and its targets exist"
    ),
    printcolumn(
        name = "Enforced",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Enforced\")].status",
        description = "Whether the mesh acts on it"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshTLSSpec {
    /// Services, of the same namespace, that it applies to; up to 16. Default: the whole namespace, or the
    /// whole mesh in the operator's own namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub target_refs: Vec<ServiceTarget>,
    /// What connections are accepted: Permissive (encrypted and plain ones), Strict (only encrypted ones of
    /// known identity) or Disabled (only plain ones, and none is encrypted).
    pub mode: Mode,
    /// Ports of the pod with another mode; up to 64. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["port".into()]))]
    pub ports: Vec<PortMode>,
    /// Lowest version of TLS: "1.2" or "1.3". Default: "1.3".
    #[serde(default)]
    pub min_version: TlsVersion,
}

/// What connections are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Encrypted and plain ones.
    Permissive,
    /// Only encrypted ones of known identity.
    Strict,
    /// Only plain ones, and none is encrypted.
    Disabled,
}

/// The mode of one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortMode {
    /// Port that the container listens on.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// What connections are accepted there: Permissive, Strict or Disabled.
    pub mode: Mode,
}

/// Version of TLS.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum TlsVersion {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    V1_2,
    /// RFC 8446.
    #[default]
    #[serde(rename = "1.3")]
    V1_3,
}
