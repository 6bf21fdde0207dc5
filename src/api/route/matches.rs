//! Which requests a rule is for.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::api::schema::{
    self, GRPC_METHOD, GRPC_SERVICE, HEADER_VALUE, HOSTNAME, OBJECT_NAME, PATH, PORT_NAME, QUERY_NAME,
    QUERY_VALUE, REGEX, TOKEN,
};

/// Conditions on a request; all that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("!has(self.grpc) || !(has(self.path) || has(self.method))",
    "grpc: stands for a condition on the path; leave path and method out"))]
pub struct Match {
    /// Condition on the path. Default: any path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Method of the request in capitals, for example GET. Default: any method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[A-Z]([A-Z0-9_-]*[A-Z0-9])?$"))]
    pub method: Option<String>,
    /// Conditions on header fields, all of which must hold; up to 16, each name once, case ignored.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<HeaderMatch>,
    /// Conditions on parameters of the query, all of which must hold; up to 16, each name once.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub query_params: Vec<QueryMatch>,
    /// Host names that the request may be for (Host, or :authority in HTTP/2), in lower case; up to 16. *.example
    /// stands for all names that end in .example. A port in the request is not looked at. Default: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253), regex(pattern = HOSTNAME)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub hostnames: Vec<String>,
    /// Service and method of gRPC. They are the path of a gRPC request, so this is another way to write a
    /// condition on the path. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcMatch>,
    /// The pod that the request comes from. Its own sidecar decides by what that pod is; nothing in the request
    /// counts. Default: any pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceMatch>,
}

/// Condition on the path of a request, without its query: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = ("[has(self.exact), has(self.prefix), has(self.regex)].exists_one(given, given)",
        "path: give exactly one of exact, prefix and regex"),
    validation = ("!has(self.exact) || !self.exact.matches('//|/[.][.]?(/|$)')",
        "path.exact: must not contain //, /./ or /../, nor end in /. or /.., as no request would match"),
    validation = ("!has(self.prefix) || !self.prefix.matches('//|/[.][.]?(/|$)')",
        "path.prefix: must not contain //, /./ or /../, nor end in /. or /.., as no request would match")
)]
pub struct PathMatch {
    /// The whole path, byte for byte, for example /login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = PATH))]
    pub exact: Option<String>,
    /// Leading segments of the path: /v2 matches /v2, /v2/ and /v2/x, but not /v20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = PATH))]
    pub prefix: Option<String>,
    /// Regular expression for the whole path, for example /items/[0-9]+(/.*)?; RE2's syntax, without look-around and
    /// back-references. It is looked at after every prefix but /, however long it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = REGEX))]
    pub regex: Option<String>,
}

/// Condition on a header field: its name and exactly one of the other fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = (
    "[has(self.exact), has(self.prefix), has(self.regex), has(self.present)].exists_one(given, given)",
    "headers: give exactly one of exact, prefix, regex and present for each name"
))]
pub struct HeaderMatch {
    /// Name of the field; case is ignored. Several fields of the name are joined by a comma and looked at as one.
    #[schemars(length(min = 1, max = 256), regex(pattern = TOKEN))]
    pub name: String,
    /// The value, byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), regex(pattern = HEADER_VALUE))]
    pub exact: Option<String>,
    /// What the value begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), regex(pattern = HEADER_VALUE))]
    pub prefix: Option<String>,
    /// Regular expression for the whole value; RE2's syntax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = REGEX))]
    pub regex: Option<String>,
    /// Whether there is such a field (true) or there is none (false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
}

/// Condition on a parameter of the query: its name and exactly one of the other fields. Name and value are looked
/// at as they stand in the URL: nothing is decoded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = (
    "[has(self.exact), has(self.prefix), has(self.regex), has(self.present)].exists_one(given, given)",
    "queryParams: give exactly one of exact, prefix, regex and present for each name"
))]
pub struct QueryMatch {
    /// Name of the parameter, with case. Of several parameters of the name the first counts.
    #[schemars(length(min = 1, max = 256), regex(pattern = QUERY_NAME))]
    pub name: String,
    /// The value, byte for byte; a parameter without = has the empty one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = QUERY_VALUE))]
    pub exact: Option<String>,
    /// What the value begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = QUERY_VALUE))]
    pub prefix: Option<String>,
    /// Regular expression for the whole value; RE2's syntax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = REGEX))]
    pub regex: Option<String>,
    /// Whether there is such a parameter (true) or there is none (false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
}

/// What a call of gRPC asks for; at least one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.service) || has(self.method)", "grpc: give service, method or both"))]
pub struct GrpcMatch {
    /// Full name of the service, for example shop.v1.Cart. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = GRPC_SERVICE))]
    pub service: Option<String>,
    /// Name of the method, for example AddItem. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = GRPC_METHOD))]
    pub method: Option<String>,
}

/// Condition on the pod that a request comes from; all that is given must hold, and something must be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = (
    "has(self.namespace) || has(self.serviceAccount) || (has(self.podLabels) && size(self.podLabels) > 0)",
    "source: give namespace, serviceAccount or podLabels"
))]
pub struct SourceMatch {
    /// Its namespace. Default: any; with serviceAccount, the namespace of this Route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = PORT_NAME))]
    pub namespace: Option<String>,
    /// Name of its service account. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub service_account: Option<String>,
    /// Labels that it has; up to 16. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels_or_none")]
    pub pod_labels: BTreeMap<String, String>,
}
