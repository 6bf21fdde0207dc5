//! What a Route can do with a request beside sending it on, asked of real proxies.

mod http2_harness;
mod support;

use std::time::{Duration, Instant};

use ferrule_config::{
    self as config, Abort, Backend, Cors, Delay, DirectResponse, Fault, FaultStatus, HeaderChange, Match,
    PathMatch, PathRewrite, Redirect, Rewrite, RouteEntry, Rule, Service,
};
use ferrule_proxy::app::App;
use http2_harness::{Endpoint, Peer};
use support::{World, get, ok, server, talk};

fn to(name: &str) -> Backend {
    Backend { namespace: "shop".into(), name: name.into(), port: Some(80), weight: 1, ..Backend::default() }
}

fn rule() -> Rule {
    Rule { name: "shop/r/0".into(), backends: vec![to("cart")], ..Rule::default() }
}

/// The rule is for `/v2`; what is left goes to the Service itself.
fn under_v2(rule: Rule) -> Service {
    let v2 = Match { path: Some(PathMatch::Prefix("/v2".into())), ..Match::default() };
    Service {
        routes: vec![
            RouteEntry { port: None, matches: v2, rule: 0 },
            RouteEntry { port: None, matches: Match::default(), rule: 1 },
        ],
        rules: vec![rule, self::rule()],
        ..Service::default()
    }
}

async fn proxy(rule: Rule) -> (World, App) {
    let world = World::new();
    world.service("cart", &[server(ok).await]);
    world.configure("cart", under_v2(rule));
    let proxy = world.proxy(&["cart"], &[]).await;
    (world, proxy)
}

async fn proxy_http2(rule: Rule) -> (World, App) {
    let world = World::new();
    world.service_speaking("cart", &[Endpoint::named("app").await.address], Some("grpc"));
    world.configure("cart", under_v2(rule));
    let proxy = world.proxy(&["cart"], &[]).await;
    (world, proxy)
}

fn rewrite(host: Option<&str>, path: Option<PathRewrite>) -> Rule {
    Rule { rewrite: Some(Rewrite { host: host.map(str::to_owned), path }), ..rule() }
}

fn prefix(prefix: &str) -> Option<PathRewrite> {
    Some(PathRewrite::Prefix(prefix.into()))
}

#[tokio::test]
async fn host_and_path_are_rewritten() {
    let (_world, proxy) = proxy(rewrite(Some("other.example:81"), prefix("/new"))).await;
    let listener = proxy.listeners[0];
    let answer = talk(listener, &get("/v2/a?b=c", "")).await;
    assert!(answer.contains("\r\n\r\nGET /new/a?b=c HTTP/1.1\r\nHost: other.example:81\r\n"), "{answer}");
    let answer = talk(listener, &get("http://cart/v2?b=c", "")).await;
    assert!(answer.contains("\r\n\r\nGET /new?b=c HTTP/1.1\r\nHost: other.example:81\r\n"), "{answer}");
    assert_eq!(answer.matches("other.example").count(), 1, "{answer}");
    let answer = talk(listener, &get("/v20/a", "")).await;
    assert!(answer.contains("GET /v20/a HTTP/1.1\r\nHost: x\r\n"), "{answer}");
}

#[tokio::test]
async fn a_whole_path_is_rewritten() {
    let (_world, proxy) = proxy(rewrite(None, Some(PathRewrite::Full("/one/page".into())))).await;
    let answer = talk(proxy.listeners[0], &get("/v2/a/b?c", "")).await;
    assert!(answer.contains("GET /one/page?c HTTP/1.1\r\nHost: x\r\n"), "{answer}");
}

#[tokio::test]
async fn a_rewritten_path_smuggles_nothing() {
    let (_world, proxy) = proxy(rewrite(None, prefix("/"))).await;
    let listener = proxy.listeners[0];
    let answer = talk(listener, &get("/v2//evil.example/a", "")).await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\nferrule-error: bad-request\r\n"), "{answer}");
    // What would be a second request, if it were one line more.
    for path in ["/v2/a%0d%0aGET%20/b", "/v2/%2e%2e/b"] {
        let answer = talk(listener, &get(path, "")).await;
        assert!(answer.contains(&format!("GET {} HTTP/1.1\r\n", &path[3..])), "{answer}");
    }
    // It has grown too long for a request line.
    let long = format!("/{}", "a".repeat(1000));
    let (_world, proxy) = self::proxy(rewrite(None, prefix(&long))).await;
    let answer = talk(proxy.listeners[0], &get(&format!("/v2/{}", "b".repeat(16 * 1024 - 100)), "")).await;
    assert!(answer.starts_with("HTTP/1.1 414 "), "{}", &answer[..100]);
}

#[tokio::test]
async fn host_and_path_are_rewritten_over_http2() {
    let (_world, proxy) = proxy_http2(rewrite(Some("other.example"), prefix("/new"))).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let id = client.request("GET", "/v2/a?b=c", &[("x-kept", "1")], true).await;
    let text = client.response(id).await.text();
    assert!(text.contains(":authority: other.example\n:path: /new/a?b=c\nx-kept: 1\n"), "{text}");
    let (_world, proxy) = proxy_http2(rewrite(None, prefix("/"))).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let id = client.request("GET", "/v2//evil.example", &[], true).await;
    assert_eq!(client.response(id).await.status, 400);
}

#[tokio::test]
async fn a_redirect_sends_the_client_elsewhere_and_keeps_its_connection() {
    let redirect = Redirect {
        scheme: Some("https".into()),
        host: Some("shop.example".into()),
        port: Some(8443),
        path: prefix("/new"),
        status: 308,
    };
    let response_headers =
        HeaderChange { set: vec![("x-why".into(), "moved".into())], ..HeaderChange::default() };
    let rule = Rule { redirect: Some(redirect), response_headers, backends: Vec::new(), ..rule() };
    let (_world, proxy) = proxy(rule.clone()).await;
    let two = format!("POST /v2/a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc{}", get("/", ""));
    let answer = talk(proxy.listeners[0], &two).await;
    assert!(
        answer.starts_with(
            "HTTP/1.1 308 Permanent Redirect\r\nlocation: https://shop.example:8443/new/a?b\r\nx-why: moved\r\n\
             content-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n"
        ),
        "{answer}"
    );
    let (_world, proxy) = proxy_http2(rule).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let id = client.request("GET", "/v2/a", &[], true).await;
    let response = client.response(id).await;
    assert_eq!(response.status, 308);
    assert_eq!(response.field("location"), "https://shop.example:8443/new/a");
}

#[tokio::test]
async fn a_direct_response_needs_no_backend() {
    let fixed = DirectResponse {
        status: 503,
        body: "{\"closed\":true}".into(),
        content_type: Some("application/json".into()),
    };
    let rule = Rule { direct_response: Some(fixed), backends: Vec::new(), ..rule() };
    let (_world, proxy) = proxy(rule.clone()).await;
    let answer = talk(proxy.listeners[0], &get("/v2", "")).await;
    assert_eq!(
        answer,
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\
         connection: close\r\n\r\n{\"closed\":true}"
    );
    let head = "HEAD /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = talk(proxy.listeners[0], head).await;
    assert!(answer.contains("content-length: 15\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    let (_world, proxy) = proxy_http2(rule).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let id = client.request("GET", "/v2/a", &[], true).await;
    let response = client.response(id).await;
    assert_eq!((response.status, response.text().as_str()), (503, "{\"closed\":true}"));
}

fn fault(delay: Option<Delay>, abort: Option<Abort>) -> Rule {
    Rule { fault: Some(Fault { delay, abort }), ..rule() }
}

#[tokio::test]
async fn a_share_of_the_requests_is_aborted() {
    let abort = |share, status| fault(None, Some(Abort { share, status }));
    let (_world, proxy) = proxy(abort(5000, FaultStatus::Http(418))).await;
    let mut aborted = 0;
    for _ in 0..200 {
        let answer = talk(proxy.listeners[0], &get("/v2", "")).await;
        if answer.starts_with("HTTP/1.1 418 ") {
            assert!(answer.contains("\r\nferrule-error: fault\r\n"), "{answer}");
            aborted += 1;
        } else {
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
    }
    assert!((60..=140).contains(&aborted), "{aborted} of 200 at 50 %");

    let (_world, proxy) = proxy_http2(abort(10_000, FaultStatus::Grpc(14))).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let id = client.request("POST", "/v2/Add", &[("content-type", "application/grpc")], true).await;
    let response = client.response(id).await;
    assert_eq!((response.status, response.field("grpc-status")), (200, "14"));
    let id = client.request("POST", "/v2/Add", &[], true).await;
    assert_eq!(client.response(id).await.status, 503, "to what is no call it is said in HTTP");
}

#[tokio::test]
async fn requests_are_delayed() {
    let time = config::Duration::from_millis(300);
    let (_world, proxy) = proxy(fault(Some(Delay { share: 10_000, time }), None)).await;
    let begun = Instant::now();
    assert!(talk(proxy.listeners[0], &get("/", "")).await.starts_with("HTTP/1.1 200 "));
    assert!(begun.elapsed() < Duration::from_millis(250), "what is not under the rule is not delayed");
    let begun = Instant::now();
    let mut stream = tokio::net::TcpStream::connect(proxy.listeners[0]).await.expect("the proxy listens");
    tokio::io::AsyncWriteExt::write_all(&mut stream, get("/v2", "").as_bytes()).await.expect("sent");
    let mut first = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_delay_counts_for_the_time_limit() {
    let time = config::Duration::from_millis(60_000);
    let timeouts =
        config::Timeouts { request: Some(config::Duration::from_millis(200)), ..config::Timeouts::default() };
    let rule = Rule { timeouts, ..fault(Some(Delay { share: 10_000, time }), None) };
    let (_world, proxy) = proxy(rule).await;
    let answer = talk(proxy.listeners[0], &get("/v2", "")).await;
    assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout\r\nferrule-error: timeout\r\n"), "{answer}");
}

#[tokio::test]
async fn preflight_requests_are_answered_and_responses_are_open_to_those_who_may() {
    let cors = Cors {
        origins: vec!["https://*.shop.example".into()],
        methods: vec!["PUT".into()],
        headers: vec!["x-a".into()],
        exposed: vec!["x-total".into()],
        credentials: true,
        max_age: config::Duration::from_millis(600_000),
    };
    // The preflight request is an OPTIONS, and still is for the rule of what it asks for.
    let matches =
        Match { path: Some(PathMatch::Prefix("/v2".into())), method: Some("PUT".into()), ..Match::default() };
    let mut service = under_v2(Rule { cors: Some(cors), ..rule() });
    service.routes[0].matches = matches;
    let world = World::new();
    let forged = |_: &str| {
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\n\r\nhi".to_owned()
    };
    world.service("cart", &[server(forged).await]);
    world.configure("cart", service);
    let proxy = world.proxy(&["cart"], &[]).await;
    let listener = proxy.listeners[0];
    let preflight = |origin: &str, method: &str| {
        format!(
            "OPTIONS /v2/a HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: {method}\r\n\
             Connection: close\r\n\r\n"
        )
    };
    let answer = talk(listener, &preflight("https://www.shop.example", "PUT")).await;
    assert!(answer.starts_with("HTTP/1.1 204 No Content\r\n"), "{answer}");
    for field in [
        "access-control-allow-origin: https://www.shop.example",
        "access-control-allow-credentials: true",
        "access-control-allow-methods: PUT",
        "access-control-allow-headers: x-a",
        "access-control-max-age: 600",
    ] {
        assert!(answer.contains(&format!("\r\n{field}\r\n")), "no {field} in {answer}");
    }
    let answer = talk(listener, &preflight("https://evil.example", "PUT")).await;
    assert!(answer.starts_with("HTTP/1.1 204 ") && !answer.contains("access-control-allow"), "{answer}");
    let answer = talk(listener, &preflight("https://www.shop.example", "GET")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "that rule has no CORS: {answer}");

    let put = |origin: &str| {
        format!(
            "PUT /v2/a HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    };
    let answer = talk(listener, &put("https://www.shop.example")).await;
    assert!(answer.contains("access-control-allow-origin: https://www.shop.example\r\n"), "{answer}");
    assert!(!answer.contains("Access-Control-Allow-Origin: *"), "{answer}");
    let answer = talk(listener, &put("https://evil.example")).await;
    assert!(!answer.to_ascii_lowercase().contains("access-control-allow"), "{answer}");
}

#[tokio::test]
async fn each_backend_has_header_changes_of_its_own() {
    let set = |name: &str, value: &str| HeaderChange {
        set: vec![(name.into(), value.into())],
        ..HeaderChange::default()
    };
    let backend = Backend {
        request_headers: set("x-both", "backend"),
        response_headers: set("x-track", "v2"),
        ..to("cart")
    };
    let request_headers = HeaderChange {
        set: vec![("x-both".into(), "rule".into()), ("x-rule".into(), "1".into())],
        ..HeaderChange::default()
    };
    let rule =
        Rule { backends: vec![backend], request_headers, response_headers: set("x-rule", "2"), ..rule() };
    let (_world, proxy) = proxy(rule).await;
    let answer = talk(proxy.listeners[0], &get("/v2", "X-Both: client\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    assert!(body.contains("x-both: backend\r\n") && body.contains("x-rule: 1\r\n"), "{body}");
    assert!(!body.contains("client") && !body.contains("x-both: rule"), "{body}");
    assert!(head.contains("x-track: v2") && head.contains("x-rule: 2"), "{head}");
}
