//! Routes that make no sense.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferrule_e2e::{scene::Scene, shop::route, wait::eventually};
use serde_json::{Value, json};

pub fn what_contradicts_itself_is_refused_by_field(scene: &Scene) -> Result<()> {
    let namespace = scene.namespace("refused", true)?;
    let backend = json!([{"name": "a"}]);
    let rule = |rule: Value| route(&json!([rule]));
    let matching = |condition: Value| rule(json!({"matches": [condition]}));
    let full = json!({"path": {"full": "/a"}});
    let redirect = json!({"scheme": "https"});
    let response = json!({"statusCode": 200});
    let cases = [
        ("path", matching(json!({"path": {"exact": "/a", "regex": "/a"}}))),
        ("headers", matching(json!({"headers": [{"name": "x", "prefix": "a", "regex": "a"}]}))),
        ("queryParams", matching(json!({"queryParams": [{"name": "x"}]}))),
        ("queryParams[0].name", matching(json!({"queryParams": [{"name": "a&b", "exact": "1"}]}))),
        ("hostnames", matching(json!({"hostnames": ["Shop.Example"]}))),
        ("grpc", matching(json!({"grpc": {}}))),
        ("grpc", matching(json!({"grpc": {"service": "a"}, "method": "POST"}))),
        ("source", matching(json!({"source": {}}))),
        ("redirect", rule(json!({"redirect": redirect, "backendRefs": backend}))),
        ("redirect", rule(json!({"redirect": redirect, "rewrite": full}))),
        ("redirect", rule(json!({"redirect": redirect, "directResponse": response}))),
        ("redirect", rule(json!({"redirect": {}}))),
        ("statusCode", rule(json!({"redirect": {"scheme": "https", "statusCode": 304}}))),
        ("directResponse", rule(json!({"directResponse": response, "backendRefs": backend}))),
        ("directResponse.body", rule(json!({"directResponse": {"statusCode": 204, "body": "a"}}))),
        ("body", rule(json!({"directResponse": {"statusCode": 200, "body": "a".repeat(4097)}}))),
        ("rewrite", rule(json!({"rewrite": {}}))),
        ("path", rule(json!({"rewrite": {"path": {"full": "/a", "prefix": "/b"}}}))),
        ("rewrite.path.prefix", rule(json!({"rewrite": {"path": {"prefix": "/b"}}}))),
        ("path.full", rule(json!({"rewrite": {"path": {"full": "//evil.example"}}}))),
        ("hostname", rule(json!({"rewrite": {"hostname": "a b"}}))),
        ("fault", rule(json!({"fault": {}}))),
        ("abort", rule(json!({"fault": {"abort": {"httpStatus": 503, "grpcStatus": "UNAVAILABLE"}}}))),
        ("delay.duration", rule(json!({"fault": {"delay": {"duration": "1h"}}}))),
        ("cors.allowOrigins", rule(json!({"cors": {"allowOrigins": ["shop.example"]}}))),
        ("retry.attempts", rule(json!({"retry": {"attempts": 11}}))),
        ("retry.on", rule(json!({"retry": {"on": ["sometimes"]}}))),
        ("retry.codes", rule(json!({"retry": {"codes": [404]}}))),
        ("retry.grpcCodes", rule(json!({"retry": {"grpcCodes": ["UNAVAILABLE"]}}))),
        ("backoff", rule(json!({"retry": {"backoff": {"base": "2s", "max": "1s"}}}))),
        ("budget.window", rule(json!({"retry": {"budget": {"window": "1h"}}}))),
        (
            "retry.perTryTimeout",
            rule(json!({"retry": {"perTryTimeout": "2s"}, "timeouts": {"request": "1s"}})),
        ),
    ];
    for (field, object) in &cases {
        let finished = namespace.try_apply(&object.to_string())?;
        ensure!(!finished.success, "accepted, though {field} is invalid: {object}");
        ensure!(finished.stderr.contains(field), "{field} is not named in: {}", finished.stderr);
    }
    let good = rule(json!({
        "matches": [{"path": {"prefix": "/a"}, "source": {"podLabels": {"app": "web"}}}],
        "rewrite": {"path": {"prefix": "/b"}},
        "retry": {"codes": [503], "grpcCodes": ["UNAVAILABLE"], "nonIdempotent": true, "backoff": {}, "budget": {}},
        "fault": {"delay": {"duration": "1s", "percentage": "0.5%"}},
        "cors": {"allowOrigins": ["*"]},
    }));
    namespace.apply(&good.to_string()).context("a valid Route must pass")
}

pub fn what_only_the_operator_can_see_is_told(scene: &Scene) -> Result<()> {
    let namespace = scene.namespace("told", true)?;
    namespace.apply(&route(&json!([{"matches": [{"path": {"regex": "/items/("}}]}])).to_string())?;
    eventually("the Route is not accepted", Duration::from_secs(10), || {
        let object = namespace.get(&["routes.ferrule.dev", "reviews"])?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let accepted = conditions.iter().find(|each| each["type"] == "Accepted").context("no condition")?;
        let message = accepted["message"].as_str().unwrap_or_default();
        ensure!(accepted["status"] == "False" && accepted["reason"] == "Invalid", "{accepted}");
        ensure!(message.starts_with("spec.rules[0].matches[0].path.regex: "), "{message}");
        Ok(())
    })
}
