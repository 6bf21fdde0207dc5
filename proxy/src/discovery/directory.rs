//! Addresses that connections went to lately, and what they are: read by every connection, written by the keeper.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::Resolved;
use crate::snapshot::Destination;

/// How long an address that is no Service's is not asked about again, at first and at most. A Service may be given
/// the address any time; the longer there was none, the longer that may take to be noticed.
const OUTSIDE_FOR: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// Addresses that are remembered as no Service's.
const MOST_OUTSIDE: usize = 4096;
/// How long a pod is taken for the one that has an address: it may be another one's soon after it has ended.
pub(super) const POD_FOR: Duration = Duration::from_secs(10);

/// What is known of addresses.
#[derive(Debug)]
pub(super) struct Directory {
    entries: ArcSwap<HashMap<SocketAddr, Entry>>,
    began: Instant,
}

#[derive(Clone, Debug)]
enum Entry {
    /// A port of a Service.
    Service(Arc<Used>),
    /// A pod's that has a sidecar, as it was told at `asked`; to be asked about again after `until`.
    Pod { destination: Arc<Destination>, asked: Instant, until: Instant },
    /// No Service's; to be asked about again after `until`, which was set `span` before.
    Outside { until: Instant, span: Duration },
}

/// A destination, and when a connection last asked for it.
#[derive(Debug)]
struct Used {
    destination: Arc<Destination>,
    /// In seconds since the directory began: written once a second, however many connections there are.
    last: AtomicU64,
}

impl Directory {
    pub fn new(now: Instant) -> Self {
        Self { entries: ArcSwap::default(), began: now }
    }

    /// What is known of this address now; `None` when that has to be asked.
    pub fn find(&self, address: SocketAddr, now: Instant) -> Option<Resolved> {
        match self.entries.load().get(&address)? {
            Entry::Service(used) => {
                let second = self.second(now);
                if used.last.load(Relaxed) != second {
                    used.last.store(second, Relaxed);
                }
                Some(Resolved::Service(Arc::clone(&used.destination)))
            }
            Entry::Pod { destination, until, .. } => {
                (now < *until).then(|| Resolved::Service(Arc::clone(destination)))
            }
            Entry::Outside { until, .. } => (now < *until).then_some(Resolved::Outside),
        }
    }

    /// The address is this destination's.
    pub fn set_service(&self, address: SocketAddr, destination: &Arc<Destination>, now: Instant) {
        let last = AtomicU64::new(self.second(now));
        let used = Used { destination: Arc::clone(destination), last };
        self.change(|entries| {
            entries.insert(address, Entry::Service(Arc::new(used)));
        });
    }

    /// The destination that stands for the pod at this address, and when that was told, as long as it is remembered.
    pub fn pod(&self, address: SocketAddr) -> Option<(Arc<Destination>, Instant)> {
        match self.entries.load().get(&address)? {
            Entry::Pod { destination, asked, .. } => Some((Arc::clone(destination), *asked)),
            _ => None,
        }
    }

    /// The address is a pod's, for which this destination stands; that holds for `span`.
    pub fn set_pod(&self, address: SocketAddr, destination: &Arc<Destination>, span: Duration, now: Instant) {
        let destination = Arc::clone(destination);
        self.put(address, Entry::Pod { destination, asked: now, until: now + span });
    }

    /// The address is no Service's. Each time in a row that this is found it holds twice as long.
    pub fn set_outside(&self, address: SocketAddr, now: Instant) {
        let before = match self.entries.load().get(&address) {
            Some(Entry::Outside { span, .. }) => *span,
            _ => Duration::ZERO,
        };
        self.put_outside(address, (before * 2).clamp(OUTSIDE_FOR.0, OUTSIDE_FOR.1), now);
    }

    /// What the address is was not found out.
    pub fn set_unknown(&self, address: SocketAddr, span: Duration, now: Instant) {
        self.put_outside(address, span, now);
    }

    fn put_outside(&self, address: SocketAddr, span: Duration, now: Instant) {
        self.put(address, Entry::Outside { until: now + span, span });
    }

    fn put(&self, address: SocketAddr, entry: Entry) {
        self.change(|entries| {
            if entries.len() >= MOST_OUTSIDE {
                entries.retain(|_, entry| matches!(entry, Entry::Service(_)));
            }
            entries.insert(address, entry);
        });
    }

    /// Forgets the addresses of a destination.
    pub fn forget(&self, destination: &Arc<Destination>) {
        self.change(|entries| {
            entries.retain(
                |_, entry| !matches!(entry, Entry::Service(used) if Arc::ptr_eq(&used.destination, destination)),
            );
        });
    }

    /// Forgets what nobody has asked about for longer than it held.
    pub fn forget_outside(&self, now: Instant) {
        let is_old = |entry: &Entry| match entry {
            Entry::Service(_) => false,
            // What was learnt of it, that its server speaks first for example, is kept for the next connection.
            Entry::Pod { until, .. } => *until + OUTSIDE_FOR.1 < now,
            Entry::Outside { until, span } => *until + *span < now,
        };
        if self.entries.load().values().any(is_old) {
            self.change(|entries| entries.retain(|_, entry| !is_old(entry)));
        }
    }

    /// Addresses that a destination has here, and for how long none of them was asked for.
    pub fn uses(&self, destination: &Arc<Destination>, now: Instant) -> (usize, Option<Duration>) {
        let entries = self.entries.load();
        let uses = entries.values().filter_map(|entry| match entry {
            Entry::Service(used) if Arc::ptr_eq(&used.destination, destination) => Some(used),
            _ => None,
        });
        let (mut count, mut last) = (0, None);
        for used in uses {
            count += 1;
            last = last.max(Some(used.last.load(Relaxed)));
        }
        let idle = last.map(|last| Duration::from_secs(self.second(now).saturating_sub(last)));
        (count, idle)
    }

    /// Addresses that are known to be no Service's.
    pub fn outside(&self) -> usize {
        self.entries.load().values().filter(|entry| matches!(entry, Entry::Outside { .. })).count()
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs()
    }

    /// Only the keeper changes anything.
    fn change(&self, change: impl FnOnce(&mut HashMap<SocketAddr, Entry>)) {
        let mut entries = HashMap::clone(&self.entries.load());
        change(&mut entries);
        self.entries.store(Arc::new(entries));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    #[test]
    fn what_is_outside_again_and_again_is_asked_about_less_often() {
        let start = Instant::now();
        let directory = Directory::new(start);
        let mut now = start;
        let mut spans = Vec::new();
        for _ in 0..8 {
            directory.set_outside(address(1), now);
            let asked = now;
            while directory.find(address(1), now).is_some() {
                now += SECOND;
            }
            spans.push((now - asked).as_secs());
        }
        assert_eq!(spans, [10, 20, 40, 80, 160, 300, 300, 300]);
        directory.set_unknown(address(1), SECOND / 2, now);
        assert!(directory.find(address(1), now + SECOND).is_none());
    }

    #[test]
    fn what_nobody_asks_about_any_more_is_forgotten() {
        let start = Instant::now();
        let directory = Directory::new(start);
        directory.set_outside(address(1), start);
        directory.forget_outside(start + 15 * SECOND);
        assert_eq!(directory.outside(), 1);
        directory.forget_outside(start + 21 * SECOND);
        assert_eq!(directory.outside(), 0);
    }

    #[test]
    fn a_scan_of_addresses_does_not_fill_the_memory() {
        let directory = Directory::new(Instant::now());
        for number in 0..5000u32 {
            let ip = std::net::Ipv4Addr::from(number);
            directory.set_outside(SocketAddr::new(ip.into(), 80), Instant::now());
        }
        assert!(directory.outside() <= MOST_OUTSIDE);
    }
}
