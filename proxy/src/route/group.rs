//! Entries with the same condition on the path: which of them matches first.

use std::collections::HashMap;

use super::{Request, condition::Rest};

/// Entries that go by the value of a header are found by it as soon as there are so many.
const INDEXED: usize = 8;
/// No header field's name that a condition could have is longer.
const LONGEST_NAME: usize = 256;

/// Indexes of entries, ascending.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// The lowest of all.
    first: u32,
    list: Vec<u32>,
    /// Those that want a field to have a value: by name in lower case, then by value.
    by_header: HashMap<Box<str>, Named>,
}

/// Entries that want a certain field.
#[derive(Debug, Default)]
struct Named {
    by_value: HashMap<Box<[u8]>, Vec<u32>>,
    all: Vec<u32>,
}

impl Group {
    /// Of the entries with these indexes, which ascend.
    pub fn new(entries: Vec<u32>, conditions: &[Rest]) -> Self {
        let first = entries.first().copied().unwrap_or(u32::MAX);
        let header = |&entry: &u32| conditions[entry as usize].exact_header();
        if entries.iter().filter(|entry| header(entry).is_some()).count() < INDEXED {
            return Self { first, list: entries, by_header: HashMap::new() };
        }
        let mut group = Self { first, ..Self::default() };
        for entry in entries {
            let Some((name, value)) = header(&entry) else {
                group.list.push(entry);
                continue;
            };
            let named = group.by_header.entry(name.to_ascii_lowercase().into()).or_default();
            named.all.push(entry);
            // A field that occurs several times, or whose value has a comma, is looked at as a list.
            named.by_value.entry(value.into()).or_default().push(entry);
        }
        group
    }

    /// The first entry that matches and comes before `best`.
    pub fn first(&self, conditions: &[Rest], request: &Request<'_>, mut best: u32) -> u32 {
        if self.first >= best {
            return best;
        }
        let mut look = |entries: &[u32]| {
            let before = best;
            let earlier = |&entry: &u32| entry < before;
            let holds = |&entry: &u32| conditions[entry as usize].holds(request);
            best = entries.iter().copied().take_while(earlier).find(holds).unwrap_or(before);
        };
        look(&self.list);
        if !self.by_header.is_empty() {
            self.by_header(request, look);
        }
        best
    }

    /// Looks at what the request's fields lead to.
    fn by_header(&self, request: &Request<'_>, mut look: impl FnMut(&[u32])) {
        let mut space = [0; LONGEST_NAME];
        for (place, field) in request.fields.iter().enumerate() {
            let Some(lower) = space.get_mut(..field.name.len()) else { continue };
            lower.copy_from_slice(field.name.as_bytes());
            lower.make_ascii_lowercase();
            let named = std::str::from_utf8(lower).ok().and_then(|name| self.by_header.get(name));
            let Some(named) = named else { continue };
            if request.fields[place + 1..].iter().any(|other| other.name.eq_ignore_ascii_case(field.name)) {
                look(&named.all);
            } else if let Some(entries) = named.by_value.get(field.value) {
                look(entries);
            }
        }
    }
}
