//! What the API server refuses, and what the operator says about the rest.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferrule_e2e::{
    namespace::Namespace,
    scene::Scene,
    shop::{Shop, URL, route, split},
    wait::eventually,
};
use serde_json::{Value, json};

pub fn invalid_routes_are_refused_by_field(scene: &Scene) -> Result<()> {
    let namespace = scene.namespace("invalid", true)?;
    let backend = json!([{"name": "a"}]);
    let rule = |rule: Value| route(&json!([rule]));
    let matching = |condition: Value| rule(json!({"matches": [condition], "backendRefs": backend}));
    let spec = |spec: Value| {
        let mut object = route(&json!([{"backendRefs": backend}]));
        for (key, value) in spec.as_object().into_iter().flatten() {
            object["spec"][key] = value.clone();
        }
        object
    };
    let cases = [
        ("spec.targetRefs", spec(json!({"targetRefs": []}))),
        ("spec.targetRefs", spec(json!({"targetRefs": null}))),
        ("kind", spec(json!({"targetRefs": [{"kind": "Pod", "name": "a"}]}))),
        ("spec.targetRefs[0].name", spec(json!({"targetRefs": [{"name": "Not_A_Name"}]}))),
        ("spec.targetRefs", spec(json!({"targetRefs": [{"name": "a"}, {"name": "a"}]}))),
        ("spec.targetRefs[0].port", spec(json!({"targetRefs": [{"name": "a", "port": 70000}]}))),
        ("spec.rules", spec(json!({"rules": []}))),
        ("spec.rules[0].backendRefs[0].weight", rule(json!({"backendRefs": [{"name": "a", "weight": -1}]}))),
        (
            "spec.rules[0].backendRefs[0].weight",
            rule(json!({"backendRefs": [{"name": "a", "weight": 1_000_001}]})),
        ),
        (
            "spec.rules[0].backendRefs[0].weight",
            rule(json!({"backendRefs": [{"name": "a", "weight": "half"}]})),
        ),
        ("spec.rules[0].backendRefs[0].port", rule(json!({"backendRefs": [{"name": "a", "port": 0}]}))),
        ("spec.rules[0].backendRefs[0].name", rule(json!({"backendRefs": [{"port": 80}]}))),
        ("path", matching(json!({"path": {"exact": "/a", "prefix": "/b"}}))),
        ("path", matching(json!({"path": {}}))),
        ("path.prefix", matching(json!({"path": {"prefix": "no-slash"}}))),
        ("path.exact", matching(json!({"path": {"exact": "/a/../b"}}))),
        ("method", matching(json!({"method": "get"}))),
        ("headers", matching(json!({"headers": [{"name": "x"}]}))),
        ("headers", matching(json!({"headers": [{"name": "x", "exact": "1", "present": true}]}))),
        ("headers[0].name", matching(json!({"headers": [{"name": "x y", "exact": "1"}]}))),
        ("timeouts.request", rule(json!({"timeouts": {"request": "5"}}))),
        ("timeouts.request", rule(json!({"timeouts": {"request": "1.5s"}}))),
        ("timeouts.backendRequest", rule(json!({"timeouts": {"request": "1s", "backendRequest": "2s"}}))),
        (
            "content-length",
            rule(json!({"requestHeaders": {"set": [{"name": "Content-Length", "value": "1"}]}})),
        ),
        ("spec.rules[0].name", rule(json!({"name": "Not A Name"}))),
        // Fields that there are not, a typo at each depth.
        ("spec.target", spec(json!({"target": "a"}))),
        ("spec.rules[0].backendRef", rule(json!({"backendRef": backend}))),
        ("spec.rules[0].matches[0].paths", matching(json!({"paths": {"exact": "/"}}))),
        ("spec.rules[0].timeouts.total", rule(json!({"timeouts": {"total": "1s"}}))),
    ];
    for (field, object) in &cases {
        let finished = namespace.try_apply(&object.to_string())?;
        ensure!(!finished.success, "accepted, though {field} is invalid: {object}");
        ensure!(finished.stderr.contains(field), "{field} is not named in: {}", finished.stderr);
    }
    namespace.apply(&split(90, 10).to_string()).context("a valid Route must pass")
}

pub fn invalid_balancer_policies_are_refused_by_field(scene: &Scene) -> Result<()> {
    let namespace = scene.namespace("invalid-balancer", true)?;
    let policy = |fields: Value| {
        let mut object = json!({
            "apiVersion": "ferrule.dev/v1alpha1", "kind": "BalancerPolicy", "metadata": {"name": "cart"},
            "spec": {"targetRefs": [{"kind": "Service", "name": "cart"}]},
        });
        for (key, value) in fields.as_object().into_iter().flatten() {
            object["spec"][key] = value.clone();
        }
        object
    };
    let hash = |hash: Value| policy(json!({"consistentHash": hash}));
    let session = |session: Value| policy(json!({"sessionPersistence": session}));
    let cases = [
        ("spec.targetRefs", policy(json!({"targetRefs": []}))),
        ("spec.targetRefs[0].kind", policy(json!({"targetRefs": [{"kind": "Route", "name": "cart"}]}))),
        ("targetRefs", policy(json!({"targetRefs": [{"name": "cart"}, {"name": "cart"}]}))),
        ("spec.algorithm", policy(json!({"algorithm": "Fastest"}))),
        ("algorithm", policy(json!({"algorithm": "PeakEWMA", "consistentHash": {"cookie": "c"}}))),
        ("consistentHash", hash(json!({}))),
        ("consistentHash", hash(json!({"header": "a", "cookie": "b"}))),
        ("consistentHash.sourceAddress", hash(json!({"sourceAddress": false}))),
        ("consistentHash.size", hash(json!({"cookie": "c", "size": 65536}))),
        ("consistentHash.size", hash(json!({"cookie": "c", "size": 65537, "algorithm": "RingHash"}))),
        ("weights", policy(json!({"weights": [{"weight": 1}]}))),
        ("spec.weights[0].weight", policy(json!({"weights": [{"zone": "a", "weight": 1001}]}))),
        ("spec.zones", policy(json!({"zones": "Never"}))),
        ("slowStart", policy(json!({"slowStart": "16m"}))),
        ("spec.panicThreshold", policy(json!({"panicThreshold": "12.5%"}))),
        ("spec.sessionPersistence.sessionName", session(json!({"type": "Cookie"}))),
        ("sessionPersistence.sessionName", session(json!({"type": "Header", "sessionName": "Connection"}))),
        (
            "sessionPersistence.absoluteTimeout",
            session(json!({"type": "Header", "sessionName": "x", "absoluteTimeout": "1h"})),
        ),
        (
            "sessionPersistence.absoluteTimeout",
            session(json!({"sessionName": "x", "absoluteTimeout": "1ms"})),
        ),
        ("spec.consistentHash.ringSize", hash(json!({"cookie": "c", "ringSize": 1024}))),
    ];
    for (field, object) in &cases {
        let finished = namespace.try_apply(&object.to_string())?;
        ensure!(!finished.success, "accepted, though {field} is invalid: {object}");
        ensure!(finished.stderr.contains(field), "{field} is not named in: {}", finished.stderr);
    }
    let valid = [
        hash(json!({"header": "x-session"})),
        hash(json!({"sourceAddress": true, "size": 251})),
        hash(json!({"queryParameter": "q", "algorithm": "RingHash", "size": 65536})),
    ];
    for object in &valid {
        namespace.apply(&object.to_string()).context("a valid BalancerPolicy must pass")?;
    }
    Ok(())
}

pub fn explain_reads_like_documentation(scene: &Scene) -> Result<()> {
    let cluster = scene.cluster();
    for (path, words) in [
        ("route", &["decides what happens", "spec", "status"][..]),
        ("route.spec", &["targetRefs", "rules", "-required-"]),
        ("route.spec.rules", &["backendRefs", "matches", "timeouts", "most specific match"]),
        ("route.spec.rules.backendRefs.weight", &["proportion", "Default"]),
        ("balancerpolicy.spec", &["targetRefs", "consistentHash", "Default: PeakEWMA"]),
        ("circuitpolicy.spec", &["targetRefs"]),
        ("meshtls.spec", &["mode"]),
        ("accesspolicy.spec", &["allow", "deny", "audit", "Default"]),
        ("accesspolicy.spec.allow.to.paths", &["decoded", "two ways"]),
    ] {
        let text = cluster.kubectl(&["explain", path])?;
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            ensure!(flat.contains(word), "`kubectl explain {path}` does not say {word:?}:\n{text}");
        }
        let described = !text.contains("<no description>") && !text.contains("<empty>");
        ensure!(described, "`kubectl explain {path}` has gaps:\n{text}");
    }
    cluster.kubectl(&["get", "ferrule", "--all-namespaces"]).context("the category `ferrule`")?;
    Ok(())
}

pub fn a_route_without_target_is_not_accepted_and_others_work(scene: &Scene) -> Result<()> {
    let shop = Shop::shared(scene)?;
    shop.route_and_wait(&split(0, 1), "v2")?;
    let mut stray = route(&json!([{"backendRefs": [{"name": "reviews-v1"}]}]));
    stray["metadata"]["name"] = "stray".into();
    stray["spec"]["targetRefs"] = json!([{"kind": "Service", "name": "no-such-service"}]);
    shop.apply(&stray.to_string())?;
    expect_condition(&shop, "stray", "Accepted", "False", "no-such-service")?;
    expect_condition(&shop, "reviews", "Accepted", "True", "")?;

    let mut dangling = split(0, 1);
    dangling["metadata"]["name"] = "dangling".into();
    dangling["spec"]["rules"] = json!([{
        "matches": [{"path": {"prefix": "/dangling"}}],
        "backendRefs": [{"name": "no-such-backend", "port": 8080}],
    }]);
    shop.apply(&dangling.to_string())?;
    expect_condition(&shop, "dangling", "ResolvedRefs", "False", "no-such-backend")?;

    let client = shop.client()?;
    let response = eventually("the dangling rule answers 500", Duration::from_secs(5), || {
        let response = client.once("http://reviews:8080/dangling", &[])?;
        ensure!(response.status == 500, "{response:?}");
        Ok(response)
    })?;
    ensure!(response.header("ferrule-error").is_some(), "no word about the cause: {response:?}");
    let summary = client.load(URL, &["--count", "100"])?;
    summary.expect_no_failure()?;
    ensure!(summary.versions.get("v2") == Some(&100), "the other Route is not obeyed: {summary:?}");
    Ok(())
}

fn expect_condition(namespace: &Namespace, name: &str, kind: &str, status: &str, word: &str) -> Result<()> {
    eventually(&format!("Route {name} has {kind}={status}"), Duration::from_secs(10), || {
        let object = namespace.get(&["routes.ferrule.dev", name])?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let condition =
            conditions.iter().find(|condition| condition["type"] == kind).context("no such condition")?;
        ensure!(condition["status"] == status, "{condition}");
        ensure!(
            condition["observedGeneration"] == object["metadata"]["generation"],
            "out of date: {condition}"
        );
        ensure!(
            condition["reason"].as_str().is_some_and(|reason| !reason.is_empty()),
            "no reason: {condition}"
        );
        let message = condition["message"].as_str().unwrap_or_default();
        ensure!(message.contains(word), "the message does not name {word}: {condition}");
        Ok(())
    })
}
