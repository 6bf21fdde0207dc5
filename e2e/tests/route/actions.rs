//! What a rule does with requests.

use anyhow::{Result, ensure};
use ferrule_e2e::{scene::Scene, shop::Shop, stats::binomial_range, suite::note, workload::report::Echo};
use serde_json::json;

use crate::{apply, backend, url};

pub fn each_action_is_done(scene: &Scene) -> Result<()> {
    let shop = Shop::open(scene)?;
    let client = shop.client()?;
    let at = |prefix: &str| json!([{"path": {"prefix": prefix}}]);
    let rules = [
        json!({
            "matches": at("/old"), "backendRefs": backend("v1"),
            "rewrite": {"hostname": "other.example:81", "path": {"prefix": "/new"}},
        }),
        json!({"matches": at("/page"), "backendRefs": backend("v1"), "rewrite": {"path": {"full": "/one"}}}),
        json!({"matches": at("/root"), "backendRefs": backend("v1"), "rewrite": {"path": {"prefix": "/"}}}),
        json!({
            "matches": at("/moved"),
            "redirect": {"scheme": "https", "hostname": "shop.example", "path": {"prefix": "/there"}, "statusCode": 308},
        }),
        json!({
            "matches": at("/closed"),
            "directResponse": {"statusCode": 503, "body": "{}", "contentType": "application/json"},
        }),
        json!({
            "matches": at("/marked"),
            "backendRefs": [{
                "name": "reviews-v1", "port": 8080,
                "requestHeaders": {"set": [{"name": "x-for", "value": "v1"}]},
                "responseHeaders": {"add": [{"name": "x-from", "value": "v1"}]},
            }],
        }),
        json!({}),
    ];
    apply(&shop, &client, &rules)?;
    for (path, target, host) in [
        ("/old/a?b=c", "/new/a?b=c", "other.example:81"),
        ("/old", "/new", "other.example:81"),
        ("/older", "/older", "reviews:8080"),
        ("/page/a?b", "/one?b", "reviews:8080"),
        ("/root/a", "/a", "reviews:8080"),
        ("/root", "/", "reviews:8080"),
    ] {
        let echo = client.echo(&url(path), &[])?;
        ensure!(echo.target == target, "{path} became {echo:?}");
        let hosts: Vec<_> =
            echo.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host")).collect();
        ensure!(hosts.len() == 1 && hosts[0].1 == host, "{path}: {hosts:?}");
    }
    let smuggled = client.once(&url("/root//evil.example/a"), &[])?;
    ensure!(smuggled.status == 400, "{smuggled:?}");
    let moved = client.once(&url("/moved/a?b"), &[])?;
    ensure!(moved.status == 308, "{moved:?}");
    ensure!(moved.header("location") == Some("https://shop.example/there/a?b"), "{moved:?}");
    let closed = client.once(&url("/closed"), &[])?;
    ensure!(closed.status == 503 && closed.body == "{}", "{closed:?}");
    ensure!(closed.header("content-type") == Some("application/json"), "{closed:?}");
    ensure!(closed.header("ferrule-error").is_none(), "it is no error of the mesh: {closed:?}");
    let marked = client.once(&url("/marked"), &[])?;
    let echo: Echo = serde_json::from_str(&marked.body)?;
    ensure!(marked.header("x-from") == Some("v1"), "{marked:?}");
    ensure!(echo.headers.iter().any(|(name, value)| name == "x-for" && value == "v1"), "{echo:?}");
    Ok(())
}

pub fn faults_hit_their_share(scene: &Scene) -> Result<()> {
    const REQUESTS: u64 = 500;
    let shop = Shop::open(scene)?;
    let client = shop.client()?;
    let at = |prefix: &str| json!([{"path": {"prefix": prefix}}]);
    let rules = [
        json!({"matches": at("/broken"), "fault": {"abort": {"httpStatus": 503, "percentage": "20%"}}}),
        json!({"matches": at("/slow"), "fault": {"delay": {"duration": "300ms"}}}),
        json!({"matches": at("/call"), "fault": {"abort": {"grpcStatus": "UNAVAILABLE"}}}),
        json!({}),
    ];
    apply(&shop, &client, &rules)?;
    let summary = client.load(&url("/broken"), &["--count", &REQUESTS.to_string()])?;
    let range = binomial_range(REQUESTS, 0.2);
    ensure!(range.contains(&summary.failed), "{} of {REQUESTS} at 20%, not {range:?}", summary.failed);
    note(&format!("faults: {} of {REQUESTS} at 20%", summary.failed));
    let slow = client.once(&url("/slow"), &[])?;
    ensure!(slow.status == 200 && slow.micros >= 300_000, "{slow:?}");
    let soon = client.once(&url("/"), &[])?;
    ensure!(soon.status == 200 && soon.micros < 300_000, "{soon:?}");
    let call = client.once(&url("/call"), &["-X", "POST"])?;
    ensure!(call.status == 503 && call.header("ferrule-error") == Some("fault"), "{call:?}");
    Ok(())
}

pub fn browsers_of_other_sites_are_answered(scene: &Scene) -> Result<()> {
    let shop = Shop::open(scene)?;
    let client = shop.client()?;
    let rules = [json!({
        "matches": [{"path": {"prefix": "/api"}}], "backendRefs": backend("v1"),
        "cors": {"allowOrigins": ["https://*.shop.example"], "allowMethods": ["PUT"], "allowHeaders": ["x-a"], "maxAge": "10m"},
    })];
    apply(&shop, &client, &rules)?;
    let preflight = |origin: &str| {
        let origin = format!("Origin: {origin}");
        let options = ["-X", "OPTIONS", "-H", &origin, "-H", "Access-Control-Request-Method: PUT"];
        client.once(&url("/api/a"), &options)
    };
    let good = preflight("https://www.shop.example")?;
    ensure!(good.status == 204, "{good:?}");
    for (name, value) in [
        ("access-control-allow-origin", "https://www.shop.example"),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-headers", "x-a"),
        ("access-control-max-age", "600"),
    ] {
        ensure!(good.header(name) == Some(value), "{name}: {good:?}");
    }
    let evil = preflight("https://evil.example")?;
    ensure!(evil.header("access-control-allow-origin").is_none(), "{evil:?}");
    let real = client.once(&url("/api/a"), &["-H", "Origin: https://www.shop.example"])?;
    ensure!(real.header("access-control-allow-origin") == Some("https://www.shop.example"), "{real:?}");
    Ok(())
}
