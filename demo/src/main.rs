//! `ferrule-demo`: three services in a mesh on this machine, and a Route that is edited under traffic.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use ferrule_demo::{
    load::{self, Load, Seen},
    mesh::Mesh,
    split::Counts,
};

/// How long each split is watched.
const PHASE: Duration = Duration::from_secs(8);
/// Time from one line to the next.
const LINE: Duration = Duration::from_secs(1);
/// An edit that takes longer to be in force fails the demo. The goal is a tenth of it; a busy machine must not
/// fail it.
const IN_FORCE: Duration = Duration::from_secs(1);
/// Longest time for the frontend's first answer.
const START: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the demo has failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything was as it should be.
async fn run() -> anyhow::Result<bool> {
    println!("Ferrule on this machine: a frontend, two versions of a backend, a proxy beside each.\n");
    let mesh = Mesh::start().await?;
    load::answers(mesh.frontend, START).await?;

    println!("\nThe Route sends 90 of 100 requests to v1 and 10 to v2.\n");
    let load = Load::start(mesh.frontend)?;
    watch(&load, "90/10").await;

    println!("\nNow route.yaml is edited to 50/50; the requests go on.\n");
    let edited = Instant::now();
    mesh.split_in_half()?;
    watch(&load, "50/50").await;

    let seen = load.seen();
    drop(load);
    mesh.stop().await?;
    conclude(&seen, edited).context("the edit was never in force")
}

/// Prints a line each second.
async fn watch(load: &Load, split: &str) {
    let began = Instant::now();
    let mut before = load.seen().splits.get(split).copied().unwrap_or_default();
    while began.elapsed() < PHASE {
        tokio::time::sleep(LINE).await;
        let seen = load.seen();
        let all = seen.splits.get(split).copied().unwrap_or_default();
        let now = Counts { v1: all.v1 - before.v1, v2: all.v2 - before.v2 };
        before = all;
        let width = 40.0;
        // A share is from 0 to 1, so the bar has from 0 to 40 characters.
        let v2 = (now.share() * width).round() as usize;
        let bar = format!("{}{}", "1".repeat(width as usize - v2), "2".repeat(v2));
        let share = now.share() * 100.0;
        println!("  v1 {:>4}  v2 {:>4}  {bar}  {share:>4.1} % v2  failed {}", now.v1, now.v2, seen.failed);
    }
}

/// Prints what was seen and judges it; `None` if one of the splits was never seen.
fn conclude(seen: &Seen, edited: Instant) -> Option<bool> {
    let [before, after] = ["90/10", "50/50"].map(|split| seen.splits.get(split).copied().unwrap_or_default());
    println!("\n            requests   to v2   range that chance allows");
    let mut good = true;
    for (split, counts, share) in [("90/10", before, 0.1), ("50/50", after, 0.5)] {
        let (low, high) = counts.range();
        let agrees = counts.agrees_with(share);
        good &= agrees;
        let verdict = if agrees { "as told" } else { "NOT as told" };
        let (observed, low, high) = (counts.share() * 100.0, low * 100.0, high * 100.0);
        println!(
            "  {split}   {:>9}  {observed:>5.1} %   {low:.1} % to {high:.1} %: {verdict}",
            counts.total()
        );
    }
    let last_old = *seen.last_sent.get("90/10")?;
    seen.last_sent.get("50/50")?;
    let in_force = last_old.saturating_duration_since(edited);
    good &= in_force < IN_FORCE && seen.failed == 0;
    println!(
        "\n  in force  {:.1} ms after the edit: all requests sent later came by the new split",
        in_force.as_secs_f64() * 1e3
    );
    println!("  failed    {} of {} requests", seen.failed, before.total() + after.total() + seen.failed);
    if let Some(failure) = &seen.first_failure {
        println!("            the first: {failure}");
    }
    if let Some((split, counts)) =
        seen.splits.iter().find(|(split, _)| !["90/10", "50/50"].contains(&split.as_str()))
    {
        println!("  NOT as told: {} answers by split {split:?}, which nobody asked for", counts.total());
        good = false;
    }
    Some(good)
}
