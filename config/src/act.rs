//! What a rule of a Route does with a request beside sending it to a backend.

use serde::{Deserialize, Serialize};

use crate::Duration;

/// Another host or path on the way to the endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rewrite {
    /// Host, and maybe a port. Nothing: as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Path. Nothing: as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
}

/// Another path; the query stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathRewrite {
    /// The whole path.
    Full(String),
    /// What comes in the place of the prefix by which the request fell under the rule.
    Prefix(String),
}

/// An answer that sends the client elsewhere. What is not given is as the request has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Redirect {
    /// `http` or `https`. Nothing: `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Host without a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port. Nothing: the scheme's if scheme or host are given, else the request's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
    /// Status code: 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// An answer of the sidecar's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectResponse {
    /// Status code, 200 to 599.
    pub status: u16,
    /// Its content.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Media type of the content. Nothing: `text/plain; charset=utf-8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// What goes wrong on purpose. A request may be hit by both: it is delayed first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// Requests wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// Requests are answered with an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
}

/// A wait for a share of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delay {
    /// Share of the requests in hundredths of a percent; 10,000 is all of them.
    pub share: u16,
    /// How long they wait.
    pub time: Duration,
}

/// An error for a share of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Abort {
    /// Share of the requests in hundredths of a percent; 10,000 is all of them.
    pub share: u16,
    /// What they are answered with.
    pub status: FaultStatus,
}

/// Status of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FaultStatus {
    /// Of HTTP.
    Http(u16),
    /// Of gRPC.
    Grpc(u8),
}

/// Cross-origin resource sharing, as the Fetch standard has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cors {
    /// Origins in lower case; `https://*.x` stands for all hosts below, `*` for every origin.
    pub origins: Vec<String>,
    /// Methods that may be used; `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Header fields that may be set; `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Header fields of responses that may be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<String>,
    /// Whether requests may carry cookies and the like.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub credentials: bool,
    /// For how long the answer to a preflight request may be remembered.
    #[serde(default)]
    pub max_age: Duration,
}
