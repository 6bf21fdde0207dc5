//! All entries of a Service's port.

use std::collections::HashMap;

use ferrule_config::RouteEntry;

use super::{
    Request,
    condition::{Path, Rest},
    group::Group,
    prefixes::Prefixes,
};

/// So few entries are simply walked along.
const WALKED: usize = 8;

/// The entries of a Service's port, in order of precedence.
#[derive(Debug, Default)]
pub struct Table {
    entries: Vec<RouteEntry>,
    paths: Vec<Path>,
    rest: Vec<Rest>,
    /// Nothing if there are but few.
    index: Option<Box<Index>>,
}

#[derive(Debug)]
struct Index {
    exact: HashMap<Box<str>, Group>,
    prefixes: Prefixes<Group>,
    /// Entries with a regular expression for the path, ascending.
    patterns: Vec<u32>,
}

/// What a request falls under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Index of the rule.
    pub rule: usize,
    /// How many bytes of the path are the prefix that it was found by, without a slash at its end; 0 if by none.
    pub prefix: usize,
}

impl Table {
    /// A table of these entries.
    ///
    /// # Errors
    /// What is wrong with an entry: see [`super::fault`].
    pub fn new(entries: Vec<RouteEntry>) -> Result<Self, String> {
        let paths = entries.iter().map(|entry| Path::new(entry.matches.path.as_ref()));
        let paths = paths.collect::<Result<Vec<_>, _>>()?;
        let rest = entries.iter().map(|entry| Rest::new(&entry.matches)).collect::<Result<Vec<_>, _>>()?;
        let index = (entries.len() > WALKED).then(|| Box::new(Index::new(&paths, &rest)));
        Ok(Self { entries, paths, rest, index })
    }

    /// The entries, in their order.
    #[must_use]
    pub fn entries(&self) -> &[RouteEntry] {
        &self.entries
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What the request falls under, or `None` when no entry matches.
    #[must_use]
    pub fn decide(&self, request: &Request<'_>) -> Option<Found> {
        let place = match &self.index {
            Some(index) => index.first(self, request),
            None => self.walk(request),
        }?;
        Some(Found { rule: self.entries[place].rule, prefix: self.paths[place].prefix_length() })
    }

    fn walk(&self, request: &Request<'_>) -> Option<usize> {
        let mut both = self.paths.iter().zip(&self.rest);
        both.position(|(path, rest)| path.holds(request.path) && rest.holds(request))
    }
}

impl Index {
    fn new(paths: &[Path], rest: &[Rest]) -> Self {
        let (mut exact, mut prefixes) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        let mut patterns = Vec::new();
        for (place, path) in (0..).zip(paths) {
            match path {
                Path::Exact(path) => exact.entry(path.clone()).or_default().push(place),
                Path::Prefix(prefix) => prefixes.entry(prefix.clone()).or_default().push(place),
                Path::Regex(_) => patterns.push(place),
            }
        }
        let group = |(path, entries)| (path, Group::new(entries, rest));
        Self {
            exact: exact.into_iter().map(group).collect(),
            prefixes: Prefixes::new(prefixes.into_iter().map(group)),
            patterns,
        }
    }

    /// The first entry that matches. Each kind of path may have it: nothing here relies on how the entries are sorted.
    fn first(&self, table: &Table, request: &Request<'_>) -> Option<usize> {
        let mut best = u32::MAX;
        if let Some(group) = self.exact.get(request.path) {
            best = group.first(&table.rest, request, best);
        }
        for group in self.prefixes.of(request.path) {
            best = group.first(&table.rest, request, best);
        }
        for &entry in self.patterns.iter().take_while(|&&entry| entry < best) {
            let place = entry as usize;
            if table.rest[place].holds(request) && table.paths[place].holds(request.path) {
                return Some(place);
            }
        }
        (best != u32::MAX).then_some(best as usize)
    }
}

#[cfg(test)]
mod tests {
    use ferrule_config::{HeaderMatch, Match, PathMatch, QueryMatch, ValueMatch};
    use proptest::prelude::*;

    use super::*;
    use crate::message::Field;

    fn entry(matches: Match, rule: usize) -> RouteEntry {
        RouteEntry { port: None, matches, rule }
    }

    fn prefix(path: &str) -> Match {
        Match { path: Some(PathMatch::Prefix(path.into())), ..Match::default() }
    }

    #[test]
    fn the_first_entry_that_matches_decides_and_says_how_long_its_prefix_is() {
        let table = Table::new(vec![entry(prefix("/a/b/"), 0), entry(prefix("/a"), 1)]).expect("sound");
        let decide = |path| table.decide(&Request { method: "GET", path, ..Request::default() });
        assert_eq!(decide("/a/b/c"), Some(Found { rule: 0, prefix: 4 }));
        assert_eq!(decide("/a/c"), Some(Found { rule: 1, prefix: 2 }));
        assert_eq!(decide("/c"), None);
    }

    #[test]
    fn a_field_that_comes_twice_is_a_list_in_a_large_table_too() {
        let header = |value: &str| Match {
            headers: vec![HeaderMatch { name: "x-user".into(), value: ValueMatch::Exact(value.into()) }],
            ..Match::default()
        };
        let mut entries: Vec<_> = (0..50).map(|rule| entry(header(&rule.to_string()), rule)).collect();
        entries.push(entry(header("1,2"), 50));
        let table = Table::new(entries).expect("sound");
        let decide = |values: &[&'static [u8]]| {
            let fields: Vec<_> = values.iter().map(|value| Field { name: "X-User", value }).collect();
            table
                .decide(&Request { path: "/", fields: &fields, ..Request::default() })
                .map(|found| found.rule)
        };
        assert_eq!(decide(&[b"7"]), Some(7));
        assert_eq!(decide(&[b"1", b"2"]), Some(50));
        assert_eq!(decide(&[b"1,2"]), Some(50));
        assert_eq!(decide(&[b"2", b"1"]), None);
    }

    fn matches() -> impl Strategy<Value = Match> {
        let path = prop_oneof![
            Just(None),
            "(/[ab]{0,2}){1,3}".prop_map(|path| Some(PathMatch::Exact(path))),
            "(/[ab]{0,2}){1,3}".prop_map(|path| Some(PathMatch::Prefix(path))),
            "/[ab][.][*]".prop_map(|path| Some(PathMatch::Regex(path))),
        ];
        let value = prop_oneof![
            "[ab]".prop_map(ValueMatch::Exact),
            "[ab]".prop_map(ValueMatch::Prefix),
            any::<bool>().prop_map(ValueMatch::Present),
        ];
        let method = prop::option::of(prop::sample::select(vec!["GET".to_owned(), "PUT".to_owned()]));
        let headers = prop::collection::vec(("[xy]", value.clone()), 0..2);
        let query = prop::collection::vec(("[xy]", value), 0..2);
        (path, method, headers, query).prop_map(|(path, method, headers, query)| Match {
            path,
            method,
            headers: headers.into_iter().map(|(name, value)| HeaderMatch { name, value }).collect(),
            query: query.into_iter().map(|(name, value)| QueryMatch { name, value }).collect(),
            ..Match::default()
        })
    }

    proptest! {
        #[test]
        fn a_large_table_decides_as_a_walk_does(
            matches in prop::collection::vec(matches(), 9..60),
            path in "(/[ab]{0,2}){1,4}",
            method in prop::sample::select(vec!["GET", "PUT"]),
            fields in prop::collection::vec(("[xXy]", "[ab]{1,2}"), 0..3),
            query in prop::option::of("([xy]=[ab]{1,2}&){0,2}"),
        ) {
            let entries = matches.into_iter().enumerate().map(|(rule, matches)| entry(matches, rule));
            let table = Table::new(entries.collect()).expect("sound");
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| Field { name, value: value.as_bytes() }).collect();
            let request =
                Request { method, path: &path, query: query.as_deref(), fields: &fields, authority: b"" };
            prop_assert!(table.index.is_some());
            prop_assert_eq!(table.decide(&request).map(|found| found.rule), table.walk(&request));
        }
    }
}
