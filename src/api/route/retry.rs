//! When a request is sent again.

use ferrule_config::Duration;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{Percent, schema};

/// When a request is sent again, and how often. Whatever is given here, a request that may have been processed is sent
/// again only if its method is idempotent (RFC 9110 §9.2.2: GET, HEAD, OPTIONS, TRACE, PUT, DELETE), or nonIdempotent is
/// true; only as long as all of it is at hand (64 KiB of a body are kept); and never if it is a retry already that
/// another sidecar has sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("!has(self.grpcCodes) || size(self.grpcCodes) == 0 || self.nonIdempotent",
    "retry.grpcCodes: calls of gRPC are POST requests that may have been processed; say nonIdempotent: true if they may be sent again"))]
pub struct Retry {
    /// How often, after the first attempt; 0 to 10. Default: 3.
    #[serde(default = "attempts")]
    #[schemars(range(min = 0, max = 10))]
    pub attempts: u32,
    /// How long an attempt may take until its response begins; then it is given up, and on tells whether there is
    /// another. Default: as long as timeouts allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub per_try_timeout: Option<Duration>,
    /// What must have become of an attempt for another: connect-failure (no connection, so nothing was processed),
    /// refused (the endpoint refused the stream, so nothing was processed), reset (the connection broke before a
    /// response began), timeout (perTryTimeout or timeouts.backendRequest passed before a response began).
    /// Default: connect-failure, refused, reset.
    #[serde(default = "on")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub on: Vec<RetryOn>,
    /// Status codes of HTTP that are followed by another attempt, 429 or 500 to 599; up to 16. A Retry-After of
    /// up to 5 s is waited for; after a longer one the response is given to the client. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(range(min = 429, max = 599)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub codes: Vec<u16>,
    /// Statuses of gRPC, by name, that are followed by another attempt if nothing of a response came before; up to
    /// 16. They need nonIdempotent, for calls of gRPC are POST requests. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::grpc_statuses")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub grpc_codes: Vec<String>,
    /// How long is waited before another attempt. Default: not at all, as another endpoint is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// What retries of this rule may add to the load. Default: a budget of 20% + 10 a second over 10 s, which all
    /// rules of the Service without one share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<RetryBudget>,
    /// Send again what may have been processed, though its method is not idempotent: that the backend can bear it
    /// is your word. Default: false.
    #[serde(default)]
    pub non_idempotent: bool,
}

fn attempts() -> u32 {
    3
}

fn on() -> Vec<RetryOn> {
    vec![RetryOn::ConnectFailure, RetryOn::Refused, RetryOn::Reset]
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// No connection: nothing was processed.
    ConnectFailure,
    /// The endpoint refused the stream: nothing was processed.
    Refused,
    /// The connection broke before a response began.
    Reset,
    /// The attempt's time was up before a response began.
    Timeout,
}

/// A wait before another attempt: a random part, from nothing to all, of what doubles from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("duration(self.base) <= duration(self.max) && duration(self.max) <= duration('1m')",
    "backoff: base must not exceed max, and max not 1m"))]
pub struct Backoff {
    /// Before the first retry. Default: 25ms.
    #[serde(default = "base")]
    #[schemars(schema_with = "schema::duration")]
    pub base: Duration,
    /// However many there were; at most 1m. Default: 250ms.
    #[serde(default = "max")]
    #[schemars(schema_with = "schema::duration")]
    pub max: Duration,
}

fn base() -> Duration {
    Duration::from_millis(25)
}

fn max() -> Duration {
    Duration::from_millis(250)
}

/// What retries may add to the load: each request pays in its share of a retry, which runs off with the window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("duration(self.window) >= duration('1s') && duration(self.window) <= duration('1m')",
    "budget.window: must be 1s to 1m"))]
pub struct RetryBudget {
    /// Retries for each request, for example 20%. Default: 20%.
    #[serde(default = "percent")]
    pub percent: Percent,
    /// Retries a second that are there in any case; up to 1000. Default: 10.
    #[serde(default = "min_per_second")]
    #[schemars(range(min = 0, max = 1000))]
    pub min_per_second: u32,
    /// For how long a request counts; 1s to 1m. Default: 10s.
    #[serde(default = "window")]
    #[schemars(schema_with = "schema::duration")]
    pub window: Duration,
}

fn percent() -> Percent {
    Percent::whole(20)
}

fn min_per_second() -> u32 {
    10
}

fn window() -> Duration {
    Duration::from_millis(10_000)
}
