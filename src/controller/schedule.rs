//! Which scope is worked on when: pure, time is passed in.
//!
//! - A change to a quiet scope is due at once; a burst of changes is worked on every [`QUIET`].
//! - Who has which address changes with every pod of the mesh: its changes are gathered for [`PEERS_QUIET`].
//! - One piece of work a scope at a time; what changes meanwhile is due when it is done.
//! - A scope that failed waits, longer each time, without holding up the others. A new change to it is due at
//!   once all the same: it may be the cure.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use super::observe::{Need, Scope};

/// Shortest time between two pieces of work on one scope.
pub const QUIET: Duration = Duration::from_millis(5);
/// The same for [`Scope::Peers`], which are those of the whole mesh; also how long a change to it waits for others.
pub const PEERS_QUIET: Duration = Duration::from_millis(100);
/// Wait after the first failure; doubles with each further one.
const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// Longest wait after a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
struct Waiting {
    need: Need,
    due: Instant,
    /// When the change was noticed; for the latency that is reported.
    since: Instant,
}

/// A piece of work that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// On what.
    pub scope: Scope,
    /// How much of it.
    pub need: Need,
    /// When the change was noticed that led to it.
    pub since: Instant,
}

fn quiet(scope: &Scope) -> Duration {
    if *scope == Scope::Peers { PEERS_QUIET } else { QUIET }
}

/// What waits and what is under way.
#[derive(Debug, Default)]
pub struct Schedule {
    waiting: HashMap<Scope, Waiting>,
    running: HashSet<Scope>,
    started: HashMap<Scope, Instant>,
    failures: HashMap<Scope, u32>,
}

impl Schedule {
    /// Something changed.
    pub fn mark(&mut self, scope: Scope, need: Need, now: Instant) {
        let first = if scope == Scope::Peers { now + PEERS_QUIET } else { now };
        let due = self.started.get(&scope).map_or(first, |started| first.max(*started + quiet(&scope)));
        self.wait(scope, Waiting { need, due, since: now });
    }

    fn wait(&mut self, scope: Scope, new: Waiting) {
        self.waiting
            .entry(scope)
            .and_modify(|old| {
                old.need = old.need.max(new.need);
                old.due = old.due.min(new.due);
                old.since = old.since.min(new.since);
            })
            .or_insert(new);
    }

    /// Takes what is due; each must be answered by [`Schedule::finished`].
    pub fn take(&mut self, now: Instant) -> Vec<Due> {
        self.started.retain(|scope, started| now.duration_since(*started) < quiet(scope));
        let is_due = |scope: &Scope, waiting: &Waiting| waiting.due <= now && !self.running.contains(scope);
        let mut due: Vec<Due> = self
            .waiting
            .iter()
            .filter(|(scope, waiting)| is_due(scope, waiting))
            .map(|(scope, waiting)| Due { scope: scope.clone(), need: waiting.need, since: waiting.since })
            .collect();
        due.sort_by_key(|due| due.since);
        for Due { scope, .. } in &due {
            self.waiting.remove(scope);
            self.running.insert(scope.clone());
            self.started.insert(scope.clone(), now);
        }
        due
    }

    /// When there is something to take, if nothing else happens.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let free = self.waiting.iter().filter(|(scope, _)| !self.running.contains(scope));
        free.map(|(_, waiting)| waiting.due).min()
    }

    /// A piece of work is done. `chance` is a random number from 0 to 1, which keeps many scopes that failed
    /// together from coming back together.
    pub fn finished(&mut self, scope: &Scope, success: bool, now: Instant, chance: f64) {
        self.running.remove(scope);
        if success {
            self.failures.remove(scope);
            return;
        }
        let failures = self.failures.entry(scope.clone()).or_default();
        let full = BACKOFF_BASE.saturating_mul(1 << (*failures).min(20)).min(BACKOFF_MAX);
        *failures += 1;
        let wait = full.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
        self.wait(scope.clone(), Waiting { need: Need::Compare, due: now + wait, since: now });
    }

    /// How many scopes wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> Scope {
        Scope::Namespace("shop".into())
    }

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_change_to_a_quiet_scope_is_due_at_once() {
        let mut schedule = Schedule::default();
        let now = Instant::now();
        schedule.mark(shop(), Need::Compare, now);
        assert_eq!(schedule.next(), Some(now));
        assert_eq!(schedule.take(now), [Due { scope: shop(), need: Need::Compare, since: now }]);
        assert_eq!(schedule.take(now), []);
    }

    #[test]
    fn a_burst_is_one_piece_of_work_with_the_greatest_need() {
        let mut schedule = Schedule::default();
        let now = Instant::now();
        schedule.mark(shop(), Need::Compile, now);
        assert_eq!(schedule.take(now).len(), 1);
        schedule.finished(&shop(), true, now + millis(1), 0.0);
        for (count, need) in [(2, Need::Compare), (3, Need::Compile), (4, Need::Compare)] {
            schedule.mark(shop(), need, now + millis(count));
        }
        assert_eq!(schedule.take(now + millis(4)), [], "the scope has its rest");
        assert_eq!(schedule.next(), Some(now + QUIET));
        let due = schedule.take(now + QUIET);
        assert_eq!(due, [Due { scope: shop(), need: Need::Compile, since: now + millis(2) }]);
    }

    #[test]
    fn a_change_during_the_work_waits_for_its_end() {
        let mut schedule = Schedule::default();
        let now = Instant::now();
        schedule.mark(shop(), Need::Compile, now);
        schedule.take(now);
        schedule.mark(shop(), Need::Compile, now + millis(100));
        assert_eq!(schedule.next(), None);
        assert_eq!(schedule.take(now + millis(100)), []);
        schedule.finished(&shop(), true, now + millis(200), 0.0);
        assert_eq!(schedule.take(now + millis(200)).len(), 1);
    }

    #[test]
    fn failures_wait_longer_each_time_and_success_forgets_them() {
        let mut schedule = Schedule::default();
        let mut now = Instant::now();
        schedule.mark(shop(), Need::Compile, now);
        for expected in [100, 200, 400, 800] {
            assert_eq!(schedule.take(now).len(), 1);
            schedule.finished(&shop(), false, now, 1.0);
            assert_eq!(schedule.next(), Some(now + millis(expected)));
            now += millis(expected);
        }
        assert_eq!(schedule.take(now).len(), 1);
        schedule.finished(&shop(), true, now, 1.0);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn the_wait_is_bounded_and_spread() {
        let mut schedule = Schedule::default();
        let mut now = Instant::now();
        schedule.mark(shop(), Need::Compile, now);
        for _ in 0..40 {
            now = schedule.next().expect("waits").max(now);
            schedule.take(now);
            schedule.finished(&shop(), false, now, 0.0);
        }
        assert_eq!(schedule.next(), Some(now + BACKOFF_MAX / 2));
    }

    #[test]
    fn a_new_change_does_not_wait_for_the_retry() {
        let mut schedule = Schedule::default();
        let now = Instant::now();
        schedule.mark(shop(), Need::Compile, now);
        schedule.take(now);
        schedule.finished(&shop(), false, now, 1.0);
        schedule.mark(shop(), Need::Compile, now + millis(10));
        assert_eq!(schedule.take(now + millis(10)).len(), 1);
    }

    #[test]
    fn scopes_do_not_wait_for_one_another() {
        let mut schedule = Schedule::default();
        let now = Instant::now();
        schedule.mark(shop(), Need::Compile, now);
        schedule.take(now);
        schedule.mark(Scope::Namespace("bank".into()), Need::Compile, now);
        assert_eq!(schedule.take(now).len(), 1);
    }

    #[test]
    fn changes_of_who_has_which_address_are_gathered() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        schedule.mark(Scope::Peers, Need::Compile, start);
        schedule.mark(Scope::Peers, Need::Compile, at(60));
        assert_eq!(schedule.take(at(99)), []);
        assert_eq!(schedule.take(at(100)).len(), 1, "what comes later does not put it off");
        schedule.finished(&Scope::Peers, true, at(110), 0.0);
        schedule.mark(Scope::Peers, Need::Compile, at(110));
        assert_eq!(schedule.take(at(200)), []);
        assert_eq!(schedule.take(at(210)).len(), 1);
    }
}
