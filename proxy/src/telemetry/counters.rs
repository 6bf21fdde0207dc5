//! A metric with labels that any thread may look up: for what happens seldom, once in a connection.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use super::{
    exposition::{self, About, Sample, Value},
    label::{OTHER, Text},
    value::Counter,
};

/// Sets of labels of one metric. What would be beyond them is counted with `other` for each open label.
const MOST: usize = 512;

/// A counter by `N` labels.
#[derive(Debug)]
pub(super) struct Counters<const N: usize> {
    about: About,
    names: [&'static str; N],
    counters: Mutex<BTreeMap<[Text; N], Counter>>,
    /// Counts what was not given labels of its own.
    capped: Counter,
}

impl<const N: usize> Counters<N> {
    /// One that has counted nothing.
    pub(super) fn new(about: About, names: [&'static str; N], capped: &Counter) -> Self {
        Self { about, names, counters: Mutex::default(), capped: capped.clone() }
    }

    /// The counter for these labels.
    pub(super) fn of(&self, labels: [Text; N]) -> Counter {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = counters.get(&labels) {
            return counter.clone();
        }
        if counters.len() < MOST {
            return counters.entry(labels).or_default().clone();
        }
        self.capped.inc();
        counters.entry(labels.map(bounded)).or_default().clone()
    }

    /// Each set of labels and what was counted.
    pub(super) fn each(&self) -> Vec<([Text; N], u64)> {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.iter().map(|(labels, counter)| (labels.clone(), counter.get())).collect()
    }

    /// What is told of it.
    pub(super) fn tell(&self) -> exposition::Family {
        let samples = self.each().into_iter().map(|(labels, count)| Sample {
            labels: self.names.into_iter().zip(labels).collect(),
            value: Value::Number(count as f64),
            since: None,
        });
        exposition::Family { about: self.about, samples: samples.collect() }
    }
}

fn bounded(label: Text) -> Text {
    match label {
        Text::Fixed(_) => label,
        Text::Open(_) => OTHER.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::exposition::Kind;

    #[test]
    fn beyond_the_cap_names_from_outside_are_counted_as_one() {
        let about = About { name: "a_total", help: "A.", kind: Kind::Counter };
        let capped = Counter::default();
        let family = Counters::new(about, ["way", "name"], &capped);
        for number in 0..MOST + 10 {
            for way in ["in", "out"] {
                family.of([way.into(), number.to_string().into()]).inc();
            }
        }
        let each = family.each();
        assert_eq!(each.len(), MOST + 2);
        assert_eq!(each.iter().map(|(_, count)| count).sum::<u64>(), 2 * (MOST as u64 + 10));
        let others: Vec<_> = each.iter().filter(|(labels, _)| labels[1].as_str() == OTHER).collect();
        assert_eq!(others.len(), 2);
        assert_eq!(capped.get(), others.iter().map(|(_, count)| count).sum::<u64>());
    }
}
