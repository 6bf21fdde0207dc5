//! Who may call what.

use ferrule_config::access::{Access, AccessPolicy, AccessRule, HeaderCheck};

use super::{
    mesh_tls::{SYSTEM, injected, pod},
    *,
};

fn policy_in(namespace: &str, name: &str, spec: Value) -> (Kind, Value) {
    let metadata = json!({ "name": name, "namespace": namespace, "generation": 2 });
    (Kind::AccessPolicy, json!({ "metadata": metadata, "spec": spec }))
}

fn policy(name: &str, spec: Value) -> (Kind, Value) {
    policy_in("shop", name, spec)
}

fn access(compiled: &Compiled) -> &[Access] {
    &compiled.mesh.as_ref().expect("a mesh").access
}

fn only(compiled: &Compiled) -> &AccessPolicy {
    match access(compiled) {
        [Access::Policy(policy)] => policy,
        other => panic!("{other:?}"),
    }
}

fn names(compiled: &Compiled) -> Vec<&str> {
    access(compiled).iter().map(Access::name).collect()
}

/// Of a policy that allows this alone.
fn told_of(rule: Value) -> (bool, Reason, String) {
    let compiled = compiled(&[injected("shop"), policy("policy", json!({ "allow": [rule] }))]);
    finding(&compiled, "policy", ConditionType::Accepted)
}

#[test]
fn a_policy_is_carried_over_whole() {
    let spec = json!({
        "selector": { "matchLabels": { "app": "reviews" } },
        "allow": [{
            "from": [{ "serviceAccount": "web/frontend" }, { "namespace": "batch*", "cidr": "10.0.0.0/8" },
                { "identity": "spiffe://cluster.local/*" }],
            "to": [{
                "ports": [8080], "methods": ["GET", "HEAD"], "paths": ["/reviews/*", "/health"],
                "headers": [{ "name": "X-Team", "prefix": "re" }, { "name": "x-debug", "present": false }],
                "grpcMethods": ["shop.Reviews/*"],
            }],
        }],
        "deny": [{}],
        "audit": true,
    });
    let compiled = compiled(&[injected("shop"), policy("reviews", spec)]);
    let compiled = only(&compiled);
    assert_eq!(compiled.name, "shop/reviews");
    assert_eq!(compiled.selector.match_labels["app"], "reviews");
    assert!(compiled.audit);
    assert_eq!(compiled.deny, [AccessRule::default()]);
    let [AccessRule { from, to }] = &compiled.allow.as_ref().expect("allow")[..] else {
        panic!("{compiled:?}")
    };
    assert_eq!(from[0].service_account, Some("web/frontend".into()));
    assert_eq!((&from[1].namespace, from[1].cidr), (&Some("batch*".into()), "10.0.0.0/8".parse().ok()));
    assert_eq!(from[2].identity, Some("spiffe://cluster.local/*".into()));
    assert_eq!((&to[0].ports[..], &to[0].methods[..]), (&[8080][..], &["GET".to_owned(), "HEAD".into()][..]));
    assert_eq!(to[0].paths, ["/reviews/*".into(), "/health".into()]);
    assert_eq!(to[0].headers[0].name, "x-team");
    assert_eq!(to[0].headers[0].value, HeaderCheck::Prefix("re".into()));
    assert_eq!(to[0].headers[1].value, HeaderCheck::Present(false));
    assert_eq!(to[0].grpc_methods, ["shop.Reviews/*".into()]);
}

#[test]
fn allowing_nothing_is_carried_over_as_such() {
    let closed = compiled(&[injected("shop"), policy("closed", json!({ "allow": [] }))]);
    assert_eq!(only(&closed).allow, Some(vec![]));
    let open = compiled(&[injected("shop"), policy("open", json!({ "deny": [{}] }))]);
    assert_eq!(only(&open).allow, None);
    assert_eq!(finding(&open, "open", ConditionType::Enforced).1, Reason::Enforced);
}

#[test]
fn those_of_the_operator_s_namespace_without_a_selector_hold_for_the_whole_mesh() {
    let selector = json!({ "matchLabels": { "app": "operator" } });
    let objects = [
        injected("shop"),
        policy_in(SYSTEM, "mesh", json!({ "deny": [{}] })),
        policy_in(SYSTEM, "own", json!({ "selector": selector, "deny": [{}] })),
        policy_in("other", "other", json!({ "deny": [{}] })),
        policy("shop", json!({ "allow": [{}] })),
    ];
    assert_eq!(names(&compiled(&objects)), ["ferrule-system/mesh", "shop/shop"]);
    let observed = observed(&objects);
    assert_eq!(names(&compile(&observed, SYSTEM)), ["ferrule-system/mesh", "ferrule-system/own"]);
    let system = compile(&observed, SYSTEM);
    let told = finding(&system, "mesh", ConditionType::Enforced);
    assert_eq!(told, (true, Reason::Enforced, "The sidecars of the whole mesh ask it".into()));
}

#[test]
fn what_is_wrong_is_told_with_its_field() {
    for (rule, field) in [
        (
            json!({ "from": [{ "cidr": "10.0.0.1/8" }] }),
            "spec.allow[0].from[0].cidr: 10.0.0.1/8 has bits set",
        ),
        (json!({ "from": [{ "cidr": "no" }] }), "spec.allow[0].from[0].cidr: \"no\""),
        (json!({ "from": [{ "namespace": "a" }, {}] }), "spec.allow[0].from[1]: give at least one"),
        (json!({ "from": [{ "serviceAccount": "web" }] }), "spec.allow[0].from[0].serviceAccount: \"web\""),
        (json!({ "from": [{ "identity": "" }] }), "spec.allow[0].from[0].identity: must not be empty"),
        (json!({ "to": [{}] }), "spec.allow[0].to[0]: give at least one"),
        (json!({ "to": [{ "ports": [0] }] }), "spec.allow[0].to[0].ports"),
        (json!({ "to": [{ "methods": ["get"] }] }), "spec.allow[0].to[0].methods[0]: \"get\""),
        (
            json!({ "to": [{ "paths": ["/a", "b"] }] }),
            "spec.allow[0].to[0].paths[1]: \"b\" must start with /",
        ),
        (json!({ "to": [{ "paths": ["/a%20b"] }] }), "spec.allow[0].to[0].paths[0]"),
        (json!({ "to": [{ "paths": ["/a?b"] }] }), "spec.allow[0].to[0].paths[0]"),
        (json!({ "to": [{ "paths": ["/*/b"] }] }), "spec.allow[0].to[0].paths[0]"),
        (json!({ "to": [{ "paths": ["//a"] }] }), "spec.allow[0].to[0].paths[0]"),
        (json!({ "to": [{ "paths": ["/a/../b"] }] }), "spec.allow[0].to[0].paths[0]"),
        (json!({ "to": [{ "grpcMethods": ["a"] }] }), "spec.allow[0].to[0].grpcMethods[0]"),
        (json!({ "to": [{ "grpcMethods": ["/a/b"] }] }), "spec.allow[0].to[0].grpcMethods[0]"),
        (json!({ "to": [{ "grpcMethods": ["a/"] }] }), "spec.allow[0].to[0].grpcMethods[0]"),
        (
            json!({ "to": [{ "headers": [{ "name": "Host", "exact": "a" }] }] }),
            "spec.allow[0].to[0].headers[0].name",
        ),
        (
            json!({ "to": [{ "headers": [{ "name": "ferrule-client", "exact": "a" }] }] }),
            "spec.allow[0].to[0].headers[0].name: a rule can't ask about ferrule-client",
        ),
        (
            json!({ "to": [{ "headers": [{ "name": "a" }] }] }),
            "spec.allow[0].to[0].headers[0]: give exactly one",
        ),
        (
            json!({ "to": [{ "headers": [{ "name": "a", "exact": "1" }, { "name": "A", "exact": "1" }] }] }),
            "spec.allow[0].to[0].headers[1].name",
        ),
        (json!({ "to": [{ "hosts": ["a"] }] }), "spec.allow[0].to[0].hosts"),
    ] {
        let (holds, reason, message) = told_of(rule.clone());
        assert_eq!((holds, reason), (false, Reason::Invalid), "{rule}");
        assert!(message.starts_with(field), "{rule}: {message}");
    }
    for rule in [
        json!({}),
        json!({ "to": [{ "paths": ["/*", "/", "/a b", "/.well-known/*", "/a...", "/caf\u{e9}/"] }] }),
        json!({ "to": [{ "grpcMethods": ["a.B/*", "a.B/C", "a.B/C*"] }] }),
        json!({ "from": [{ "cidr": "10.0.0.1" }, { "cidr": "::/0" }, { "serviceAccount": "*" }] }),
    ] {
        let (holds, _, message) = told_of(rule.clone());
        assert!(holds, "{rule}: {message}");
    }
}

#[test]
fn one_that_is_not_valid_closes_the_pods_that_it_selects_and_no_others() {
    let selector = json!({ "matchLabels": { "app": "reviews" } });
    for spec in [
        json!({ "selector": selector, "allow": [{ "from": [{ "cidr": "no" }] }] }),
        json!({ "selector": selector, "allow": [{ "from": [{ "jwt": {} }] }] }),
        json!({ "selector": selector }),
    ] {
        let compiled = compiled(&[
            injected("shop"),
            policy("bad", spec.clone()),
            policy("good", json!({ "allow": [{}] })),
        ]);
        let [Access::Unknown(unknown), Access::Policy(_)] = access(&compiled) else {
            panic!("{spec}: {compiled:?}")
        };
        assert_eq!(unknown.name, "shop/bad");
        assert_eq!(unknown.selector.match_labels["app"], "reviews", "{spec}");
        let (holds, reason, message) = finding(&compiled, "bad", ConditionType::Accepted);
        assert_eq!((holds, reason), (false, Reason::Invalid));
        assert!(
            message.ends_with("until it is mended the pods that it selects refuse everything"),
            "{message}"
        );
        assert!(finding(&compiled, "good", ConditionType::Accepted).0);
        // So do sidecars when it has come to them.
        let text = serde_json::to_string(&compiled.mesh).expect("JSON");
        let mesh: Mesh = serde_json::from_str(&text).expect("parses");
        assert!(matches!(&mesh.access[0], Access::Unknown(unknown) if unknown.name == "shop/bad"), "{text}");
    }
}

#[test]
fn a_service_account_that_nobody_runs_under_is_a_warning() {
    let named = policy(
        "reviews",
        json!({ "allow": [{ "from": [
        { "serviceAccount": "shop/web" }, { "serviceAccount": "shop/*" }, { "serviceAccount": "other/x" }] }] }),
    );
    let web = pod("web-0", json!({}), Some("web"), "10.0.0.1");
    let compiled_with = compiled(&[injected("shop"), named.clone(), web]);
    let (holds, reason, message) = finding(&compiled_with, "reviews", ConditionType::ResolvedRefs);
    assert_eq!((holds, reason), (false, Reason::ServiceAccountNotFound));
    assert!(message.contains("other/x") && !message.contains("shop/web"), "{message}");
    assert!(finding(&compiled_with, "reviews", ConditionType::Accepted).0);
    assert_eq!(only(&compiled_with).allow.as_ref().map(Vec::len), Some(1));
    // Without a sidecar it has no identity.
    let bare = pod("web-0", json!({}), None, "10.0.0.1");
    let without = compiled(&[injected("shop"), named, bare]);
    assert!(finding(&without, "reviews", ConditionType::ResolvedRefs).2.contains("shop/web"));
}

#[test]
fn enforced_says_where_nobody_asks_it() {
    let spec = |audit: bool| json!({ "selector": { "matchLabels": { "app": "cart" } }, "deny": [{}], "audit": audit });
    let told = |objects: &[(Kind, Value)]| {
        let (holds, reason, message) = finding(&compiled(objects), "cart", ConditionType::Enforced);
        (holds, reason, message)
    };
    let labels = || json!({ "app": "cart" });
    let good = pod("cart-0", labels(), Some("cart"), "10.0.0.1");
    let bare = pod("cart-1", labels(), None, "10.0.0.2");
    let other = pod("web-0", json!({ "app": "web" }), None, "10.0.0.3");
    let (holds, reason, _) = told(&[injected("shop"), policy("cart", spec(false)), good.clone(), other]);
    assert_eq!((holds, reason), (true, Reason::Enforced));
    let (holds, reason, message) = told(&[injected("shop"), policy("cart", spec(false)), good.clone(), bare]);
    assert_eq!((holds, reason), (false, Reason::NoSidecar));
    assert!(message.contains("cart-1") && !message.contains("cart-0"), "{message}");
    let (holds, reason, _) = told(&[policy("cart", spec(false)), good.clone()]);
    assert_eq!((holds, reason), (false, Reason::NoSidecar));
    let (holds, reason, _) = told(&[injected("shop"), policy("cart", spec(true)), good]);
    assert_eq!((holds, reason), (false, Reason::Audit));
}
