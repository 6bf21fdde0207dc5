//! `AccessPolicy`: who may call what.

use ferrule_config::access::{
    MAX_HEADERS, MAX_OPERATIONS, MAX_RULES, MAX_SOURCES, MAX_VALUES, UNASKABLE_HEADERS,
};
use kube::{
    CustomResource, KubeSchema,
    core::{Message, Rule},
};
use serde::{Deserialize, Serialize};

use super::{
    Status,
    mesh_tls::PodSelector,
    schema::{HEADER_VALUE, TOKEN},
};

/// A SPIFFE identity, or its beginning and `*`.
const IDENTITY: &str = r"^(\*|spiffe://[A-Za-z0-9._/-]+\*?)$";
/// The name of a namespace, or its beginning and `*`.
const NAMESPACE: &str = r"^(\*|[a-z0-9][-a-z0-9]*\*?)$";
/// Namespace and name of a service account, or their beginning and `*`.
const SERVICE_ACCOUNT: &str = r"^(\*|[a-z0-9][-a-z0-9]*/(\*|[a-z0-9][-.a-z0-9]*\*?))$";
/// A method as RFC 9110 and its registry have them.
const METHOD: &str = "^[A-Z]([A-Z0-9_-]*[A-Z0-9])?$";
/// A path as it reads when it is decoded, or its beginning and `*`.
const ACCESS_PATH: &str = r"^/[^*%\\;?#\x00-\x1f\x7f]*\*?$";
/// `package.Service/Method`, or `*` in the place of the method's end.
const GRPC_METHOD: &str = r"^[A-Za-z_][A-Za-z0-9_.]*/(\*|[A-Za-z_][A-Za-z0-9_]*\*?)$";

/// AccessPolicy says who may call the pods that it selects: their sidecars ask it for each request. What a policy
/// denies is refused, always. While no policy with `allow` selects a pod, everything else is let in; as soon as one
/// does, what no `allow` lets in is refused. All policies that select a pod count, in whatever order.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "ferrule.dev",
    version = "v1alpha1",
    kind = "AccessPolicy",
    plural = "accesspolicies",
    namespaced,
    status = "Status",
    shortname = "fap",
    category = "ferrule",
    derive = "PartialEq",
    doc = "An AccessPolicy says who may call the pods that it selects. In the operator's own namespace, without a selector, it holds for the whole mesh; elsewhere for its namespace, or for the pods that it selects.",
    printcolumn(
        name = "Audit",
        type_ = "boolean",
        json_path = ".spec.audit",
        description = "Whether it is only tried: what it would refuse is told and let in"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status",
        description = "Whether it is valid"
    ),
    printcolumn(
        name = "Enforced",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Enforced\")].status",
        description = "Whether all pods that it selects refuse what it refuses"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Enforced\")].reason",
        description = "Why they do or not",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.allow) || has(self.deny)",
    "allow: give allow, deny or both; to allow nothing write allow: []"))]
pub struct AccessPolicySpec {
    /// Pods, of the same namespace, that it is for. Default: all pods of the namespace, or of the whole mesh in the
    /// operator's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<PodSelector>,
    /// What is let in; up to 16 rules, of which one must match. An empty list lets nothing in. Default: this policy
    /// does not restrict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_RULES))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub allow: Option<Vec<AccessRule>>,
    /// What is refused, whatever is allowed here or elsewhere; 1 to 16 rules. Default: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = MAX_RULES))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub deny: Vec<AccessRule>,
    /// Whether it is only tried: what it would refuse is logged and counted by the sidecars, and let in. What it
    /// would allow it does not allow either. Default: false.
    #[serde(default)]
    pub audit: bool,
}

/// Who, and what. Both must hold; without either the rule is for everybody or for everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessRule {
    /// Who calls; 1 to 16 entries, of which one must match. Default: whoever calls, with an identity or without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = MAX_SOURCES))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub from: Vec<Source>,
    /// What is called; 1 to 16 entries, of which one must match. Default: whatever is called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = MAX_OPERATIONS))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub to: Vec<Operation>,
}

/// Who calls: all fields that are given must hold. Identities are what clients with a sidecar have proved by their
/// certificate; a client without one has none and is told by its address alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.identity) || has(self.namespace) || has(self.serviceAccount) || has(self.cidr)",
    "from: give at least one of identity, namespace, serviceAccount and cidr; leave from out to mean everybody"))]
pub struct Source {
    /// SPIFFE identity, as spiffe://cluster.local/ns/web/sa/frontend. With * at its end: what begins so; * alone:
    /// every client that has an identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = IDENTITY))]
    pub identity: Option<String>,
    /// Namespace of the client. With * at its end: what begins so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = NAMESPACE))]
    pub namespace: Option<String>,
    /// Service account of the client, as namespace/name. With * at its end: what begins so, as web/* for all of a
    /// namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 318), regex(pattern = SERVICE_ACCOUNT))]
    pub service_account: Option<String>,
    /// Range of addresses that the connection comes from, as 10.0.0.0/8 or 2001:db8::/32, or one address. It is
    /// for clients without a sidecar, and met by those with one too: an address is no identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 64))]
    #[x_kube(validation = ("isIP(self) || (isCIDR(self) && cidr(self) == cidr(self).masked())",
        "cidr: must be a range of addresses like 10.0.0.0/8, with no bit set beyond its length, or one address"))]
    pub cidr: Option<String>,
}

/// What is called: all fields that are given must hold, and of the values of one field one. All but ports ask
/// about requests, HTTP's or gRPC's. A connection that carries neither meets no `allow` that asks about requests,
/// and every `deny` that does, for nobody can see what is in it: give such a `deny` its ports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.ports) || has(self.methods) || has(self.paths) || has(self.headers) || has(self.grpcMethods)",
    "to: give at least one of ports, methods, paths, headers and grpcMethods; leave to out to mean everything"))]
pub struct Operation {
    /// Ports that the container listens on; 1 to 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = MAX_VALUES), inner(range(min = 1, max = 65535)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub ports: Vec<u16>,
    /// Methods in capitals, for example GET; 1 to 16. GET does not stand for HEAD.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = MAX_VALUES), inner(length(min = 1, max = 32), regex(pattern = METHOD)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub methods: Vec<String>,
    /// Paths without their query, as they read when they are decoded: /a b, not /a%20b; 1 to 16. With * at its
    /// end: what begins so; /reviews/* is met by /reviews/ and /reviews/1, not by /reviews. A request whose path
    /// can be read in two ways, such as //admin, /./admin or /%61dmin, meets no path of `allow` and every one of
    /// `deny`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = MAX_VALUES), inner(length(min = 1, max = 256), regex(pattern = ACCESS_PATH)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = ("self.all(path, !path.matches('//|/[.][.]?(/|[*]|$)'))",
            "paths: must not contain //, /./ or /../, nor end in /. or /..: such a path is never allowed and always denied")
    )]
    pub paths: Vec<String>,
    /// Conditions on header fields, all of which must hold; 1 to 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = MAX_HEADERS))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<HeaderCondition>,
    /// gRPC methods, as package.Service/Method or package.Service/*; 1 to 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = MAX_VALUES), inner(length(min = 3, max = 256), regex(pattern = GRPC_METHOD)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub grpc_methods: Vec<String>,
}

/// Condition on a header field: its name and exactly one of `exact`, `prefix` and `present`. Of several fields of
/// the name all must meet it for `allow`, and one for `deny`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("(has(self.exact) ? 1 : 0) + (has(self.prefix) ? 1 : 0) + (has(self.present) ? 1 : 0) == 1",
    "headers: give exactly one of exact, prefix and present for each name"))]
pub struct HeaderCondition {
    /// Name of the field; case is ignored. Fields that belong to the connection, host, and those that say who calls
    /// can't be asked about: for that there is `from`.
    #[schemars(length(min = 1, max = 256), regex(pattern = TOKEN))]
    #[x_kube(validation = askable())]
    pub name: String,
    /// The value, byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = HEADER_VALUE))]
    pub exact: Option<String>,
    /// What the value begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = HEADER_VALUE))]
    pub prefix: Option<String>,
    /// Whether there is such a field (true) or there is none (false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
}

/// That a name is none of [`UNASKABLE_HEADERS`].
fn askable() -> Rule {
    let names = UNASKABLE_HEADERS.map(|name| format!("'{name}'")).join(", ");
    let message = format!(
        "name: a rule can't ask about {}; who calls is asked about by from",
        UNASKABLE_HEADERS.join(", ")
    );
    Rule::new(format!("!(self.lowerAscii() in [{names}])")).message(Message::Message(message))
}

impl AccessPolicySpec {
    /// The service accounts that are named in full, as `namespace/name`.
    pub fn accounts(&self) -> impl Iterator<Item = &str> {
        let rules = self.allow.iter().flatten().chain(&self.deny);
        let named = rules.flat_map(|rule| &rule.from).filter_map(|source| source.service_account.as_deref());
        named.filter(|account| !account.ends_with('*'))
    }
}
