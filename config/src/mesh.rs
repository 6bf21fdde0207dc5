//! The compiled configuration of one namespace.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Cors, DirectResponse, Duration, Fault, Peers, PortBalancer, Redirect, Retry, Rewrite, WorkloadTls,
    access::Access,
};

/// Version of this format. A proxy refuses a [`Mesh`] of a newer one and keeps what it has.
pub const FORMAT: u32 = 1;

/// Everything Ferrule's resources say about the Services of one namespace.
///
/// A Service without an entry is balanced over all its endpoints with default settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mesh {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// Namespace that this describes.
    pub namespace: String,
    /// By name of the Service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, Service>,
    /// What its pods accept, the narrowest first. A pod that no entry selects accepts everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls: Vec<WorkloadTls>,
    /// Who may call its pods: all that select a pod hold for it, in whatever order. A pod that none selects lets everybody in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<Access>,
}

/// What the mesh does with requests to one Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// In order of precedence: the first that matches decides. Empty: every request goes to the Service
    /// itself. Not empty and none matches: the request is answered with 404.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteEntry>,
    /// What [`RouteEntry::rule`] points at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// How requests are spread over its endpoints; nothing: by the default [`Balancer`](crate::Balancer).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub balancers: Vec<PortBalancer>,
    /// Who answers behind it; nothing: no pod with a sidecar, and nothing is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<Peers>,
}

/// One match and the rule that it leads to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteEntry {
    /// Only for requests to this port of the Service; all ports when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What the request must look like.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// Index in [`Service::rules`].
    pub rule: usize,
}

/// Conditions on a request; all must hold, and one without conditions matches everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// Condition on the path, without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Method, compared with case as RFC 9110 §9.1 has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Conditions on header fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
    /// Conditions on parameters of the query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<QueryMatch>,
    /// Hosts that the request may be for, in lower case and without a port: a name, or `*.` and a name, which stands
    /// for whatever has one label or more before that name. Empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Who must have sent it.
    #[serde(default, skip_serializing_if = "SourceMatch::is_empty")]
    pub source: SourceMatch,
}

/// Condition on the path of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    /// The whole path, byte for byte.
    Exact(String),
    /// Leading segments: `/v2` matches `/v2`, `/v2/` and `/v2/x`, but not `/v20`.
    Prefix(String),
    /// A [`Pattern`](crate::Pattern) for the whole path.
    Regex(String),
}

/// Condition on a header field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// Name of the field in lower case.
    pub name: String,
    /// What its value must be. Several fields of the name are joined by a comma first, as RFC 9110 §5.3 allows.
    pub value: ValueMatch,
}

/// Condition on a parameter of the query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryMatch {
    /// Name of the parameter, as it stands in the query: nothing is decoded.
    pub name: String,
    /// What its value must be, as it stands there. Of several parameters of the name the first counts.
    pub value: ValueMatch,
}

/// Condition on the value of a header field or a parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ValueMatch {
    /// Byte for byte.
    Exact(String),
    /// What it begins with.
    Prefix(String),
    /// A [`Pattern`](crate::Pattern) for the whole value.
    Regex(String),
    /// It is there (`true`) or it is not (`false`).
    Present(bool),
}

/// Condition on the pod that a request comes from. Its own sidecar decides, so it costs a request nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceMatch {
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Labels that it must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl SourceMatch {
    /// Whether it lets everybody through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { namespace, account, labels } = self;
        namespace.is_none() && account.is_none() && labels.is_empty()
    }
}

/// What happens to a request that matched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// For metrics and logs: `namespace/route/rule`, the last part its name or its index.
    pub name: String,
    /// Where it goes, by weight. Empty, or weights that sum up to nothing: 500.
    #[serde(default)]
    pub backends: Vec<Backend>,
    /// Changes to the request's header on its way to the endpoint.
    #[serde(default, skip_serializing_if = "HeaderChange::is_empty")]
    pub request_headers: HeaderChange,
    /// Changes to the response's header on its way back.
    #[serde(default, skip_serializing_if = "HeaderChange::is_empty")]
    pub response_headers: HeaderChange,
    /// Time limits.
    #[serde(default, skip_serializing_if = "Timeouts::is_empty")]
    pub timeouts: Timeouts,
    /// When a request is sent again. Nothing: three times, to another endpoint if there is one, after no connection was
    /// made or the stream was refused, and after a reset if its method is idempotent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Another host or path on the way to the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,
    /// The client is sent elsewhere, and the request nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// The sidecar answers, and the request is sent nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_response: Option<DirectResponse>,
    /// What goes wrong on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Which other sites' pages may make these requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
}

/// A Service that gets a share of the requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// Port of the Service; the port that the request was for when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Share of the requests in proportion to the sum of the rule's weights.
    pub weight: u32,
    /// Changes to the request's header, after those of the rule.
    #[serde(default, skip_serializing_if = "HeaderChange::is_empty")]
    pub request_headers: HeaderChange,
    /// Changes to the response's header, after those of the rule.
    #[serde(default, skip_serializing_if = "HeaderChange::is_empty")]
    pub response_headers: HeaderChange,
}

/// Changes to a header section, applied in the order remove, set, add.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderChange {
    /// Fields that replace all of their name: (name in lower case, value).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(String, String)>,
    /// Fields that are appended: (name in lower case, value).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<(String, String)>,
    /// Names, in lower case, whose fields are dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

impl HeaderChange {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { set, add, remove } = self;
        set.is_empty() && add.is_empty() && remove.is_empty()
    }

    /// These changes and then the others, as one.
    #[must_use]
    pub fn then(&self, later: &Self) -> Self {
        let keeps =
            |name: &String| !later.remove.contains(name) && !later.set.iter().any(|(set, _)| set == name);
        let fields = |fields: &[(String, String)]| -> Vec<_> {
            fields.iter().filter(|(name, _)| keeps(name)).cloned().collect()
        };
        let remove = self.remove.iter().chain(&later.remove).cloned().collect();
        let set = fields(&self.set).into_iter().chain(later.set.iter().cloned()).collect();
        let add = fields(&self.add).into_iter().chain(later.add.iter().cloned()).collect();
        Self { set, add, remove }
    }
}

/// Time limits of a rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// From the request's head to the end of the response, all attempts together. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// The same for a single attempt. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
}

impl Timeouts {
    /// Whether no limit is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { request, backend_request } = self;
        request.is_none() && backend_request.is_none()
    }
}
