use std::net::IpAddr;

use super::*;
use crate::{FORMAT, Mesh};

fn mesh(access: &str) -> Mesh {
    let text = format!(r#"{{"format":{FORMAT},"namespace":"shop","access":[{access}]}}"#);
    serde_json::from_str(&text).expect("parses")
}

#[test]
fn it_survives_a_round_trip() {
    let text = r#"{"name":"shop/reviews","selector":{"matchLabels":{"app":"reviews"}},"allow":[{"from":[{"serviceAccount":"web/*"},{"cidr":"10.0.0.0/8"}],"to":[{"ports":[80],"methods":["GET"],"paths":["/reviews/*"],"headers":[{"name":"x","value":{"prefix":"a"}}],"grpcMethods":["a.B/C"]}]}],"audit":true}"#;
    let mesh = mesh(text);
    let [Access::Policy(policy)] = &mesh.access[..] else { panic!("{:?}", mesh.access) };
    assert_eq!(serde_json::to_string(policy).expect("JSON"), text);
    let again: Mesh = serde_json::from_str(&serde_json::to_string(&mesh).expect("JSON")).expect("parses");
    assert_eq!(again, mesh);
}

#[test]
fn allowing_nothing_is_another_thing_than_not_restricting() {
    let mesh = mesh(r#"{"name":"shop/a","allow":[]},{"name":"shop/b","deny":[{}]}"#);
    let allow: Vec<_> = mesh
        .access
        .iter()
        .map(|access| match access {
            Access::Policy(policy) => policy.allow.clone(),
            Access::Unknown(unknown) => panic!("{unknown:?}"),
        })
        .collect();
    assert_eq!(allow, [Some(vec![]), None]);
    let again: Mesh = serde_json::from_str(&serde_json::to_string(&mesh).expect("JSON")).expect("parses");
    assert_eq!(again, mesh);
}

#[test]
fn one_that_says_something_new_is_kept_as_not_understood_and_spoils_no_other() {
    let labels = r#""selector":{"matchLabels":{"app":"a"}}"#;
    for (policy, selects_others) in [
        (format!(r#"{{"name":"shop/new",{labels},"allow":[],"later":1}}"#), false),
        (format!(r#"{{"name":"shop/new",{labels},"allow":[{{"from":[{{"jwt":"x"}}]}}]}}"#), false),
        (format!(r#"{{"name":"shop/new",{labels},"deny":[{{"to":[{{"hosts":["x"]}}]}}]}}"#), false),
        (format!(r#"{{"name":"shop/new",{labels},"deny":[{{"from":[{{"cidr":"10.0.0.1/8"}}]}}]}}"#), false),
        (
            r#"{"name":"shop/new","selector":{"matchLabels":{"app":"a"},"matchExpressions":[]},"later":1}"#
                .into(),
            true,
        ),
        (r#"{"name":"shop/new","selector":7}"#.into(), true),
        (r#"{"name":"shop/new","allow":{}}"#.into(), true),
    ] {
        let mesh = mesh(&format!(r#"{policy},{{"name":"shop/old","allow":[]}}"#));
        let [unknown @ Access::Unknown(_), Access::Policy(_)] = &mesh.access[..] else {
            panic!("{policy}: {:?}", mesh.access)
        };
        assert_eq!(unknown.name(), "shop/new");
        let labels = |value: &str| [("app".to_owned(), value.to_owned())].into();
        assert!(unknown.selector().selects(&labels("a")), "{policy}");
        assert_eq!(unknown.selector().selects(&labels("b")), selects_others, "{policy}");
        let text = serde_json::to_string(&mesh).expect("JSON");
        let again: Mesh = serde_json::from_str(&text).expect("parses");
        assert!(matches!(&again.access[0], Access::Unknown(_)), "{text}");
    }
    assert!(serde_json::from_str::<Access>("7").is_err());
}

#[test]
fn a_mesh_without_policies_is_written_as_before() {
    let mesh = Mesh { format: FORMAT, namespace: "shop".into(), ..Mesh::default() };
    assert_eq!(serde_json::to_string(&mesh).expect("JSON"), r#"{"format":1,"namespace":"shop"}"#);
}

#[test]
fn a_pattern_is_a_text_or_its_beginning() {
    let matches = |pattern: &str, pieces: &[&str]| Pattern::from(pattern).matches(pieces);
    for (pattern, pieces, expected) in [
        ("/a", &["/a"][..], true),
        ("/a", &["/ab"], false),
        ("/a", &["/"], false),
        ("/a*", &["/a"], true),
        ("/a*", &["/ab"], true),
        ("/a*", &["/b"], false),
        ("/a/*", &["/a"], false),
        ("*", &[""], true),
        ("*", &[], true),
        ("web/front", &["web", "/", "front"], true),
        ("web/front", &["web", "/", "fron"], false),
        ("web/front", &["web", "/", "front", "x"], false),
        ("web/*", &["web", "/", "front"], true),
        ("web/*", &["webs", "/", "front"], false),
        ("we*", &["webs", "/", "front"], true),
        ("web/fr*", &["web", "/", "front"], true),
        ("web/fr*", &["web", "/", "f"], false),
    ] {
        assert_eq!(matches(pattern, pieces), expected, "{pattern} {pieces:?}");
    }
    assert_eq!(Pattern::from("/a*").to_string(), "/a*");
}

#[test]
fn a_range_holds_its_addresses_and_no_others() {
    let cidr = |text: &str| text.parse::<Cidr>().expect("a range");
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    for (range, inside, outside) in [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
        ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
        ("10.1.2.3/32", "::ffff:10.1.2.3", "10.1.2.2"),
        ("0.0.0.0/0", "1.2.3.4", "::1"),
        ("::/0", "::1", "1.2.3.4"),
        ("2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"),
        ("::1", "::1", "::2"),
    ] {
        assert!(cidr(range).contains(address(inside)), "{range} {inside}");
        assert!(!cidr(range).contains(address(outside)), "{range} {outside}");
    }
}

#[test]
fn what_is_no_range_is_refused_with_what_may_be_meant() {
    for text in
        ["", "/8", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0/8", "::/129", "a/8", "10.0.0.0/", "::ffff:1.2.3.4"]
    {
        assert!(matches!(text.parse::<Cidr>(), Err(CidrError::Form(_))), "{text}");
    }
    let error = "10.1.0.0/8".parse::<Cidr>().expect_err("host bits");
    assert_eq!(error.to_string(), "10.1.0.0/8 has bits set beyond its first 8; did you mean 10.0.0.0/8?");
}
