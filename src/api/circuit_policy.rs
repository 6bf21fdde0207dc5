//! `CircuitPolicy`: when to stop sending to a Service that fails.

use ferrule_config::Duration;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    Percent, PolicyTarget, Status,
    schema::{self, HEADER_VALUE, PATH, SERVICE_NAME, TOKEN},
};

/// A CircuitPolicy protects a Service, or the requests of a Route, from overload and from its own failures:
/// each client's proxy counts for itself.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "ferrule.dev",
    version = "v1alpha1",
    kind = "CircuitPolicy",
    plural = "circuitpolicies",
    namespaced,
    status = "Status",
    shortname = "fcp",
    category = "ferrule",
    derive = "PartialEq",
    doc = "A CircuitPolicy protects a Service, or the requests of a Route, from overload and from its own failures. This version of Ferrule stores it and does not enforce it yet; see the condition Enforced.",
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".spec.targetRefs[*].name",
        description = "The first of what it applies to"
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
#[x_kube(validation = (
    "has(self.breaker) || has(self.bulkhead) || has(self.ejection) || has(self.healthCheck)",
    "spec: give at least one of breaker, bulkhead, ejection and healthCheck"
))]
pub struct CircuitPolicySpec {
    /// Services, Routes or rules of Routes, of the same namespace, that it applies to; 1 to 16. What is
    /// narrower decides: a rule before its Route, a Route before its Service.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(
        merge_strategy = ListMerge::Atomic,
        validation = ("self.all(a, self.exists_one(b, a.kind == b.kind && a.name == b.name && (has(a.sectionName) ? a.sectionName : '') == (has(b.sectionName) ? b.sectionName : '')))",
            "targetRefs: each target may be named once")
    )]
    pub target_refs: Vec<PolicyTarget>,
    /// Stops sending for a while when too many requests fail. Default: no breaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// Bounds how many requests are under way at a time. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulkhead: Option<Bulkhead>,
    /// Leaves out single endpoints that keep failing. Default: none is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejection: Option<Ejection>,
    /// Asks each endpoint now and then whether it is well. Default: no checks besides Kubernetes' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// What a client gets when the breaker is open, the bulkhead full or no endpoint left. Default: 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// Opens when the share of failed requests is too high, and closes when probes succeed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = ("duration(self.window) > duration('0s')", "breaker.window: must be more than 0s"),
    validation = ("duration(self.openFor) > duration('0s')", "breaker.openFor: must be more than 0s")
)]
pub struct Breaker {
    /// Time over which requests are counted. Default: 10s.
    #[serde(default = "defaults::window")]
    #[schemars(schema_with = "schema::duration")]
    pub window: Duration,
    /// Fewest requests in the window that say anything. Default: 20.
    #[serde(default = "defaults::min_requests")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: u32,
    /// Share of failed requests (5xx, reset, timeout) at which it opens. Default: 50%.
    #[serde(default = "defaults::half")]
    pub error_rate: Percent,
    /// How long it stays open before probes go through. Default: 5s.
    #[serde(default = "defaults::open_for")]
    #[schemars(schema_with = "schema::duration")]
    pub open_for: Duration,
    /// Probes that must succeed, one after the other, for it to close. Default: 3.
    #[serde(default = "defaults::probes")]
    #[schemars(range(min = 1, max = 100))]
    pub probes: u32,
}

/// Bounds on concurrency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bulkhead {
    /// Most requests under way at a time, from each client pod.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_concurrent: u32,
    /// Most requests that wait for their turn; further ones are refused at once. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_pending: u32,
    /// Longest wait for a turn. Default: 100ms.
    #[serde(default = "defaults::queue_timeout")]
    #[schemars(schema_with = "schema::duration")]
    pub queue_timeout: Duration,
}

/// Leaves out endpoints that keep failing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("duration(self.baseTime) > duration('0s')", "ejection.baseTime: must be more than 0s"))]
pub struct Ejection {
    /// Failures (5xx, reset, timeout) in a row after which an endpoint is left out. Default: 5.
    #[serde(default = "defaults::consecutive")]
    #[serde(rename = "consecutive5xx")]
    #[schemars(range(min = 1, max = 10_000))]
    pub consecutive_5xx: u32,
    /// How long it is left out the first time; each further time as much longer. Default: 30s.
    #[serde(default = "defaults::base_time")]
    #[schemars(schema_with = "schema::duration")]
    pub base_time: Duration,
    /// Largest share of the endpoints that is left out at a time. Default: 50%.
    #[serde(default = "defaults::half")]
    pub max_share: Percent,
}

/// Asks endpoints whether they are well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = ("duration(self.interval) >= duration('100ms')", "healthCheck.interval: must be at least 100ms"),
    validation = ("duration(self.timeout) <= duration(self.interval)", "healthCheck.timeout: must not exceed healthCheck.interval")
)]
pub struct HealthCheck {
    /// The request to make.
    pub http: HttpCheck,
    /// Time from one check to the next; at least 100ms. Default: 5s.
    #[serde(default = "defaults::interval")]
    #[schemars(schema_with = "schema::duration")]
    pub interval: Duration,
    /// Longest wait for an answer; at most `interval`. Default: 1s, so that a shorter interval needs a
    /// shorter timeout too.
    #[serde(default = "defaults::timeout")]
    #[schemars(schema_with = "schema::duration")]
    pub timeout: Duration,
    /// Failed checks in a row after which an endpoint is left out. Default: 3.
    #[serde(default = "defaults::unhealthy")]
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy: u32,
    /// Good checks in a row after which it is back. Default: 2.
    #[serde(default = "defaults::healthy")]
    #[schemars(range(min = 1, max = 100))]
    pub healthy: u32,
}

/// A GET request that must be answered with a status from 200 to 399.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpCheck {
    /// Path of the request. Default: /.
    #[serde(default = "defaults::path")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = PATH))]
    pub path: String,
    /// Port of the endpoint. Default: the port that requests go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
}

/// What a client gets instead: exactly one of the fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.response) != has(self.backendRef)", "fallback: give exactly one of response and backendRef"))]
pub struct Fallback {
    /// This answer, made by the client's own proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<FallbackResponse>,
    /// The answer of this Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<FallbackBackend>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FallbackResponse {
    /// Status code from 200 to 599. Default: 503.
    #[serde(default = "defaults::status")]
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// Header fields; up to 16. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<FallbackHeader>,
    /// Body, at most 4096 characters. Default: empty.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub body: String,
}

/// A header field of a fallback answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FallbackHeader {
    /// Name of the field; case is ignored.
    #[schemars(length(min = 1, max = 256), regex(pattern = TOKEN))]
    #[x_kube(validation = schema::changeable_header())]
    pub name: String,
    /// Its value: printable ASCII.
    #[schemars(length(min = 1, max = 4096), regex(pattern = HEADER_VALUE))]
    pub value: String,
}

/// The Service that answers instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FallbackBackend {
    /// Name of the Service, in the namespace of this policy.
    #[schemars(length(min = 1, max = 63), regex(pattern = SERVICE_NAME))]
    pub name: String,
    /// Port of the Service. Default: the port that the request was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
}

/// Defaults of the fields above, each stated in its doc comment.
mod defaults {
    use super::{Duration, Percent};

    pub(super) fn window() -> Duration {
        Duration::from_millis(10_000)
    }
    pub(super) fn min_requests() -> u32 {
        20
    }
    pub(super) fn half() -> Percent {
        Percent::whole(50)
    }
    pub(super) fn open_for() -> Duration {
        Duration::from_millis(5_000)
    }
    pub(super) fn probes() -> u32 {
        3
    }
    pub(super) fn queue_timeout() -> Duration {
        Duration::from_millis(100)
    }
    pub(super) fn consecutive() -> u32 {
        5
    }
    pub(super) fn base_time() -> Duration {
        Duration::from_millis(30_000)
    }
    pub(super) fn interval() -> Duration {
        Duration::from_millis(5_000)
    }
    pub(super) fn timeout() -> Duration {
        Duration::from_millis(1_000)
    }
    pub(super) fn unhealthy() -> u32 {
        3
    }
    pub(super) fn healthy() -> u32 {
        2
    }
    pub(super) fn path() -> String {
        "/".to_owned()
    }
    pub(super) fn status() -> u16 {
        503
    }
}
