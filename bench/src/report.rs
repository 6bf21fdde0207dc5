//! What came out, as tables.

use std::collections::BTreeSet;

use crate::{
    measure::{Figure, Measure},
    peers::Contender,
};

/// Who the others are compared with.
const BASE: Contender = Contender::Haproxy;

/// One figure of one contender in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// What was measured.
    pub measure: Measure,
    /// The figure.
    pub figure: Figure,
    /// Who.
    pub contender: Contender,
    /// In which round.
    pub round: usize,
    /// How much.
    pub value: f64,
}

/// A measure that gave no figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was measured.
    pub measure: Measure,
    /// Who.
    pub contender: Contender,
    /// In which round.
    pub round: usize,
    /// Why there are no figures.
    pub reason: String,
}

/// All rounds.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// Figures.
    pub samples: Vec<Sample>,
    /// What failed.
    pub failures: Vec<Failure>,
}

/// Median, least and greatest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, least, greatest })
    }
}

impl Results {
    /// The tables, in Markdown.
    #[must_use]
    pub fn tables(&self) -> String {
        let mut text = String::new();
        let contenders: BTreeSet<_> = self.samples.iter().map(|sample| sample.contender).collect();
        let compared: Vec<_> =
            contenders.iter().copied().filter(|it| !matches!(*it, Contender::Direct | BASE)).collect();
        if contenders.contains(&BASE) && !compared.is_empty() {
            text.push_str(&format!(
                "Ratios to {}: median of the rounds (least–greatest). Less is better but for /s.\n\n",
                BASE.name()
            ));
            text.push_str(&self.table(&compared, |measure, figure, contender| {
                let spread = Spread::of(self.ratios(measure, figure, contender))?;
                Some(format!("**{:.2}** ({:.2}–{:.2})", spread.median, spread.least, spread.greatest))
            }));
            text.push('\n');
        }
        text.push_str("Figures: median of the rounds.\n\n");
        let all: Vec<_> = contenders.into_iter().collect();
        text.push_str(&self.table(&all, |measure, figure, contender| {
            let spread = Spread::of(self.values(measure, figure, contender))?;
            Some(number(spread.median))
        }));
        for Failure { measure, contender, round, reason } in &self.failures {
            let (measure, contender, round) = (measure.name(), contender.name(), round + 1);
            text.push_str(&format!("\nFailed: {measure}, {contender}, round {round}: {reason}\n"));
        }
        text
    }

    fn table(
        &self,
        contenders: &[Contender],
        cell: impl Fn(Measure, Figure, Contender) -> Option<String>,
    ) -> String {
        let names: Vec<_> = contenders.iter().map(|contender| contender.name()).collect();
        let mut text = format!(
            "| measure | figure | {} |\n|---|---|{}\n",
            names.join(" | "),
            "---|".repeat(names.len())
        );
        let mut rows: Vec<_> = self.samples.iter().map(|sample| (sample.measure, sample.figure)).collect();
        let measured: BTreeSet<_> = rows.iter().map(|(measure, _)| *measure).collect();
        // One row for a measure that gave no figure to anyone.
        let failed = self.failures.iter().map(|failure| failure.measure);
        rows.extend(failed.filter(|it| !measured.contains(it)).map(|it| (it, Figure::CpuPerRequest)));
        rows.sort_unstable();
        rows.dedup();
        for (measure, figure) in rows {
            let cells: Vec<_> = contenders
                .iter()
                .map(|contender| match cell(measure, figure, *contender) {
                    Some(cell) => cell,
                    None if self.failed(measure, *contender) => "failed".into(),
                    None => "–".into(),
                })
                .collect();
            let added = if figure.is_added() && self.has_direct(measure) { "added " } else { "" };
            let row = format!("| {} | {added}{} | {} |\n", measure.name(), figure.name(), cells.join(" | "));
            text.push_str(&row);
        }
        text
    }

    /// A contender's values, one a round; of what the road without a proxy takes too, what is added to that.
    fn values(&self, measure: Measure, figure: Figure, contender: Contender) -> Vec<f64> {
        self.rounds(measure, figure, contender).map(|(_, value)| value).collect()
    }

    /// Round by round, so that what disturbs a round disturbs both sides of its ratio.
    fn ratios(&self, measure: Measure, figure: Figure, contender: Contender) -> Vec<f64> {
        let base: Vec<_> = self.rounds(measure, figure, BASE).collect();
        self.rounds(measure, figure, contender)
            .filter_map(|(round, value)| {
                let (_, base) = base.iter().find(|(other, _)| *other == round)?;
                Some(value / base)
            })
            .collect()
    }

    fn rounds(
        &self,
        measure: Measure,
        figure: Figure,
        contender: Contender,
    ) -> impl Iterator<Item = (usize, f64)> {
        let of = move |contender| {
            self.samples.iter().filter(move |sample| {
                (sample.measure, sample.figure, sample.contender) == (measure, figure, contender)
            })
        };
        of(contender).filter_map(move |sample| {
            if !figure.is_added() || contender == Contender::Direct || !self.has_direct(measure) {
                return Some((sample.round, sample.value));
            }
            let direct = of(Contender::Direct).find(|direct| direct.round == sample.round)?;
            Some((sample.round, sample.value - direct.value))
        })
    }

    fn has_direct(&self, measure: Measure) -> bool {
        self.samples.iter().any(|sample| (sample.measure, sample.contender) == (measure, Contender::Direct))
    }

    fn failed(&self, measure: Measure, contender: Contender) -> bool {
        self.failures.iter().any(|failure| (failure.measure, failure.contender) == (measure, contender))
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(figure: Figure, contender: Contender, round: usize, value: f64) -> Sample {
        Sample { measure: Measure::Latency, figure, contender, round, value }
    }

    #[test]
    fn ratios_pair_the_rounds() {
        let cpu = Figure::CpuPerRequest;
        let samples = vec![
            sample(cpu, Contender::Haproxy, 0, 10.0),
            sample(cpu, Contender::Haproxy, 1, 20.0),
            sample(cpu, Contender::Ferrule, 0, 9.0),
            sample(cpu, Contender::Ferrule, 1, 18.0),
            sample(cpu, Contender::Ferrule, 2, 99.0),
        ];
        let results = Results { samples, failures: Vec::new() };
        assert_eq!(results.ratios(Measure::Latency, cpu, Contender::Ferrule), [0.9, 0.9]);
    }

    #[test]
    fn latency_is_what_the_proxy_adds() {
        let samples = vec![
            sample(Figure::P50, Contender::Direct, 0, 30.0),
            sample(Figure::P50, Contender::Haproxy, 0, 50.0),
            sample(Figure::P50, Contender::Ferrule, 0, 45.0),
        ];
        let results = Results { samples, failures: Vec::new() };
        assert_eq!(results.ratios(Measure::Latency, Figure::P50, Contender::Ferrule), [0.75]);
        assert_eq!(results.values(Measure::Latency, Figure::P50, Contender::Direct), [30.0]);
        assert!(
            results.tables().contains("| latency | added p50 µs | 30.0 | 15.0 | 20.0 |"),
            "{}",
            results.tables()
        );
    }

    #[test]
    fn a_failure_is_told_with_its_reason() {
        let failure = Failure {
            measure: Measure::H2Small,
            contender: Contender::Ferrule,
            round: 0,
            reason: "a wrong response".into(),
        };
        let samples = vec![Sample {
            measure: Measure::H2Small,
            ..sample(Figure::CpuPerRequest, Contender::Haproxy, 0, 10.0)
        }];
        let other = sample(Figure::CpuPerRequest, Contender::Ferrule, 0, 10.0);
        let results = Results { samples: [samples, vec![other]].concat(), failures: vec![failure] };
        let text = results.tables();
        assert!(text.contains("| h2-small | CPU µs/request | failed |"), "{text}");
        assert!(text.contains("Failed: h2-small, Ferrule, round 1: a wrong response"), "{text}");
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]).expect("there are values");
        assert_eq!((spread.median, spread.least, spread.greatest), (2.5, 1.0, 4.0));
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
