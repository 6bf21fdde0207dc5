//! Which watches there are to be: few, and none for what nobody uses. Pure.
//!
//! - **Slices**: what is wanted for the first time gets a watch of its own, at once. When the demand has settled, the
//!   watches of a namespace are joined into one whose selector names all Services that are used.
//! - **Services**: they have no label with their name, and field selectors know no `in`. From the third Service of a
//!   namespace on there is one watch of all of its Services, from which those that are used are picked. Services
//!   change seldom, and nothing is kept of the others.
//! - **Configuration**: a watch for each shard; nearly always there is one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{
    object::{Key, Kind},
    scope::{Scope, selector_bytes},
};

/// Services of a namespace from which on all of its Services are watched, and down to which they still are. The gap
/// keeps a pod that uses one more and one less from starting watches again and again.
const WIDE: (usize, usize) = (3, 2);
/// Bytes of the names in one selector. A request line of 8 KiB passes all usual load balancers.
const MAX_SELECTOR: usize = 4096;
/// A demand that never settles is met after as many times the pause.
const PATIENCE: u32 = 5;

/// A watch.
pub(super) type Id = u64;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A watch has to begin; where the oldest of `after` ended, if there are any.
    Start { id: Id, after: Vec<Id> },
    /// A watch has to end.
    End(Id),
}

/// The watches that there are.
#[derive(Debug)]
pub(super) struct Plan {
    scopes: BTreeMap<Id, Scope>,
    next: Id,
    /// How long the demand has to be the same before watches are joined.
    settle: Duration,
    /// Since when they could be joined, and when they will be.
    untidy: Option<(Instant, Instant)>,
}

/// A kind of objects in a namespace.
type Collection = (Kind, String);

impl Plan {
    /// Nothing is watched yet.
    pub fn new(settle: Duration) -> Self {
        Self { scopes: BTreeMap::new(), next: 0, settle, untidy: None }
    }

    /// What each watch covers.
    pub fn scopes(&self) -> &BTreeMap<Id, Scope> {
        &self.scopes
    }

    /// When [`Plan::settle`] is to be called.
    pub fn due(&self) -> Option<Instant> {
        self.untidy.map(|(_, due)| due)
    }

    /// These are wanted from now on. Steps are to be taken in their order.
    pub fn want(&mut self, keys: &BTreeSet<Key>, now: Instant) -> Vec<Step> {
        let mut wanted: BTreeMap<Collection, BTreeSet<String>> = BTreeMap::new();
        for scope in self.scopes.values() {
            wanted.entry((scope.kind, scope.namespace.clone())).or_default();
        }
        for Key { kind, namespace, name } in keys {
            wanted.entry((*kind, namespace.clone())).or_default().insert(name.clone());
        }
        let mut steps = Vec::new();
        let mut changed = false;
        for (collection, names) in &wanted {
            let before = steps.len();
            match collection.0 {
                Kind::Service => self.want_services(&collection.1, names, &mut steps),
                Kind::Slices | Kind::Config => self.want_each(collection, names, &mut steps),
            }
            changed |= steps.len() > before;
        }
        if !self.is_tidy(&wanted) {
            let since = self.untidy.map_or(now, |(since, _)| since);
            let due = match self.untidy {
                Some((_, due)) if !changed => due,
                _ => (now + self.settle).min(since + self.settle * PATIENCE),
            };
            self.untidy = Some((since, due));
        } else {
            self.untidy = None;
        }
        steps
    }

    /// Joins watches, when that is due.
    pub fn settle(&mut self, keys: &BTreeSet<Key>, now: Instant) -> Vec<Step> {
        if self.due().is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.untidy = None;
        let mut wanted: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for key in keys.iter().filter(|key| key.kind == Kind::Slices) {
            wanted.entry(&key.namespace).or_default().insert(key.name.clone());
        }
        let mut steps = Vec::new();
        for (namespace, names) in wanted {
            self.join(namespace, &names, &mut steps);
        }
        steps
    }

    /// A watch for each name that has none; those that nobody wants any of end.
    fn want_each(&mut self, (kind, namespace): &Collection, names: &BTreeSet<String>, steps: &mut Vec<Step>) {
        let held = self.of(*kind, namespace);
        let mut covered = BTreeSet::new();
        for (id, scope) in &held {
            if scope.names.is_disjoint(names) {
                self.end(*id, steps);
            } else {
                covered.extend(scope.names.iter().cloned());
            }
        }
        for name in names.difference(&covered) {
            self.start(Scope::narrow(*kind, namespace, name), Vec::new(), steps);
        }
    }

    fn want_services(&mut self, namespace: &str, names: &BTreeSet<String>, steps: &mut Vec<Step>) {
        let held = self.of(Kind::Service, namespace);
        let wide = held.iter().find(|(_, scope)| scope.wide).map(|(id, _)| *id);
        let collection = (Kind::Service, namespace.to_owned());
        match wide {
            Some(id) if names.len() >= WIDE.1 => {
                if let Some(scope) = self.scopes.get_mut(&id) {
                    scope.names.clone_from(names);
                }
            }
            Some(id) => {
                for name in names {
                    self.start(Scope::narrow(Kind::Service, namespace, name), vec![id], steps);
                }
                self.end(id, steps);
            }
            None if names.len() >= WIDE.0 => {
                let after: Vec<Id> = held.iter().map(|(id, _)| *id).collect();
                let scope = Scope {
                    kind: Kind::Service,
                    namespace: namespace.into(),
                    names: names.clone(),
                    wide: true,
                };
                self.start(scope, after.clone(), steps);
                for id in after {
                    self.end(id, steps);
                }
            }
            None => self.want_each(&collection, names, steps),
        }
    }

    /// Joins the watches of a namespace's slices into as few as their selectors allow. Those that are as they
    /// should be stay.
    fn join(&mut self, namespace: &str, names: &BTreeSet<String>, steps: &mut Vec<Step>) {
        let held = self.of(Kind::Slices, namespace);
        let (keep, mut again): (Vec<_>, Vec<_>) = held
            .into_iter()
            .partition(|(_, scope)| is_clean(scope, names) && bytes(&scope.names) * 2 > MAX_SELECTOR);
        if let [(_, only)] = again.as_slice()
            && is_clean(only, names)
        {
            return;
        }
        again.retain(|(_, scope)| !scope.names.is_disjoint(names));
        let kept: BTreeSet<_> = keep.iter().flat_map(|(_, scope)| scope.names.iter()).collect();
        let after: Vec<Id> = again.iter().map(|(id, _)| *id).collect();
        for pack in pack(names.iter().filter(|name| !kept.contains(name))) {
            let scope = Scope { kind: Kind::Slices, namespace: namespace.into(), names: pack, wide: false };
            let from = again.iter().filter(|(_, old)| !old.names.is_disjoint(&scope.names));
            let from = from.map(|(id, _)| *id).collect();
            self.start(scope, from, steps);
        }
        for id in after {
            self.end(id, steps);
        }
    }

    /// Whether no watches of slices are worth being joined.
    fn is_tidy(&self, wanted: &BTreeMap<Collection, BTreeSet<String>>) -> bool {
        wanted.iter().filter(|((kind, _), _)| *kind == Kind::Slices).all(|((_, namespace), names)| {
            let held = self.of(Kind::Slices, namespace);
            let small = held.iter().filter(|(_, scope)| bytes(&scope.names) * 2 <= MAX_SELECTOR).count();
            small <= 1 && held.iter().all(|(_, scope)| is_clean(scope, names))
        })
    }

    fn of(&self, kind: Kind, namespace: &str) -> Vec<(Id, Scope)> {
        let of = self.scopes.iter().filter(|(_, scope)| scope.kind == kind && scope.namespace == namespace);
        of.map(|(id, scope)| (*id, scope.clone())).collect()
    }

    fn start(&mut self, scope: Scope, after: Vec<Id>, steps: &mut Vec<Step>) {
        let id = self.next;
        self.next += 1;
        self.scopes.insert(id, scope);
        steps.push(Step::Start { id, after });
    }

    fn end(&mut self, id: Id, steps: &mut Vec<Step>) {
        self.scopes.remove(&id);
        steps.push(Step::End(id));
    }
}

/// Whether all that it covers is wanted.
fn is_clean(scope: &Scope, wanted: &BTreeSet<String>) -> bool {
    scope.names.is_subset(wanted)
}

fn bytes(names: &BTreeSet<String>) -> usize {
    names.iter().map(|name| selector_bytes(name)).sum()
}

/// As few sets of names as their selectors allow.
fn pack<'a>(names: impl Iterator<Item = &'a String>) -> Vec<BTreeSet<String>> {
    let mut packs: Vec<BTreeSet<String>> = Vec::new();
    let mut room = 0;
    for name in names {
        let size = selector_bytes(name);
        match packs.last_mut() {
            Some(last) if size <= room => {
                last.insert(name.clone());
                room -= size;
            }
            _ => {
                packs.push(BTreeSet::from([name.clone()]));
                room = MAX_SELECTOR.saturating_sub(size);
            }
        }
    }
    packs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTLE: Duration = Duration::from_secs(2);

    fn keys(kind: Kind, names: &[&str]) -> BTreeSet<Key> {
        let key = |name: &&str| Key { kind, namespace: "shop".into(), name: (*name).to_owned() };
        names.iter().map(key).collect()
    }

    fn told(plan: &Plan) -> Vec<String> {
        plan.scopes().values().map(ToString::to_string).collect()
    }

    #[test]
    fn slices_are_watched_at_once_and_joined_later() {
        let (mut plan, start) = (Plan::new(SETTLE), Instant::now());
        let steps = plan.want(&keys(Kind::Slices, &["a"]), start);
        assert_eq!(steps, [Step::Start { id: 0, after: vec![] }]);
        assert_eq!(plan.due(), None, "one watch is few");
        let wanted = keys(Kind::Slices, &["a", "b", "c"]);
        plan.want(&wanted, start);
        assert_eq!(told(&plan).len(), 3);
        assert!(plan.settle(&wanted, start).is_empty(), "too early");
        let steps = plan.settle(&wanted, start + SETTLE);
        assert_eq!(
            steps,
            [Step::Start { id: 3, after: vec![0, 1, 2] }, Step::End(0), Step::End(1), Step::End(2)]
        );
        assert_eq!(told(&plan), ["endpointslices of shop/a,b,c"]);
        assert_eq!(plan.due(), None);
    }

    #[test]
    fn what_is_no_longer_used_leaves_the_selector() {
        let (mut plan, start) = (Plan::new(SETTLE), Instant::now());
        let all = keys(Kind::Slices, &["a", "b", "c"]);
        plan.want(&all, start);
        plan.settle(&all, start + SETTLE);
        let fewer = keys(Kind::Slices, &["a", "c"]);
        assert!(plan.want(&fewer, start + SETTLE).is_empty());
        plan.settle(&fewer, start + SETTLE * 2);
        assert_eq!(told(&plan), ["endpointslices of shop/a,c"]);
        let steps = plan.want(&BTreeSet::new(), start + SETTLE * 2);
        assert!(matches!(steps.as_slice(), [Step::End(_)]));
        assert!(plan.scopes().is_empty());
    }

    #[test]
    fn from_the_third_service_on_one_watch_covers_the_namespace() {
        let (mut plan, start) = (Plan::new(SETTLE), Instant::now());
        plan.want(&keys(Kind::Service, &["a", "b"]), start);
        assert_eq!(told(&plan), ["service shop/a", "service shop/b"]);
        let steps = plan.want(&keys(Kind::Service, &["a", "b", "c"]), start);
        assert_eq!(steps, [Step::Start { id: 2, after: vec![0, 1] }, Step::End(0), Step::End(1)]);
        assert_eq!(told(&plan), ["services of shop"]);
        let steps = plan.want(&keys(Kind::Service, &["a", "b", "c", "d"]), start);
        assert!(steps.is_empty());
        assert!(plan.want(&keys(Kind::Service, &["a", "b"]), start).is_empty(), "two are enough to stay");
        let steps = plan.want(&keys(Kind::Service, &["a"]), start);
        assert_eq!(steps, [Step::Start { id: 3, after: vec![2] }, Step::End(2)]);
    }

    #[test]
    fn a_demand_that_never_settles_is_met_all_the_same() {
        let (mut plan, start) = (Plan::new(SETTLE), Instant::now());
        let mut names: Vec<String> = Vec::new();
        for second in 0..9 {
            names.push(format!("s{second}"));
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            plan.want(&keys(Kind::Slices, &names), start + Duration::from_secs(second));
        }
        assert!(plan.due().is_some_and(|due| due <= start + SETTLE * (PATIENCE + 1)));
    }

    proptest! {
        #[test]
        fn everything_wanted_is_watched_once_and_by_few(
            demands in prop::collection::vec(
                prop::collection::btree_set((0..3usize, 0..2usize, 0..130usize), 0..120), 1..8),
            pauses in prop::collection::vec(0..3000u64, 8),
        ) {
            let kinds = [Kind::Service, Kind::Slices, Kind::Config];
            let (mut plan, mut now) = (Plan::new(SETTLE), Instant::now());
            let mut running = BTreeSet::new();
            for (demand, pause) in demands.iter().zip(pauses) {
                let wanted: BTreeSet<Key> = demand
                    .iter()
                    .map(|&(kind, namespace, name)| Key {
                        kind: kinds[kind],
                        namespace: format!("n{namespace}"),
                        name: format!("{name:0>60}"),
                    })
                    .collect();
                for settled in [false, true] {
                    let steps = if settled {
                        now += Duration::from_millis(pause);
                        plan.settle(&wanted, now)
                    } else {
                        plan.want(&wanted, now)
                    };
                    for step in steps {
                        match step {
                            Step::Start { id, after } => {
                                prop_assert!(after.iter().all(|id| running.contains(id)));
                                prop_assert!(running.insert(id));
                            }
                            Step::End(id) => prop_assert!(running.remove(&id)),
                        }
                    }
                    prop_assert!(running.iter().eq(plan.scopes().keys()));
                    for key in &wanted {
                        let covering = plan.scopes().values().filter(|scope| scope.keys().any(|each| each == *key));
                        prop_assert_eq!(covering.count(), 1, "{:?}", key);
                    }
                    for scope in plan.scopes().values() {
                        prop_assert!(scope.keys().any(|key| wanted.contains(&key)));
                        prop_assert!(scope.watch_path().len() < 8000);
                    }
                }
            }
            // Once nothing changes any more.
            let wanted: BTreeSet<Key> = plan.scopes().values().flat_map(Scope::keys).collect();
            plan.want(&wanted, now);
            plan.settle(&wanted, now + SETTLE * 100);
            for namespace in ["n0", "n1"] {
                prop_assert!(plan.of(Kind::Service, namespace).len() <= 2);
                // 130 names of 63 bytes take two selectors and a half.
                prop_assert!(plan.of(Kind::Slices, namespace).len() <= 4);
                for (_, scope) in plan.of(Kind::Slices, namespace) {
                    prop_assert!(is_clean(&scope, &wanted.iter().map(|key| key.name.clone()).collect()));
                }
            }
        }
    }
}
