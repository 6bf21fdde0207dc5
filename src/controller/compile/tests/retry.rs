//! When a Route has requests sent again.

use super::*;

#[test]
fn a_retry_is_carried_over_and_what_is_not_said_is_as_without_one() {
    let retry = |retry: Value| {
        let compiled = compiled(&[service("cart", &[80]), route("r", json!([{ "retry": retry }]))]);
        serde_json::to_value(&cart(&compiled).rules[0].retry).expect("JSON")
    };
    let default = json!({ "attempts": 3, "on": ["connectFailure", "refused", "reset"] });
    assert_eq!(retry(json!({})), default);
    let all = json!({
        "attempts": 2, "perTryTimeout": "500ms", "on": ["connect-failure", "timeout"], "codes": [503, 429],
        "grpcCodes": ["UNAVAILABLE", "CANCELLED"], "backoff": { "base": "10ms" },
        "budget": { "percent": "0.5%" }, "nonIdempotent": true,
    });
    let expected = json!({
        "attempts": 2, "perTryTimeout": "500ms", "on": ["connectFailure", "timeout"], "codes": [503, 429],
        "grpcCodes": [14, 1], "backoff": { "base": "10ms", "max": "250ms" },
        "budget": { "share": 50, "minPerSecond": 10, "window": "10s" }, "nonIdempotent": true,
    });
    assert_eq!(retry(all), expected);
    assert_eq!(retry(json!({ "attempts": 0, "on": [] })), json!({ "attempts": 0 }));
    let rules = json!([{}]);
    let compiled = compiled(&[service("cart", &[80]), route("r", rules)]);
    assert_eq!(cart(&compiled).rules[0].retry, None);
}

#[test]
fn a_retry_that_is_wrong_is_told_by_its_field() {
    let cases = [
        (json!({ "attempts": 11 }), json!({}), "retry.attempts: "),
        (
            json!({ "perTryTimeout": "2s" }),
            json!({ "request": "1s" }),
            "retry.perTryTimeout: 2s must not exceed",
        ),
        (json!({ "codes": [503, 404] }), json!({}), "retry.codes[1]: 404 must be 429 or 500 to 599"),
        (json!({ "grpcCodes": ["UNAVAILABLE"] }), json!({}), "retry.grpcCodes: calls of gRPC are POST"),
        (json!({ "grpcCodes": ["OK"], "nonIdempotent": true }), json!({}), "retry.grpcCodes[0]: "),
        (json!({ "backoff": { "base": "2s", "max": "1s" } }), json!({}), "retry.backoff.base: "),
        (json!({ "backoff": { "max": "2m" } }), json!({}), "retry.backoff.max: "),
        (json!({ "budget": { "window": "10ms" } }), json!({}), "retry.budget.window: "),
        (json!({ "budget": { "minPerSecond": 1001 } }), json!({}), "retry.budget.minPerSecond: "),
    ];
    for (retry, timeouts, expected) in cases {
        let wrong = route("wrong", json!([{ "retry": retry, "timeouts": timeouts }]));
        let compiled = compiled(&[service("cart", &[80]), wrong, route("right", json!([{}]))]);
        let (holds, reason, message) = finding(&compiled, "wrong", ConditionType::Accepted);
        assert_eq!((holds, reason), (false, Reason::Invalid), "{expected}");
        assert!(
            message.starts_with(&format!("spec.rules[0].{expected}")),
            "{message:?} should have {expected:?}"
        );
        assert!(finding(&compiled, "right", ConditionType::Accepted).0);
    }
}
