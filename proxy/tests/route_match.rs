//! What a Route can say of a request, asked of real proxies.

mod http2_harness;
mod support;

use std::{collections::BTreeMap, net::SocketAddr};

use ferrule_config::{
    Backend, HeaderMatch, Match, PathMatch, QueryMatch, RouteEntry, Rule, Service, SourceMatch, ValueMatch,
};
use ferrule_proxy::app::App;
use http2_harness::{Endpoint, Peer};
use support::{World, eventually, get, ok, read_head, server, talk};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

/// A Service `cart` whose requests go to `cart-v2` if they match, and to itself if they don't.
fn diverted(matches: Match) -> Service {
    let to = |name: &str| Backend {
        namespace: "shop".into(),
        name: name.into(),
        port: Some(80),
        weight: 1,
        ..Backend::default()
    };
    let rule = |name: &str, backend| Rule {
        name: format!("shop/r/{name}"),
        backends: vec![to(backend)],
        ..Rule::default()
    };
    Service {
        routes: vec![
            RouteEntry { port: None, matches, rule: 1 },
            RouteEntry { port: None, matches: Match::default(), rule: 0 },
        ],
        rules: vec![rule("rest", "cart"), rule("matched", "cart-v2")],
        ..Service::default()
    }
}

async fn world(matches: Match) -> World {
    let (v1, v2) = (server(|_| ok("rest")).await, server(|_| ok("matched")).await);
    let world = World::new();
    world.service("cart", &[v1]);
    world.service("cart-v2", &[v2]);
    world.configure("cart", diverted(matches));
    world
}

async fn proxy(matches: Match) -> (World, App) {
    let world = world(matches).await;
    let proxy = world.proxy(&["cart"], &[]).await;
    (world, proxy)
}

async fn expect(listener: SocketAddr, requests: &[(&str, &str, bool)]) {
    for (target, fields, matched) in requests {
        let answer = talk(listener, &get(target, fields)).await;
        let expected = if *matched { "matched" } else { "rest" };
        assert!(answer.ends_with(expected), "{target} {fields:?} is not {expected}: {answer}");
    }
}

#[tokio::test]
async fn a_regular_expression_is_for_the_whole_path() {
    let path = Some(PathMatch::Regex("/items/[0-9]+(/.*)?".into()));
    let (_world, proxy) = proxy(Match { path, ..Match::default() }).await;
    expect(
        proxy.listeners[0],
        &[
            ("/items/42", "", true),
            ("/items/42/parts?x=y", "", true),
            ("/items/x", "", false),
            ("/v1/items/42", "", false),
            ("/items/42x", "", false),
        ],
    )
    .await;
}

#[tokio::test]
async fn headers_match_by_prefix_and_expression() {
    let header = |name: &str, value| HeaderMatch { name: name.into(), value };
    let headers = vec![
        header("x-version", ValueMatch::Prefix("v2".into())),
        header("x-user", ValueMatch::Regex("[a-z]+-[0-9]+".into())),
    ];
    let (_world, proxy) = proxy(Match { headers, ..Match::default() }).await;
    expect(
        proxy.listeners[0],
        &[
            ("/", "X-Version: v2.1\r\nX-User: beta-7\r\n", true),
            ("/", "X-Version: v1\r\nX-User: beta-7\r\n", false),
            ("/", "X-Version: v2\r\nX-User: beta-7x\r\n", false),
            ("/", "X-Version: v2\r\n", false),
        ],
    )
    .await;
}

#[tokio::test]
async fn parameters_of_the_query_match() {
    let parameter = |name: &str, value| QueryMatch { name: name.into(), value };
    let query = vec![
        parameter("version", ValueMatch::Exact("2".into())),
        parameter("user", ValueMatch::Prefix("beta".into())),
        parameter("page", ValueMatch::Regex("[0-9]+".into())),
        parameter("debug", ValueMatch::Present(false)),
    ];
    let (_world, proxy) = proxy(Match { query, ..Match::default() }).await;
    expect(
        proxy.listeners[0],
        &[
            ("/?version=2&user=betamax&page=7", "", true),
            ("/a?page=7&user=beta&version=2&version=1", "", true),
            ("/?version=1&user=beta&page=7", "", false),
            ("/?version=2&user=b&page=7", "", false),
            ("/?version=2&user=beta&page=x", "", false),
            ("/?version=2&user=beta&page=7&debug", "", false),
            ("/", "", false),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_host_matches_whoever_names_it() {
    let hosts = vec!["shop.example".to_owned(), "*.beta.example".to_owned()];
    let (_world, proxy) = proxy(Match { hosts, ..Match::default() }).await;
    let listener = proxy.listeners[0];
    let request = |target: &str, host: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    };
    for (target, host, matched) in [
        ("/", "shop.example", true),
        ("/", "SHOP.example:8080", true),
        ("/", "a.b.beta.example", true),
        ("/", "beta.example", false),
        ("/", "other.example", false),
        // The target's word counts (RFC 9112 §3.2.2).
        ("http://shop.example/", "other.example", true),
        ("http://other.example/", "shop.example", false),
    ] {
        let answer = talk(listener, &request(target, host)).await;
        assert!(answer.ends_with(if matched { "matched" } else { "rest" }), "{target} {host}: {answer}");
    }
}

#[tokio::test]
async fn requests_over_http2_match_by_the_same_conditions() {
    let (v1, v2) = (Endpoint::named("rest").await, Endpoint::named("matched").await);
    let world = World::new();
    world.service_speaking("cart", &[v1.address], Some("grpc"));
    world.service_speaking("cart-v2", &[v2.address], Some("grpc"));
    let matches = Match {
        path: Some(PathMatch::Regex("/[^/]+/AddItem".into())),
        query: vec![QueryMatch { name: "v".into(), value: ValueMatch::Exact("2".into()) }],
        // What the harness asks for.
        hosts: vec!["cart".into()],
        ..Match::default()
    };
    world.configure("cart", diverted(matches));
    let proxy = world.proxy(&["cart"], &[]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    for (path, expected) in [
        ("/shop.v1.Cart/AddItem?v=2", "matched"),
        ("/shop.v1.Cart/AddItem", "rest"),
        ("/shop.v1.Cart/Remove?v=2", "rest"),
    ] {
        let id = client.request("POST", path, &[], true).await;
        let text = client.response(id).await.text();
        assert!(text.starts_with(expected), "{path}: {text}");
    }
}

#[tokio::test]
async fn the_source_is_what_the_sidecars_pod_is() {
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let source = SourceMatch { namespace: Some("front".into()), account: Some("web".into()), labels };
    let world = world(Match { source, ..Match::default() }).await;
    let pod = [("POD_NAMESPACE", "front"), ("SERVICE_ACCOUNT", "web"), ("FERRULE_LABELS", "app=web,x=y")];
    for (variables, matched) in [
        (&pod[..], true),
        (&[("POD_NAMESPACE", "shop"), pod[1], pod[2]], false),
        (&[pod[0], ("SERVICE_ACCOUNT", "api"), pod[2]], false),
        (&[pod[0], pod[1], ("FERRULE_LABELS", "app=api")], false),
        // Nobody knows whose proxy it is.
        (&[], false),
    ] {
        let proxy = world.proxy_with(&["cart"], &[], variables).await;
        // A request can't say that it is from elsewhere.
        expect(proxy.listeners[0], &[("/", "", matched), ("/", "ferrule-client: front/web\r\n", matched)])
            .await;
    }
}

#[tokio::test]
async fn labels_of_the_pod_that_change_change_its_routes() {
    let source = SourceMatch {
        labels: BTreeMap::from([("track".to_owned(), "beta".to_owned())]),
        ..SourceMatch::default()
    };
    let world = world(Match { source, ..Match::default() }).await;
    let files = tempfile::tempdir().expect("a directory");
    let labels = files.path().join("labels");
    std::fs::write(&labels, "track=\"stable\"\n").expect("written");
    let directory = files.path().display().to_string();
    let variables = [
        ("POD_NAMESPACE", "front"),
        ("FERRULE_IDENTITY_FILES", directory.as_str()),
        // Labels are looked at as often as for what is idle.
        ("FERRULE_LIMIT_DESTINATION_IDLE", "1s"),
    ];
    let proxy = world.proxy_with(&["cart"], &[], &variables).await;
    expect(proxy.listeners[0], &[("/", "", false)]).await;
    std::fs::write(&labels, "track=\"beta\"\n").expect("written");
    eventually("the route holds", async || {
        talk(proxy.listeners[0], &get("/", "")).await.ends_with("matched")
    })
    .await;
}

#[tokio::test]
async fn an_expression_that_can_not_be_compiled_leaves_the_last_good_configuration_in_force() {
    let path = |text: &str| Match { path: Some(PathMatch::Regex(text.into())), ..Match::default() };
    let (world, proxy) = proxy(path("/a+")).await;
    expect(proxy.listeners[0], &[("/aa", "", true)]).await;
    world.configure("cart", diverted(path("/(")));
    let config = get("/config", "");
    eventually("it is refused", async || talk(proxy.admin, &config).await.contains("unclosed group")).await;
    expect(proxy.listeners[0], &[("/aa", "", true), ("/b", "", false)]).await;
}

#[tokio::test]
async fn a_thousand_rules_are_told_apart() {
    let v1 = server(ok).await;
    let world = World::new();
    world.service("cart", &[v1]);
    let backend = Backend {
        namespace: "shop".into(),
        name: "cart".into(),
        port: Some(80),
        weight: 1,
        ..Backend::default()
    };
    let change = |rule: usize| ferrule_config::HeaderChange {
        set: vec![("x-rule".into(), rule.to_string())],
        ..ferrule_config::HeaderChange::default()
    };
    let path = |rule: usize| match rule % 3 {
        0 => PathMatch::Exact(format!("/exact/{rule}")),
        1 => PathMatch::Prefix(format!("/prefix/{rule}")),
        _ => PathMatch::Regex(format!("/regex/{rule}/[a-z]+")),
    };
    let mut order: Vec<_> = (0..1000).collect();
    order.sort_by_key(|rule| rule % 3);
    let routes = order.iter().map(|&rule| RouteEntry {
        port: None,
        matches: Match { path: Some(path(rule)), ..Match::default() },
        rule,
    });
    let rules = (0..1000).map(|rule| Rule {
        name: format!("shop/r/{rule}"),
        backends: vec![backend.clone()],
        request_headers: change(rule),
        ..Rule::default()
    });
    world.configure(
        "cart",
        Service { routes: routes.collect(), rules: rules.collect(), ..Service::default() },
    );
    let proxy = world.proxy(&["cart"], &[]).await;
    // Without optimisation that many regular expressions take seconds, in which connections are ended.
    eventually("the rules hold", || async {
        let Ok(mut client) = TcpStream::connect(proxy.listeners[0]).await else { return false };
        client.write_all(get("/exact/0", "").as_bytes()).await.is_ok()
            && read_head(&mut client).await.is_some()
    })
    .await;
    for (target, rule) in
        [("/exact/0", 0), ("/exact/999", 999), ("/prefix/997/x", 997), ("/regex/998/abc", 998)]
    {
        let answer = talk(proxy.listeners[0], &get(target, "")).await;
        assert!(answer.contains(&format!("x-rule: {rule}\r\n")), "{target}: {answer}");
    }
    assert!(talk(proxy.listeners[0], &get("/exact/1", "")).await.contains("no-route"));
}
