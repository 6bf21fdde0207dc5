//! Whether a direction carries a long transfer, told from the sizes of its reads: pure.

/// A read of this many bytes is part of a long transfer; smaller ones are cheaper to copy than to splice.
const LONG: usize = 16 * 1024;
/// Bytes in such reads, one after the other, that make it one.
const BULK_AFTER: usize = 128 * 1024;
/// Smaller reads, one after the other, that end it.
const SHORT_READS: u32 = 8;
/// Read at once in a conversation, and from a source whose sink is slow: what a connection holds meanwhile.
const SMALL: usize = 16 * 1024;

/// What a direction has carried lately.
#[derive(Debug, Default)]
pub(super) struct Pace {
    run: usize,
    short: u32,
    bulk: bool,
}

impl Pace {
    /// Takes note of a read.
    pub(super) fn moved(&mut self, count: usize) {
        if count >= LONG {
            self.short = 0;
            self.run = self.run.saturating_add(count);
            self.bulk |= self.run >= BULK_AFTER;
        } else {
            self.run = 0;
            self.short += 1;
            if self.short >= SHORT_READS {
                *self = Self::default();
            }
        }
    }

    /// Whether a long transfer is under way.
    pub(super) fn is_bulk(&self) -> bool {
        self.bulk
    }

    /// How much to copy at once, of at most this much; `blocked`: the sink has lately not taken all.
    pub(super) fn piece(&self, most: usize, blocked: bool) -> usize {
        if self.run > 0 && !blocked { most } else { SMALL.min(most) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_reads_without_a_pause_make_a_transfer() {
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.moved(LONG);
            pace.moved(100);
        }
        assert!(!pace.is_bulk());
        for _ in 0..BULK_AFTER / LONG {
            pace.moved(LONG);
        }
        assert!(pace.is_bulk());
    }

    #[test]
    fn a_transfer_outlives_some_short_reads_and_ends_with_many() {
        let mut pace = Pace::default();
        pace.moved(BULK_AFTER);
        for _ in 1..SHORT_READS {
            pace.moved(1);
        }
        assert!(pace.is_bulk());
        pace.moved(LONG);
        for _ in 0..SHORT_READS {
            pace.moved(1);
        }
        assert!(!pace.is_bulk());
    }

    #[test]
    fn much_is_read_at_once_only_while_the_sink_takes_it() {
        let mut pace = Pace::default();
        assert_eq!(pace.piece(1 << 18, false), SMALL);
        pace.moved(LONG);
        assert_eq!(pace.piece(1 << 18, false), 1 << 18);
        assert_eq!(pace.piece(1 << 18, true), SMALL);
    }
}
