//! When a request is sent again.

use serde::{Deserialize, Serialize};

use crate::Duration;

/// Most retries of a request.
pub const MAX_RETRIES: u32 = 10;

/// When a request is sent again, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// How often, after the first attempt; up to [`MAX_RETRIES`].
    pub attempts: u32,
    /// How long an attempt may take until its response begins. Nothing: as long as the rule's time limits allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<Duration>,
    /// What must have become of an attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<RetryOn>,
    /// Status codes of HTTP that an attempt must have been answered with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<u16>,
    /// Status codes of gRPC that an attempt must have been answered with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grpc_codes: Vec<u8>,
    /// How long is waited before another attempt. Nothing: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// What retries may add to the load. Nothing: what the Service has for all rules without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<RetryBudget>,
    /// Send again what may have been processed, though its method is not idempotent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub non_idempotent: bool,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RetryOn {
    /// No endpoint took the connection: nothing was processed.
    ConnectFailure,
    /// The endpoint refused the stream: nothing was processed.
    Refused,
    /// The connection broke before a response began.
    Reset,
    /// The attempt's time was up before a response began.
    Timeout,
}

/// A wait that doubles from attempt to attempt. A random part of it is waited, from nothing to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// Before the first retry.
    pub base: Duration,
    /// However many there were.
    pub max: Duration,
}

/// What retries may add to the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryBudget {
    /// Share of the requests of the window, in hundredths of a percent; 10,000 is one retry for each request.
    pub share: u16,
    /// Retries a second that are there in any case.
    pub min_per_second: u32,
    /// For how long a request counts.
    pub window: Duration,
}
