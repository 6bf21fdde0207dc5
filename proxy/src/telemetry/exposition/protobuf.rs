//! `io.prometheus.client.MetricFamily`, each behind its length: the format in which Prometheus takes native histograms.
//!
//! Written by hand: six messages of a format that does not change, and nothing to generate
//! (<https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto>). The field numbers are
//! that file's. A reader of Prometheus' own takes what is written here apart again in `conformance`.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Family, Kind, Sample, Value};
use crate::telemetry::histogram::Distribution;

pub(super) fn encode(families: &[Family]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 * 1024);
    // Prometheus takes a family without any series for a fault.
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        let message = write_family(family).0;
        varint(&mut out, message.len() as u64);
        out.extend_from_slice(&message);
    }
    out
}

fn write_family(Family { about, samples }: &Family) -> Message {
    let mut family = Message::default();
    family.bytes(1, about.name.as_bytes());
    family.bytes(2, about.help.as_bytes());
    family.uint(
        3,
        match about.kind {
            Kind::Counter => 0,
            Kind::Gauge => 1,
            Kind::Histogram => 4,
        },
    );
    for sample in samples {
        family.message(4, &metric(sample, about.kind));
    }
    family
}

fn metric(Sample { labels, value, since }: &Sample, kind: Kind) -> Message {
    let mut metric = Message::default();
    for (name, value) in labels {
        let mut pair = Message::default();
        pair.bytes(1, name.as_bytes());
        pair.bytes(2, value.as_str().as_bytes());
        metric.message(1, &pair);
    }
    let since = since.map(timestamp);
    match value {
        Value::Number(number) => {
            let mut inner = Message::default();
            inner.double(1, *number);
            if let Some(since) = since.filter(|_| kind == Kind::Counter) {
                inner.message(3, &since);
            }
            metric.message(if kind == Kind::Counter { 3 } else { 2 }, &inner);
        }
        Value::Distribution(distribution) => {
            let mut inner = histogram(distribution);
            if let Some(since) = since {
                inner.message(15, &since);
            }
            metric.message(7, &inner);
        }
    }
    metric
}

fn histogram(distribution: &Distribution) -> Message {
    let Distribution { bounds, classic, count, sum, schema, zero_threshold, zero_count, native } =
        distribution;
    let mut histogram = Message::default();
    histogram.uint(1, *count);
    histogram.double(2, *sum);
    for (bound, count) in bounds.iter().zip(classic).chain([(&f64::INFINITY, count)]) {
        let mut bucket = Message::default();
        bucket.uint(1, *count);
        bucket.double(2, *bound);
        histogram.message(3, &bucket);
    }
    histogram.sint(5, i64::from(*schema));
    histogram.double(6, *zero_threshold);
    histogram.uint(7, *zero_count);
    for (offset, length) in spans(native) {
        let mut span = Message::default();
        span.sint(1, i64::from(offset));
        span.uint(2, length);
        histogram.message(12, &span);
    }
    let mut deltas = Vec::new();
    let mut before = 0i64;
    for count in native.values() {
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        varint(&mut deltas, zigzag(count - before));
        before = count;
    }
    // Packed, as proto3 has it.
    histogram.bytes(13, &deltas);
    histogram
}

/// Runs of buckets: how far each begins behind the end of the one before, the first behind zero; and its length.
fn spans(buckets: &BTreeMap<i32, u64>) -> Vec<(i32, u64)> {
    let mut spans: Vec<(i32, u64)> = Vec::new();
    let mut next = 0;
    for &index in buckets.keys() {
        match spans.last_mut() {
            Some((_, length)) if index == next => *length += 1,
            _ => spans.push((index - next, 1)),
        }
        next = index + 1;
    }
    spans
}

fn timestamp(time: SystemTime) -> Message {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut message = Message::default();
    message.uint(1, since.as_secs());
    message.uint(2, since.subsec_nanos().into());
    message
}

/// The fields of a message.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn uint(&mut self, field: u32, value: u64) {
        self.key(field, 0);
        varint(&mut self.0, value);
    }

    fn sint(&mut self, field: u32, value: i64) {
        self.uint(field, zigzag(value));
    }

    fn double(&mut self, field: u32, value: f64) {
        self.key(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, 2);
        varint(&mut self.0, value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn message(&mut self, field: u32, value: &Self) {
        self.bytes(field, &value.0);
    }

    fn key(&mut self, field: u32, wire: u32) {
        varint(&mut self.0, u64::from(field << 3 | wire));
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::exposition::About;

    #[test]
    fn a_counter_is_written_as_the_schema_says() {
        let about = About { name: "a_total", help: "H", kind: Kind::Counter };
        let labels = vec![("l", "v".into())];
        let since = Some(UNIX_EPOCH + std::time::Duration::new(300, 1));
        let samples = vec![Sample { labels, value: Value::Number(1.5), since }];
        let expected = [
            &[42, 0x0a, 7][..],
            b"a_total",
            &[0x12, 1, b'H', 0x18, 0, 0x22, 26],
            &[0x0a, 6, 0x0a, 1, b'l', 0x12, 1, b'v'],
            &[0x1a, 16, 9, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 0x1a, 5, 8, 0xac, 2, 0x10, 1],
        ]
        .concat();
        assert_eq!(encode(&[Family { about, samples }]), expected);
    }

    #[test]
    fn runs_of_buckets_are_told_by_their_gaps() {
        let buckets = [(-3, 1), (-2, 4), (1, 2), (2, 2), (9, 7)].into();
        assert_eq!(spans(&buckets), [(-3, 2), (2, 2), (6, 1)]);
        assert_eq!(spans(&BTreeMap::new()), []);
    }

    #[test]
    fn small_numbers_of_either_sign_are_short() {
        assert_eq!([0, -1, 1, -2, 2].map(zigzag), [0, 1, 2, 3, 4]);
        assert_eq!([i64::MAX, i64::MIN].map(zigzag), [u64::MAX - 1, u64::MAX]);
        let mut out = Vec::new();
        varint(&mut out, u64::MAX);
        assert_eq!(out, [[0xff; 9].as_slice(), &[1]].concat());
    }
}
