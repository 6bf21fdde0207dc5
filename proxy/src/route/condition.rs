//! Conditions on a request, ready to be asked: patterns are compiled.

use ferrule_config::{HeaderMatch, Match, PathMatch, Pattern, QueryMatch, ValueMatch};

use super::Request;
use crate::{balance::parameter, message::Field};

/// What is wrong with conditions, if the proxy can't ask them.
#[must_use]
pub fn fault(conditions: &Match) -> Option<String> {
    Path::new(conditions.path.as_ref()).err().or_else(|| Rest::new(conditions).err())
}

/// Condition on the path.
#[derive(Debug)]
pub(super) enum Path {
    Exact(Box<str>),
    /// Without a slash at the end; empty for every path.
    Prefix(Box<str>),
    Regex(Pattern),
}

impl Path {
    /// None is that of every path.
    pub fn new(condition: Option<&PathMatch>) -> Result<Self, String> {
        Ok(match condition {
            None => Self::Prefix("".into()),
            Some(PathMatch::Exact(path)) => Self::Exact(path.as_str().into()),
            Some(PathMatch::Prefix(prefix)) => {
                Self::Prefix(prefix.strip_suffix('/').unwrap_or(prefix).into())
            }
            Some(PathMatch::Regex(pattern)) => Self::Regex(compiled(pattern)?),
        })
    }

    pub fn holds(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == &**exact,
            Self::Prefix(prefix) => match path.strip_prefix(&**prefix) {
                Some(rest) => prefix.is_empty() || rest.is_empty() || rest.starts_with('/'),
                None => false,
            },
            Self::Regex(pattern) => pattern.matches(path.as_bytes()),
        }
    }

    /// How much of a path that it matches is the prefix.
    pub fn prefix_length(&self) -> usize {
        match self {
            Self::Prefix(prefix) => prefix.len(),
            Self::Exact(_) | Self::Regex(_) => 0,
        }
    }
}

/// All conditions but that on the path.
#[derive(Debug)]
pub(super) struct Rest {
    method: Option<Box<str>>,
    headers: Box<[(Box<str>, Value)]>,
    query: Box<[(Box<str>, Value)]>,
    hosts: Box<[Box<str>]>,
}

/// Condition on a value.
#[derive(Debug)]
enum Value {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Regex(Pattern),
    Present(bool),
}

impl Rest {
    pub fn new(conditions: &Match) -> Result<Self, String> {
        // The source is looked at when the table is made.
        let Match { path: _, method, headers, query, hosts, source: _ } = conditions;
        let headers = headers.iter().map(|HeaderMatch { name, value }| named(name, value));
        let query = query.iter().map(|QueryMatch { name, value }| named(name, value));
        Ok(Self {
            method: method.as_deref().map(Into::into),
            headers: headers.collect::<Result<_, _>>()?,
            query: query.collect::<Result<_, _>>()?,
            hosts: hosts.iter().map(|host| host.as_str().into()).collect(),
        })
    }

    pub fn holds(&self, request: &Request<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| **method == *request.method)
            && self.headers.iter().all(|(name, value)| value.holds_for_fields(name, request.fields))
            && (self.query.is_empty() || self.holds_for_query(request.query.unwrap_or_default()))
            && (self.hosts.is_empty() || self.holds_for_host(request.authority))
    }

    /// A header field that must have a certain value, if there is one.
    pub fn exact_header(&self) -> Option<(&str, &[u8])> {
        self.headers.iter().find_map(|(name, value)| match value {
            Value::Exact(exact) => Some((&**name, &**exact)),
            _ => None,
        })
    }

    fn holds_for_query(&self, query: &str) -> bool {
        self.query.iter().all(|(name, value)| value.holds(parameter(query, name).map(str::as_bytes)))
    }

    fn holds_for_host(&self, authority: &[u8]) -> bool {
        let host = host(authority);
        self.hosts.iter().any(|wanted| match wanted.strip_prefix('*') {
            Some(suffix) => {
                let labels = host.len().checked_sub(suffix.len()).filter(|&labels| labels > 0);
                labels.is_some_and(|labels| host[labels..].eq_ignore_ascii_case(suffix.as_bytes()))
            }
            None => host.eq_ignore_ascii_case(wanted.as_bytes()),
        })
    }
}

fn named(name: &str, value: &ValueMatch) -> Result<(Box<str>, Value), String> {
    let value = match value {
        ValueMatch::Exact(exact) => Value::Exact(exact.as_bytes().into()),
        ValueMatch::Prefix(prefix) => Value::Prefix(prefix.as_bytes().into()),
        ValueMatch::Regex(pattern) => Value::Regex(compiled(pattern)?),
        ValueMatch::Present(present) => Value::Present(*present),
    };
    Ok((name.into(), value))
}

fn compiled(pattern: &str) -> Result<Pattern, String> {
    Pattern::new(pattern).map_err(|error| format!("pattern {pattern:?}: {error}"))
}

/// An authority without its port and the dot that may end a name.
fn host(authority: &[u8]) -> &[u8] {
    let host = match authority.iter().rposition(|&byte| byte == b':') {
        // The colons of an IPv6 address stand within brackets.
        Some(colon) if !authority[colon..].contains(&b']') => &authority[..colon],
        _ => authority,
    };
    host.strip_suffix(b".").unwrap_or(host)
}

impl Value {
    fn holds(&self, value: Option<&[u8]>) -> bool {
        match (self, value) {
            (Self::Present(present), value) => value.is_some() == *present,
            (_, None) => false,
            (Self::Exact(exact), Some(value)) => **exact == *value,
            (Self::Prefix(prefix), Some(value)) => value.starts_with(prefix),
            (Self::Regex(pattern), Some(value)) => pattern.matches(value),
        }
    }

    fn holds_for_fields(&self, name: &str, fields: &[Field<'_>]) -> bool {
        let mut values = fields
            .iter()
            .filter(|field| field.name.len() == name.len() && field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value);
        match self {
            Self::Present(present) => values.next().is_some() == *present,
            Self::Exact(exact) => joined_equals(values, exact),
            Self::Prefix(_) | Self::Regex(_) => {
                let Some(first) = values.next() else { return false };
                let Some(second) = values.next() else { return self.holds(Some(first)) };
                let all: Vec<_> = [first, second].into_iter().chain(values).collect();
                self.holds(Some(&all.join(&b","[..])))
            }
        }
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
        Path::new(Some(&condition)).expect("sound").holds(path)
    }

    fn holds(conditions: &Match, request: &Request<'_>) -> bool {
        Rest::new(conditions).expect("sound").holds(request)
    }

    fn header(name: &str, value: ValueMatch) -> Match {
        Match { headers: vec![HeaderMatch { name: name.into(), value }], ..Match::default() }
    }

    fn with_fields(conditions: &Match, fields: &[Field<'_>]) -> bool {
        holds(conditions, &Request { method: "GET", path: "/", fields, ..Request::default() })
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
    fn a_pattern_is_for_the_whole_path() {
        let pattern = || PathMatch::Regex("/items/[0-9]+".into());
        assert!(path(pattern(), "/items/42"));
        assert!(!path(pattern(), "/items/42/parts") && !path(pattern(), "/v1/items/42"));
    }

    #[test]
    fn header_names_ignore_case_and_values_do_not() {
        let fields = [Field { name: "X-User", value: b"beta" }];
        let exact = |value: &str| with_fields(&header("x-user", ValueMatch::Exact(value.into())), &fields);
        assert!(exact("beta"));
        assert!(!exact("Beta") && !exact("bet") && !exact("betas"));
    }

    #[test]
    fn several_fields_of_one_name_are_one_list() {
        let fields = [
            Field { name: "a", value: b"1" },
            Field { name: "b", value: b"x" },
            Field { name: "A", value: b"2" },
        ];
        let exact = |value: &str| with_fields(&header("a", ValueMatch::Exact(value.into())), &fields);
        assert!(exact("1,2") && exact("1, 2") && !exact("1"));
        assert!(with_fields(&header("a", ValueMatch::Prefix("1,".into())), &fields));
        assert!(with_fields(&header("a", ValueMatch::Regex("1,[0-9]".into())), &fields));
        assert!(!with_fields(&header("a", ValueMatch::Regex("1".into())), &fields));
    }

    #[test]
    fn presence_and_absence_can_be_asked_for() {
        let fields = [Field { name: "a", value: b"" }];
        assert!(with_fields(&header("a", ValueMatch::Present(true)), &fields));
        assert!(!with_fields(&header("a", ValueMatch::Present(false)), &fields));
        assert!(with_fields(&header("b", ValueMatch::Present(false)), &fields));
        for value in [ValueMatch::Prefix("x".into()), ValueMatch::Regex(".*".into())] {
            assert!(!with_fields(&header("b", value), &fields), "what is not there has no value");
        }
    }

    #[test]
    fn a_parameter_is_looked_at_as_it_stands_and_the_first_counts() {
        let query = |name: &str, value: ValueMatch, query: Option<&str>| {
            let query_match = QueryMatch { name: name.into(), value };
            let conditions = Match { query: vec![query_match], ..Match::default() };
            holds(&conditions, &Request { query, ..Request::default() })
        };
        let exact = |value: &str| ValueMatch::Exact(value.into());
        assert!(query("a", exact("1"), Some("b=2&a=1&a=2")) && !query("a", exact("2"), Some("a=1&a=2")));
        assert!(!query("a", exact("1"), Some("aa=1")) && !query("a", exact("1"), None));
        assert!(query("a", exact(""), Some("a&b")) && query("a", ValueMatch::Present(true), Some("a")));
        assert!(query("a", ValueMatch::Present(false), None) && !query("a", exact(""), None));
        assert!(query("a", ValueMatch::Prefix("x".into()), Some("a=xy")));
        assert!(query("a", ValueMatch::Regex("[xy]+".into()), Some("a=xy")));
        assert!(!query("a", exact(" "), Some("a=%20")), "nothing is decoded");
    }

    #[test]
    fn a_host_has_neither_port_nor_case() {
        let host = |hosts: &[&str], authority: &str| {
            let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
            let conditions = Match { hosts, ..Match::default() };
            holds(&conditions, &Request { authority: authority.as_bytes(), ..Request::default() })
        };
        assert!(host(&["shop.example"], "shop.example") && host(&["shop.example"], "Shop.Example:8080"));
        assert!(host(&["shop.example"], "shop.example.") && !host(&["shop.example"], "www.shop.example"));
        assert!(host(&["*.example"], "shop.example") && host(&["*.example"], "a.b.EXAMPLE:1"));
        assert!(!host(&["*.example"], "example") && !host(&["*.example"], ".example.org"));
        assert!(!host(&["*.example"], "badexample"));
        assert!(host(&["a", "b"], "b") && !host(&["a"], ""));
        assert!(host(&["[::1]"], "[::1]:80") && host(&["[::1]"], "[::1]"));
    }

    #[test]
    fn what_can_not_be_asked_is_said() {
        assert_eq!(fault(&Match::default()), None);
        let bad = Match { path: Some(PathMatch::Regex("(".into())), ..Match::default() };
        assert!(fault(&bad).is_some_and(|what| what.contains("pattern \"(\"")));
        assert!(fault(&header("a", ValueMatch::Regex("[".into()))).is_some());
    }
}
