//! What a rule does with a request beside sending it to a backend.

use ferrule_config::Duration;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    Percent,
    schema::{self, HEADER_VALUE, HOST, ORIGIN, PATH, TOKEN},
};

/// Another host or path for the request on its way to the backend; at least one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.hostname) || has(self.path)", "rewrite: give hostname, path or both"))]
pub struct Rewrite {
    /// Host, and maybe a port, in the place of the request's own (Host, or :authority in HTTP/2). Default: as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 259), regex(pattern = HOST))]
    pub hostname: Option<String>,
    /// Path in the place of the request's own; the query stays. Default: as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
}

/// Another path: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = ("has(self.full) != has(self.prefix)", "path: give exactly one of full and prefix"),
    validation = ("!has(self.full) || !self.full.matches('//|/[.][.]?(/|$)')",
        "path.full: must not contain //, /./ or /../, nor end in /. or /.."),
    validation = ("!has(self.prefix) || !self.prefix.matches('//|/[.][.]?(/|$)')",
        "path.prefix: must not contain //, /./ or /../, nor end in /. or /..")
)]
pub struct PathRewrite {
    /// The whole path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = PATH))]
    pub full: Option<String>,
    /// What comes in the place of the prefix that the rule matched, by whole segments: where the match is /v2, a
    /// prefix of /new makes /v2/x to /new/x, and / makes it to /x. Every match of the rule must have path.prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = PATH))]
    pub prefix: Option<String>,
}

/// An answer that sends the client elsewhere. What is not given is as the request has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.scheme) || has(self.hostname) || has(self.port) || has(self.path)",
    "redirect: give scheme, hostname, port or path, or it leads to itself"))]
pub struct Redirect {
    /// http or https. Default: http, as it is spoken within the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// Host without a port. Default: that of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = HOST))]
    pub hostname: Option<String>,
    /// Port. Default: that of the scheme if scheme or hostname is given, else that of the request's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Path; the query stays. Default: that of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
    /// Status code: 301, 302, 303, 307 or 308. Default: 302.
    #[serde(default = "found")]
    #[schemars(schema_with = "schema::redirect_status")]
    pub status_code: u16,
}

fn found() -> u16 {
    302
}

/// Scheme of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// HTTP without TLS.
    Http,
    /// HTTP over TLS.
    Https,
}

/// An answer of the sidecar itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("!has(self.body) || !(self.statusCode in [204, 205, 304])",
    "directResponse.body: a response with status 204, 205 or 304 has none"))]
pub struct DirectResponse {
    /// Status code, 200 to 599.
    #[schemars(range(min = 200, max = 599))]
    pub status_code: u16,
    /// Its body; up to 4096 characters, and as many bytes. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub body: Option<String>,
    /// Media type of the body. Default: text/plain; charset=utf-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = HEADER_VALUE))]
    pub content_type: Option<String>,
}

/// Faults for a share of the requests, to see how clients bear them; at least one of the fields. A request may be
/// hit by both: it is then delayed first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.delay) || has(self.abort)", "fault: give delay, abort or both"))]
pub struct Fault {
    /// Delay before the request is sent on. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// An error in the place of the backend's answer; nothing is sent there. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
}

/// A delay for a share of the requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("duration(self.duration) <= duration('5m')", "delay.duration: must be at most 5m"))]
pub struct Delay {
    /// For how long; at most 5m. It counts for the rule's timeouts.
    #[schemars(schema_with = "schema::duration")]
    pub duration: Duration,
    /// Share of the requests, for example 10% or 0.5%. Default: 100%.
    #[serde(default = "all")]
    pub percentage: Percent,
}

/// An error for a share of the requests: exactly one of `httpStatus` and `grpcStatus`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.httpStatus) != has(self.grpcStatus)", "abort: give exactly one of httpStatus and grpcStatus"))]
pub struct Abort {
    /// Status code of HTTP, 400 to 599.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    pub http_status: Option<u16>,
    /// Status of gRPC by its name, for example UNAVAILABLE. A request that is no call of gRPC gets the status of HTTP
    /// that stands for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::grpc_status")]
    pub grpc_status: Option<String>,
    /// Share of the requests, for example 10% or 0.5%. Default: 100%.
    #[serde(default = "all")]
    pub percentage: Percent,
}

fn all() -> Percent {
    Percent::whole(100)
}

/// Cross-origin resource sharing (the Fetch standard): which other sites' pages may make these requests. The sidecar
/// answers preflight requests by itself and adds the fields to responses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("duration(self.maxAge) <= duration('24h')", "cors.maxAge: must be at most 24h"))]
pub struct Cors {
    /// Origins that may, for example https://shop.example or https://*.shop.example; * stands for all. 1 to 64.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253), regex(pattern = ORIGIN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allow_origins: Vec<String>,
    /// Methods that they may use; * stands for all. Up to 16. Default: GET, HEAD and POST, which the standard always
    /// allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 32), regex(pattern = TOKEN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allow_methods: Vec<String>,
    /// Header fields that they may set; * stands for all. Up to 64. Default: those that the standard always allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256), regex(pattern = TOKEN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allow_headers: Vec<String>,
    /// Header fields of responses that they may read. Up to 64. Default: those that the standard always allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256), regex(pattern = TOKEN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub expose_headers: Vec<String>,
    /// Whether requests may carry cookies and the like. Default: false.
    #[serde(default)]
    pub allow_credentials: bool,
    /// For how long a browser may remember the answer to a preflight request; at most 24h. Default: 5s.
    #[serde(default = "max_age")]
    #[schemars(schema_with = "schema::duration")]
    pub max_age: Duration,
}

fn max_age() -> Duration {
    Duration::from_millis(5000)
}
