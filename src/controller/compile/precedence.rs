//! Which match is looked at first, by the rules of Gateway API's HTTPRoute (HTTPRouteRule, `matches`):
//! exact path, longest prefix, method, most header fields, most query parameters; of equals the oldest Route, then by
//! namespace and name, then by place in the Route.
//!
//! Where Gateway API leaves it to us: a regular expression for the path comes after all prefixes but `/`, after which
//! nothing would ever reach it, and of two the longer one goes first. Host names and the source come last, the more
//! specific first.

use std::cmp::Reverse;

use ferrule_config::{Match, PathMatch, SourceMatch};
use k8s_openapi::jiff::Timestamp;

/// Sorts matches: what compares less is looked at first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Precedence<'a> {
    path: PathRank,
    without_method: bool,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    host: HostRank,
    source: Reverse<usize>,
    created: Option<Timestamp>,
    route: &'a str,
    rule: usize,
    place: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    Exact,
    Prefix(Reverse<usize>),
    Regex(Reverse<usize>),
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum HostRank {
    Exact,
    Wildcard(Reverse<usize>),
    Any,
}

impl<'a> Precedence<'a> {
    /// Of the match at this place of this rule of this Route.
    pub(super) fn of(
        conditions: &Match,
        created: Option<Timestamp>,
        route: &'a str,
        rule: usize,
        place: usize,
    ) -> Self {
        let path = match &conditions.path {
            Some(PathMatch::Exact(_)) => PathRank::Exact,
            Some(PathMatch::Prefix(prefix)) if prefix != "/" => PathRank::Prefix(Reverse(prefix.len())),
            Some(PathMatch::Regex(pattern)) => PathRank::Regex(Reverse(pattern.len())),
            // No condition is the prefix `/`.
            Some(PathMatch::Prefix(_)) | None => PathRank::Any,
        };
        let Match { path: _, method, headers, query, hosts, source } = conditions;
        let SourceMatch { namespace, account, labels } = source;
        Self {
            path,
            without_method: method.is_none(),
            headers: Reverse(headers.len()),
            query: Reverse(query.len()),
            // A match is as specific as the most specific of its names.
            host: hosts.iter().map(|host| HostRank::of(host)).min().unwrap_or(HostRank::Any),
            source: Reverse(usize::from(namespace.is_some()) + usize::from(account.is_some()) + labels.len()),
            created,
            route,
            rule,
            place,
        }
    }
}

impl HostRank {
    fn of(host: &str) -> Self {
        if host.starts_with('*') { Self::Wildcard(Reverse(host.len())) } else { Self::Exact }
    }
}
