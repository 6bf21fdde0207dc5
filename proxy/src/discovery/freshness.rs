//! How fresh what is in force is.

use std::{
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
    time::{Duration, Instant},
};

/// How fresh what is in force is; shared by discovery and whoever tells of it.
#[derive(Debug)]
pub(super) struct Freshness {
    began: Instant,
    generation: AtomicU64,
    /// Milliseconds since the beginning; 0 for never.
    changed: AtomicU64,
    /// Since when one of the sources has told nothing; the same.
    heard: AtomicU64,
}

/// How fresh what is in force is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// Grows with every change that is put in force. 0: nothing was.
    pub generation: u64,
    /// Time since the last change was put in force. Without changes in the cluster it grows for ever, rightly.
    pub age: Option<Duration>,
    /// Time since the watch that is quiet the longest last told anything. The API server sends every watch a bookmark
    /// about once a minute, so more than two minutes mean that it is not reached. `None` without watches.
    pub silence: Option<Duration>,
}

impl Freshness {
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            generation: AtomicU64::new(0),
            changed: AtomicU64::new(0),
            heard: AtomicU64::new(0),
        }
    }

    /// A change was put in force.
    pub fn changed(&self, now: Instant) {
        self.changed.store(self.stamp(now), Release);
        self.generation.fetch_add(1, Release);
    }

    /// How long the watch that is quiet the longest has told nothing.
    pub fn set_silence(&self, silence: Option<Duration>, now: Instant) {
        let heard = silence.map_or(0, |silence| self.stamp(now.checked_sub(silence).unwrap_or(self.began)));
        self.heard.store(heard, Release);
    }

    pub fn read(&self, now: Instant) -> Fresh {
        let generation = self.generation.load(Acquire);
        let since = |stamp: u64| {
            let then = self.began + Duration::from_millis(stamp);
            (stamp > 0).then(|| now.saturating_duration_since(then))
        };
        Fresh { generation, age: since(self.changed.load(Acquire)), silence: since(self.heard.load(Acquire)) }
    }

    fn stamp(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.began).as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_counts_from_the_last_change() {
        let start = Instant::now();
        let freshness = Freshness::new(start);
        assert_eq!(freshness.read(start), Fresh { generation: 0, age: None, silence: None });
        let second = Duration::from_secs(1);
        freshness.changed(start + second);
        freshness.changed(start + 5 * second);
        freshness.set_silence(Some(2 * second), start + 6 * second);
        let fresh = freshness.read(start + 8 * second);
        assert_eq!(fresh, Fresh { generation: 2, age: Some(3 * second), silence: Some(4 * second) });
    }
}
