//! Metrics as data, and the formats in which they are told.

mod accept;
mod protobuf;
mod text;

use std::time::SystemTime;

pub use accept::Format;

use super::{histogram::Distribution, label::Text};

/// What a metric is called and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// Its full name; a counter's ends in `_total`.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// How it moves.
    pub kind: Kind,
}

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It counts values by their size.
    Histogram,
}

/// A metric with all its series.
#[derive(Clone, Debug)]
pub struct Family {
    /// What it is.
    pub about: About,
    /// One for each set of labels.
    pub samples: Vec<Sample>,
}

/// One series at this moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Names and values.
    pub labels: Vec<(&'static str, Text)>,
    /// How much.
    pub value: Value,
    /// When it began to count, if that is known.
    pub since: Option<SystemTime>,
}

/// How much.
#[derive(Clone, Debug)]
pub enum Value {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram.
    Distribution(Box<Distribution>),
}

impl Family {
    /// A metric without labels.
    #[must_use]
    pub fn single(about: About, value: f64) -> Self {
        Self { about, samples: vec![Sample { labels: Vec::new(), value: Value::Number(value), since: None }] }
    }
}

impl Format {
    /// The metrics in this format.
    #[must_use]
    pub fn encode(self, families: &[Family]) -> Vec<u8> {
        match self {
            Self::Text => text::encode(families, text::Dialect::Prometheus).into_bytes(),
            Self::OpenMetrics => text::encode(families, text::Dialect::OpenMetrics).into_bytes(),
            Self::Protobuf => protobuf::encode(families),
        }
    }
}
