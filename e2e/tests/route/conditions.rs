//! Which requests a rule is for.

use std::time::Duration;

use anyhow::{Result, ensure};
use ferrule_e2e::{scene::Scene, shop::Shop, wait::eventually};
use serde_json::{Value, json};

use crate::{apply, backend, expect_version, url};

pub fn each_condition_chooses(scene: &Scene) -> Result<()> {
    let shop = Shop::open(scene)?;
    let client = shop.client()?;
    let rule = |condition: Value| json!({"matches": [condition], "backendRefs": backend("v2")});
    let host = format!("reviews.{}.svc.cluster.local", shop.name());
    let rules = [
        rule(json!({"path": {"exact": "/exact"}})),
        rule(json!({"path": {"prefix": "/prefix"}})),
        rule(json!({"path": {"regex": "/regex/[0-9]+(/.*)?"}})),
        rule(json!({"path": {"prefix": "/method"}, "method": "PUT"})),
        rule(json!({"headers": [{"name": "x-exact", "exact": "beta"}]})),
        rule(json!({"headers": [{"name": "x-prefix", "prefix": "be"}]})),
        rule(json!({"headers": [{"name": "x-regex", "regex": "b.t[a-z]"}]})),
        rule(json!({"headers": [{"name": "x-here", "present": true}, {"name": "x-gone", "present": false}]})),
        rule(json!({"queryParams": [{"name": "exact", "exact": "1"}, {"name": "debug", "present": false}]})),
        rule(json!({"queryParams": [{"name": "prefix", "prefix": "1"}]})),
        rule(json!({"queryParams": [{"name": "regex", "regex": "[0-9]+"}]})),
        rule(json!({"hostnames": [host]})),
        rule(json!({"grpc": {"service": "shop.v1.Cart", "method": "Add"}})),
        json!({"backendRefs": backend("v1")}),
    ];
    apply(&shop, &client, &rules)?;
    for (path, options, version) in [
        ("/exact", &[][..], "v2"),
        ("/exact/", &[], "v1"),
        ("/prefix/a", &[], "v2"),
        ("/prefixed", &[], "v1"),
        ("/regex/42/a?b=c", &[], "v2"),
        ("/regex/x", &[], "v1"),
        ("/method", &["-X", "PUT"], "v2"),
        ("/method", &[], "v1"),
        ("/", &["-H", "X-Exact: beta"], "v2"),
        ("/", &["-H", "x-exact: betamax"], "v1"),
        ("/", &["-H", "x-prefix: beta"], "v2"),
        ("/", &["-H", "x-prefix: alpha"], "v1"),
        ("/", &["-H", "x-regex: beta"], "v2"),
        ("/", &["-H", "x-here: 1"], "v2"),
        ("/", &["-H", "x-here: 1", "-H", "x-gone: 1"], "v1"),
        ("/?exact=1", &[], "v2"),
        ("/?exact=1&debug", &[], "v1"),
        ("/?exact=12", &[], "v1"),
        ("/?prefix=12", &[], "v2"),
        ("/?regex=12", &[], "v2"),
        ("/?regex=12x", &[], "v1"),
        ("/shop.v1.Cart/Add", &["-X", "POST"], "v2"),
        ("/shop.v1.Cart/Remove", &["-X", "POST"], "v1"),
    ] {
        expect_version(&client, path, options, version)?;
    }
    let by_host = client.once(&format!("http://{host}:8080/"), &[])?;
    ensure!(by_host.header("x-version") == Some("v2"), "{by_host:?}");
    Ok(())
}

pub fn the_source_is_what_the_pod_is(scene: &Scene) -> Result<()> {
    let shop = Shop::open(scene)?;
    let client = shop.client()?;
    let rule = |path: &str, source: Value| json!({"matches": [{"path": {"prefix": path}, "source": source}], "backendRefs": backend("v2")});
    let rules = [
        rule("/namespace", json!({"namespace": shop.name()})),
        rule("/elsewhere", json!({"namespace": "elsewhere"})),
        rule("/account", json!({"serviceAccount": "default"})),
        rule("/nobody", json!({"serviceAccount": "nobody"})),
        rule("/labels", json!({"podLabels": {"app": "client"}})),
        rule("/track", json!({"podLabels": {"track": "beta"}})),
        json!({"backendRefs": backend("v1")}),
    ];
    apply(&shop, &client, &rules)?;
    for (path, version) in [
        ("/namespace", "v2"),
        ("/elsewhere", "v1"),
        ("/account", "v2"),
        ("/nobody", "v1"),
        ("/labels", "v2"),
        ("/track", "v1"),
    ] {
        expect_version(&client, path, &[], version)?;
    }
    shop.kubectl(&["label", "pod", client.pod(), "track=beta"])?;
    // The kubelet writes labels anew within a minute or so, and the sidecar looks every 15 s.
    eventually("the label is known", Duration::from_secs(150), || {
        expect_version(&client, "/track", &[], "v2").map(|_| ())
    })
}

pub fn a_thousand_rules_of_a_service_hold(scene: &Scene) -> Result<()> {
    let shop = Shop::open(scene)?;
    let client = shop.client()?;
    let mut routes = Vec::new();
    for number in 0..63 {
        let rules: Vec<_> = (0..16)
            .map(|rule| {
                let path = format!("/{number}/{rule}");
                json!({
                    "matches": [{"path": {"exact": path}}],
                    "directResponse": {"statusCode": 200, "body": path},
                })
            })
            .collect();
        let mut route = ferrule_e2e::shop::route(&json!(rules));
        route["metadata"]["name"] = format!("many-{number}").into();
        routes.push(route);
    }
    shop.apply(&json!({"apiVersion": "v1", "kind": "List", "items": routes}).to_string())?;
    eventually("all rules hold", Duration::from_secs(30), || {
        for path in ["/0/0", "/31/7", "/62/15"] {
            let answer = client.once(&url(path), &[])?;
            ensure!(answer.body == path, "{path}: {answer:?}");
        }
        Ok(())
    })?;
    let none = client.once(&url("/63/0"), &[])?;
    ensure!(none.status == 404 && none.header("ferrule-error") == Some("no-route"), "{none:?}");
    Ok(())
}
