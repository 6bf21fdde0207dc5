//! What of a request consistent hashing goes by. Pure.

use std::net::IpAddr;

use ferrule_config::HashKey;

use super::hash;
use crate::{message::Field, route::Request};

/// Hash of a request's key, or `None` when the request does not have what is to be hashed. `source`: address of the
/// client.
///
/// Several fields of one name are one value, joined by commas (RFC 9110 §5.3).
#[must_use]
pub fn of(key: &HashKey, request: &Request<'_>, source: Option<IpAddr>) -> Option<u64> {
    match key {
        HashKey::Header(name) => of_fields(request.fields, name),
        HashKey::Cookie(name) => cookie(request.fields, name).map(hash::of_bytes),
        HashKey::Query(name) => parameter(request.query?, name).map(|value| hash::of_bytes(value.as_bytes())),
        HashKey::SourceAddress => source.map(hash::of_ip),
    }
}

/// Whether the header fields are needed to find the key.
#[must_use]
pub fn needs_fields(key: &HashKey) -> bool {
    matches!(key, HashKey::Header(_) | HashKey::Cookie(_))
}

fn of_fields(fields: &[Field<'_>], name: &str) -> Option<u64> {
    let mut values =
        fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value);
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(hash::of_bytes(first)) };
    let rest: Vec<_> = [first, second].into_iter().chain(values).collect();
    Some(hash::of_bytes(&rest.join(&b","[..])))
}

/// Value of the first cookie of this name (RFC 6265 §4.2.1; in HTTP/2 each cookie may be a field of its own, RFC 9113
/// §8.2.3).
#[must_use]
pub fn cookie<'a>(fields: &[Field<'a>], name: &str) -> Option<&'a [u8]> {
    fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("cookie"))
        .flat_map(|field| field.value.split(|&byte| byte == b';'))
        .find_map(|pair| {
            let pair = pair.trim_ascii();
            let rest = pair.strip_prefix(name.as_bytes())?;
            rest.strip_prefix(b"=")
        })
}

/// Value of the first parameter of this name, as it stands there: nothing is decoded.
#[must_use]
pub fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| match pair.split_once('=') {
        Some((key, value)) => (key == name).then_some(value),
        None => (pair == name).then_some(""),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(name: &str, fields: &[Field<'_>]) -> Option<u64> {
        of(&HashKey::Header(name.into()), &Request { fields, ..Request::default() }, None)
    }

    #[test]
    fn a_header_is_found_whatever_its_case() {
        let fields = [Field { name: "X-User", value: b"alice" }];
        assert_eq!(header("x-user", &fields), Some(hash::of_bytes(b"alice")));
        assert_eq!(header("x-other", &fields), None);
    }

    #[test]
    fn several_fields_are_one_value() {
        let two = [Field { name: "a", value: b"1" }, Field { name: "A", value: b"2" }];
        let one = [Field { name: "a", value: b"1,2" }];
        assert_eq!(header("a", &two), header("a", &one));
    }

    #[test]
    fn a_cookie_is_found_among_others_and_in_several_fields() {
        let fields = [
            Field { name: "Cookie", value: b"xid=1; a=b=c ;id2=3" },
            Field { name: "cookie", value: b"id=4;id=5" },
        ];
        assert_eq!(cookie(&fields, "a"), Some(&b"b=c"[..]));
        assert_eq!(cookie(&fields, "id"), Some(&b"4"[..]));
        assert_eq!(cookie(&fields, "xi"), None);
    }

    #[test]
    fn a_parameter_is_the_first_of_its_name() {
        assert_eq!(parameter("a=1&user=x&user=y", "user"), Some("x"));
        assert_eq!(parameter("users=1&user", "user"), Some(""));
        assert_eq!(parameter("", "user"), None);
    }

    #[test]
    fn a_request_without_the_key_has_no_hash() {
        let request = Request { method: "GET", path: "/", ..Request::default() };
        for key in [HashKey::Cookie("a".into()), HashKey::Query("a".into()), HashKey::SourceAddress] {
            assert_eq!(of(&key, &request, None), None);
        }
        let source = Some("10.0.0.1".parse().expect("an address"));
        assert!(of(&HashKey::SourceAddress, &request, source).is_some());
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_search(value: Vec<u8>, name in "[a-z]{1,4}", query: String) {
            let fields = [Field { name: "cookie", value: &value }];
            let _ = cookie(&fields, &name);
            let _ = parameter(&query, &name);
        }

        #[test]
        fn what_was_written_is_found(before in "[a-d]=[a-z]{0,5}; ", value in "[!-:<-~]{0,20}") {
            let text = format!("{before}session={value}; z=1");
            let fields = [Field { name: "cookie", value: text.as_bytes() }];
            prop_assert_eq!(cookie(&fields, "session"), Some(value.as_bytes()));
        }
    }
}
