//! How often somebody may ask: token buckets. Pure, time is passed in.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// A bucket is full of this many permits at first, and gets one more each so often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) burst: f64,
    pub(super) every: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    permits: f64,
    at: Instant,
}

/// A bucket for each key, for a bounded number of keys.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    rate: Rate,
    most: usize,
    buckets: HashMap<K, Bucket>,
}

impl<K: Clone + Eq + Hash> Buckets<K> {
    pub(super) fn new(rate: Rate, most: usize) -> Self {
        Self { rate, most, buckets: HashMap::new() }
    }

    /// Takes a permit, or tells when there is one.
    pub(super) fn take(&mut self, key: &K, now: Instant) -> Result<(), Duration> {
        if !self.buckets.contains_key(key) {
            self.make_room(now);
        }
        let Rate { burst, every } = self.rate;
        let bucket = self.buckets.entry(key.clone()).or_insert(Bucket { permits: burst, at: now });
        *bucket = bucket.filled(self.rate, now);
        if bucket.permits >= 1.0 {
            bucket.permits -= 1.0;
            return Ok(());
        }
        Err(every.mul_f64(1.0 - bucket.permits))
    }

    /// Who has a full bucket is as good as forgotten. If nobody is, one is forgotten who should not be: better than to
    /// let those who come later wait for it.
    fn make_room(&mut self, now: Instant) {
        if self.buckets.len() < self.most {
            return;
        }
        let rate = self.rate;
        self.buckets.retain(|_, bucket| bucket.filled(rate, now).permits < rate.burst);
        if self.buckets.len() >= self.most
            && let Some(any) = self.buckets.keys().next().cloned()
        {
            self.buckets.remove(&any);
        }
    }
}

impl Bucket {
    fn filled(self, rate: Rate, now: Instant) -> Self {
        let since = now.saturating_duration_since(self.at);
        let permits = self.permits + since.as_secs_f64() / rate.every.as_secs_f64();
        Self { permits: permits.min(rate.burst), at: now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3.0, every: Duration::from_secs(10) };

    #[test]
    fn a_burst_is_let_through_and_then_one_each_so_often() {
        let mut buckets = Buckets::new(RATE, 10);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(buckets.take(&"a", now), Ok(()));
        }
        assert_eq!(buckets.take(&"a", now), Err(Duration::from_secs(10)));
        assert_eq!(buckets.take(&"b", now), Ok(()), "others are not held up");
        assert_eq!(buckets.take(&"a", now + Duration::from_secs(10)), Ok(()));
        assert!(buckets.take(&"a", now + Duration::from_secs(10)).is_err());
    }

    #[test]
    fn a_rest_fills_the_bucket_and_no_more() {
        let mut buckets = Buckets::new(RATE, 10);
        let mut now = Instant::now();
        for _ in 0..3 {
            buckets.take(&"a", now).expect("a permit");
        }
        now += Duration::from_secs(1000);
        for _ in 0..3 {
            buckets.take(&"a", now).expect("a permit");
        }
        assert!(buckets.take(&"a", now).is_err());
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let mut buckets = Buckets::new(RATE, 100);
        let now = Instant::now();
        for key in 0..10_000 {
            buckets.take(&key, now).expect("a permit");
        }
        assert!(buckets.buckets.len() <= 100);
    }
}
