//! Which version of which object was told on: news that is older never replaces what is newer, whichever watch or
//! list it comes from. Pure.
//!
//! Watches begin where others broke off, lists overtake watches, and a periodic check reads everything anew. All
//! of them may tell the same thing again, or tell it late; here that is noticed, by resource versions alone.

use std::collections::{BTreeMap, BTreeSet};

use super::object::{Key, Kind};

/// What was told on.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// All that is wanted.
    records: BTreeMap<Key, Record>,
}

#[derive(Debug, Default)]
struct Record {
    /// Whether all that there is was told once.
    seen: bool,
    /// Everything up to this version is accounted for.
    horizon: u64,
    /// Version of the last deletion.
    deleted: u64,
    /// Latest news that came before the first list, which has to be newer.
    missed: u64,
    /// Versions of the objects that are there.
    objects: BTreeMap<String, u64>,
}

/// In what a list differs from what was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// The object of this name is there, in this version.
    Put(String, u64),
    /// The object of this name is gone.
    Gone(String),
}

impl Ledger {
    /// Keeps account of these alone.
    pub fn want(&mut self, keys: &BTreeSet<Key>) {
        self.records.retain(|key, _| keys.contains(key));
        for key in keys {
            if !self.records.contains_key(key) {
                self.records.insert(key.clone(), Record::default());
            }
        }
    }

    /// Everything has to be told anew; whether it was told at all.
    pub fn forget(&mut self, key: &Key) -> bool {
        let Some(record) = self.records.get_mut(key).filter(|record| record.seen) else { return false };
        *record = Record::default();
        true
    }

    /// Whether all that there is was told once; `None` when it is not wanted.
    pub fn is_seen(&self, key: &Key) -> Option<bool> {
        self.records.get(key).map(|record| record.seen)
    }

    /// What is wanted of a kind in a namespace.
    pub fn wanted(&self, kind: Kind, namespace: &str) -> BTreeSet<Key> {
        let wanted = self.records.keys().filter(|key| key.kind == kind && key.namespace == namespace);
        wanted.cloned().collect()
    }

    /// A watch tells that an object was added or changed; whether that is news.
    pub fn put(&mut self, key: &Key, object: &str, version: u64) -> bool {
        let Some(record) = self.records.get_mut(key) else { return false };
        if !record.is_news(version) {
            return false;
        }
        record.objects.insert(object.to_owned(), version);
        true
    }

    /// A watch tells that an object is gone; whether that is news.
    pub fn gone(&mut self, key: &Key, object: &str, version: u64) -> bool {
        let Some(record) = self.records.get_mut(key) else { return false };
        if !record.is_news(version) {
            return false;
        }
        record.deleted = version;
        record.objects.remove(object).is_some()
    }

    /// A list of all objects that there were at this version, the first one of the key; whether that is enough
    /// to begin with. It is not when a watch told more already.
    pub fn begin(&mut self, key: &Key, at: u64, objects: BTreeMap<String, u64>) -> bool {
        let Some(record) = self.records.get_mut(key).filter(|record| !record.seen && record.missed <= at)
        else {
            return false;
        };
        *record = Record { seen: true, horizon: at, objects, ..Record::default() };
        true
    }

    /// Whether an object of a list is other than what was told, or was not told at all.
    pub fn is_other(&self, key: &Key, object: &str, version: u64) -> bool {
        let record = self.records.get(key);
        record.is_some_and(|record| record.objects.get(object).is_none_or(|held| *held < version))
    }

    /// In what a list of all objects that there were at version `at` differs from what was told, apart from what
    /// happened later.
    pub fn differences(&self, key: &Key, at: u64, listed: &BTreeMap<String, u64>) -> Vec<Difference> {
        let Some(record) = self.records.get(key).filter(|record| record.seen) else { return Vec::new() };
        let puts = listed
            .iter()
            .filter(|(name, version)| record.lacks(name, **version, at))
            .map(|(name, version)| Difference::Put(name.clone(), *version));
        let gone = record
            .objects
            .iter()
            .filter(|(name, held)| **held <= at && !listed.contains_key(*name))
            .map(|(name, _)| Difference::Gone(name.clone()));
        puts.chain(gone).collect()
    }

    /// Accounts for a difference to a list of version `at`; whether it is still one.
    pub fn mend(&mut self, key: &Key, at: u64, difference: &Difference) -> bool {
        let Some(record) = self.records.get_mut(key).filter(|record| record.seen) else { return false };
        match difference {
            Difference::Put(name, version) => {
                let news = record.lacks(name, *version, at);
                if news {
                    record.objects.insert(name.clone(), *version);
                }
                news
            }
            Difference::Gone(name) => {
                let news = record.objects.get(name).is_some_and(|held| *held <= at);
                if news {
                    record.objects.remove(name);
                    record.deleted = record.deleted.max(at);
                }
                news
            }
        }
    }

    /// All differences to a list of this version are accounted for.
    pub fn raise(&mut self, key: &Key, at: u64) {
        if let Some(record) = self.records.get_mut(key) {
            record.horizon = record.horizon.max(at);
        }
    }
}

impl Record {
    fn is_news(&mut self, version: u64) -> bool {
        if !self.seen {
            self.missed = self.missed.max(version);
            return false;
        }
        let news = version > self.horizon;
        self.horizon = self.horizon.max(version);
        news
    }

    /// Whether a list of version `at` shows an object that is missing or outdated here. One that is missing may
    /// have been deleted since.
    fn lacks(&self, name: &str, version: u64, at: u64) -> bool {
        self.objects.get(name).map_or(self.deleted <= at, |held| *held < version)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> Key {
        Key { kind: Kind::Slices, namespace: "shop".into(), name: "cart".into() }
    }

    fn versions(objects: &[(&str, u64)]) -> BTreeMap<String, u64> {
        objects.iter().map(|(name, version)| ((*name).to_owned(), *version)).collect()
    }

    fn begun(at: u64, objects: &[(&str, u64)]) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.want(&BTreeSet::from([key()]));
        assert!(ledger.begin(&key(), at, versions(objects)));
        ledger
    }

    #[test]
    fn what_was_told_is_not_told_again() {
        let mut ledger = begun(10, &[("a", 4)]);
        assert!(!ledger.put(&key(), "a", 4), "a replay from before the list");
        assert!(!ledger.put(&key(), "b", 9), "b was created and deleted before the list");
        assert!(ledger.put(&key(), "a", 11));
        assert!(!ledger.put(&key(), "a", 11));
        assert!(ledger.gone(&key(), "a", 12));
        assert!(!ledger.put(&key(), "a", 11), "the deletion is newer");
    }

    #[test]
    fn what_nobody_wants_is_not_told() {
        let mut ledger = begun(10, &[]);
        ledger.want(&BTreeSet::new());
        assert!(!ledger.put(&key(), "a", 11));
        assert_eq!(ledger.is_seen(&key()), None);
    }

    #[test]
    fn the_first_list_has_to_be_newer_than_what_a_watch_told() {
        let mut ledger = Ledger::default();
        ledger.want(&BTreeSet::from([key()]));
        assert!(!ledger.put(&key(), "a", 11), "how many others there are is not known");
        assert!(!ledger.begin(&key(), 10, versions(&[])));
        assert!(ledger.begin(&key(), 11, versions(&[("a", 11)])));
        assert_eq!(ledger.is_seen(&key()), Some(true));
    }

    #[test]
    fn a_list_shows_what_was_lost() {
        let ledger = begun(10, &[("old", 3), ("same", 4), ("dead", 5)]);
        let listed = versions(&[("old", 11), ("same", 4), ("new", 12)]);
        let differences = ledger.differences(&key(), 12, &listed);
        assert_eq!(
            differences,
            [
                Difference::Put("new".into(), 12),
                Difference::Put("old".into(), 11),
                Difference::Gone("dead".into())
            ]
        );
    }

    #[test]
    fn a_list_that_was_overtaken_shows_nothing() {
        let mut ledger = begun(10, &[("a", 3), ("b", 4)]);
        let listed = versions(&[("a", 3), ("b", 4)]);
        assert!(ledger.put(&key(), "a", 13) && ledger.put(&key(), "new", 14) && ledger.gone(&key(), "b", 15));
        assert!(ledger.differences(&key(), 12, &listed).is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Something happens in the cluster.
        Put(u8),
        Delete(u8),
        /// A watch that stands at this share of what has happened since it began delivers the next line.
        Deliver(usize),
        /// A watch begins at an earlier version.
        Rewind(usize, u64),
        /// A list is made.
        List,
        /// The oldest list that was made arrives.
        Arrive,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4u8).prop_map(Step::Put),
            (0..4u8).prop_map(Step::Delete),
            (0..2usize).prop_map(Step::Deliver),
            (0..2usize).prop_map(Step::Deliver),
            (0..2usize, 0..8u64).prop_map(|(watch, back)| Step::Rewind(watch, back)),
            Just(Step::List),
            Just(Step::Arrive),
        ]
    }

    proptest! {
        /// Whatever two watches and lists tell, in whatever order they come: what is held never goes back, and in
        /// the end it is what there is.
        #[test]
        fn the_newest_wins(steps in prop::collection::vec(step(), 1..120)) {
            let mut now = 1u64;
            let mut cluster = BTreeMap::<String, u64>::new();
            let mut history = Vec::<(u64, String, bool)>::new();
            let mut held = BTreeMap::<String, u64>::new();
            let mut ledger = begun(1, &[]);
            let mut watches = [1u64, 1];
            let mut lists = std::collections::VecDeque::new();
            let deliver = |position: &mut u64, history: &[(u64, String, bool)], ledger: &mut Ledger, held: &mut BTreeMap<String, u64>| {
                let Some((version, name, put)) = history.iter().find(|(version, ..)| version > position) else { return false };
                *position = *version;
                if *put {
                    if ledger.put(&key(), name, *version) {
                        assert!(held.insert(name.clone(), *version).is_none_or(|old| old < *version));
                    }
                } else if ledger.gone(&key(), name, *version) {
                    held.remove(name);
                }
                true
            };
            let arrive = |(at, listed): (u64, BTreeMap<String, u64>), ledger: &mut Ledger, held: &mut BTreeMap<String, u64>| {
                for difference in ledger.differences(&key(), at, &listed) {
                    if !ledger.mend(&key(), at, &difference) { continue }
                    match difference {
                        Difference::Put(name, version) => {
                            assert!(held.insert(name, version).is_none_or(|old| old < version));
                        }
                        Difference::Gone(name) => { held.remove(&name); }
                    }
                }
                ledger.raise(&key(), at);
            };
            for step in steps {
                match step {
                    Step::Put(name) => {
                        now += 1;
                        cluster.insert(name.to_string(), now);
                        history.push((now, name.to_string(), true));
                    }
                    Step::Delete(name) => {
                        if cluster.remove(&name.to_string()).is_some() {
                            now += 1;
                            history.push((now, name.to_string(), false));
                        }
                    }
                    Step::Deliver(watch) => {
                        deliver(&mut watches[watch], &history, &mut ledger, &mut held);
                    }
                    Step::Rewind(watch, back) => watches[watch] = watches[watch].saturating_sub(back).max(1),
                    Step::List => lists.push_back((now, cluster.clone())),
                    Step::Arrive => if let Some(list) = lists.pop_front() {
                        arrive(list, &mut ledger, &mut held);
                    }
                }
            }
            while deliver(&mut watches[0], &history, &mut ledger, &mut held) {}
            arrive((now, cluster.clone()), &mut ledger, &mut held);
            prop_assert_eq!(held, cluster);
        }
    }
}
