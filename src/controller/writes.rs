//! Our own writes that the watch has not shown us yet: pure.
//!
//! Between a write and its echo on the watch, what was observed is out of date, and comparing with it would
//! write the same again. A write is remembered until the watch shows the object at its version or a later one.

use std::collections::HashMap;

use super::observe::Kind;

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, empty if it has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A write that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The object.
    pub key: Key,
    /// Its `resourceVersion` afterwards.
    pub version: Option<String>,
    /// Of what was written.
    pub fingerprint: u64,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    version: u64,
    fingerprint: u64,
}

/// Writes whose echo is awaited.
#[derive(Debug, Default)]
pub struct Writes {
    pending: HashMap<Key, Pending>,
}

impl Writes {
    /// A write was made. Versions are ordered numbers (KEP-5504); one that is not can't be awaited, and costs
    /// a second write that changes nothing.
    pub fn made(&mut self, write: Write) {
        let Write { key, version, fingerprint } = write;
        match version.as_deref().and_then(number) {
            Some(version) => {
                self.pending.insert(key, Pending { version, fingerprint });
            }
            None => {
                self.pending.remove(&key);
            }
        }
    }

    /// The watch showed an object at this version.
    pub fn seen(&mut self, key: &Key, version: Option<&str>) {
        let seen = version.and_then(number);
        if let Some(pending) = self.pending.get(key)
            && seen.is_none_or(|seen| seen >= pending.version)
        {
            self.pending.remove(key);
        }
    }

    /// The watch began anew for a kind, so echoes may have been missed.
    pub fn forget(&mut self, kind: Kind) {
        self.pending.retain(|key, _| key.kind != kind);
    }

    /// Whether this very thing was written to the object and only its echo is missing.
    #[must_use]
    pub fn covers(&self, key: &Key, fingerprint: u64) -> bool {
        self.pending.get(key).is_some_and(|pending| pending.fingerprint == fingerprint)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.pending.clear();
    }
}

fn number(version: &str) -> Option<u64> {
    version.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key { kind: Kind::ConfigMap, namespace: "shop".into(), name: "ferrule".into() }
    }

    fn write(version: &str, fingerprint: u64) -> Write {
        Write { key: key(), version: Some(version.into()), fingerprint }
    }

    #[test]
    fn a_write_covers_itself_until_its_echo() {
        let mut writes = Writes::default();
        writes.made(write("10", 1));
        assert!(writes.covers(&key(), 1));
        assert!(!writes.covers(&key(), 2), "something else is to be written");
        writes.seen(&key(), Some("9"));
        assert!(writes.covers(&key(), 1), "an older state is not the echo");
        writes.seen(&key(), Some("10"));
        assert!(!writes.covers(&key(), 1));
    }

    #[test]
    fn a_later_change_by_others_counts_as_the_echo() {
        let mut writes = Writes::default();
        writes.made(write("10", 1));
        writes.seen(&key(), Some("12"));
        assert!(!writes.covers(&key(), 1));
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let mut writes = Writes::default();
        writes.made(write("100", 1));
        writes.seen(&key(), Some("99"));
        assert!(writes.covers(&key(), 1));
    }

    #[test]
    fn a_new_list_or_an_unordered_version_awaits_nothing() {
        let mut writes = Writes::default();
        writes.made(write("10", 1));
        writes.forget(Kind::Route);
        assert!(writes.covers(&key(), 1));
        writes.forget(Kind::ConfigMap);
        assert!(!writes.covers(&key(), 1));
        writes.made(write("opaque", 1));
        assert!(!writes.covers(&key(), 1));
    }
}
