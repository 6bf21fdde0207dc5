//! Who leads: pure, time is passed in.
//!
//! The rules are client-go's (`tools/leaderelection`): a holder renews its Lease; another may take it when it
//! has not changed for its whole duration, measured from when *we* saw the change, by our own monotonic clock.
//! The times that are written into the Lease are for people; no clock but our own is trusted.
//!
//! ```text
//!   renewed ───────── 10 s ─────────▶ we stop writing ── 5 s ──▶ others may take it
//! ```

use std::time::{Duration, Instant};

/// How long a Lease is good for after a change of it was seen.
pub const DURATION: Duration = Duration::from_secs(15);
/// How long a holder acts after it began its last successful renewal.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often a holder renews.
pub const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How often others look. A released Lease changes hands within about this time.
pub const LOOK_EVERY: Duration = Duration::from_millis(800);

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty when it was released.
    pub holder: String,
    /// How long the holder asks others to wait.
    pub duration: Duration,
    /// Changes with each renewal.
    pub version: String,
    /// How often it changed hands.
    pub transitions: i32,
}

/// What to do about a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is none: create it.
    Create,
    /// Write ourselves into it, with this number of transitions.
    Take {
        /// Changes of hands, this one included.
        transitions: i32,
    },
    /// We hold it: write it again.
    Renew,
    /// Another holds it.
    Wait,
}

/// One who would lead.
#[derive(Debug)]
pub struct Candidate {
    identity: String,
    seen: Option<(Record, Instant)>,
}

impl Candidate {
    /// One of this identity, which no other may have.
    #[must_use]
    pub fn new(identity: String) -> Self {
        Self { identity, seen: None }
    }

    /// Looks at the Lease as it is now and says what to do.
    pub fn look(&mut self, record: Option<Record>, now: Instant) -> Step {
        let Some(record) = record else {
            self.seen = None;
            return Step::Create;
        };
        let changed = self.seen.as_ref().is_none_or(|(seen, _)| *seen != record);
        if changed {
            self.seen = Some((record.clone(), now));
        }
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        if record.holder == self.identity {
            return Step::Renew;
        }
        if record.holder.is_empty() || now.duration_since(since) >= record.duration {
            return Step::Take { transitions: record.transitions.saturating_add(1) };
        }
        Step::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(holder: &str, version: &str) -> Option<Record> {
        Some(Record { holder: holder.into(), duration: DURATION, version: version.into(), transitions: 3 })
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn without_a_lease_it_is_created() {
        assert_eq!(Candidate::new("a".into()).look(None, Instant::now()), Step::Create);
    }

    #[test]
    fn a_lease_of_another_is_left_alone_while_it_changes() {
        let mut candidate = Candidate::new("a".into());
        let now = Instant::now();
        for second in 0..60 {
            let version = (second / 2).to_string();
            assert_eq!(candidate.look(held("b", &version), now + seconds(second)), Step::Wait);
        }
    }

    #[test]
    fn a_lease_that_no_longer_changes_is_taken_after_its_duration_as_we_saw_it() {
        let mut candidate = Candidate::new("a".into());
        let now = Instant::now();
        assert_eq!(candidate.look(held("b", "1"), now), Step::Wait);
        assert_eq!(candidate.look(held("b", "1"), now + DURATION - seconds(1)), Step::Wait);
        assert_eq!(candidate.look(held("b", "1"), now + DURATION), Step::Take { transitions: 4 });
    }

    #[test]
    fn the_wait_begins_anew_with_each_change() {
        let mut candidate = Candidate::new("a".into());
        let now = Instant::now();
        candidate.look(held("b", "1"), now);
        assert_eq!(candidate.look(held("b", "2"), now + seconds(14)), Step::Wait);
        assert_eq!(candidate.look(held("b", "2"), now + seconds(28)), Step::Wait);
        assert_eq!(candidate.look(held("b", "2"), now + seconds(29)), Step::Take { transitions: 4 });
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let mut candidate = Candidate::new("a".into());
        assert_eq!(candidate.look(held("", "1"), Instant::now()), Step::Take { transitions: 4 });
    }

    #[test]
    fn our_own_lease_is_renewed_even_after_a_restart_under_the_same_name() {
        let mut candidate = Candidate::new("a".into());
        assert_eq!(candidate.look(held("a", "1"), Instant::now()), Step::Renew);
    }

    #[test]
    fn we_stop_well_before_another_may_take_it() {
        assert!(RENEW_DEADLINE + seconds(5) <= DURATION);
        assert!(RENEW_EVERY * 3 < RENEW_DEADLINE, "a renewal may fail a few times");
    }
}
