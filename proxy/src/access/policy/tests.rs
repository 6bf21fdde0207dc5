use std::net::IpAddr;

use ferrule_config::identity::SpiffeId;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn access(policies: &Value) -> Vec<Access> {
    let all: Vec<Access> = serde_json::from_value(policies.clone()).expect("policies");
    assert!(all.iter().all(|one| matches!(one, Access::Policy(_))), "{all:?}");
    all
}

fn policy(policies: &Value) -> Policy {
    Policy::new(&access(policies))
}

fn id(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/{}", account.replace('/', "/sa/")).parse().expect("an identity")
}

fn subject(identity: Option<&SpiffeId>) -> Subject<'_> {
    Subject { identity, address: "10.1.2.3".parse().expect("an address"), port: 8080 }
}

fn asked<'a>(method: &'a str, path: &'a str, fields: &'a [Field<'a>]) -> Asked<'a> {
    Asked { method, path, fields }
}

fn refused(verdict: Verdict) -> Option<(String, Why)> {
    match verdict {
        Verdict::Refused(Refusal { policy, why }) => Some((policy.to_string(), why)),
        Verdict::Allowed => None,
        Verdict::Audited(refusal) => panic!("{refusal:?}"),
    }
}

/// Whether a rule with these sources lets the caller in.
fn lets_in(from: Value, caller: Option<&str>) -> bool {
    let id = caller.map(id);
    let policy = policy(&json!([{"name": "a/p", "allow": [{"from": [from]}]}]));
    policy.decide(&subject(id.as_ref()), None) == Verdict::Allowed
}

/// What becomes of a request if this alone is allowed, and if this alone is denied.
fn allowed_denied(to: Value, request: Option<&Asked<'_>>) -> (bool, bool) {
    let subject = subject(None);
    let only = |kind: &str| policy(&json!([{"name": "a/p", kind: [{"to": [to]}]}])).decide(&subject, request);
    (only("allow") == Verdict::Allowed, only("deny") != Verdict::Allowed)
}

#[test]
fn without_policies_everybody_is_let_in() {
    let policy = Policy::default();
    assert!(policy.is_empty());
    assert_eq!(policy.decide(&subject(None), None), Verdict::Allowed);
}

#[test]
fn a_caller_is_told_by_all_that_is_asked() {
    for (from, caller, expected) in [
        (json!({"serviceAccount": "web/frontend"}), Some("web/frontend"), true),
        (json!({"serviceAccount": "web/frontend"}), Some("web/frontend2"), false),
        (json!({"serviceAccount": "web/frontend"}), Some("shop/frontend"), false),
        (json!({"serviceAccount": "web/frontend"}), None, false),
        (json!({"serviceAccount": "web/*"}), Some("web/x"), true),
        (json!({"serviceAccount": "web/*"}), Some("web2/x"), false),
        (json!({"serviceAccount": "*"}), Some("web/x"), true),
        (json!({"serviceAccount": "*"}), None, false),
        (json!({"namespace": "web"}), Some("web/x"), true),
        (json!({"namespace": "web"}), Some("web2/x"), false),
        (json!({"namespace": "we*"}), Some("web/x"), true),
        (json!({"namespace": "*"}), None, false),
        (json!({"identity": "spiffe://cluster.local/ns/web/sa/x"}), Some("web/x"), true),
        (json!({"identity": "spiffe://cluster.local/ns/web/sa/x"}), Some("web/y"), false),
        (json!({"identity": "spiffe://cluster.local/ns/web/*"}), Some("web/y"), true),
        (json!({"identity": "spiffe://cluster.local/ns/web/*"}), Some("web2/y"), false),
        (json!({"identity": "spiffe://other/*"}), Some("web/y"), false),
        (json!({"identity": "*"}), Some("web/y"), true),
        (json!({"identity": "*"}), None, false),
        (json!({"cidr": "10.0.0.0/8"}), None, true),
        (json!({"cidr": "10.0.0.0/8"}), Some("web/y"), true),
        (json!({"cidr": "11.0.0.0/8"}), None, false),
        (json!({"cidr": "10.0.0.0/8", "namespace": "web"}), Some("web/y"), true),
        (json!({"cidr": "10.0.0.0/8", "namespace": "web"}), None, false),
        (json!({"cidr": "11.0.0.0/8", "namespace": "web"}), Some("web/y"), false),
        (json!({"namespace": "web", "serviceAccount": "shop/y"}), Some("web/y"), false),
    ] {
        assert_eq!(lets_in(from.clone(), caller), expected, "{from} {caller:?}");
    }
}

#[test]
fn what_is_done_is_told_by_all_that_is_asked() {
    let fields = [Field { name: "X-Team", value: b"red" }];
    let get = asked("GET", "/reviews/1", &fields);
    for (to, expected) in [
        (json!({"ports": [8080]}), true),
        (json!({"ports": [80, 8080]}), true),
        (json!({"ports": [80]}), false),
        (json!({"methods": ["GET"]}), true),
        (json!({"methods": ["POST", "GET"]}), true),
        (json!({"methods": ["POST"]}), false),
        (json!({"paths": ["/reviews/1"]}), true),
        (json!({"paths": ["/reviews"]}), false),
        (json!({"paths": ["/reviews/*"]}), true),
        (json!({"paths": ["/a", "/rev*"]}), true),
        (json!({"paths": ["/review/*"]}), false),
        (json!({"headers": [{"name": "x-team", "value": {"exact": "red"}}]}), true),
        (json!({"headers": [{"name": "x-team", "value": {"exact": "re"}}]}), false),
        (json!({"headers": [{"name": "x-team", "value": {"prefix": "re"}}]}), true),
        (json!({"headers": [{"name": "x-team", "value": {"present": true}}]}), true),
        (json!({"headers": [{"name": "x-team", "value": {"present": false}}]}), false),
        (json!({"headers": [{"name": "x-other", "value": {"present": false}}]}), true),
        (json!({"headers": [{"name": "x-other", "value": {"exact": ""}}]}), false),
        (json!({"methods": ["GET"], "paths": ["/reviews/*"], "ports": [8080]}), true),
        (json!({"methods": ["GET"], "paths": ["/x"]}), false),
        (json!({"methods": ["GET"], "ports": [80]}), false),
    ] {
        assert_eq!(allowed_denied(to.clone(), Some(&get)), (expected, expected), "{to}");
    }
}

#[test]
fn what_is_asked_of_requests_is_met_by_bytes_for_deny_alone() {
    for to in [
        json!({"methods": ["GET"]}),
        json!({"paths": ["/a"]}),
        json!({"headers": [{"name": "x", "value": {"present": false}}]}),
        json!({"grpcMethods": ["a.B/*"]}),
        json!({"methods": ["GET"], "ports": [8080]}),
    ] {
        assert_eq!(allowed_denied(to.clone(), None), (false, true), "{to}");
    }
    assert_eq!(allowed_denied(json!({"methods": ["GET"], "ports": [80]}), None), (false, false));
    assert_eq!(allowed_denied(json!({"ports": [8080]}), None), (true, true));
}

#[test]
fn a_path_that_can_be_read_in_two_ways_is_met_by_deny_alone() {
    let to = || json!({"paths": ["/admin/*"]});
    for path in [
        "//admin/x",
        "/./admin/x",
        "/a/../admin/x",
        "/%61dmin/x",
        "/admin%2Fx",
        "/admin;a/x",
        "\\admin\\x",
        "/%2e/admin/x",
        "/public//x",
        "/public/%2e%2e/admin/x",
        "/public/..;/admin/x",
        "/public/%252e%252e/admin/x",
        "*",
        "",
        "/%",
    ] {
        assert_eq!(allowed_denied(to(), Some(&asked("GET", path, &[]))), (false, true), "{path}");
        let everything = json!({"paths": ["/*"]});
        assert_eq!(allowed_denied(everything, Some(&asked("GET", path, &[]))), (false, true), "{path}");
        // Whoever asks for no path does not care.
        let method = json!({"methods": ["GET"]});
        assert_eq!(allowed_denied(method, Some(&asked("GET", path, &[]))), (true, true), "{path}");
    }
    for (path, expected) in
        [("/admin/x", true), ("/admin/caf%c3%a9", true), ("/Admin/x", false), ("/admin", false)]
    {
        assert_eq!(allowed_denied(to(), Some(&asked("GET", path, &[]))), (expected, expected), "{path}");
    }
    let spaced = json!({"paths": ["/a b"]});
    assert_eq!(allowed_denied(spaced, Some(&asked("GET", "/a%20b", &[]))), (true, true));
    assert_eq!(allowed_denied(json!({"paths": ["/*"]}), Some(&asked("CONNECT", "/", &[]))), (false, true));
}

#[test]
fn grpc_methods_are_paths_and_for_allow_calls() {
    let to = |pattern: &str| json!({"grpcMethods": [pattern]});
    let of = |value: &'static [u8]| [Field { name: "content-type", value }];
    let grpc = of(b"application/grpc");
    let call = asked("POST", "/shop.Cart/Add", &grpc);
    assert_eq!(allowed_denied(to("shop.Cart/Add"), Some(&call)), (true, true));
    assert_eq!(allowed_denied(to("shop.Cart/*"), Some(&call)), (true, true));
    assert_eq!(allowed_denied(to("shop.Cart/Remove"), Some(&call)), (false, false));
    assert_eq!(allowed_denied(to("shop.Car/*"), Some(&call)), (false, false));
    for (method, fields) in [
        ("POST", of(b"application/json").to_vec()),
        ("POST", of(b"application/grpc-web").to_vec()),
        ("POST", of(b"application/grpcx").to_vec()),
        ("POST", vec![]),
        ("POST", [of(b"application/grpc"), of(b"text/plain")].concat()),
        ("GET", grpc.to_vec()),
    ] {
        let request = asked(method, "/shop.Cart/Add", &fields);
        assert_eq!(allowed_denied(to("shop.Cart/*"), Some(&request)), (false, true), "{request:?}");
    }
    for content_type in [&b"application/grpc+proto"[..], b"Application/gRPC", b"application/grpc;x=y"] {
        let fields = [Field { name: "Content-Type", value: content_type }];
        let request = asked("POST", "/shop.Cart/Add", &fields);
        assert_eq!(allowed_denied(to("shop.Cart/*"), Some(&request)), (true, true));
    }
}

#[test]
fn of_several_fields_of_a_name_all_must_be_allowed_and_one_denied() {
    let fields = [Field { name: "a", value: b"1" }, Field { name: "A", value: b"2" }];
    let request = asked("GET", "/", &fields);
    for (check, expected) in [
        (json!({"exact": "1"}), (false, true)),
        (json!({"exact": "2"}), (false, true)),
        (json!({"exact": "1,2"}), (false, false)),
        (json!({"prefix": ""}), (true, true)),
        (json!({"present": true}), (true, true)),
    ] {
        let to = json!({"headers": [{"name": "a", "value": check}]});
        assert_eq!(allowed_denied(to.clone(), Some(&request)), expected, "{to}");
    }
}

#[test]
fn methods_are_told_apart_by_case_only_to_refuse() {
    let to = || json!({"methods": ["POST"]});
    assert_eq!(allowed_denied(to(), Some(&asked("post", "/", &[]))), (false, true));
}

#[test]
fn a_refusal_names_its_policy() {
    let policy = policy(&json!([
        {"name": "shop/b", "allow": [{"to": [{"methods": ["GET"]}]}]},
        {"name": "shop/a", "allow": []},
        {"name": "shop/c", "deny": [{"to": [{"methods": ["GET"], "paths": ["/x"]}]}]},
    ]));
    let decide = |method, path| refused(policy.decide(&subject(None), Some(&asked(method, path, &[]))));
    assert_eq!(decide("GET", "/"), None);
    assert_eq!(decide("POST", "/"), Some(("shop/a".into(), Why::NotAllowed)));
    assert_eq!(decide("GET", "/x"), Some(("shop/c".into(), Why::Denied)));
}

#[test]
fn what_is_only_tried_refuses_nothing_and_tells() {
    let policies = |audit: bool| {
        policy(&json!([
            {"name": "shop/old", "allow": [{"to": [{"methods": ["GET", "PUT"]}]}]},
            {"name": "shop/tried", "audit": audit,
                "allow": [{"to": [{"methods": ["POST"]}]}], "deny": [{"to": [{"methods": ["PUT"]}]}]},
        ]))
    };
    let of = |policy: &Policy, method| policy.decide(&subject(None), Some(&asked(method, "/", &[])));
    let (tried, enforced) = (policies(true), policies(false));
    assert_eq!(of(&tried, "GET"), Verdict::Allowed);
    assert_eq!(of(&enforced, "GET"), Verdict::Allowed);
    let denied = Refusal { policy: "shop/tried".into(), why: Why::Denied };
    assert_eq!(of(&tried, "PUT"), Verdict::Audited(denied.clone()));
    assert_eq!(of(&enforced, "PUT"), Verdict::Refused(denied));
    // It would be allowed, but is not yet.
    assert_eq!(refused(of(&tried, "POST")), Some(("shop/old".into(), Why::NotAllowed)));
    assert_eq!(of(&enforced, "POST"), Verdict::Allowed);

    let first = policy(&json!([{"name": "shop/tried", "audit": true, "allow": []}]));
    let not_allowed = Refusal { policy: "shop/tried".into(), why: Why::NotAllowed };
    assert_eq!(of(&first, "GET"), Verdict::Audited(not_allowed));
}

#[test]
fn what_is_not_understood_refuses_everything() {
    let unknown = |audit: bool| {
        let text =
            json!([{"name": "shop/new", "audit": audit, "later": 1}, {"name": "shop/old", "allow": [{}]}]);
        Policy::new(&serde_json::from_value::<Vec<Access>>(text).expect("policies"))
    };
    let refusal = Refusal { policy: "shop/new".into(), why: Why::NotUnderstood };
    assert_eq!(unknown(false).decide(&subject(None), None), Verdict::Refused(refusal.clone()));
    assert_eq!(unknown(true).decide(&subject(None), None), Verdict::Audited(refusal));
}

fn sources() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"serviceAccount": "a/x"})),
        Just(json!({"serviceAccount": "a/*"})),
        Just(json!({"namespace": "b"})),
        Just(json!({"identity": "*"})),
        Just(json!({"cidr": "10.0.0.0/9"})),
        Just(json!({"cidr": "10.128.0.0/9"})),
    ]
}

fn operations() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"ports": [80]})),
        Just(json!({"methods": ["GET"]})),
        Just(json!({"methods": ["POST"], "paths": ["/a/*"]})),
        Just(json!({"paths": ["/a/b", "/b*"]})),
        Just(json!({"headers": [{"name": "h", "value": {"exact": "1"}}]})),
        Just(json!({"headers": [{"name": "h", "value": {"present": false}}]})),
        Just(json!({"grpcMethods": ["a/*"]})),
    ]
}

fn rules() -> impl Strategy<Value = Vec<Value>> {
    let of = |key: &'static str, values: Vec<Value>| {
        if values.is_empty() { json!({}) } else { json!({key: values}) }
    };
    let rule = (prop::collection::vec(sources(), 0..3), prop::collection::vec(operations(), 0..3));
    let rule = rule.prop_map(move |(from, to)| {
        let (mut rule, to) = (of("from", from), of("to", to));
        let parts = rule.as_object_mut().expect("an object");
        parts.extend(to.as_object().expect("an object").clone());
        rule
    });
    prop::collection::vec(rule, 0..3)
}

fn policies() -> impl Strategy<Value = Vec<Access>> {
    let one = (prop::option::of(rules()), rules(), any::<bool>());
    prop::collection::vec(one, 0..5).prop_map(|all| {
        let each = all.into_iter().enumerate().map(|(number, (allow, deny, audit))| {
            let mut policy = json!({"name": format!("shop/{number}"), "deny": deny, "audit": audit});
            if let Some(allow) = allow {
                policy["allow"] = json!(allow);
            }
            policy
        });
        access(&Value::Array(each.collect()))
    })
}

/// A caller, and what it does: nothing if the connection carries bytes.
type Call = (Option<SpiffeId>, IpAddr, u16, Option<(&'static str, &'static str, Option<&'static str>)>);

fn calls() -> impl Strategy<Value = Call> {
    let caller = prop::option::of(prop::sample::select(vec!["a/x", "a/y", "b/x", "c/x"]));
    let address = prop::sample::select(vec!["10.1.1.1", "10.200.1.1", "192.0.2.1"]);
    let request = (
        prop::sample::select(vec!["GET", "POST", "CONNECT"]),
        prop::sample::select(vec!["/a/b", "/a/c", "/b", "//a/b", "/a/%62", "/"]),
        prop::option::of(prop::sample::select(vec!["1", "2"])),
    );
    (caller, address, prop::sample::select(vec![80, 81]), prop::option::of(request)).prop_map(
        |(caller, address, port, request)| {
            (caller.map(id), address.parse().expect("an address"), port, request)
        },
    )
}

fn decide(policies: &[Access], (identity, address, port, request): &Call) -> Verdict {
    let subject = Subject { identity: identity.as_ref(), address: *address, port: *port };
    let policy = Policy::new(policies);
    let Some((method, path, header)) = request else { return policy.decide(&subject, None) };
    let fields: Vec<_> = header.iter().map(|value| Field { name: "h", value: value.as_bytes() }).collect();
    policy.decide(&subject, Some(&asked(method, path, &fields)))
}

fn only(policies: &[Access], keep: impl Fn(&AccessPolicy) -> bool) -> Vec<Access> {
    let kept = policies.iter().filter(|one| matches!(one, Access::Policy(policy) if keep(policy)));
    kept.cloned().collect()
}

proptest! {
    #[test]
    fn order_makes_no_difference(
        (policies, shuffled) in policies().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        call in calls(),
    ) {
        prop_assert_eq!(decide(&policies, &call), decide(&shuffled, &call));
    }

    #[test]
    fn deny_wins(policies in policies(), call in calls()) {
        let denies: Vec<Access> = only(&policies, |policy| !policy.audit)
            .into_iter()
            .map(|one| match one {
                Access::Policy(policy) => Access::Policy(AccessPolicy { allow: None, ..policy }),
                unknown @ Access::Unknown(_) => unknown,
            })
            .collect();
        if let Verdict::Refused(refusal) = decide(&denies, &call) {
            prop_assert_eq!(decide(&policies, &call), Verdict::Refused(refusal));
        }
    }

    #[test]
    fn what_is_only_tried_refuses_nobody_and_lets_nobody_in(policies in policies(), call in calls()) {
        let enforced = decide(&only(&policies, |policy| !policy.audit), &call);
        match decide(&policies, &call) {
            Verdict::Refused(refusal) => prop_assert_eq!(enforced, Verdict::Refused(refusal)),
            Verdict::Allowed | Verdict::Audited(_) => prop_assert_eq!(enforced, Verdict::Allowed),
        }
    }

    #[test]
    fn an_audit_tells_what_enforcing_would_do(policies in policies(), call in calls()) {
        let all: Vec<_> = policies
            .iter()
            .map(|one| match one {
                Access::Policy(policy) => Access::Policy(AccessPolicy { audit: false, ..policy.clone() }),
                unknown @ Access::Unknown(_) => unknown.clone(),
            })
            .collect();
        let verdict = decide(&policies, &call);
        if !matches!(verdict, Verdict::Refused(_)) {
            let audited = matches!(verdict, Verdict::Audited(_));
            prop_assert_eq!(audited, matches!(decide(&all, &call), Verdict::Refused(_)));
        }
    }

    #[test]
    fn another_deny_refuses_more_and_another_rule_of_an_allow_less(
        policies in policies(), more in policies(), call in calls(),
    ) {
        let is_refused = |policies: &[Access]| matches!(decide(policies, &call), Verdict::Refused(_));
        let enforced = only(&policies, |policy| !policy.audit);
        let more = only(&more, |policy| !policy.audit);
        let denies = more.iter().filter_map(|one| match one {
            Access::Policy(policy) => Some(Access::Policy(AccessPolicy { allow: None, ..policy.clone() })),
            Access::Unknown(_) => None,
        });
        let with_denies: Vec<_> = enforced.iter().cloned().chain(denies).collect();
        prop_assert!(is_refused(&with_denies) || !is_refused(&enforced));
        if enforced.iter().any(|one| matches!(one, Access::Policy(policy) if policy.allow.is_some())) {
            let allows = more.iter().filter_map(|one| match one {
                Access::Policy(policy) => Some(Access::Policy(AccessPolicy { deny: vec![], ..policy.clone() })),
                Access::Unknown(_) => None,
            });
            let with_allows: Vec<_> = enforced.iter().cloned().chain(allows).collect();
            prop_assert!(!is_refused(&with_allows) || is_refused(&enforced));
        }
    }
}
