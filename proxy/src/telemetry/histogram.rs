//! Histograms, classic and native at once, that one thread writes and others read.
//!
//! The native one is Prometheus' own of schema 3: eight buckets for each power of two, so a bucket's bounds are 9 %
//! apart (<https://prometheus.io/docs/specs/native_histograms/>). Eight buckets lie together and are made when the
//! first of them is needed; latencies of one Service seldom need more than four such groups. When there are more
//! buckets than are worth showing, neighbours are merged while they are shown, again and again, as client libraries do.

use std::{collections::BTreeMap, sync::OnceLock};

use super::value::Tally;

/// Buckets for each power of two.
const PER_OCTAVE: usize = 8;
/// The schema that has so many.
const SCHEMA: i32 = 3;
/// Native buckets that are shown at most; client libraries' usual bound.
const MOST_SHOWN: usize = 160;
/// Bounds of a classic histogram, at most.
const MOST_CLASSIC: usize = 16;

/// 2^(n/8 - 1) for 0 ≤ n < 8, as the 52 bits of a float's fraction: the bounds between one half and one.
const BOUNDS: [u64; PER_OCTAVE] = [
    0.5f64.to_bits() & FRACTION,
    0.545_253_866_332_628_8_f64.to_bits() & FRACTION,
    0.594_603_557_501_360_5_f64.to_bits() & FRACTION,
    0.648_419_777_325_504_8_f64.to_bits() & FRACTION,
    std::f64::consts::FRAC_1_SQRT_2.to_bits() & FRACTION,
    0.771_105_412_703_970_4_f64.to_bits() & FRACTION,
    0.840_896_415_253_714_5_f64.to_bits() & FRACTION,
    0.917_004_043_204_671_2_f64.to_bits() & FRACTION,
];
const FRACTION: u64 = (1 << 52) - 1;

/// What is measured, and how finely.
#[derive(Debug)]
pub struct Scale {
    /// Worth of one, in the metric's unit.
    unit: f64,
    /// Values up to this, in the metric's unit, are as good as zero.
    zero: f64,
    /// The first native bucket above zero.
    lowest: i32,
    /// Groups of native buckets; what lies beyond them is counted in the last bucket.
    octaves: usize,
    /// Upper bound of the first classic bucket.
    first: u64,
    /// Each classic bound is 2 to the power of this times the one before.
    step: u32,
    /// Classic bounds, in the metric's unit.
    bounds: &'static [f64],
}

/// Nanoseconds, shown as seconds: classic from 0.5 ms to about 16 s, native from 1 µs to 18 h.
pub static TIME: Scale = Scale {
    unit: 1e-9,
    zero: 1.0 / (1 << 20) as f64,
    lowest: -20 * PER_OCTAVE as i32 + 1,
    octaves: 36,
    first: 500_000,
    step: 1,
    bounds: &[
        0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
        8.192, 16.384,
    ],
};

/// Bytes: classic from 64 B to 256 MiB, native from 1 B to 1 TiB.
pub static SIZE: Scale = Scale {
    unit: 1.0,
    zero: 0.5,
    lowest: 0,
    octaves: 41,
    first: 64,
    step: 2,
    bounds: &[
        64.0,
        256.0,
        1024.0,
        4096.0,
        16_384.0,
        65_536.0,
        262_144.0,
        1_048_576.0,
        4_194_304.0,
        16_777_216.0,
        67_108_864.0,
        268_435_456.0,
    ],
};

/// A histogram with one writer.
#[derive(Debug)]
pub struct Histogram {
    scale: &'static Scale,
    native: Box<[OnceLock<Box<[Tally; PER_OCTAVE]>>]>,
    zero: Tally,
    classic: [Tally; MOST_CLASSIC],
    sum: Tally,
}

impl Histogram {
    /// Without any observation.
    #[must_use]
    pub fn new(scale: &'static Scale) -> Self {
        Self {
            scale,
            native: (0..scale.octaves).map(|_| OnceLock::new()).collect(),
            zero: Tally::default(),
            classic: Default::default(),
            sum: Tally::default(),
        }
    }

    /// Counts a value; for the thread that owns it.
    pub fn observe(&self, value: u64) {
        self.sum.add(value);
        match self.scale.native(value) {
            None => self.zero.add(1),
            Some(place) => {
                let octave = self.native[place / PER_OCTAVE].get_or_init(Box::default);
                octave[place % PER_OCTAVE].add(1);
            }
        }
        // Last: whoever sees it here sees it above, where all are counted.
        if let Some(bucket) = self.classic.get(self.scale.classic(value)) {
            bucket.add(1);
        }
    }

    /// Sum of the values, in the scale's units.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }
}

impl Scale {
    /// The classic bucket that a value falls into.
    fn classic(&self, value: u64) -> usize {
        let bits = u64::BITS - (value.saturating_sub(1) / self.first).leading_zeros();
        bits.div_ceil(self.step) as usize
    }

    /// The native bucket, counted from the lowest; `None`: the zero bucket.
    fn native(&self, value: u64) -> Option<usize> {
        let value = value as f64 * self.unit;
        if value <= self.zero {
            return None;
        }
        let bits = value.to_bits();
        // Between one half and one, as `frexp` has it.
        let exponent = (bits >> 52) as i32 - 1022;
        let above = BOUNDS.iter().filter(|bound| bits & FRACTION > **bound).count();
        let index = (exponent - 1) * PER_OCTAVE as i32 + above as i32;
        let last = self.octaves * PER_OCTAVE - 1;
        Some(usize::try_from(index - self.lowest).unwrap_or(0).min(last))
    }
}

/// What several histograms have counted together.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Upper bounds of the classic buckets but the last, which has none.
    pub bounds: &'static [f64],
    /// Values in each of these, and in those below it.
    pub classic: Vec<u64>,
    /// All values.
    pub count: u64,
    /// Their sum, in the metric's unit.
    pub sum: f64,
    /// Schema of the native buckets: 2 to the power of this many for each power of two.
    pub schema: i32,
    /// Values up to this are counted as zero.
    pub zero_threshold: f64,
    /// So many are.
    pub zero_count: u64,
    /// Values in native buckets, by index; none of them empty.
    pub native: BTreeMap<i32, u64>,
}

impl Distribution {
    /// Of these histograms, which are all of this scale.
    pub fn of<'a>(scale: &'static Scale, parts: impl IntoIterator<Item = &'a Histogram>) -> Self {
        let mut classic = vec![0; scale.bounds.len()];
        let (mut sum, mut zero_count, mut native) = (0.0, 0, BTreeMap::new());
        for part in parts {
            // In the reverse order of writing: what is in a classic bucket is in a native one too.
            for (sum, bucket) in classic.iter_mut().zip(&part.classic) {
                *sum += bucket.get();
            }
            for (octave, buckets) in part.native.iter().enumerate() {
                for (place, bucket) in
                    buckets.get().into_iter().flat_map(|buckets| buckets.iter().enumerate())
                {
                    let count = bucket.get();
                    if count > 0 {
                        *native.entry(scale.lowest + (octave * PER_OCTAVE + place) as i32).or_insert(0) +=
                            count;
                    }
                }
            }
            zero_count += part.zero.get();
            sum += part.sum.get() as f64 * scale.unit;
        }
        let mut below = 0;
        for bucket in &mut classic {
            below += *bucket;
            *bucket = below;
        }
        let count = zero_count + native.values().sum::<u64>();
        let Scale { zero, bounds, .. } = *scale;
        let mut all =
            Self { bounds, classic, count, sum, schema: SCHEMA, zero_threshold: zero, zero_count, native };
        while all.native.len() > MOST_SHOWN {
            all.halve();
        }
        all
    }

    /// Merges each two neighbours: the next schema has half the buckets.
    fn halve(&mut self) {
        self.schema -= 1;
        for (index, count) in std::mem::take(&mut self.native) {
            *self.native.entry((index + 1) >> 1).or_insert(0) += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bound(schema: i32, index: i32) -> f64 {
        (f64::from(index) * (-f64::from(schema)).exp2()).exp2()
    }

    fn of(scale: &'static Scale, values: &[u64]) -> Distribution {
        let histogram = Histogram::new(scale);
        values.iter().for_each(|value| histogram.observe(*value));
        Distribution::of(scale, [&histogram])
    }

    #[test]
    fn bounds_are_inclusive() {
        for (index, bound) in TIME.bounds.iter().enumerate() {
            let nanoseconds = (bound * 1e9).round() as u64;
            assert_eq!((TIME.classic(nanoseconds), TIME.classic(nanoseconds + 1)), (index, index + 1));
        }
        for (index, bound) in SIZE.bounds.iter().enumerate() {
            assert_eq!((SIZE.classic(*bound as u64), SIZE.classic(*bound as u64 + 1)), (index, index + 1));
        }
        assert_eq!((TIME.classic(0), SIZE.classic(0)), (0, 0));
        let powers = of(&SIZE, &[1, 2, 1024]);
        assert_eq!(powers.native.keys().copied().collect::<Vec<_>>(), [0, 8, 80]);
    }

    #[test]
    fn extremes_are_counted_like_all_others() {
        for scale in [&TIME, &SIZE] {
            let all = of(scale, &[0, 1, u64::MAX / 4]);
            assert_eq!(all.count, 3);
            assert_eq!(all.zero_count + all.native.values().sum::<u64>(), 3);
            assert_eq!(all.classic.last(), Some(&2));
        }
    }

    #[test]
    fn what_is_spread_over_too_many_buckets_is_shown_more_coarsely() {
        let values: Vec<u64> = (0..2000).map(|n| (1000.0 * 1.01f64.powi(n)) as u64).collect();
        let all = of(&TIME, &values);
        assert!(all.schema < SCHEMA && all.native.len() <= MOST_SHOWN, "{all:?}");
        assert_eq!(all.count, 2000);
    }

    proptest! {
        #[test]
        fn each_value_lies_within_the_bounds_of_its_buckets(value in 1..1u64 << 45, size: bool) {
            let scale = if size { &SIZE } else { &TIME };
            let value = if size { value >> 5 } else { value };
            let all = of(scale, &[value]);
            let worth = value as f64 * scale.unit;
            match all.native.iter().next() {
                None => prop_assert!(worth <= scale.zero),
                Some((&index, _)) => {
                    prop_assert!(bound(SCHEMA, index - 1) < worth * (1.0 + 1e-12), "{index} {worth}");
                    prop_assert!(worth <= bound(SCHEMA, index) * (1.0 + 1e-12), "{index} {worth}");
                }
            }
            for (bound, count) in scale.bounds.iter().zip(&all.classic) {
                // Bounds of times are not exact in binary.
                if (worth - bound).abs() > bound * 1e-9 {
                    prop_assert_eq!(*count == 1, worth < *bound);
                }
            }
        }

        #[test]
        fn halving_keeps_each_value_within_its_bucket(index in -200..300i32, count in 1..9u64) {
            let mut all = Distribution { native: [(index, count)].into(), ..of(&TIME, &[]) };
            let middle = bound(SCHEMA, index) * 0.99;
            while all.schema > -4 {
                all.halve();
                let (&index, &kept) = all.native.iter().next().expect("one");
                prop_assert!(bound(all.schema, index - 1) < middle && middle <= bound(all.schema, index));
                prop_assert_eq!(kept, count);
            }
        }

        #[test]
        fn parts_add_up(one in prop::collection::vec(any::<u32>(), 0..50), two in prop::collection::vec(any::<u32>(), 0..50)) {
            let (first, second) = (Histogram::new(&TIME), Histogram::new(&TIME));
            one.iter().for_each(|value| first.observe((*value).into()));
            two.iter().for_each(|value| second.observe((*value).into()));
            let together: Vec<u64> = one.iter().chain(&two).map(|value| u64::from(*value)).collect();
            let (merged, expected) = (Distribution::of(&TIME, [&first, &second]), of(&TIME, &together));
            prop_assert!((merged.sum - expected.sum).abs() < 1e-6);
            prop_assert_eq!(Distribution { sum: 0.0, ..merged }, Distribution { sum: 0.0, ..expected });
        }
    }
}
