//! Which match is looked at first, by the rules of Gateway API's HTTPRoute (HTTPRouteRule, `matches`):
//! exact path, longest prefix, method, most header fields; of equals the oldest Route, then by namespace and
//! name, then by place in the Route.

use std::cmp::Reverse;

use ferrule_config::{Match, PathMatch};
use k8s_openapi::jiff::Timestamp;

/// Sorts matches: what compares less is looked at first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Precedence<'a> {
    path: PathRank,
    without_method: bool,
    headers: Reverse<usize>,
    created: Option<Timestamp>,
    route: &'a str,
    rule: usize,
    place: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    Exact,
    Prefix(Reverse<usize>),
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
            Some(PathMatch::Prefix(prefix)) => PathRank::Prefix(Reverse(prefix.len())),
            // No condition is the prefix `/`.
            None => PathRank::Prefix(Reverse(1)),
        };
        Self {
            path,
            without_method: conditions.method.is_none(),
            headers: Reverse(conditions.headers.len()),
            created,
            route,
            rule,
            place,
        }
    }
}
