//! Fields in, fields out: what the next hop is to see. Pure.
//!
//! The rules are those of [`crate::http1::rewrite`]; connection-specific fields can't occur here, for a message
//! that has them is malformed (RFC 9113 §8.2.2).

use ferrule_config::{HeaderChange, names::ERROR_HEADER};

use crate::http2::{fields::Fields, hpack::Field};

/// Takes a field; its name is in lower case.
pub type Each<'a> = &'a mut dyn FnMut(Field<'_>);

/// Hands out a request's head for HTTP/2.
pub fn request(head: &Fields, changes: &HeaderChange, each: Each<'_>) {
    each(Field::new(b":method", head.method().as_bytes()));
    if head.method() != "CONNECT" {
        each(Field::new(b":scheme", head.scheme().as_bytes()));
    }
    each(Field::new(b":authority", head.authority().as_bytes()));
    if head.method() != "CONNECT" {
        each(Field::new(b":path", head.path().as_bytes()));
    }
    changed(head.regular_fields().filter(|field| field.name != b"host"), changes, each);
}

/// Hands out a response's head. A `Content-Length` is dropped where there must be none (RFC 9110 §8.6: 1xx, 204). Unless `trusted`, a `ferrule-error` is a forgery and dropped.
pub fn response(head: &Fields, changes: &HeaderChange, trusted: bool, each: Each<'_>) {
    let mut no_length = false;
    if let Some((name, status)) = head.iter().next() {
        no_length = status.starts_with(b"1") || status == b"204";
        each(Field::new(name, status));
    }
    let genuine = |name: &[u8]| trusted || name != ERROR_HEADER.as_bytes();
    let proper = |name: &[u8]| genuine(name) && !(no_length && name == b"content-length");
    changed(head.regular_fields().filter(|field| proper(field.name)), changes, each);
}

/// Hands out trailers.
pub fn trailers(trailers: &Fields, each: Each<'_>) {
    trailers.regular_fields().for_each(each);
}

/// Applies the changes of a rule: remove, set, add.
fn changed<'a>(fields: impl Iterator<Item = Field<'a>>, changes: &HeaderChange, each: Each<'_>) {
    let HeaderChange { set, add, remove } = changes;
    let is = |name: &[u8], other: &String| name.eq_ignore_ascii_case(other.as_bytes());
    for field in fields {
        let name = field.name;
        if !remove.iter().any(|each| is(name, each)) && !set.iter().any(|(each, _)| is(name, each)) {
            each(field);
        }
    }
    for (name, value) in set.iter().chain(add) {
        each(Field::new(name.to_ascii_lowercase().as_bytes(), value.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(hand_out: impl FnOnce(Each<'_>)) -> String {
        let mut text = String::new();
        hand_out(&mut |Field { name, value, .. }| {
            text += &format!("{}: {}\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        });
        text
    }

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in list {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    #[test]
    fn a_host_becomes_the_authority_and_changes_apply() {
        let mut head = fields(&[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            ("host", "shop"),
            ("x-gone", "1"),
            ("x-set", "old"),
        ]);
        head.as_request().expect("valid");
        let changes = HeaderChange {
            set: vec![("X-Set".into(), "new".into())],
            add: vec![("x-add".into(), "2".into())],
            remove: vec!["X-Gone".into()],
        };
        assert_eq!(
            collected(|each| request(&head, &changes, each)),
            ":method: GET\n:scheme: http\n:authority: shop\n:path: /\nx-set: new\nx-add: 2\n"
        );
    }

    #[test]
    fn what_has_no_content_has_no_length() {
        let none = HeaderChange::default();
        for (status, kept) in [("103", false), ("204", false), ("200", true), ("205", true), ("304", true)] {
            let mut head = fields(&[(":status", status), ("content-length", "0"), ("x", "y")]);
            head.as_response().expect("valid");
            let text = collected(|each| response(&head, &none, true, each));
            assert_eq!(text.contains("content-length"), kept, "{text}");
            assert!(text.ends_with("x: y\n"), "{text}");
        }
    }

    #[test]
    fn an_application_can_not_forge_an_error_of_the_proxy() {
        let mut head = fields(&[(":status", "503"), (ERROR_HEADER, "app-connect"), ("x", "y")]);
        head.as_response().expect("valid");
        let none = HeaderChange::default();
        assert_eq!(collected(|each| response(&head, &none, false, each)), ":status: 503\nx: y\n");
        assert!(collected(|each| response(&head, &none, true, each)).contains("app-connect"));
    }
}
