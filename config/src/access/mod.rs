//! Who may call what. The sidecar of the pod that is called decides.
//!
//! ```text
//!   AccessPolicy ──▶ Mesh::access ──▶ the sidecars of the pods that each of them selects
//! ```
//!
//! Of all policies that select a pod: what one denies is refused; if any has `allow`, what none allows is refused; all else
//! is let in. So their order makes no difference. One that a proxy can't read is [`Access::Unknown`] to it and refuses
//! everything: a rule that is not understood must not open what it was to close.

mod cidr;
mod pattern;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;

pub use self::{
    cidr::{Cidr, CidrError},
    pattern::Pattern,
};
use crate::Selector;

/// Most rules in `allow`, and in `deny`.
pub const MAX_RULES: usize = 16;
/// Most entries in `from`.
pub const MAX_SOURCES: usize = 16;
/// Most entries in `to`.
pub const MAX_OPERATIONS: usize = 16;
/// Most ports, methods, paths or gRPC methods of one entry of `to`.
pub const MAX_VALUES: usize = 16;
/// Most header fields that one entry of `to` asks about.
pub const MAX_HEADERS: usize = 8;

/// Header fields that no rule can ask about, in lower case: the connection's own, those that say who calls, which a client
/// may have forged and which are overwritten afterwards, and the host, which has several places.
pub const UNASKABLE_HEADERS: [&str; 13] = [
    "connection",
    "content-length",
    "ferrule-client",
    "ferrule-error",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-client-cert",
];

/// One policy, as a proxy reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// It is understood.
    Policy(AccessPolicy),
    /// It says something that this version does not know.
    Unknown(UnknownAccess),
}

impl Access {
    /// Its namespace and name, as `namespace/name`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Policy(policy) => &policy.name,
            Self::Unknown(unknown) => &unknown.name,
        }
    }

    /// Which pods of the namespace it is for.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        match self {
            Self::Policy(policy) => &policy.selector,
            Self::Unknown(unknown) => &unknown.selector,
        }
    }
}

/// Who may call the pods that it selects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessPolicy {
    /// Its namespace and name, as `namespace/name`, for logs and metrics.
    pub name: String,
    /// Which pods of the namespace it is for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub selector: Selector,
    /// What is allowed. Absent: this policy does not restrict; present and empty: it allows nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<AccessRule>>,
    /// What is refused, whatever is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<AccessRule>,
    /// Whether it is only tried: what it would refuse is told and let in.
    #[serde(default, skip_serializing_if = "is_default")]
    pub audit: bool,
}

/// A policy that this version can't read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnknownAccess {
    /// As in [`AccessPolicy::name`]; empty if not even that can be read.
    pub name: String,
    /// As in [`AccessPolicy::selector`]; every pod if it can't be read.
    pub selector: Selector,
    /// Whether it is only tried, and so refuses nothing.
    pub audit: bool,
    /// Why it can't be read.
    pub problem: String,
}

/// Callers and what they do: both must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessRule {
    /// One of these calls. Empty: whoever it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Source>,
    /// And does one of these. Empty: whatever it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Operation>,
}

/// A caller. All that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// SPIFFE identity that it has proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Pattern>,
    /// Namespace of that identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Pattern>,
    /// Service account of that identity, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<Pattern>,
    /// Range that the address of its connection is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<Cidr>,
}

/// What is done. All that is given must hold; of several values one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operation {
    /// Ports of the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Paths, percent-decoded, without a query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<Pattern>,
    /// Header fields, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderCondition>,
    /// gRPC methods, as `package.Service/Method`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grpc_methods: Vec<Pattern>,
}

impl Operation {
    /// Whether it asks about a request: of a connection that carries none it can't be told.
    #[must_use]
    pub fn asks_about_requests(&self) -> bool {
        let Self { ports: _, methods, paths, headers, grpc_methods } = self;
        !(methods.is_empty() && paths.is_empty() && headers.is_empty() && grpc_methods.is_empty())
    }
}

/// A condition on a header field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderCondition {
    /// Name, in lower case.
    pub name: String,
    /// What its value must be.
    pub value: HeaderCheck,
}

/// A condition on the value of a header field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HeaderCheck {
    /// It is this, byte for byte.
    Exact(String),
    /// It begins with this.
    Prefix(String),
    /// There is such a field (`true`) or there is none (`false`).
    Present(bool),
}

impl Serialize for Access {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Policy(policy) => policy.serialize(serializer),
            Self::Unknown(unknown) => unknown.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Access {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if !value.is_object() {
            return Err(D::Error::custom("an access policy is an object"));
        }
        Ok(match AccessPolicy::deserialize(&value) {
            Ok(policy) => Self::Policy(policy),
            Err(error) => Self::Unknown(UnknownAccess::of(&value, error.to_string())),
        })
    }
}

impl UnknownAccess {
    /// What can be read of it, in the form that it has for proxies or that users write, which agree that far.
    #[must_use]
    pub fn of(value: &Value, problem: String) -> Self {
        // A selector that selects by something new as well is not understood either: then it is every pod.
        let selector = value.get("selector").filter(|selector| {
            let keys = selector.as_object().into_iter().flat_map(serde_json::Map::keys);
            keys.into_iter().all(|key| key == "matchLabels")
        });
        Self {
            name: value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
            selector: selector.and_then(|selector| Selector::deserialize(selector).ok()).unwrap_or_default(),
            audit: value.get("audit").and_then(Value::as_bool).unwrap_or_default(),
            problem,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
