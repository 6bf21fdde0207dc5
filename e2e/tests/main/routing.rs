//! Routes obeyed.

use std::time::Duration;

use anyhow::{Result, ensure};
use ferrule_e2e::{
    scene::Scene,
    shop::{Shop, URL, route, split},
    stats::binomial_range,
    suite::note,
    wait::eventually,
};
use serde_json::json;

const REQUESTS: u64 = 2000;

pub fn weights_split_requests(scene: &Scene) -> Result<()> {
    let shop = Shop::shared(scene)?;
    let client = shop.client()?;
    shop.route_and_wait(&split(0, 100), "v2")?;
    shop.route_and_wait(&split(100, 0), "v1")?;
    shop.apply(&split(90, 10).to_string())?;
    eventually("v2 gets something", Duration::from_secs(5), || {
        let summary = client.load(URL, &["--count", "100"])?;
        ensure!(summary.versions.contains_key("v2"), "{:?}", summary.versions);
        Ok(())
    })?;
    let count = REQUESTS.to_string();
    for mode in [&["--count", &count][..], &["--count", &count, "--no-keep-alive"]] {
        let summary = client.load(URL, mode)?;
        summary.expect_no_failure()?;
        let v2 = summary.versions.get("v2").copied().unwrap_or(0);
        let range = binomial_range(REQUESTS, 0.1);
        ensure!(range.contains(&v2), "v2 got {v2} of {REQUESTS} at 90/10, not {range:?}");
        note(&format!("90/10: v2 got {v2} of {REQUESTS}; latency {:?} us", summary.latency));
    }
    shop.route_and_wait(&split(0, 100), "v2")?;
    let summary = client.load(URL, &["--count", &count])?;
    summary.expect_no_failure()?;
    ensure!(summary.versions.get("v2") == Some(&REQUESTS), "at 0/100: {:?}", summary.versions);
    Ok(())
}

pub fn headers_choose_the_version(scene: &Scene) -> Result<()> {
    let shop = Shop::shared(scene)?;
    let client = shop.client()?;
    let name = format!("{}/reviews/beta", shop.name());
    let counted = || -> Result<f64> {
        let metrics = shop.metrics(client.pod())?;
        Ok(metrics.sum("ferrule_requests_total", &[("direction", "outbound"), ("route", &name)]))
    };
    let before = counted()?;
    let rules = json!([
        {"name": "beta", "matches": [{"headers": [{"name": "X-User", "exact": "beta"}]}],
         "backendRefs": [{"name": "reviews-v2", "port": 8080}]},
        {"name": "write", "matches": [{"path": {"prefix": "/write"}, "method": "POST"}],
         "backendRefs": [{"name": "reviews-v2", "port": 8080}]},
        {"name": "rest", "backendRefs": [{"name": "reviews-v1", "port": 8080}]},
    ]);
    shop.route_and_wait(&route(&rules), "v1")?;
    for (url, options, version) in [
        (URL, &["-H", "x-user: beta"][..], "v2"),
        (URL, &["-H", "X-USER: beta"], "v2"),
        (URL, &["-H", "x-user: betamax"], "v1"),
        (URL, &["-H", "x-other: beta"], "v1"),
        (URL, &[], "v1"),
        ("http://reviews:8080/write/a", &["-X", "POST"], "v2"),
        ("http://reviews:8080/write/a", &["-X", "GET"], "v1"),
        ("http://reviews:8080/writer", &["-X", "POST"], "v1"),
        ("http://reviews:8080/write?a=b", &["-X", "POST"], "v2"),
    ] {
        let options = [&["--count", "20"], options].concat();
        let summary = client.load(url, &options)?;
        summary.expect_no_failure()?;
        ensure!(summary.versions.get(version) == Some(&20), "{url} {options:?}: {:?}", summary.versions);
    }
    // The metrics name the rule.
    let increase = counted()? - before;
    ensure!(increase == 40.0, "metrics count {increase} requests of rule {name}");
    Ok(())
}

pub fn a_rule_changes_headers_and_bounds_time(scene: &Scene) -> Result<()> {
    let shop = Shop::shared(scene)?;
    let client = shop.client()?;
    let rules = json!([{
        "requestHeaders": {
            "set": [{"name": "x-set", "value": "new"}], "add": [{"name": "x-add", "value": "more"}], "remove": ["x-gone"],
        },
        "responseHeaders": {"set": [{"name": "x-version", "value": "hidden"}], "remove": ["x-lower"]},
        "timeouts": {"request": "300ms"},
        "backendRefs": [{"name": "reviews-v1", "port": 8080}],
    }]);
    shop.apply(&route(&rules).to_string())?;
    let options = ["-H", "X-Set: old", "-H", "x-gone: 1", "-H", "x-add: first", "-H", "x-kept: 1"];
    let response = eventually("the response is changed", Duration::from_secs(5), || {
        let response = client.once(URL, &options)?;
        ensure!(response.header("x-version") == Some("hidden"), "{response:?}");
        Ok(response)
    })?;
    ensure!(response.header("x-lower").is_none(), "x-lower was not removed: {response:?}");
    let echo: ferrule_e2e::workload::report::Echo = serde_json::from_str(&response.body)?;
    let values = |name: &str| -> Vec<&str> {
        let fields = echo.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| value.as_str()).collect()
    };
    ensure!(values("x-set") == ["new"], "{echo:?}");
    ensure!(values("x-add") == ["first", "more"], "{echo:?}");
    ensure!(values("x-gone").is_empty() && values("x-kept") == ["1"], "{echo:?}");

    let late = client.once("http://reviews:8080/?delay=2000ms", &[])?;
    ensure!(late.status == 504, "after 300 ms of 2 s: {late:?}");
    ensure!(late.header("ferrule-error").is_some(), "no word about the cause: {late:?}");
    ensure!((250_000..1_000_000).contains(&late.micros), "the limit of 300 ms took {} us", late.micros);
    let soon = client.once("http://reviews:8080/?delay=100ms", &[])?;
    ensure!(soon.status == 200, "after 100 ms: {soon:?}");
    Ok(())
}
