//! Gives memory back to the system after a burst of connections.
//!
//! The allocator keeps what was freed, for the next time; after ten thousand connections that is tens of
//! megabytes, in every pod. Whether there is a burst is told from the connections that are open.

use std::time::Duration;

/// How often the connections are counted.
pub const LOOK: Duration = Duration::from_millis(500);
/// Connections that must have gone for it to be worth while.
const WORTH: i64 = 100;

/// Tells when a burst is over: pure.
#[derive(Debug, Default)]
pub struct Burst {
    peak: i64,
}

impl Burst {
    /// Whether more than half of the connections, and a good number, have gone since memory was last given back.
    pub fn is_over(&mut self, open: i64) -> bool {
        self.peak = self.peak.max(open);
        let over = self.peak - open >= WORTH && open < self.peak / 2;
        if over {
            self.peak = open;
        }
        over
    }
}

/// Has all threads share one heap; to be called before there is a second thread.
///
/// `malloc_trim` gives back the end of the main heap only: what is freed last in a heap of another thread may stay
/// for good. A request allocates nothing in the steady state, so threads seldom meet there.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn prepare() {
    #[expect(unsafe_code, reason = "glibc offers this in C only")]
    // SAFETY: mallopt takes two numbers; no other thread is there yet (mallopt(3): MT-Unsafe init const:mallopt).
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Other allocators have ways of their own.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn prepare() {}

/// Gives back what the allocator holds and nobody uses.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn give_back() {
    #[expect(unsafe_code, reason = "glibc offers this in C only")]
    // SAFETY: malloc_trim takes no pointer, locks the allocator's arenas itself and may be called at any time from
    // any thread (malloc_trim(3): MT-Safe).
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Other allocators have ways of their own.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_over_once() {
        let mut burst = Burst::default();
        for (open, over) in
            [(0, false), (1000, false), (600, false), (400, true), (390, false), (0, true), (0, false)]
        {
            assert_eq!(burst.is_over(open), over, "{open}");
        }
    }

    #[test]
    fn a_few_connections_are_no_burst() {
        let mut burst = Burst::default();
        assert!(!burst.is_over(90));
        assert!(!burst.is_over(0));
    }
}
