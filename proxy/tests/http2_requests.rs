//! Requests over HTTP/2 through the real proxy: routes, timeouts, errors, retries, the end.

mod http2_harness;
mod support;

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use ferrule_config::{
    Backend, HeaderChange, HeaderMatch, Match, RouteEntry, Rule, Service, Timeouts, ValueMatch,
};
use ferrule_proxy::app::App;
use http2_harness::{CANCEL, Endpoint, Frame, NO_ERROR, Peer, REFUSED_STREAM, answer_all, metric, value};
use support::{World, eventually, get, ok, read_head, server, talk};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const GRPC: (&str, &str) = ("content-type", "application/grpc");

fn to(name: &str, weight: u32) -> Backend {
    Backend { namespace: "shop".into(), name: name.into(), port: Some(80), weight, ..Backend::default() }
}

fn rule(backends: Vec<Backend>) -> Rule {
    Rule { name: "shop/r/0".into(), backends, ..Rule::default() }
}

fn always(rule: Rule) -> Service {
    Service {
        routes: vec![RouteEntry { port: None, matches: Match::default(), rule: 0 }],
        rules: vec![rule],
        ..Service::default()
    }
}

/// A proxy in front of these endpoints of `cart`.
async fn proxy(endpoints: &[SocketAddr]) -> (World, App) {
    let world = World::new();
    world.service("cart", endpoints);
    let proxy = world.proxy(&["cart"], &[]).await;
    (world, proxy)
}

/// An address at which nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound")
}

#[tokio::test]
async fn a_request_crosses_both_sides_with_body_and_trailers() {
    let app = Endpoint::named("app").await;
    let world = World::new();
    let inbound = world.proxy(&[], &[app.address]).await;
    world.service("cart", &[inbound.listeners[0]]);
    let outbound = world.proxy(&["cart"], &[]).await;
    let mut client = Peer::client(outbound.listeners[0]).await;
    let id = client.request("POST", "/a?b=c", &[("x-kept", "1"), ("te", "trailers")], false).await;
    client.data(id, b"hello ", false).await;
    client.data(id, b"world", false).await;
    client.headers(id, &[("x-checksum", "42")], true).await;
    let response = client.response(id).await;
    let text = response.text();
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(
        text,
        "app\n:method: POST\n:scheme: http\n:authority: cart\n:path: /a?b=c\nx-kept: 1\nte: trailers\n\
         x-checksum: 42\n\nhello world"
    );
    assert_eq!(response.fields.len(), 2, "nothing was added: {:?}", response.fields);
}

#[tokio::test]
async fn a_route_decides_each_request_of_a_connection_by_its_header() {
    let (v1, v2) = (Endpoint::named("v1").await, Endpoint::named("v2").await);
    let world = World::new();
    world.service("cart", &[v1.address]);
    world.service("cart-v2", &[v2.address]);
    let beta = HeaderMatch { name: "x-user".into(), value: ValueMatch::Exact("beta".into()) };
    let entry = |matches, rule| RouteEntry { port: None, matches, rule };
    let routes = vec![
        entry(Match { headers: vec![beta], ..Match::default() }, 1),
        entry(Match { method: Some("GET".into()), ..Match::default() }, 0),
    ];
    let rules = vec![rule(vec![to("cart", 1)]), rule(vec![to("cart-v2", 1)])];
    world.configure("cart", Service { routes, rules, ..Service::default() });
    let proxy = world.proxy(&["cart"], &[]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    for (user, expected) in [("alpha", "v1"), ("beta", "v2"), ("alpha", "v1"), ("beta", "v2")] {
        assert_eq!(client.get("/", &[("x-user", user)]).await.field("x-server"), expected);
    }
    let none = client.send("DELETE", b"x", &[]).await;
    assert_eq!((none.status, none.field("ferrule-error")), (404, "no-route"), "{none:?}");
    let none = client.send("POST", b"x", &[GRPC]).await;
    assert_eq!((none.status, none.field("grpc-status")), (200, "12"), "{none:?}");
}

#[tokio::test]
async fn weights_split_the_requests_of_one_connection() {
    let (v1, v2) = (Endpoint::named("v1").await, Endpoint::named("v2").await);
    let world = World::new();
    world.service("cart", &[v1.address]);
    world.service("cart-v2", &[v2.address]);
    world.configure("cart", always(rule(vec![to("cart", 90), to("cart-v2", 10)])));
    let proxy = world.proxy(&["cart"], &[]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let mut second = 0;
    for _ in 0..1000 {
        second += usize::from(client.get("/", &[]).await.field("x-server") == "v2");
    }
    // Four standard deviations around 100 of 1000.
    assert!((62..=138).contains(&second), "{second} of 1000 went to v2");
}

#[tokio::test]
async fn headers_are_changed_on_both_ways() {
    let app = Endpoint::named("app").await;
    let world = World::new();
    world.service("cart", &[app.address]);
    let change = |name: &str| HeaderChange {
        set: vec![(name.into(), "1".into())],
        add: vec![("X-Added".into(), "2".into())],
        remove: vec!["x-server".into(), "x-gone".into()],
    };
    let changed = Rule {
        request_headers: change("X-Request"),
        response_headers: change("x-response"),
        ..rule(vec![to("cart", 1)])
    };
    world.configure("cart", always(changed));
    let proxy = world.proxy(&["cart"], &[]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let response = client.get("/", &[("x-request", "old"), ("x-gone", "1")]).await;
    let text = response.text();
    assert!(text.contains("x-request: 1\nx-added: 2\n") && !text.contains("old") && !text.contains("x-gone"));
    assert_eq!((response.field("x-response"), response.field("x-added")), ("1", "2"));
    assert_eq!(response.field("x-server"), "");
}

/// Every version on either side.
#[tokio::test]
async fn a_client_of_either_version_reaches_a_server_of_the_other() {
    let (old, new) = (server(ok).await, Endpoint::named("new").await);
    let world = World::new();
    world.service_speaking("old", &[old], Some("http"));
    world.service_speaking("new", &[new.address], Some("kubernetes.io/h2c"));
    let proxy = world.proxy(&["old", "new"], &[]).await;
    let response =
        Peer::client(proxy.listeners[0]).await.get("/x", &[("cookie", "a=1"), ("cookie", "b=2")]).await;
    assert_eq!(response.text(), "GET /x HTTP/1.1\r\nhost: cart\r\ncookie: a=1; b=2\r\n\r\n");
    let answer = talk(proxy.listeners[1], &get("/y", "X-Mixed: 1\r\n")).await;
    assert!(answer.contains(":path: /y\nx-mixed: 1\n"), "{answer}");
}

#[tokio::test]
async fn a_slow_response_is_cut_off_by_the_timeout_and_the_endpoint_is_told() {
    let cancelled = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&cancelled);
    let silent = Endpoint::new(&[], move |mut peer, _| {
        let counted = Arc::clone(&counted);
        async move {
            loop {
                match peer.next_ever().await {
                    Frame::Reset { code: CANCEL, .. } => drop(counted.fetch_add(1, SeqCst)),
                    Frame::Closed | Frame::Aborted => return,
                    _ => {}
                }
            }
        }
    })
    .await;
    let world = World::new();
    world.service("cart", &[silent.address]);
    let timeouts =
        Timeouts { request: Some(ferrule_config::Duration::from_millis(100)), ..Timeouts::default() };
    world.configure("cart", always(Rule { timeouts, ..rule(vec![to("cart", 1)]) }));
    let proxy = world.proxy(&["cart"], &[]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let response = client.get("/", &[]).await;
    assert_eq!((response.status, response.field("ferrule-error")), (504, "timeout"), "{response:?}");
    let response = client.send("POST", b"x", &[GRPC]).await;
    assert_eq!((response.status, response.field("grpc-status")), (200, "4"), "{response:?}");
    assert_eq!(response.field("ferrule-error"), "timeout");
    eventually("both were cancelled at the endpoint", async || cancelled.load(SeqCst) == 2).await;
}

#[tokio::test]
async fn errors_are_told_as_the_client_understands_them() {
    let (world, proxy) = proxy(&[]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let response = client.get("/", &[]).await;
    assert_eq!((response.status, response.field("ferrule-error")), (503, "no-endpoints"));
    assert!(response.text().starts_with("ferrule: shop/cart has no ready endpoint"), "{}", response.text());
    let response = client.send("POST", b"x", &[("content-type", "application/grpc+proto")]).await;
    assert_eq!((response.status, response.field("content-type")), (200, "application/grpc"));
    assert_eq!((response.field("grpc-status"), response.field("ferrule-error")), ("14", "no-endpoints"));
    assert!(response.field("grpc-message").starts_with("ferrule: shop/cart"), "{response:?}");
    assert!(response.body.is_empty() && response.complete);
    let head = client.request("HEAD", "/", &[], true).await;
    let response = client.response(head).await;
    assert!(response.status == 503 && response.body.is_empty(), "{response:?}");

    world.configure("cart", always(rule(vec![to("gone", 1)])));
    for _ in 0..250 {
        if client.get("/", &[]).await.status == 500 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(client.get("/", &[]).await.field("ferrule-error"), "backend-not-found");
}

#[tokio::test]
async fn requests_of_one_connection_are_balanced() {
    let (one, two) = (Endpoint::named("one").await, Endpoint::named("two").await);
    let (_world, proxy) = proxy(&[one.address, two.address]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let mut first = 0;
    for _ in 0..10 {
        // At the same time, for an endpoint that is always free may get all of them.
        for _ in 0..20 {
            client.request("GET", "/", &[], true).await;
        }
        let mut waiting = 20;
        while waiting > 0 {
            if let Frame::Headers { fields, .. } = client.next().await {
                first += usize::from(value(&fields, "x-server") == "one");
                waiting -= 1;
            }
        }
    }
    assert!((40..=160).contains(&first), "{first} of 200 went to the first of two");
    assert_eq!((one.connections(), two.connections()), (1, 1), "one connection to each carries all");
}

#[tokio::test]
async fn a_dead_endpoint_costs_no_request_not_even_a_post() {
    let alive = Endpoint::named("alive").await;
    let (_world, proxy) = proxy(&[alive.address, nobody().await]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    for _ in 0..30 {
        assert_eq!(client.send("POST", b"hi", &[]).await.field("x-server"), "alive");
    }
}

/// How an endpoint declines its first request, provably without having processed it.
async fn declines_once(how: &'static str) -> (Endpoint, Arc<AtomicUsize>) {
    let declined = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&declined);
    let endpoint = Endpoint::new(&[], move |mut peer, number| {
        let counted = Arc::clone(&counted);
        async move {
            if number > 0 {
                return answer_all(peer, "second").await;
            }
            loop {
                match peer.next_ever().await {
                    Frame::Headers { id, .. } if counted.fetch_add(1, SeqCst) == 0 => match how {
                        "refused" => peer.reset(id, REFUSED_STREAM).await,
                        _ => peer.goaway(0, NO_ERROR).await,
                    },
                    Frame::Headers { id, .. } => peer.headers(id, &[(":status", "200")], true).await,
                    Frame::Closed | Frame::Aborted => return,
                    _ => {}
                }
            }
        }
    })
    .await;
    (endpoint, declined)
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_even_if_it_is_a_post() {
    let (endpoint, declined) = declines_once("refused").await;
    let (_world, proxy) = proxy(&[endpoint.address]).await;
    let response = Peer::client(proxy.listeners[0]).await.send("POST", b"hi", &[]).await;
    assert_eq!((response.status, declined.load(SeqCst)), (200, 2), "{response:?}");
    assert_eq!(metric(&proxy, r#"ferrule_retries_total{direction="outbound",service="shop/cart"}"#).await, 1);
}

#[tokio::test]
async fn a_stream_above_the_last_of_a_goaway_is_sent_again_on_another_connection() {
    let (endpoint, _) = declines_once("goaway").await;
    let (_world, proxy) = proxy(&[endpoint.address]).await;
    let response = Peer::client(proxy.listeners[0]).await.send("POST", b"hi", &[]).await;
    assert_eq!((response.status, response.field("x-server")), (200, "second"), "{response:?}");
    assert!(response.text().ends_with("\n\nhi"), "the body was sent again: {}", response.text());
    assert_eq!(endpoint.connections(), 2);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_idled_costs_no_request() {
    let endpoint = Endpoint::new(&[], |mut peer, _| async move {
        if let Frame::Headers { id, .. } = peer.next_ever().await {
            peer.headers(id, &[(":status", "200")], true).await;
            // The end, without a GOAWAY.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let (_world, proxy) = proxy(&[endpoint.address]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    for pause in [0, 45, 48, 50, 52, 55, 60, 200] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        assert_eq!(client.get("/", &[]).await.status, 200);
    }
}

#[tokio::test]
async fn a_post_that_may_have_been_processed_is_not_sent_twice() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let breaks = Endpoint::new(&[], move |mut peer, _| {
        let counted = Arc::clone(&counted);
        async move {
            if let Frame::Headers { .. } = peer.next_ever().await {
                counted.fetch_add(1, SeqCst);
            }
        }
    })
    .await;
    let (_world, proxy) = proxy(&[breaks.address]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let response = client.send("POST", b"hi", &[]).await;
    assert_eq!((response.status, response.field("ferrule-error")), (502, "reset"), "{response:?}");
    assert_eq!(seen.load(SeqCst), 1);
    assert_eq!(client.get("/", &[]).await.status, 502);
    assert_eq!(seen.load(SeqCst), 5, "a GET is tried four times");
}

#[tokio::test]
async fn what_the_client_cancels_is_cancelled_at_the_endpoint() {
    let (told, mut codes) = tokio::sync::mpsc::unbounded_channel();
    let endpoint = Endpoint::new(&[], move |mut peer, _| {
        let told = told.clone();
        async move {
            loop {
                match peer.next_ever().await {
                    Frame::Headers { id, fields, .. } if value(&fields, ":path") == "/begun" => {
                        peer.headers(id, &[(":status", "200")], false).await;
                        peer.data(id, b"some", false).await;
                    }
                    Frame::Reset { code, .. } => told.send(code).expect("the test goes on"),
                    Frame::Closed | Frame::Aborted => return,
                    _ => {}
                }
            }
        }
    })
    .await;
    let (_world, proxy) = proxy(&[endpoint.address]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let waiting = client.request("GET", "/", &[], true).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.reset(waiting, CANCEL).await;
    assert_eq!(codes.recv().await, Some(CANCEL));
    let begun = client.request("GET", "/begun", &[], true).await;
    assert!(matches!(client.next().await, Frame::Headers { .. }));
    client.reset(begun, CANCEL).await;
    assert_eq!(codes.recv().await, Some(CANCEL));
    let upload = client.request("POST", "/begun", &[], false).await;
    client.data(upload, b"half", false).await;
    while !matches!(client.next().await, Frame::Headers { .. }) {}
    // All of the connection goes.
    drop(client);
    assert_eq!(codes.recv().await, Some(CANCEL));
}

/// RFC 9113 §8.1: RST_STREAM with NO_ERROR asks to stop the upload and takes nothing of the response back.
#[tokio::test]
async fn a_response_before_the_end_of_the_request_arrives_whole() {
    let long = vec![b'x'; 200_000];
    let sent = long.clone();
    let endpoint = Endpoint::new(&[(4, 0x7fff_ffff)], move |mut peer, _| {
        let long = sent.clone();
        async move {
            peer.window(0, 0x7000_0000).await;
            loop {
                match peer.next_ever().await {
                    Frame::Headers { id, end, .. } => {
                        peer.headers(id, &[(":status", "413")], false).await;
                        for (index, piece) in long.chunks(16_384).enumerate() {
                            peer.data(id, piece, (index + 1) * 16_384 >= long.len()).await;
                        }
                        if !end {
                            peer.reset(id, NO_ERROR).await;
                        }
                    }
                    Frame::Closed | Frame::Aborted => return,
                    _ => {}
                }
            }
        }
    })
    .await;
    let (_world, proxy) = proxy(&[endpoint.address]).await;
    let mut client = Peer::client_with(proxy.listeners[0], &[(4, 1_000_000)]).await;
    client.window(0, 1_000_000).await;
    let id = client.request("POST", "/", &[], false).await;
    client.data(id, &[b'u'; 10_000], false).await;
    let response = client.response(id).await;
    assert_eq!((response.status, response.body.len(), response.complete), (413, long.len(), true));
    assert_eq!(client.next().await, Frame::Reset { id, code: NO_ERROR });
    assert_eq!(client.get("/", &[]).await.status, 413, "the connection goes on");
}

#[tokio::test]
async fn a_drain_says_goaway_twice_and_lets_requests_finish() {
    let endpoint = Endpoint::new(&[], |mut peer, _| async move {
        loop {
            match peer.next_ever().await {
                Frame::Headers { id, .. } => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    peer.headers(id, &[(":status", "200")], false).await;
                    peer.data(id, b"done", true).await;
                }
                Frame::Closed | Frame::Aborted => return,
                _ => {}
            }
        }
    })
    .await;
    let (_world, proxy) = proxy(&[endpoint.address]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    // The answer to the PING after the first GOAWAY tells that all streams before it have arrived.
    client.answers_pings = false;
    let id = client.request("GET", "/", &[], true).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let ending = tokio::spawn(proxy.end());
    assert_eq!(
        client.next().await,
        Frame::GoAway { last: 0x7fff_ffff, code: NO_ERROR, debug: String::new() }
    );
    // Sent before the GOAWAY was seen.
    let crossing = client.request("GET", "/", &[], true).await;
    client.expect_ping().await;
    let first = client.response(id).await;
    assert_eq!((first.status, first.text().as_str()), (200, "done"));
    let second = client.response(crossing).await;
    assert_eq!((second.status, second.text().as_str()), (200, "done"), "{second:?}");
    assert_eq!(client.next().await, Frame::Closed);
    tokio::time::timeout(Duration::from_secs(4), ending).await.expect("drained in time").expect("ended");
}

/// A stream that crosses the last GOAWAY is not processed; its frames disturb nobody (RFC 9113 §6.8).
#[tokio::test]
async fn what_crosses_the_last_goaway_does_not_end_the_others() {
    let endpoint = Endpoint::new(&[], |mut peer, _| async move {
        loop {
            match peer.next_ever().await {
                Frame::Headers { id, .. } => {
                    tokio::time::sleep(Duration::from_millis(1000)).await;
                    peer.headers(id, &[(":status", "200")], true).await;
                }
                Frame::Closed | Frame::Aborted => return,
                _ => {}
            }
        }
    })
    .await;
    let (_world, proxy) = proxy(&[endpoint.address]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let id = client.request("GET", "/", &[], true).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let ending = tokio::spawn(proxy.end());
    let mut last = None;
    while last.is_none() {
        if let Frame::GoAway { last: 1, code: NO_ERROR, .. } = client.next().await {
            last = Some(1);
        }
    }
    let late = client.request("POST", "/", &[], false).await;
    client.data(late, b"content", false).await;
    client.headers(late, &[("x-trailer", "1")], true).await;
    client.reset(late, CANCEL).await;
    let response = client.response(id).await;
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(client.next().await, Frame::Closed);
    ending.await.expect("ended");
}

#[tokio::test]
async fn an_endpoint_that_allows_two_streams_gets_more_connections() {
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    // SETTINGS_MAX_CONCURRENT_STREAMS.
    let endpoint = Endpoint::new(&[(3, 2)], move |mut peer, _| {
        let seen = Arc::clone(&seen);
        async move {
            let mut open: Vec<u32> = Vec::new();
            let mut answer = tokio::time::interval(Duration::from_millis(100));
            loop {
                tokio::select! {
                    frame = peer.next_ever() => match frame {
                        Frame::Headers { id, .. } if open.len() >= 2 => peer.reset(id, REFUSED_STREAM).await,
                        Frame::Headers { id, .. } => open.push(id),
                        Frame::Closed | Frame::Aborted => return,
                        _ => {}
                    },
                    _ = answer.tick() => {
                        seen.fetch_max(open.len(), SeqCst);
                        for id in open.drain(..) {
                            peer.headers(id, &[(":status", "200")], true).await;
                        }
                    }
                }
            }
        }
    })
    .await;
    let (_world, proxy) = proxy(&[endpoint.address]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    for round in 0..3 {
        let mut waiting = HashSet::new();
        for _ in 0..20 {
            waiting.insert(client.request("POST", "/", &[], true).await);
        }
        while !waiting.is_empty() {
            match client.next().await {
                Frame::Headers { id, fields, .. } => {
                    assert_eq!(value(&fields, ":status"), "200", "round {round}: {fields:?}");
                    waiting.remove(&id);
                }
                Frame::Data { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(most.load(SeqCst), 2);
    assert!((2..=20).contains(&endpoint.connections()), "{}", endpoint.connections());
}

#[tokio::test]
async fn too_many_fields_are_answered_with_431_and_counted() {
    let endpoint = Endpoint::named("app").await;
    let (_world, proxy) = proxy(&[endpoint.address]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let names: Vec<String> = (0..200).map(|index| format!("x-{index}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let response = client.get("/", &many).await;
    assert_eq!((response.status, response.field("ferrule-error")), (431, "head-too-large"));
    assert_eq!(http2_harness::exceeded(&proxy, "fields").await, 1);
    assert_eq!(client.get("/", &[]).await.status, 200, "the connection goes on");
}

#[tokio::test]
async fn connect_makes_a_tunnel_between_all_versions() {
    // Over HTTP/1 the tunnel begins after the head; over HTTP/2 it is the stream.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let old = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = read_head(&mut stream).await.expect("a head");
                assert!(head.starts_with("CONNECT db:1 HTTP/1.1\r\n"), "{head}");
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("sent");
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let new = Endpoint::new(&[], |mut peer, _| async move {
        loop {
            match peer.next_ever().await {
                Frame::Headers { id, fields, .. } => {
                    assert_eq!(fields.len(), 2, "{fields:?}");
                    assert_eq!(value(&fields, ":authority"), "db:1");
                    peer.headers(id, &[(":status", "200")], false).await;
                }
                Frame::Data { id, content, end } => drop(peer.data(id, &content, end).await),
                Frame::Closed | Frame::Aborted => return,
                _ => {}
            }
        }
    })
    .await;
    let world = World::new();
    world.service_speaking("old", &[old], Some("http"));
    world.service_speaking("new", &[new.address], Some("kubernetes.io/h2c"));
    let proxy = world.proxy(&["old", "new"], &[]).await;
    for listener in [proxy.listeners[0], proxy.listeners[1]] {
        let mut client = Peer::client(listener).await;
        let id = client.take_id();
        client.headers(id, &[(":method", "CONNECT"), (":authority", "db:1")], false).await;
        let Frame::Headers { fields, end: false, .. } = client.next().await else { panic!("no response") };
        assert_eq!(value(&fields, ":status"), "200");
        for word in ["ping", "pong"] {
            client.data(id, word.as_bytes(), false).await;
            let Frame::Data { content, .. } = client.next().await else { panic!("no echo") };
            assert_eq!(content, word.as_bytes());
        }
        client.data(id, b"", true).await;
        assert_eq!(client.next().await, Frame::Data { id, content: Vec::new(), end: true });
    }
    let mut client = TcpStream::connect(proxy.listeners[1]).await.expect("the proxy listens");
    client.write_all(b"CONNECT db:1 HTTP/1.1\r\nHost: db:1\r\n\r\n").await.expect("sent");
    let head = read_head(&mut client).await.expect("a response");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    client.write_all(b"ping").await.expect("sent");
    let mut echo = [0; 4];
    client.read_exact(&mut echo).await.expect("an echo");
    assert_eq!(&echo, b"ping");
}

#[tokio::test]
async fn each_request_is_counted_once() {
    let (endpoint, _) = declines_once("refused").await;
    let (_world, proxy) = proxy(&[endpoint.address]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    for _ in 0..5 {
        assert_eq!(client.get("/", &[]).await.status, 200);
    }
    let expected =
        r#"ferrule_requests_total{direction="outbound",service="shop/cart",route="",status="200",error=""}"#;
    assert_eq!(metric(&proxy, expected).await, 5);
    let connections =
        r#"ferrule_connections_total{direction="outbound",service="shop/cart",protocol="http2"}"#;
    assert_eq!(metric(&proxy, connections).await, 1);
}

/// A long download must leave the others their turns, although it could fill the connection by itself.
#[tokio::test]
async fn a_short_response_does_not_wait_for_the_end_of_a_long_one() {
    let endpoint = Endpoint::new(&[], |mut peer, _| async move {
        peer.gives_back = false;
        loop {
            match peer.next_ever().await {
                Frame::Headers { id, fields, .. } if value(&fields, ":path") == "/short" => {
                    peer.headers(id, &[(":status", "200")], false).await;
                    peer.data(id, b"short", true).await;
                }
                Frame::Headers { id, .. } => {
                    peer.headers(id, &[(":status", "200")], false).await;
                    // The proxy grants a stream 256 KiB ahead.
                    for _ in 0..16 {
                        peer.data(id, &[0; 16_000], false).await;
                    }
                }
                Frame::Closed | Frame::Aborted => return,
                _ => {}
            }
        }
    })
    .await;
    let (_world, proxy) = proxy(&[endpoint.address]).await;
    let mut client = Peer::client_with(proxy.listeners[0], &[(4, 1 << 30)]).await;
    client.window(0, 1 << 30).await;
    client.gives_back = false;
    // Nothing is read: what the proxy may hold for this client fills up.
    for _ in 0..8 {
        client.request("GET", "/long", &[], true).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let short = client.request("GET", "/short", &[], true).await;
    let response = client.response(short).await;
    assert_eq!(response.text(), "short");
}

/// One client that does not read must not stop what others get from the same endpoint.
#[tokio::test]
async fn a_client_that_does_not_read_holds_up_no_other_client() {
    let endpoint = Endpoint::new(&[], |mut peer, _| async move {
        // Content is sent wherever the windows allow it, and nowhere else.
        let mut window = 65_535;
        let mut long: Vec<(u32, i64)> = Vec::new();
        loop {
            match peer.wait_any().await {
                Frame::WindowUpdate { id: 0, increment } => window += i64::from(increment),
                Frame::WindowUpdate { id, increment } => {
                    if let Some((_, window)) = long.iter_mut().find(|(of, _)| *of == id) {
                        *window += i64::from(increment);
                    }
                }
                Frame::Headers { id, fields, .. } => {
                    let short = value(&fields, ":path") == "/short";
                    peer.headers(id, &[(":status", "200")], short && window == 0).await;
                    if !short {
                        long.push((id, 256 * 1024));
                    } else if window > 0 {
                        peer.data(id, b"s", true).await;
                        window -= 1;
                    }
                }
                Frame::Closed | Frame::Aborted => return,
                _ => {}
            }
            for (id, own) in &mut long {
                while window > 0 && *own > 0 {
                    let count = window.min(*own).min(16_000);
                    peer.data(*id, &vec![0; usize::try_from(count).expect("small")], false).await;
                    window -= count;
                    *own -= count;
                }
            }
        }
    })
    .await;
    let (_world, proxy) = proxy(&[endpoint.address]).await;
    let mut lazy = Peer::client_with(proxy.listeners[0], &[(4, 0)]).await;
    lazy.gives_back = false;
    for _ in 0..8 {
        lazy.request("GET", "/long", &[], true).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let response = Peer::client(proxy.listeners[0]).await.get("/short", &[]).await;
    assert_eq!(response.text(), "s");
}
