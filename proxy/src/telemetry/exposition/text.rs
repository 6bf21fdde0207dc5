//! The text formats: Prometheus' own (version 0.0.4) and OpenMetrics 1.0.0. Of histograms they show the classic part.

use std::fmt::Write;

use super::{About, Family, Kind, Sample, Value};
use crate::telemetry::{histogram::Distribution, label::Text};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Prometheus,
    OpenMetrics,
}

pub(super) fn encode(families: &[Family], dialect: Dialect) -> String {
    let mut out = String::with_capacity(16 * 1024);
    for family in families {
        // Writing to a string can't fail.
        let _ = write_family(&mut out, family, dialect);
    }
    if dialect == Dialect::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn write_family(out: &mut String, Family { about, samples }: &Family, dialect: Dialect) -> std::fmt::Result {
    let About { name, help, kind } = *about;
    // In OpenMetrics the suffix belongs to the sample.
    let family = match dialect {
        Dialect::Prometheus => name,
        Dialect::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
    };
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    writeln!(out, "# HELP {family} {help}\n# TYPE {family} {kind}")?;
    for Sample { labels, value, since: _ } in samples {
        match value {
            Value::Number(number) => line(out, name, "", labels, None, *number)?,
            Value::Distribution(distribution) => histogram(out, name, labels, distribution)?,
        }
    }
    Ok(())
}

fn histogram(
    out: &mut String,
    name: &str,
    labels: &[(&'static str, Text)],
    distribution: &Distribution,
) -> std::fmt::Result {
    let Distribution { bounds, classic, count, sum, .. } = distribution;
    for (bound, count) in bounds.iter().zip(classic) {
        line(out, name, "_bucket", labels, Some(*bound), *count as f64)?;
    }
    line(out, name, "_bucket", labels, Some(f64::INFINITY), *count as f64)?;
    line(out, name, "_sum", labels, None, *sum)?;
    line(out, name, "_count", labels, None, *count as f64)
}

fn line(
    out: &mut String,
    name: &str,
    suffix: &str,
    labels: &[(&'static str, Text)],
    bound: Option<f64>,
    value: f64,
) -> std::fmt::Result {
    write!(out, "{name}{suffix}")?;
    let mut separator = '{';
    for (name, value) in labels {
        write!(out, "{separator}{name}=\"")?;
        escape(out, value.as_str());
        out.push('"');
        separator = ',';
    }
    match bound {
        // Both formats' readers know it by this form, the only one that OpenMetrics allows.
        Some(bound) if bound.is_finite() => write!(out, "{separator}le=\"{bound:?}\"}}")?,
        Some(_) => write!(out, "{separator}le=\"+Inf\"}}")?,
        None if separator == ',' => out.push('}'),
        None => {}
    }
    writeln!(out, " {value}")
}

fn escape(out: &mut String, value: &str) {
    for char in value.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            char => out.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::histogram::{Histogram, SIZE};

    fn families() -> Vec<Family> {
        let counter = About { name: "a_total", help: "Of a.", kind: Kind::Counter };
        let histogram = About { name: "b_bytes", help: "Of b.", kind: Kind::Histogram };
        let counted = Histogram::new(&SIZE);
        counted.observe(100);
        counted.observe(1 << 30);
        let value = Value::Distribution(Box::new(Distribution::of(&SIZE, [&counted])));
        let odd = Text::from("x\"\\\ny".to_owned());
        vec![
            Family {
                about: counter,
                samples: vec![Sample { labels: vec![("l", odd)], value: Value::Number(3.0), since: None }],
            },
            Family { about: histogram, samples: vec![Sample { labels: vec![], value, since: None }] },
        ]
    }

    #[test]
    fn each_dialect_has_its_own_way_with_names_and_ends() {
        let prometheus = encode(&families(), Dialect::Prometheus);
        assert!(
            prometheus.starts_with(
                "# HELP a_total Of a.\n# TYPE a_total counter\na_total{l=\"x\\\"\\\\\\ny\"} 3\n"
            )
        );
        assert!(!prometheus.contains("EOF"));
        let open = encode(&families(), Dialect::OpenMetrics);
        assert!(open.starts_with("# HELP a Of a.\n# TYPE a counter\na_total{"), "{open}");
        assert!(open.ends_with("# EOF\n"));
    }

    #[test]
    fn buckets_are_cumulative_and_end_in_infinity() {
        let text = encode(&families(), Dialect::OpenMetrics);
        for line in [
            "b_bytes_bucket{le=\"64.0\"} 0\n",
            "b_bytes_bucket{le=\"256.0\"} 1\n",
            "b_bytes_bucket{le=\"268435456.0\"} 1\n",
            "b_bytes_bucket{le=\"+Inf\"} 2\n",
            "b_bytes_sum 1073741924\n",
            "b_bytes_count 2\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
