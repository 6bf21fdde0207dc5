//! Metrics in Prometheus' text format, read back.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// All samples of one scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(Vec<Sample>);

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name, with its suffix.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

impl Metrics {
    /// Parses the text format, OpenMetrics' as well.
    ///
    /// # Errors
    /// A line that is none of it.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .map(|line| sample(line).with_context(|| format!("metrics line {line:?}")))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Sum of all samples of this name that have all of these labels.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// Number of samples of this name that have all of these labels.
    #[must_use]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> usize {
        self.matching(name, labels).count()
    }

    /// Upper bound of a histogram's share, as its buckets tell it: the least `le` that covers it, over all samples that
    /// have these labels. `None` when nothing was observed.
    #[must_use]
    pub fn quantile(&self, histogram: &str, labels: &[(&str, &str)], share: f64) -> Option<f64> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.matching(&format!("{histogram}_bucket"), labels) {
            let bound = sample.labels.get("le")?.replace("+Inf", "inf").parse().ok()?;
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((bound, sample.value)),
            }
        }
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let (_, all) = *buckets.last().filter(|(_, all)| *all > 0.0)?;
        buckets.iter().find(|(_, count)| *count >= all * share).map(|(bound, _)| *bound)
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| {
            let has =
                |(key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|found| found == value);
            sample.name == name && labels.iter().all(has)
        })
    }
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = rest.strip_prefix('{').map_or_else(|| Some((BTreeMap::new(), rest)), labels)?;
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

fn labels(mut text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (key, rest) = text.split_once("=\"")?;
        let (value, rest) = quoted(rest)?;
        labels.insert(key.to_owned(), value);
        text = rest.strip_prefix(',').unwrap_or(rest);
    }
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            char => value.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_the_labels_not_asked_for() {
        let text = "# HELP a text\n# TYPE a counter\na_total{x=\"1\",y=\"q\\\"}\"} 2\na_total{x=\"1\",y=\"b\"} 3 1700\na_total{x=\"2\"} 4\nb 1e3\n# EOF\n";
        let metrics = Metrics::parse(text).expect("well formed");
        assert_eq!(metrics.sum("a_total", &[("x", "1")]), 5.0);
        assert_eq!(metrics.sum("a_total", &[("y", "q\"}")]), 2.0);
        assert_eq!(metrics.sum("b", &[]), 1000.0);
        assert_eq!(metrics.count("a_total", &[]), 3);
        assert!(Metrics::parse("a{x=1} 2").is_err());
    }

    #[test]
    fn quantiles_are_bounds_of_buckets() {
        let text = "h_bucket{le=\"0.1\",x=\"1\"} 90\nh_bucket{le=\"0.5\",x=\"1\"} 99\nh_bucket{le=\"+Inf\",x=\"1\"} 100\n";
        let metrics = Metrics::parse(text).expect("well formed");
        assert_eq!(metrics.quantile("h", &[], 0.5), Some(0.1));
        assert_eq!(metrics.quantile("h", &[("x", "1")], 0.99), Some(0.5));
        assert_eq!(metrics.quantile("h", &[], 1.0), Some(f64::INFINITY));
        assert_eq!(metrics.quantile("h", &[("x", "2")], 0.5), None);
    }
}
