//! Pauses between attempts.

use std::time::Duration;

/// Pauses that double up to a limit, each with jitter: proxies that lost the API server together come back spread
/// out.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// The first pause is at most `first`, and none is longer than `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The next pause; `random` is in `0.0..1.0`. Nearly the whole of it is random ("full jitter", Brooker,
    /// *Exponential Backoff And Jitter*, AWS 2015), but for a tenth, so that none is nothing.
    pub fn pause(&mut self, random: f64) -> Duration {
        let longest = self.next;
        self.next = (self.next * 2).min(self.most);
        longest.mul_f64(0.1 + 0.9 * random)
    }

    /// It works again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pauses_grow_and_stay_within_their_limit(random in prop::collection::vec(0.0..1.0f64, 1..20)) {
            let (first, most) = (Duration::from_millis(200), Duration::from_secs(5));
            let mut backoff = Backoff::new(first, most);
            let mut longest = first;
            for each in random {
                let pause = backoff.pause(each);
                prop_assert!(pause <= longest && pause >= longest / 11, "{pause:?} of {longest:?}");
                longest = (longest * 2).min(most);
            }
            backoff.reset();
            prop_assert!(backoff.pause(0.999) <= first);
        }
    }
}
