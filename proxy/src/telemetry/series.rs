//! Series that every thread counts for itself, and that are added up when they are told.
//!
//! ```text
//!   thread ── Recorder: what it counted lately ──▶ cell ◀──┐
//!   thread ── Recorder ──────────────────────────▶ cell ◀──┤  Series: key ─▶ cells of all threads ──▶ sum
//! ```
//!
//! How many keys there are is bounded. When they become many, those that nothing was counted under for an hour make
//! room; before that they stay, for a counter that comes back begins at zero, and what it had counted meanwhile would
//! be missed. (Prometheus knows that it began anew by its start time, where that is scraped.)

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::value::Counter;

/// How long nothing was counted under a key that makes room for another.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// What is counted under a key by one thread.
pub(super) trait Cell {
    /// Something that changes whenever it counts.
    fn total(&self) -> u64;
}

/// A key of a bounded number.
pub(super) trait Key: Clone + Eq + Hash {
    /// What everything beyond the bound is counted under: one of a few keys.
    fn other(&self) -> Self;
}

/// Cells of all threads by their keys.
#[derive(Debug)]
pub(super) struct Series<K, C> {
    entries: Mutex<HashMap<K, Entry<C>>>,
    most: usize,
    capped: Counter,
}

#[derive(Debug)]
struct Entry<C> {
    cells: Vec<(usize, Arc<C>)>,
    since: SystemTime,
    /// Total of the cells when they were last looked at, and since when it is that.
    seen: (u64, Instant),
}

impl<K: Key, C: Cell> Series<K, C> {
    /// None, and never more than so many.
    pub(super) fn new(most: usize, capped: &Counter) -> Self {
        Self { entries: Mutex::default(), most, capped: capped.clone() }
    }

    /// The cell of a thread under a key. Whoever holds the only reference to a cell is to ask for another one, for
    /// it is told no more: see [`is_told`].
    pub(super) fn cell(&self, thread: usize, key: K, now: Instant, new: impl FnOnce() -> C) -> Arc<C> {
        let mut entries = self.entries();
        if entries.len() >= self.most && !entries.contains_key(&key) {
            forget(&mut entries, now, self.most);
        }
        let key = if entries.len() < self.most || entries.contains_key(&key) {
            key
        } else {
            self.capped.inc();
            key.other()
        };
        let fresh = || Entry { cells: Vec::new(), since: SystemTime::now(), seen: (0, now) };
        let entry = entries.entry(key).or_insert_with(fresh);
        if let Some((_, cell)) = entry.cells.iter().find(|(each, _)| *each == thread) {
            return Arc::clone(cell);
        }
        let cell = Arc::new(new());
        entry.cells.push((thread, Arc::clone(&cell)));
        cell
    }

    /// Shows each key with its cells, and when it began to count.
    pub(super) fn each<T>(&self, now: Instant, mut show: impl FnMut(&K, &[&C], SystemTime) -> T) -> Vec<T> {
        let mut entries = self.entries();
        forget(&mut entries, now, self.most);
        let cells =
            |entry: &Entry<C>| entry.cells.iter().map(|(_, cell)| Arc::clone(cell)).collect::<Vec<_>>();
        let held: Vec<_> =
            entries.iter().map(|(key, entry)| (key.clone(), cells(entry), entry.since)).collect();
        // Threads that meet a new key need not wait for the sums.
        drop(entries);
        held.iter()
            .map(|(key, cells, since)| {
                show(key, &cells.iter().map(|cell| &**cell).collect::<Vec<_>>(), *since)
            })
            .collect()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<K, Entry<C>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes which keys have counted since the last look and, when half of the room is taken, drops those that have not
/// for long.
fn forget<K, C: Cell>(entries: &mut HashMap<K, Entry<C>>, now: Instant, most: usize) {
    let many = entries.len() > most / 2;
    entries.retain(|_, entry| {
        let total = entry.cells.iter().fold(0u64, |sum, (_, cell)| sum.wrapping_add(cell.total()));
        if total != entry.seen.0 {
            entry.seen = (total, now);
        }
        !many || now.saturating_duration_since(entry.seen.1) < FORGOTTEN
    });
}

/// Whether what is counted here is still told. One plain load, for the road of every request.
pub(super) fn is_told<C>(cell: &Arc<C>) -> bool {
    Arc::strong_count(cell) > 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::value::Tally;

    impl Key for u32 {
        fn other(&self) -> Self {
            Self::MAX
        }
    }

    fn sums(series: &Series<u32, Tally>, now: Instant) -> HashMap<u32, u64> {
        let sum = |key: &u32, cells: &[&Tally], _| (*key, cells.iter().map(|cell| cell.get()).sum());
        series.each(now, sum).into_iter().collect()
    }

    #[test]
    fn threads_are_added_up_and_find_their_cells_again() {
        let (series, now) = (Series::<u32, Tally>::new(10, &Counter::default()), Instant::now());
        for (thread, count) in [(0, 5), (1, 7), (0, 1)] {
            series.cell(thread, 3, now, Tally::default).add(count);
        }
        assert_eq!(sums(&series, now), [(3, 13)].into());
    }

    #[test]
    fn beyond_the_cap_all_is_counted_as_other() {
        let capped = Counter::default();
        let (series, now) = (Series::<u32, Tally>::new(10, &capped), Instant::now());
        for key in 0..30 {
            series.cell(0, key, now, Tally::default).add(1);
        }
        let sums = sums(&series, now);
        assert_eq!((sums.len(), sums[&u32::MAX], capped.get()), (11, 20, 20));
        assert_eq!(sums.values().sum::<u64>(), 30);
    }

    #[test]
    fn what_was_idle_for_an_hour_makes_room_and_what_is_used_stays() {
        let (series, start) = (Series::<u32, Tally>::new(10, &Counter::default()), Instant::now());
        let cells: Vec<_> = (0..10).map(|key| series.cell(0, key, start, Tally::default)).collect();
        cells.iter().for_each(|cell| cell.add(1));
        sums(&series, start);
        cells[4].add(1);
        sums(&series, start + FORGOTTEN / 2);
        let late = start + FORGOTTEN + Duration::from_secs(1);
        series.cell(0, 99, late, Tally::default).add(1);
        let kept = sums(&series, late);
        assert_eq!(kept, [(4, 2), (99, 1)].into());
        assert!(is_told(&cells[4]) && !is_told(&cells[5]));
    }

    #[test]
    fn while_there_is_room_nothing_is_forgotten() {
        let (series, start) = (Series::<u32, Tally>::new(10, &Counter::default()), Instant::now());
        series.cell(0, 1, start, Tally::default).add(1);
        assert_eq!(sums(&series, start + FORGOTTEN * 10), [(1, 1)].into());
    }
}
