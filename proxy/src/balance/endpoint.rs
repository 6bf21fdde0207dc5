//! One address that takes traffic, and what was seen of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use arc_swap::ArcSwapOption;

use super::PeakEwma;

/// Counts changes of any endpoint's availability, so that what was computed from them can tell whether it still holds.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// One address that serves a port of a Service, with what was seen of it. Shared by all snapshots and threads, and
/// kept across snapshots for as long as the address is there.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// How fast it answers and how much it has to do.
    pub load: PeakEwma,
    available: AtomicBool,
    other: ArcSwapOption<SocketAddr>,
}

impl Endpoint {
    /// An endpoint of which nothing is known yet.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            load: PeakEwma::new(),
            available: AtomicBool::new(true),
            other: ArcSwapOption::empty(),
        }
    }

    /// Where the same pod listens in the other address family; to be connected when [`Self::address`] can't be.
    #[must_use]
    pub fn other(&self) -> Option<SocketAddr> {
        self.other.load().as_deref().copied()
    }

    /// Says where the same pod listens in the other address family.
    pub fn set_other(&self, other: SocketAddr) {
        if self.other() != Some(other) {
            self.other.store(Some(Arc::new(other)));
        }
    }

    /// Whether it may be picked as far as this proxy has seen; `true` unless somebody has said otherwise.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.available.load(Relaxed)
    }

    /// Takes it out of all balancers, or puts it back.
    pub fn set_available(&self, available: bool) {
        if self.available.swap(available, Relaxed) != available {
            // Who reads the new count reads the new flag.
            CHANGES.fetch_add(1, Release);
        }
    }

    /// Names the endpoint in a session: the same in all sidecars.
    #[must_use]
    pub fn id(&self) -> u64 {
        super::hash::of_address(self.address)
    }
}

/// How often the availability of any endpoint has changed.
pub(super) fn changes() -> u64 {
    CHANGES.load(Acquire)
}
