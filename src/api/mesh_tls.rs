//! `MeshTLS`: whether traffic between pods of the mesh is encrypted.

use std::collections::BTreeMap;

use ferrule_config::Duration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    PodsTarget,
    schema::{self, LABELS_MAX},
    status,
};

/// MeshTLS says whether pods accept only encrypted connections of known identity. Without selector and
/// targetRefs it holds for the whole mesh if it is in the operator's own namespace, and for its namespace
/// elsewhere. What is narrower decides alone: one for pods before one for the namespace before one for the
/// mesh. Of several of the same width the oldest decides, then the first by name; the status of the others says
/// so.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "ferrule.dev",
    version = "v1alpha1",
    kind = "MeshTLS",
    plural = "meshtlses",
    namespaced,
    status = "MeshTLSStatus",
    shortname = "fmtls",
    category = "ferrule",
    derive = "PartialEq",
    doc = "MeshTLS says whether pods accept only encrypted connections of known identity. In the operator's own namespace it holds for the whole mesh; elsewhere for its namespace, or for the pods that it selects.",
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.mode",
        description = "What connections are to be accepted"
    ),
    printcolumn(
        name = "In Force",
        type_ = "string",
        json_path = ".status.mode",
        description = "What connections are accepted"
    ),
    printcolumn(
        name = "Clients",
        type_ = "integer",
        json_path = ".status.plaintextClientCount",
        description = "Clients that came without encryption within the last hour to where Strict is wanted"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status",
        description = "Whether it is valid, its targets exist and no older one decides in its place"
    ),
    printcolumn(
        name = "Enforced",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Enforced\")].status",
        description = "Whether the mesh acts on it"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Enforced\")].reason",
        description = "Why the mesh acts on it or not",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("!has(self.selector) || !has(self.targetRefs) || size(self.targetRefs) == 0",
    "selector: contradicts targetRefs; give one of the two"),
    validation = ("duration(self.quietFor) >= duration('10s') && duration(self.quietFor) <= duration('1h')",
    "quietFor: must be 10s to 1h, for as long as sidecars remember"))]
pub struct MeshTLSSpec {
    /// Pods, of the same namespace, that it applies to. Contradicts targetRefs. Default: the whole namespace, or
    /// the whole mesh in the operator's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<PodSelector>,
    /// Services, of the same namespace, to whose pods it applies; up to 16. It then holds for all that these pods
    /// accept, whichever way it is reached. Contradicts selector. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(
        merge_strategy = ListMerge::Atomic,
        validation = ("self.all(a, self.exists_one(b, a.name == b.name))",
            "targetRefs: each Service may be named once")
    )]
    pub target_refs: Vec<PodsTarget>,
    /// What connections are accepted: Permissive (encrypted and plain ones), Strict (only encrypted ones of
    /// known identity) or Disabled (only plain ones, and none is encrypted). Default: Permissive.
    #[serde(default)]
    pub mode: Mode,
    /// Ports of the container with another mode, each once; up to 64. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["port".into()]),
        validation = ("self.all(a, self.exists_one(b, a.port == b.port))", "ports: each port may be named once")
    )]
    pub ports: Vec<PortMode>,
    /// Lowest version of TLS: "1.2" or "1.3". Default: "1.3".
    #[serde(default)]
    pub min_version: TlsVersion,
    /// For how long no client may have come without encryption before Strict takes hold; 10s to 1h. Until then
    /// Permissive is in force. Default: 1h.
    #[serde(default = "quiet_for")]
    #[schemars(schema_with = "schema::duration")]
    pub quiet_for: Duration,
    /// Whether Strict takes hold at once, though clients that don't encrypt were seen within quietFor, or nobody
    /// knows whether there were any: they are cut off. Otherwise it waits until there are none, and
    /// status.plaintextClients lists them. Once it has taken hold it stays. Default: false.
    #[serde(default)]
    pub force: bool,
}

fn quiet_for() -> Duration {
    MAX_QUIET_FOR
}

/// Shortest [`MeshTLSSpec::quiet_for`].
pub const MIN_QUIET_FOR: Duration = Duration::from_millis(10_000);
/// Longest [`MeshTLSSpec::quiet_for`]: sidecars remember no longer.
pub const MAX_QUIET_FOR: Duration = Duration::from_millis(3_600_000);

/// What the operator says about this object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshTLSStatus {
    /// Conditions of this object, one a type. `Accepted`: it is valid and what it applies to exists. `Enforced`:
    /// what it wants is in force; if Strict waits for clients that don't encrypt, its reason says so:
    /// PlaintextClients, ReportsMissing or Observing. The field `observedGeneration` of each tells which
    /// `metadata.generation` it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "status::conditions")]
    pub conditions: Vec<Condition>,
    /// The mode that is in force. Absent if the object is not in force at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Ports of the container on which another mode is in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMode>,
    /// What mode and ports are about: the selector or the targets, in words. When another is selected, Strict
    /// begins to wait anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<String>,
    /// Clients that came without encryption within the last hour to where Strict is wanted, the last one first;
    /// at most 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plaintext_clients: Vec<PlaintextClient>,
    /// How many there are, those that are not listed included. Absent if Strict is not wanted or nobody was asked
    /// yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plaintext_client_count: Option<u32>,
}

/// Most entries of [`MeshTLSStatus::plaintext_clients`].
pub const MAX_LISTED_CLIENTS: usize = 50;

/// A client that came without encryption.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlaintextClient {
    /// Its address.
    pub address: String,
    /// The pod that has this address, as namespace/name. Absent if none has, or several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Whom it called: namespace and name of a Deployment, StatefulSet or the like, or of the pod.
    pub workload: String,
    /// Port of the container that it connected to.
    pub port: u16,
    /// When it came last.
    pub last_seen: Time,
}

/// Which pods of the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSelector {
    /// Labels that a pod must have, all of them; 1 to 16.
    #[schemars(schema_with = "schema::labels")]
    pub match_labels: BTreeMap<String, String>,
}

/// Most labels of a [`PodSelector`].
pub const MAX_LABELS: usize = LABELS_MAX;

/// What connections are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Encrypted and plain ones.
    #[default]
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
