//! Requests that are sent again, and those whose time is over.

use anyhow::{Result, ensure};
use ferrule_e2e::{client::Client, scene::Scene, shop::Shop, suite::note, workload::report::Echo};
use serde_json::json;

use crate::{apply, backend, url};

/// Attempts beyond the first that the client's sidecar has made so far.
fn retries(shop: &Shop, client: &Client) -> Result<f64> {
    Ok(shop.metrics(client.pod())?.sum("ferrule_retries_total", &[("direction", "outbound")]))
}

pub fn retries_follow_the_rule(scene: &Scene) -> Result<()> {
    let shop = Shop::open(scene)?;
    let client = shop.client()?;
    let at = |prefix: &str| json!([{"path": {"prefix": prefix}}]);
    let rules = [
        json!({"matches": at("/codes"), "retry": {"attempts": 2, "codes": [503]}}),
        json!({"matches": at("/word"), "retry": {"attempts": 2, "codes": [503], "nonIdempotent": true}}),
        json!({
            "matches": at("/late"), "backendRefs": backend("v1"),
            "retry": {"attempts": 1, "perTryTimeout": "100ms", "on": ["timeout"]},
        }),
        json!({
            "matches": at("/budget"),
            "retry": {"attempts": 3, "codes": [503], "budget": {"percent": "10%", "minPerSecond": 0}},
        }),
        json!({}),
    ];
    apply(&shop, &client, &rules)?;
    // The servers answer with the status that they are asked for.
    for (path, options, expected) in [
        ("/codes?status=503", &[][..], 2.0),
        ("/codes?status=500", &[], 0.0),
        ("/codes?status=503", &["-X", "POST"], 0.0),
        ("/word?status=503", &["-X", "POST"], 2.0),
        ("/other?status=503", &[], 0.0),
        ("/late?delay=300ms", &[], 1.0),
    ] {
        let before = retries(&shop, &client)?;
        let answer = client.once(&url(path), options)?;
        let made = retries(&shop, &client)? - before;
        ensure!(made == expected, "{path} {options:?}: {made} retries, not {expected}: {answer:?}");
        let expected = if path.starts_with("/late") {
            504
        } else if path.contains("500") {
            500
        } else {
            503
        };
        ensure!(answer.status == expected, "{path}: {answer:?}");
    }
    let before = retries(&shop, &client)?;
    let summary = client.load(&url("/budget?status=503"), &["--count", "500"])?;
    let made = retries(&shop, &client)? - before;
    ensure!(summary.requests == 500 && (1.0..=50.0).contains(&made), "{made} retries of 500 requests at 10%");
    note(&format!("budget: {made} retries of 500 failing requests at 10%"));
    Ok(())
}

pub fn deadlines_are_kept_and_passed_on(scene: &Scene) -> Result<()> {
    let shop = Shop::open(scene)?;
    let client = shop.client()?;
    apply(&shop, &client, &[json!({})])?;
    let answer = client.once(&url("/"), &["-H", "ferrule-deadline: 30000"])?;
    let echo: Echo = serde_json::from_str(&answer.body)?;
    let left = echo.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("ferrule-deadline"));
    let left: u64 = left.map(|(_, value)| value.parse()).transpose()?.unwrap_or_default();
    ensure!((20_000..=30_000).contains(&left), "{echo:?}");
    let late = client.once(&url("/?delay=3000ms"), &["-H", "ferrule-deadline: 300"])?;
    ensure!(late.status == 504 && late.header("ferrule-error") == Some("deadline"), "{late:?}");
    ensure!((250_000..2_000_000).contains(&late.micros), "{late:?}");
    Ok(())
}
