//! Pieces of schema that several fields share.

use ferrule_config::Duration;
use kube::core::{Message, Rule};
use schemars::{Schema, SchemaGenerator, json_schema};

/// Header fields that a Route may not change, in lower case: they frame the message or concern a single
/// connection (RFC 9110 §7.6.1), so a change breaks it, or they are the proxy's own.
pub const FORBIDDEN_HEADERS: [&str; 11] = [
    "connection",
    "content-length",
    "ferrule-error",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A DNS label of RFC 1035, as Services have for a name.
pub(super) const SERVICE_NAME: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";
/// A DNS subdomain of RFC 1123, as most objects have for a name.
pub(super) const OBJECT_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// The name of a Service's port: a DNS label of RFC 1123.
pub(super) const PORT_NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// The beginning of an object's name.
pub(super) const NAME_PREFIX: &str = "^[a-z0-9][-.a-z0-9]*$";
/// The value of a label.
pub(super) const LABEL_VALUE: &str = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";
/// The same, or the empty text, which is a value too.
const LABEL_VALUE_OR_NONE: &str = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";
/// A token of RFC 9110 §5.6.2, as header fields have for a name.
pub(super) const TOKEN: &str = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";
/// A header field's value: printable ASCII, spaces and tabs only inside.
pub(super) const HEADER_VALUE: &str = r"^[!-~]([\t -~]*[!-~])?$";
/// An absolute path of RFC 3986 §3.3, without a query.
pub(super) const PATH: &str = r"^/([A-Za-z0-9/._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*$";

/// The name of a query parameter as it stands in a URL: RFC 3986 §3.4 without `&` and `=`, which end it.
pub(super) const QUERY_NAME: &str = r"^([A-Za-z0-9._~!$'()*+,;:@/?-]|%[0-9A-Fa-f]{2})+$";

/// The value of a query parameter as it stands in a URL: RFC 3986 §3.4 without `&`, which ends it.
pub(super) const QUERY_VALUE: &str = r"^([A-Za-z0-9._~!$'()*+,;:@/?=-]|%[0-9A-Fa-f]{2})*$";
/// A regular expression: printable ASCII.
pub(super) const REGEX: &str = "^[ -~]+$";
/// A host name in lower case, or `*.` and one.
pub(super) const HOSTNAME: &str = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A host, and maybe a port.
pub(super) const HOST: &str = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(:[0-9]{1,5})?$";
/// An origin of the Fetch standard, whose host may begin with `*.`; or `*`.
pub(super) const ORIGIN: &str =
    r"^([*]|[a-z][a-z0-9]*://([*][.])?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(:[0-9]{1,5})?)$";
/// Statuses of gRPC that say of an error, from 1 on.
pub const GRPC_STATUSES: [&str; 16] = [
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The schema of the name of a status of gRPC, one of [`GRPC_STATUSES`].
pub(super) fn grpc_status(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": GRPC_STATUSES })
}

/// The schema of names of statuses of gRPC, each once.
pub(super) fn grpc_statuses(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 16, "items": { "type": "string", "enum": GRPC_STATUSES } })
}

/// The schema of the status of a redirect.
pub(super) fn redirect_status(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "enum": [301, 302, 303, 307, 308] })
}

/// The full name of a service of gRPC.
pub(super) const GRPC_SERVICE: &str = r"^[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*$";
/// The name of a method of gRPC.
pub(super) const GRPC_METHOD: &str = "^[A-Za-z_][A-Za-z_0-9]*$";

/// The schema of a [`Duration`].
pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 24, "pattern": Duration::PATTERN })
}

/// Most labels of a selector.
pub(super) const LABELS_MAX: usize = 16;

/// The schema of labels that a pod must have, up to [`LABELS_MAX`].
pub(super) fn labels_or_none(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = labels(generator);
    schema.remove("minProperties");
    schema
}

/// The schema of the labels of a selector, 1 to [`LABELS_MAX`].
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": LABELS_MAX,
        "additionalProperties": { "type": "string", "maxLength": 63, "pattern": LABEL_VALUE_OR_NONE },
    })
}

/// The schema of a [`Percent`](super::Percent) without decimals.
pub(super) fn whole_percent(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 4, "pattern": "^(100|[1-9]?[0-9])%$" })
}

/// That a name is none of [`FORBIDDEN_HEADERS`].
pub(super) fn changeable_header() -> Rule {
    let (names, readable) = forbidden();
    Rule::new(format!("!(self.lowerAscii() in [{names}])")).message(Message::Message(format!(
        "name: a Route may not change {readable}; they frame the message or belong to the connection"
    )))
}

/// The same of every name in a list.
pub(super) fn changeable_headers() -> Rule {
    let (names, readable) = forbidden();
    Rule::new(format!("self.all(name, !(name.lowerAscii() in [{names}]))")).message(Message::Message(
        format!(
            "remove: a Route may not change {readable}; they frame the message or belong to the connection"
        ),
    ))
}

/// [`FORBIDDEN_HEADERS`] as the items of a CEL list, and for people.
pub(super) fn forbidden() -> (String, String) {
    (FORBIDDEN_HEADERS.map(|name| format!("'{name}'")).join(", "), FORBIDDEN_HEADERS.join(", "))
}
