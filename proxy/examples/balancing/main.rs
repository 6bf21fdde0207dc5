//! What the balancing algorithms do when endpoints differ: the proxy's own pure modules, driven with simulated time.
//!
//! ```text
//! cargo run -p ferrule-proxy --example balancing
//! ```
//!
//! Deterministic: the same seed prints the same tables, which stand in `docs/balancing.md`.

mod scenarios;
mod simulation;

use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for scenario in scenarios::all() {
        writeln!(out, "### {}\n\n{}\n", scenario.name, scenario.what)?;
        writeln!(
            out,
            "| balancer | p50 ms | p99 ms | max ms | {} | failed attempts | errors |",
            scenario.odd_name
        )?;
        writeln!(out, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for case in &scenario.cases {
            let result = simulation::run(&case.setup);
            writeln!(
                out,
                "| {} | {:.1} | {:.1} | {:.0} | {} | {} | {} |",
                case.name,
                result.quantile(0.5),
                result.quantile(0.99),
                result.quantile(1.0),
                result.odd_share(),
                result.failed,
                result.errors,
            )?;
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{scenarios, simulation};

    fn p99(scenario: &str, case: &str) -> f64 {
        let scenario = scenarios::all().into_iter().find(|each| each.name == scenario).expect("a scenario");
        let case = scenario.cases.into_iter().find(|each| each.name == case).expect("a case");
        simulation::run(&case.setup).quantile(0.99)
    }

    #[test]
    fn the_default_beats_round_robin_when_an_endpoint_is_slow() {
        let slow = "One of ten is ten times slower";
        let (default, round_robin) = (p99(slow, "PeakEwma"), p99(slow, "RoundRobin"));
        assert!(default * 3.0 < round_robin, "{default} ms and {round_robin} ms");
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let dead = "One of ten refuses connections";
        assert!((p99(dead, "LeastRequest") - p99(dead, "LeastRequest")).abs() < 1e-9);
    }

    #[test]
    fn a_zone_in_distress_is_relieved() {
        let loaded = "Two zones, the own one overloaded";
        let (default, never) = (p99(loaded, "PeakEwma, Prefer"), p99(loaded, "RoundRobin, Prefer"));
        assert!(default * 3.0 < never, "{default} ms and {never} ms");
    }
}
