//! What a Route does with requests beside sending them on.

use super::*;

/// The only rule that a Route with this rule compiles to.
fn rule(rule: Value) -> Value {
    let compiled = compiled(&[service("cart", &[80]), route("r", json!([rule]))]);
    let (holds, _, message) = finding(&compiled, "r", ConditionType::Accepted);
    assert!(holds, "{message}");
    serde_json::to_value(&cart(&compiled).rules[0]).expect("JSON")
}

fn at(prefix: &str) -> Value {
    json!([{ "path": { "prefix": prefix } }])
}

#[test]
fn every_action_is_carried_over() {
    let rewrite = json!({ "hostname": "other.example:81", "path": { "prefix": "/new" } });
    let done = rule(json!({ "matches": at("/v2"), "rewrite": rewrite }));
    assert_eq!(done["rewrite"], json!({ "host": "other.example:81", "path": { "prefix": "/new" } }));
    let redirect = json!({ "scheme": "https", "hostname": "a", "port": 8443, "path": { "full": "/b" }, "statusCode": 308 });
    let done = rule(json!({ "redirect": redirect }));
    let expected =
        json!({ "scheme": "https", "host": "a", "port": 8443, "path": { "full": "/b" }, "status": 308 });
    assert_eq!((&done["redirect"], &done["backends"]), (&expected, &json!([])));
    assert_eq!(rule(json!({ "redirect": { "port": 81 } }))["redirect"]["status"], 302);
    let done = rule(json!({ "directResponse": { "statusCode": 200, "body": "[]" } }));
    assert_eq!(done["directResponse"], json!({ "status": 200, "body": "[]" }));
    let done = rule(json!({ "fault": {
        "delay": { "duration": "2s", "percentage": "0.5%" }, "abort": { "grpcStatus": "UNAVAILABLE" },
    } }));
    let expected = json!({
        "delay": { "share": 50, "time": "2s" }, "abort": { "share": 10000, "status": { "grpc": 14 } },
    });
    assert_eq!(done["fault"], expected);
    let done =
        rule(json!({ "cors": { "allowOrigins": ["https://*.Shop.example"], "allowCredentials": true } }));
    assert_eq!(
        done["cors"],
        json!({ "origins": ["https://*.shop.example"], "credentials": true, "maxAge": "5s" })
    );
}

#[test]
fn backends_have_header_changes_of_their_own() {
    let set = json!({ "set": [{ "name": "X-For", "value": "v1" }] });
    let backend =
        json!({ "name": "cart", "requestHeaders": set, "responseHeaders": { "remove": ["Server"] } });
    let done = rule(json!({ "backendRefs": [backend] }));
    assert_eq!(done["backends"][0]["requestHeaders"], json!({ "set": [["x-for", "v1"]] }));
    assert_eq!(done["backends"][0]["responseHeaders"], json!({ "remove": ["server"] }));
}

#[test]
fn what_contradicts_itself_is_told_by_its_field_and_others_go_on() {
    let redirect = json!({ "scheme": "https" });
    let response = json!({ "statusCode": 200 });
    let backends = json!([{ "name": "cart" }]);
    let header = json!({ "set": [{ "name": "Host", "value": "a" }] });
    let cases = [
        (
            json!({ "redirect": redirect, "backendRefs": backends }),
            "redirect: the request is sent nowhere, so leave backendRefs out",
        ),
        (
            json!({ "redirect": redirect, "directResponse": response }),
            "redirect: the request is sent nowhere, so leave directResponse",
        ),
        (
            json!({ "redirect": redirect, "rewrite": { "hostname": "a" } }),
            "redirect: the request is sent nowhere, so leave rewrite",
        ),
        (
            json!({ "redirect": redirect, "timeouts": {} }),
            "redirect: the request is sent nowhere, so leave timeouts",
        ),
        (
            json!({ "directResponse": response, "backendRefs": backends }),
            "directResponse: the request is sent nowhere, so leave backendRefs",
        ),
        (json!({ "redirect": {} }), "redirect: give scheme"),
        (json!({ "redirect": { "scheme": "https", "statusCode": 200 } }), "redirect.statusCode: "),
        (json!({ "redirect": { "hostname": "a:80" } }), "redirect.hostname: "),
        (json!({ "redirect": { "path": { "prefix": "/a" } } }), "redirect.path.prefix: is for rules"),
        (json!({ "rewrite": {} }), "rewrite: give hostname"),
        (json!({ "rewrite": { "hostname": "a b" } }), "rewrite.hostname: "),
        (json!({ "rewrite": { "hostname": "a:70000" } }), "rewrite.hostname: "),
        (json!({ "rewrite": { "path": {} } }), "rewrite.path: give exactly one"),
        (json!({ "rewrite": { "path": { "full": "//a" } } }), "rewrite.path.full: "),
        (json!({ "rewrite": { "path": { "full": "/a b" } } }), "rewrite.path.full: "),
        (json!({ "rewrite": { "path": { "full": "/a\r\nx: y" } } }), "rewrite.path.full: "),
        (
            json!({ "matches": [{ "path": { "exact": "/a" } }], "rewrite": { "path": { "prefix": "/b" } } }),
            "rewrite.path.prefix: is for rules",
        ),
        (json!({ "directResponse": { "statusCode": 101 } }), "directResponse.statusCode: "),
        (json!({ "directResponse": { "statusCode": 204, "body": "a" } }), "directResponse.body: "),
        (
            json!({ "directResponse": { "statusCode": 200, "body": "ä".repeat(2049) } }),
            "directResponse.body: has 4098 bytes",
        ),
        (
            json!({ "directResponse": { "statusCode": 200, "contentType": "a\nb" } }),
            "directResponse.contentType",
        ),
        (json!({ "fault": {} }), "fault: give delay"),
        (json!({ "fault": { "delay": { "duration": "301s" } } }), "fault.delay.duration: "),
        (json!({ "fault": { "abort": {} } }), "fault.abort: give exactly one"),
        (json!({ "fault": { "abort": { "httpStatus": 200 } } }), "fault.abort.httpStatus: "),
        (json!({ "fault": { "abort": { "grpcStatus": "OK" } } }), "fault.abort.grpcStatus: "),
        (json!({ "cors": { "allowOrigins": [] } }), "cors.allowOrigins: "),
        (json!({ "cors": { "allowOrigins": ["*", "shop.example"] } }), "cors.allowOrigins[1]: "),
        (json!({ "cors": { "allowOrigins": ["https://a/b"] } }), "cors.allowOrigins[0]: "),
        (json!({ "cors": { "allowOrigins": ["*"], "allowMethods": ["a b"] } }), "cors.allowMethods[0]: "),
        (json!({ "cors": { "allowOrigins": ["*"], "maxAge": "25h" } }), "cors.maxAge: "),
        (
            json!({ "backendRefs": [{ "name": "cart", "requestHeaders": header }] }),
            "backendRefs[0].requestHeaders.set[0].name: ",
        ),
    ];
    for (rule, expected) in cases {
        let expected = format!("spec.rules[0].{expected}");
        let wrong = route("wrong", json!([rule]));
        let compiled = compiled(&[service("cart", &[80]), wrong, route("right", json!([{}]))]);
        let (holds, reason, message) = finding(&compiled, "wrong", ConditionType::Accepted);
        assert_eq!((holds, reason), (false, Reason::Invalid), "{expected}");
        assert!(message.starts_with(&expected), "{message:?} should start with {expected:?}");
        assert!(finding(&compiled, "right", ConditionType::Accepted).0);
        assert_eq!(cart(&compiled).rules.len(), 1, "{expected}");
    }
}
