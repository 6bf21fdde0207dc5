//! Numbers that any thread may change, and those of one thread that others read.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicI64, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// Grows; any thread may add to it.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Adds so much.
    pub fn inc_by(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// What it is now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Goes up and down; any thread may change it.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// Sets it.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// What it is now.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Counts what happens, and keeps when it happened last.
#[derive(Clone, Debug, Default)]
pub struct Happened {
    count: Counter,
    last: Gauge,
}

impl Happened {
    /// It has happened now.
    pub fn inc(&self) {
        self.count.inc();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last.set(i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    }

    /// How often it has.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.count.get()
    }

    /// When it did last, in seconds since 1970; `None` if it never has.
    #[must_use]
    pub fn last(&self) -> Option<f64> {
        let last = self.last.get();
        (last > 0).then(|| last as f64 / 1000.0)
    }
}

/// A counter that one thread alone writes and others read. Adding is a load and a store, without the locked
/// instruction that several writers need.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Adds so much; for the thread that owns it.
    pub fn add(&self, count: u64) {
        // What was added to before this is seen by whoever sees this.
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Release);
    }

    /// Sets it; for the thread that owns it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Release);
    }

    /// What it is now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Acquire)
    }
}
