//! `Route`: what happens to the requests for a Service.

mod act;
mod matches;
mod retry;

use ferrule_config::Duration;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

pub use self::{
    act::{Abort, Cors, Delay, DirectResponse, Fault, PathRewrite, Redirect, Rewrite, Scheme},
    matches::{GrpcMatch, HeaderMatch, Match, PathMatch, QueryMatch, SourceMatch},
    retry::{Backoff, Retry, RetryBudget, RetryOn},
};
use super::{
    ServiceTarget, Status,
    schema::{self, HEADER_VALUE, SERVICE_NAME, TOKEN},
};

/// A Route decides what happens to the HTTP requests that pods of the mesh send to a Service: which Service
/// answers them, with which changes to the header, and within which time. A Service without a Route is
/// balanced over its own endpoints.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "ferrule.dev",
    version = "v1alpha1",
    kind = "Route",
    namespaced,
    status = "Status",
    shortname = "frt",
    category = "ferrule",
    derive = "PartialEq",
    doc = "A Route decides what happens to the HTTP requests that pods of the mesh send to a Service: which Service answers them, with which changes to the header, and within which time.",
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
        description = "Whether it is valid and in force"
    ),
    printcolumn(
        name = "Resolved",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"ResolvedRefs\")].status",
        description = "Whether its backends exist"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason",
        description = "Why it is accepted or not",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec {
    /// Services, of the same namespace, whose requests this Route decides on; 1 to 16. When several Routes
    /// apply to one Service, their rules are looked at together, the most specific match first, and of equals
    /// the older Route's.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(
        merge_strategy = ListMerge::Atomic,
        validation = ("self.all(a, self.exists_one(b, a.name == b.name && (has(a.port) ? a.port : 0) == (has(b.port) ? b.port : 0)))",
            "targetRefs: each Service and port may be named once")
    )]
    pub target_refs: Vec<ServiceTarget>,
    /// What to do with which requests; 1 to 16. The rule with the most specific match decides, in Gateway
    /// API's order: exact path, longest prefix, regular expression for the path, method, number of headers, number of
    /// query parameters, host name, source; of equals the first. A request that no rule matches is answered with 404.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(
        merge_strategy = ListMerge::Atomic,
        validation = ("self.all(a, !has(a.name) || self.exists_one(b, has(b.name) && a.name == b.name))",
            "rules: each name may be given to one rule only")
    )]
    pub rules: Vec<RouteRule>,
}

/// What to do with the requests that match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = ("!has(self.redirect) || !(has(self.backendRefs) || has(self.directResponse) || has(self.rewrite) || has(self.retry) || has(self.timeouts))",
        "redirect: the request is sent nowhere, so leave backendRefs, directResponse, rewrite, retry and timeouts out"),
    validation = ("!has(self.directResponse) || !(has(self.backendRefs) || has(self.rewrite) || has(self.retry) || has(self.timeouts))",
        "directResponse: the request is sent nowhere, so leave backendRefs, rewrite, retry and timeouts out"),
    validation = ("!(has(self.rewrite) && has(self.rewrite.path) && has(self.rewrite.path.prefix)) || (has(self.matches) && size(self.matches) > 0 && self.matches.all(m, has(m.path) && has(m.path.prefix)))",
        "rewrite.path.prefix: is for rules whose every match has path.prefix"),
    validation = ("!(has(self.redirect) && has(self.redirect.path) && has(self.redirect.path.prefix)) || (has(self.matches) && size(self.matches) > 0 && self.matches.all(m, has(m.path) && has(m.path.prefix)))",
        "redirect.path.prefix: is for rules whose every match has path.prefix"),
    validation = ("!(has(self.retry) && has(self.retry.perTryTimeout) && has(self.timeouts) && has(self.timeouts.request)) || duration(self.timeouts.request) == duration('0s') || duration(self.retry.perTryTimeout) <= duration(self.timeouts.request)",
        "retry.perTryTimeout: must not exceed timeouts.request")
)]
pub struct RouteRule {
    /// Name of the rule, unique in the Route: for metrics and logs, and for policies that apply to this rule
    /// alone. Default: its index, starting at 0, in metrics and logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = SERVICE_NAME))]
    pub name: Option<String>,
    /// Requests that the rule is for; up to 8, of which one must match. Default: every request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub matches: Vec<Match>,
    /// Services that answer, each with its share; 1 to 16. A share whose Service does not exist is answered
    /// with 500, so that a mistake does not move its load elsewhere unseen. Default: the Service that the
    /// request was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub backend_refs: Option<Vec<BackendRef>>,
    /// Changes to the request's header on its way to the backend. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<HeaderChange>,
    /// Changes to the response's header on its way back. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<HeaderChange>,
    /// Time limits. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// When a request is sent again, and how often. Default: up to 3 times, to another endpoint if there is one, after no
    /// connection was made or the stream was refused, and after a reset if its method is idempotent; within a budget of
    /// 20% + 10 a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Another host or path for the request on its way to the backend. Contradicts redirect and directResponse.
    /// Default: as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,
    /// An answer that sends the client elsewhere. Contradicts backendRefs, directResponse, rewrite, retry and
    /// timeouts, for the request is sent nowhere. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// An answer of the sidecar itself. Contradicts backendRefs, redirect, rewrite, retry and timeouts, for the
    /// request is sent nowhere. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_response: Option<DirectResponse>,
    /// Faults for a share of the requests, to see how clients bear them. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Which other sites' pages may make these requests in a browser (CORS). Default: what the backend says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
}

/// A Service that answers a share of the requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendRef {
    /// Name of the Service, in the namespace of this Route.
    #[schemars(length(min = 1, max = 63), regex(pattern = SERVICE_NAME))]
    pub name: String,
    /// Port of the Service (its `port`, not its `targetPort`). Default: the port that the request was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Its share, in proportion to the sum of the weights of all backends: 90 and 10 are 90% and 10%, and so
    /// are 9 and 1. With 0 it gets nothing; when all have 0, requests are answered with 500. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: u32,
    /// Changes to the header of requests that go there, after those of the rule. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<HeaderChange>,
    /// Changes to the header of responses that come from there, after those of the rule. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<HeaderChange>,
}

fn one() -> u32 {
    1
}

/// Changes to a header section, made in the order remove, set, add.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderChange {
    /// Fields that replace all fields of their name; up to 16. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub set: Vec<HeaderField>,
    /// Fields that are put beside those of their name; up to 16. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub add: Vec<HeaderField>,
    /// Names whose fields are dropped; up to 16. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 256), regex(pattern = TOKEN)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = schema::changeable_headers())]
    pub remove: Vec<String>,
}

/// A header field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderField {
    /// Name of the field; case is ignored. Fields that frame the message or belong to the connection, such as
    /// content-length and host, can't be changed.
    #[schemars(length(min = 1, max = 256), regex(pattern = TOKEN))]
    #[x_kube(validation = schema::changeable_header())]
    pub name: String,
    /// Its value: printable ASCII.
    #[schemars(length(min = 1, max = 4096), regex(pattern = HEADER_VALUE))]
    pub value: String,
}

/// Time limits, written like 500ms, 2s or 1m30s; 0s means none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = (
    "!has(self.request) || !has(self.backendRequest) || duration(self.request) == duration('0s') || duration(self.backendRequest) <= duration(self.request)",
    "timeouts.backendRequest: must not exceed timeouts.request"
))]
pub struct Timeouts {
    /// From the head of the request to the end of the response, all attempts together; then the request is
    /// answered with 504. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub request: Option<Duration>,
    /// The same for a single attempt at a backend; at most `request`. Default: no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub backend_request: Option<Duration>,
}
