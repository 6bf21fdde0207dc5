//! Which rule a request falls under: pure, first match wins.
//!
//! The operator has already put the entries in order of precedence, so deciding is a walk down the list.

use ferrule_config::{HeaderMatch, HeaderValueMatch, Match, PathMatch, RouteEntry};

use crate::message::Field;

/// What of a request decides its route.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Method, as received.
    pub method: &'a str,
    /// Path without query, as received (not percent-decoded).
    pub path: &'a str,
    /// Header fields, as received.
    pub fields: &'a [Field<'a>],
}

/// Index of the rule that the request falls under, or `None` when no entry matches.
#[must_use]
pub fn decide(entries: &[RouteEntry], request: &Request<'_>) -> Option<usize> {
    entries.iter().find(|entry| matches(&entry.matches, request)).map(|entry| entry.rule)
}

/// Whether all conditions hold.
#[must_use]
pub fn matches(conditions: &Match, request: &Request<'_>) -> bool {
    let Match { path, method, headers } = conditions;
    path.as_ref().is_none_or(|path| path_matches(path, request.path))
        && method.as_ref().is_none_or(|method| method == request.method)
        && headers.iter().all(|header| header_matches(header, request.fields))
}

fn path_matches(condition: &PathMatch, path: &str) -> bool {
    match condition {
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Prefix(prefix) => {
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            match path.strip_prefix(prefix) {
                Some(rest) => prefix.is_empty() || rest.is_empty() || rest.starts_with('/'),
                None => false,
            }
        }
    }
}

fn header_matches(condition: &HeaderMatch, fields: &[Field<'_>]) -> bool {
    let mut values = fields
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case(&condition.name))
        .map(|field| field.value);
    match &condition.value {
        HeaderValueMatch::Present(present) => values.next().is_some() == *present,
        HeaderValueMatch::Exact(exact) => joined_equals(values, exact.as_bytes()),
    }
}

/// Whether the values, joined by a comma, are `exact`. A space after the comma is optional in `exact`.
fn joined_equals<'a>(mut values: impl Iterator<Item = &'a [u8]>, exact: &[u8]) -> bool {
    let Some(first) = values.next() else { return false };
    let Some(mut rest) = exact.strip_prefix(first) else { return false };
    for value in values {
        let Some(tail) = rest.strip_prefix(b",") else { return false };
        let tail = tail.strip_prefix(b" ").unwrap_or(tail);
        let Some(tail) = tail.strip_prefix(value) else { return false };
        rest = tail;
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(condition: PathMatch, path: &str) -> bool {
        path_matches(&condition, path)
    }

    #[test]
    fn a_prefix_matches_whole_segments() {
        let prefix = || PathMatch::Prefix("/v2".into());
        assert!(path(prefix(), "/v2"));
        assert!(path(prefix(), "/v2/"));
        assert!(path(prefix(), "/v2/x"));
        assert!(!path(prefix(), "/v20"));
        assert!(!path(prefix(), "/"));
    }

    #[test]
    fn a_trailing_slash_of_a_prefix_does_not_matter() {
        let prefix = || PathMatch::Prefix("/v2/".into());
        assert!(path(prefix(), "/v2"));
        assert!(path(prefix(), "/v2/x"));
        assert!(!path(prefix(), "/v20"));
    }

    #[test]
    fn the_root_prefix_matches_everything() {
        assert!(path(PathMatch::Prefix("/".into()), "/anything"));
        assert!(path(PathMatch::Prefix("/".into()), "*"));
    }

    #[test]
    fn an_exact_path_is_compared_byte_for_byte() {
        assert!(path(PathMatch::Exact("/a".into()), "/a"));
        assert!(!path(PathMatch::Exact("/a".into()), "/a/"));
        assert!(!path(PathMatch::Exact("/a".into()), "/A"));
    }

    #[test]
    fn header_names_ignore_case_and_values_do_not() {
        let fields = [Field { name: "X-User", value: b"beta" }];
        let exact =
            |value: &str| HeaderMatch { name: "x-user".into(), value: HeaderValueMatch::Exact(value.into()) };
        assert!(header_matches(&exact("beta"), &fields));
        assert!(!header_matches(&exact("Beta"), &fields));
        assert!(!header_matches(&exact("bet"), &fields));
        assert!(!header_matches(&exact("betas"), &fields));
    }

    #[test]
    fn several_fields_of_one_name_are_one_list() {
        let fields = [
            Field { name: "a", value: b"1" },
            Field { name: "b", value: b"x" },
            Field { name: "A", value: b"2" },
        ];
        let exact =
            |value: &str| HeaderMatch { name: "a".into(), value: HeaderValueMatch::Exact(value.into()) };
        assert!(header_matches(&exact("1,2"), &fields));
        assert!(header_matches(&exact("1, 2"), &fields));
        assert!(!header_matches(&exact("1"), &fields));
    }

    #[test]
    fn presence_and_absence_can_be_asked_for() {
        let fields = [Field { name: "a", value: b"" }];
        let present = |name: &str, present| HeaderMatch {
            name: name.into(),
            value: HeaderValueMatch::Present(present),
        };
        assert!(header_matches(&present("a", true), &fields));
        assert!(!header_matches(&present("a", false), &fields));
        assert!(header_matches(&present("b", false), &fields));
    }

    #[test]
    fn the_first_entry_that_matches_decides() {
        let entry = |path: &str, rule| RouteEntry {
            port: None,
            matches: Match { path: Some(PathMatch::Prefix(path.into())), ..Match::default() },
            rule,
        };
        let entries = [entry("/a/b", 0), entry("/a", 1)];
        let request = |path| Request { method: "GET", path, fields: &[] };
        assert_eq!(decide(&entries, &request("/a/b/c")), Some(0));
        assert_eq!(decide(&entries, &request("/a/c")), Some(1));
        assert_eq!(decide(&entries, &request("/c")), None);
    }
}
