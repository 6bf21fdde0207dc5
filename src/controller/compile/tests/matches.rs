//! What a Route can say of a request, and in which order it is looked at.

use super::*;

/// The only match that a Route with this condition compiles to.
fn matched(condition: Value) -> Value {
    let compiled = compiled(&[service("cart", &[80]), route("r", json!([{ "matches": [condition] }]))]);
    serde_json::to_value(&cart(&compiled).routes[0].matches).expect("JSON")
}

#[test]
fn every_condition_is_carried_over() {
    let conditions = json!({
        "path": { "regex": "/items/[0-9]+" }, "method": "GET",
        "headers": [{ "name": "B", "prefix": "x" }, { "name": "a", "regex": "[0-9]+" }],
        "queryParams": [
            { "name": "v", "exact": "" }, { "name": "page", "regex": "[0-9]+" },
            { "name": "u", "prefix": "%20" }, { "name": "debug", "present": false },
        ],
        "hostnames": ["shop.example", "*.shop.example"],
        "source": { "podLabels": { "app": "web" } },
    });
    assert_eq!(
        matched(conditions),
        json!({
            "path": { "regex": "/items/[0-9]+" }, "method": "GET",
            "headers": [{ "name": "a", "value": { "regex": "[0-9]+" } }, { "name": "b", "value": { "prefix": "x" } }],
            "query": [
                { "name": "debug", "value": { "present": false } }, { "name": "page", "value": { "regex": "[0-9]+" } },
                { "name": "u", "value": { "prefix": "%20" } }, { "name": "v", "value": { "exact": "" } },
            ],
            "hosts": ["*.shop.example", "shop.example"],
            "source": { "labels": { "app": "web" } },
        })
    );
}

#[test]
fn grpc_is_another_way_to_write_a_path() {
    let path = |grpc: Value| matched(json!({ "grpc": grpc }))["path"].clone();
    assert_eq!(
        path(json!({ "service": "shop.v1.Cart", "method": "Add" })),
        json!({ "exact": "/shop.v1.Cart/Add" })
    );
    assert_eq!(path(json!({ "service": "shop.v1.Cart" })), json!({ "prefix": "/shop.v1.Cart" }));
    assert_eq!(path(json!({ "method": "Add" })), json!({ "regex": "/[^/]+/Add" }));
}

#[test]
fn a_service_account_is_one_of_the_routes_namespace_unless_another_is_named() {
    let source = |source: Value| matched(json!({ "source": source }))["source"].clone();
    assert_eq!(source(json!({ "serviceAccount": "web" })), json!({ "namespace": "shop", "account": "web" }));
    let pay = json!({ "namespace": "pay", "serviceAccount": "web" });
    assert_eq!(source(pay), json!({ "namespace": "pay", "account": "web" }));
    assert_eq!(source(json!({ "namespace": "pay" })), json!({ "namespace": "pay" }));
}

#[test]
fn a_condition_that_is_wrong_is_told_by_its_field_and_others_go_on() {
    let cases = [
        (
            json!({ "path": { "regex": "a(" } }),
            "path.regex: \"a(\": not a regular expression: unclosed group",
        ),
        (json!({ "path": { "regex": "((a{0,100}){0,100}){0,100}" } }), "path.regex: "),
        (json!({ "path": { "regex": "/a", "exact": "/a" } }), "path: give exactly one"),
        (json!({ "headers": [{ "name": "x", "regex": "(?=a)" }] }), "headers[0].regex: "),
        (
            json!({ "headers": [{ "name": "x", "regex": "a", "present": true }] }),
            "headers[0]: give exactly one",
        ),
        (json!({ "queryParams": [{ "name": "x" }] }), "queryParams[0]: give exactly one"),
        (json!({ "queryParams": [{ "name": "a=b", "exact": "1" }] }), "queryParams[0].name: "),
        (json!({ "queryParams": [{ "name": "a", "exact": "b&c" }] }), "queryParams[0]: "),
        (
            json!({ "queryParams": [{ "name": "a", "exact": "b" }, { "name": "a", "exact": "c" }] }),
            "queryParams[1].name: a is there twice",
        ),
        (json!({ "hostnames": ["Shop.example"] }), "hostnames[0]: "),
        (json!({ "hostnames": ["a", "*"] }), "hostnames[1]: "),
        (json!({ "hostnames": ["a:80"] }), "hostnames[0]: "),
        (json!({ "grpc": {} }), "grpc: give service, method or both"),
        (json!({ "grpc": { "service": "a/b" } }), "grpc.service: "),
        (json!({ "grpc": { "method": "a.b" } }), "grpc.method: "),
        (json!({ "grpc": { "service": "a" }, "path": { "exact": "/a" } }), "grpc: stands for"),
        (json!({ "grpc": { "service": "a" }, "method": "POST" }), "grpc: stands for"),
        (json!({ "source": {} }), "source: give namespace"),
    ];
    for (condition, expected) in cases {
        let expected = format!("spec.rules[0].matches[0].{expected}");
        let wrong = route("wrong", json!([{ "matches": [condition] }]));
        let compiled = compiled(&[service("cart", &[80]), wrong, route("right", json!([{}]))]);
        let (holds, reason, message) = finding(&compiled, "wrong", ConditionType::Accepted);
        assert_eq!((holds, reason), (false, Reason::Invalid), "{expected}");
        assert!(message.starts_with(&expected), "{message:?} should start with {expected:?}");
        assert!(finding(&compiled, "right", ConditionType::Accepted).0);
        assert_eq!(cart(&compiled).rules.len(), 1, "{expected}");
    }
}

#[test]
fn what_gateway_api_leaves_open_has_an_order_too() {
    let prefix = |path: &str| json!({ "path": { "prefix": path } });
    let regex = |regex: &str| json!({ "path": { "regex": regex } });
    let query = |name: &str| json!({ "name": name, "present": true });
    // (goes first, goes second, why)
    let cases = [
        (prefix("/a"), regex("/a/very/long/expression"), "a prefix goes before any expression"),
        (regex("/a"), json!({ "path": { "prefix": "/" }, "method": "GET" }), "but not that of every path"),
        (regex("/a"), json!({}), "nor none"),
        (regex("/a/[0-9]+"), regex("/a"), "the longer expression goes first"),
        (
            json!({ "headers": [{ "name": "x", "present": true }] }),
            json!({ "queryParams": [query("x"), query("y")] }),
            "headers before parameters",
        ),
        (
            json!({ "queryParams": [query("x"), query("y")] }),
            json!({ "queryParams": [query("z")] }),
            "more parameters go first",
        ),
        (json!({ "queryParams": [query("z")] }), json!({ "hostnames": ["a"] }), "parameters before hosts"),
        (
            json!({ "hostnames": ["*.a", "b"] }),
            json!({ "hostnames": ["*.long.name"] }),
            "a name before all wildcards",
        ),
        (json!({ "hostnames": ["*.long.name"] }), json!({ "hostnames": ["*.name"] }), "the longer wildcard"),
        (
            json!({ "hostnames": ["*.a"] }),
            json!({ "source": { "serviceAccount": "web" } }),
            "hosts before the source",
        ),
        (
            json!({ "source": { "serviceAccount": "web" } }),
            json!({ "source": { "namespace": "web" } }),
            "an account is of a namespace, so it says more",
        ),
    ];
    for (first, second, why) in cases {
        for swap in [false, true] {
            let rule = |name: &str, conditions: &Value| json!({ "name": name, "matches": [conditions] });
            let (one, two) = (rule("first", &first), rule("second", &second));
            let rules = if swap { json!([two, one]) } else { json!([one, two]) };
            let compiled = compiled(&[service("cart", &[80]), route("r", rules)]);
            assert_eq!(order(&compiled), ["shop/r/first", "shop/r/second"], "{why}, swapped: {swap}");
        }
    }
}

#[test]
fn a_thousand_rules_of_one_service_are_no_trouble() {
    let mut objects = vec![service("cart", &[80])];
    for name in 0..63 {
        let rules = (0..16).map(|rule| {
            let conditions = json!([{ "path": { "exact": format!("/{name}/{rule}") } }]);
            json!({ "matches": conditions, "requestHeaders": { "set": [{ "name": "x-rule", "value": "1" }] } })
        });
        objects.push(route(&format!("r{name}"), rules.collect::<Vec<_>>().into()));
    }
    let compiled = compiled(&objects);
    assert_eq!(cart(&compiled).routes.len(), 1008);
    let shards = shard::split(compiled.mesh.as_ref().expect("a mesh")).expect("it fits");
    assert_eq!(shards.len(), 1);
}
