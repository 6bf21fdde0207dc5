//! `BalancerPolicy`: how requests are spread over the endpoints of a Service.

use ferrule_config::{Duration, MAX_TABLE_SIZE, is_prime};
use kube::{
    CustomResource, KubeSchema,
    core::{Message, Rule},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Percent, PortTarget, Status,
    schema::{self, LABEL_VALUE, NAME_PREFIX, OBJECT_NAME, QUERY_NAME, TOKEN},
};

/// A BalancerPolicy decides how the requests of pods of the mesh are spread over the endpoints of a Service.
/// It is looked up for the Service that answers: after a Route has chosen a backend, that of the backend. A
/// Service without one is balanced with the defaults of each field.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "ferrule.dev",
    version = "v1alpha1",
    kind = "BalancerPolicy",
    plural = "balancerpolicies",
    namespaced,
    status = "Status",
    shortname = "fbp",
    category = "ferrule",
    derive = "PartialEq",
    doc = "A BalancerPolicy decides how the requests of pods of the mesh are spread over the endpoints of a Service: by which algorithm, with which weights, and whether a client stays at its endpoint.",
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
        description = "Whether it is valid, its targets exist and no older one decides on them"
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
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason",
        description = "Why it is accepted or not",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = ("!has(self.algorithm) || !has(self.consistentHash)",
        "algorithm: contradicts consistentHash, which is an algorithm by itself; give one of the two (consistentHash.algorithm chooses the kind of hashing)"),
    validation = ("!has(self.slowStart) || duration(self.slowStart) <= duration('15m')",
        "slowStart: must be 0s to 15m")
)]
pub struct BalancerPolicySpec {
    /// Services, or ports of Services, of the same namespace, that it applies to; 1 to 16. A policy for a port
    /// comes before one for the whole Service. Of several policies for the same target the oldest decides,
    /// then the first by name; the status of the others says so.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(
        merge_strategy = ListMerge::Atomic,
        validation = ("self.all(a, self.exists_one(b, a.name == b.name && (has(a.sectionName) ? a.sectionName : '') == (has(b.sectionName) ? b.sectionName : '')))",
            "targetRefs: each Service and port may be named once")
    )]
    pub target_refs: Vec<PortTarget>,
    /// Which endpoint gets the next request: PeakEWMA (of two random endpoints the one with the lower product
    /// of recent latency and requests under way), LeastRequest (of two random endpoints the one with fewer
    /// requests under way), RoundRobin (one after another) or Random. Contradicts consistentHash.
    /// Default: PeakEWMA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Algorithm")]
    pub algorithm: Option<Algorithm>,
    /// Sends requests that are alike in one respect to the same endpoint, for caches and partitioned state.
    /// Default: no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHash>,
    /// Shares of endpoints relative to each other; up to 64. The first entry that fits an endpoint gives its
    /// weight; one that none fits has 1. Default: all endpoints count alike.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub weights: Vec<EndpointWeight>,
    /// Whether endpoints of the client's own zone are preferred: Hints (where all EndpointSlices have hints,
    /// as they do for a Service with trafficDistribution), Prefer (always) or Ignore (never). What the zone's
    /// endpoints can't take goes to the others. Default: Hints.
    #[serde(default)]
    pub zones: Zones,
    /// Time over which the share of an endpoint that has just come grows to its full size, for applications
    /// that are slow at first; 0s to 15m. Default: 0s, the full share at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub slow_start: Option<Duration>,
    /// When a smaller share of the endpoints than this is usable, all are used, usable or not, for the few
    /// could not bear the load; whole per cents from 0% to 100%. Default: 0%, only usable ones ever are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::whole_percent")]
    pub panic_threshold: Option<Percent>,
    /// Keeps a client's requests at the endpoint that answered its first one, for as long as that is usable;
    /// then another one is chosen. Default: no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// Which endpoint gets the next request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// Of two random endpoints the one with the lower product of recent latency and requests under way.
    #[default]
    #[serde(rename = "PeakEWMA")]
    PeakEwma,
    /// Of two random endpoints the one with fewer requests under way.
    LeastRequest,
    /// One after another.
    RoundRobin,
    /// Any.
    Random,
}

/// Consistent hashing: exactly one of header, cookie, queryParameter and sourceAddress says what is hashed. A
/// request that does not have it goes to a random endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = ("[has(self.header), has(self.cookie), has(self.queryParameter), has(self.sourceAddress)].exists_one(given, given)",
        "consistentHash: give exactly one of header, cookie, queryParameter and sourceAddress"),
    validation = ("!has(self.sourceAddress) || self.sourceAddress",
        "consistentHash.sourceAddress: must be true, or left out"),
    validation = ("!has(self.size) || self.algorithm != 'RingHash' || self.size <= 65536",
        "consistentHash.size: must be 64 to 65536 for RingHash"),
    validation = prime_table()
)]
pub struct ConsistentHash {
    /// The value of this header field; case is ignored in its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = TOKEN))]
    pub header: Option<String>,
    /// The value of this cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = TOKEN))]
    pub cookie: Option<String>,
    /// The first value of this query parameter; its name as it stands in the URL, byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = QUERY_NAME))]
    pub query_parameter: Option<String>,
    /// The address of the client, without its port. The only one that works for connections that carry no
    /// HTTP. The only value is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<bool>,
    /// Kind of hashing: Maglev (a table, spreads evenly) or RingHash (a ring, moves the fewest keys when
    /// endpoints come and go). Default: Maglev.
    #[serde(default)]
    pub algorithm: HashAlgorithm,
    /// Maglev: entries of the table, a prime from 67 to 65537; default: 65537. RingHash: the fewest points on
    /// the ring, 64 to 65536; default: 1024. The more, the evener, and the more memory in each client's proxy;
    /// give at least a hundred times the number of endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 64, max = 65_537))]
    pub size: Option<u32>,
}

/// Kind of consistent hashing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum HashAlgorithm {
    /// A look-up table.
    #[default]
    Maglev,
    /// The next point on a ring.
    RingHash,
}

/// That Maglev's table has a prime size. CEL has no loops but over lists, so it divides by every prime up to
/// the root of the largest size.
fn prime_table() -> Rule {
    let divisors: Vec<_> = (2..=MAX_TABLE_SIZE.isqrt())
        .filter(|number| is_prime(*number))
        .map(|number| number.to_string())
        .collect();
    Rule::new(format!(
        "!has(self.size) || self.algorithm != 'Maglev' || [{}].all(prime, self.size == prime || self.size % prime != 0)",
        divisors.join(", ")
    ))
    .message(Message::Message(
        "consistentHash.size: must be a prime for Maglev, for example 251, 4099, 16381 or 65537".to_owned(),
    ))
}

/// Weight of the endpoints that all given conditions fit; at least one of zone, node and podPrefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.zone) || has(self.node) || has(self.podPrefix)",
    "weights: give at least one of zone, node and podPrefix for each weight"))]
pub struct EndpointWeight {
    /// Zone of the endpoint's node, as its label topology.kubernetes.io/zone has it. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_VALUE))]
    pub zone: Option<String>,
    /// Name of the endpoint's node. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub node: Option<String>,
    /// Beginning of the pod's name: that of a Deployment and a dash fits its pods. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PREFIX))]
    pub pod_prefix: Option<String>,
    /// The weight, 0 to 1000: an endpoint with 2 gets twice as many requests as one with 1. With 0 it gets
    /// none while others are there.
    #[schemars(range(min = 0, max = 1000))]
    pub weight: u16,
}

/// Whether endpoints of the client's own zone are preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Zones {
    /// Where all EndpointSlices have hints.
    #[default]
    Hints,
    /// Always.
    Prefer,
    /// Never.
    Ignore,
}

/// Keeps a client's requests at one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = ("!has(self.absoluteTimeout) || self.type == 'Cookie'",
        "sessionPersistence.absoluteTimeout: only a cookie has a life; leave it out for type Header"),
    validation = ("!has(self.absoluteTimeout) || (duration(self.absoluteTimeout) >= duration('1s') && duration(self.absoluteTimeout) <= duration('9600h'))",
        "sessionPersistence.absoluteTimeout: must be 1s to 9600h (400 days)"),
    validation = session_header()
)]
pub struct SessionPersistence {
    /// Where the client keeps which endpoint it is: Cookie (the proxy sets one, browsers send it back) or
    /// Header (the proxy adds a header field to responses, and the client has to send it back).
    /// Default: Cookie.
    #[serde(default, rename = "type")]
    pub type_: SessionType,
    /// Name of the cookie or of the header field. Services that are reached under one host name need
    /// different ones.
    #[schemars(length(min = 1, max = 128), regex(pattern = TOKEN))]
    pub session_name: String,
    /// Life of the cookie, 1s to 9600h (400 days, the most that browsers grant); fractions of a second are
    /// dropped. For type Cookie. Default: until the browser is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub absolute_timeout: Option<Duration>,
}

/// Where a client keeps which endpoint it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SessionType {
    /// In a cookie.
    #[default]
    Cookie,
    /// In a header field.
    Header,
}

/// That a session's header field is none that breaks the message.
fn session_header() -> Rule {
    let (names, readable) = schema::forbidden();
    Rule::new(format!("self.type != 'Header' || !(self.sessionName.lowerAscii() in [{names}])")).message(
        Message::Message(format!(
            "sessionPersistence.sessionName: must be none of {readable}; they frame the message or belong to the connection"
        )),
    )
}
