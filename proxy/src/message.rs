//! What HTTP messages of every version have in common.

/// A header field: its name as received (compare it without case) and its value without surrounding space.
pub type Field<'a> = httparse::Header<'a>;

/// Methods that RFC 9110 §9.2.2 defines as idempotent: sending them twice has the effect of once.
#[must_use]
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// Fields that speak of one connection only (RFC 9110 §7.6.1) and are never forwarded, beside those that
/// `Connection` nominates. `Transfer-Encoding` is not among them: the framing is forwarded with the body.
#[must_use]
pub fn is_hop_by_hop(name: &str) -> bool {
    const NAMES: [&str; 6] =
        ["connection", "keep-alive", "proxy-connection", "te", "upgrade", "http2-settings"];
    NAMES.iter().any(|hop| name.eq_ignore_ascii_case(hop))
}

/// The comma-separated members of all fields of this name, without the space around them.
pub fn list<'a>(fields: &'a [Field<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name))
        .flat_map(|field| field.value.split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_spans_several_fields() {
        let fields = [
            Field { name: "Connection", value: b"close, x-a" },
            Field { name: "connection", value: b" x-b ,," },
        ];
        let members: Vec<_> = list(&fields, "connection").collect();
        assert_eq!(members, [b"close".as_slice(), b"x-a", b"x-b"]);
    }
}
