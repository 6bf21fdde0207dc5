//! The real proxy between real sockets.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use ferrule_config::{
    Backend, HeaderChange, HeaderMatch, Match, PathMatch, RouteEntry, Rule, Service, Timeouts, ValueMatch,
};
use support::{World, eventually, get, ok, read_all, read_head, server, talk};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

fn to(name: &str, weight: u32) -> Backend {
    Backend { namespace: "shop".into(), name: name.into(), port: Some(80), weight, ..Backend::default() }
}

fn rule(backends: Vec<Backend>) -> Rule {
    Rule { name: "shop/r/0".into(), backends, ..Rule::default() }
}

fn route(matches: Match, rule: usize) -> RouteEntry {
    RouteEntry { port: None, matches, rule }
}

fn always(rule: Rule) -> Service {
    Service { routes: vec![route(Match::default(), 0)], rules: vec![rule], ..Service::default() }
}

#[tokio::test]
async fn a_request_crosses_both_sides_unchanged() {
    let app = server(ok).await;
    let world = World::new();
    let inbound = world.proxy(&[], &[app]).await;
    world.service("cart", &[inbound.listeners[0]]);
    let outbound = world.proxy(&["cart"], &[]).await;
    let answer =
        talk(outbound.listeners[0], "GET /a?b=c HTTP/1.1\r\nHost: cart\r\nX-Mixed-Case: Kept\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    assert_eq!(body, "GET /a?b=c HTTP/1.1\r\nHost: cart\r\nX-Mixed-Case: Kept\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Length: "), "{head}");
    assert_eq!(head.lines().count(), 2, "nothing was added: {head}");
}

#[tokio::test]
async fn routes_decide_by_path_method_and_header() {
    let v1 = server(|_| ok("v1")).await;
    let v2 = server(|_| ok("v2")).await;
    let world = World::new();
    world.service("cart", &[v1]);
    world.service("cart-v2", &[v2]);
    let beta = HeaderMatch { name: "x-user".into(), value: ValueMatch::Exact("beta".into()) };
    world.configure(
        "cart",
        Service {
            routes: vec![
                route(Match { path: Some(PathMatch::Prefix("/v2".into())), ..Match::default() }, 1),
                route(Match { headers: vec![beta], ..Match::default() }, 1),
                route(Match { method: Some("GET".into()), ..Match::default() }, 0),
            ],
            rules: vec![rule(vec![to("cart", 1)]), rule(vec![to("cart-v2", 1)])],
            ..Service::default()
        },
    );
    let proxy = world.proxy(&["cart"], &[]).await;
    let listener = proxy.listeners[0];
    assert!(talk(listener, &get("/", "")).await.ends_with("v1"));
    assert!(talk(listener, &get("/v2/x", "")).await.ends_with("v2"));
    assert!(talk(listener, &get("/", "X-User: beta\r\n")).await.ends_with("v2"));
    let none = talk(listener, "DELETE / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(none.starts_with("HTTP/1.1 404 Not Found\r\nferrule-error: no-route\r\n"), "{none}");
}

#[tokio::test]
async fn weights_split_the_requests_and_an_edit_takes_hold_at_once() {
    let v1 = server(|_| ok("v1")).await;
    let v2 = server(|_| ok("v2")).await;
    let world = World::new();
    world.service("cart", &[v1]);
    world.service("cart-v2", &[v2]);
    world.configure("cart", always(rule(vec![to("cart", 90), to("cart-v2", 10)])));
    let proxy = world.proxy(&["cart"], &[]).await;
    let listener = proxy.listeners[0];
    let mut second = 0;
    for _ in 0..1000 {
        second += usize::from(talk_once(listener).await.ends_with("v2"));
    }
    // Four standard deviations around 100 of 1000.
    assert!((62..=138).contains(&second), "{second} of 1000 went to v2");

    world.configure("cart", always(rule(vec![to("cart", 0), to("cart-v2", 100)])));
    // One could still go there by the old weights; twenty could not.
    eventually("all requests go to v2", async || {
        for _ in 0..20 {
            if !talk_once(listener).await.ends_with("v2") {
                return false;
            }
        }
        true
    })
    .await;
    for _ in 0..50 {
        assert!(talk_once(listener).await.ends_with("v2"));
    }
}

async fn talk_once(listener: std::net::SocketAddr) -> String {
    let mut stream = TcpStream::connect(listener).await.expect("the proxy listens");
    stream.write_all(get("/", "").as_bytes()).await.expect("sent");
    let mut seen = String::new();
    stream.read_to_string(&mut seen).await.expect("text");
    seen
}

#[tokio::test]
async fn headers_are_changed_on_both_ways() {
    let app = server(ok).await;
    let world = World::new();
    world.service("cart", &[app]);
    let change =
        |name: &str| HeaderChange { set: vec![(name.into(), "1".into())], ..HeaderChange::default() };
    world.configure(
        "cart",
        always(Rule {
            request_headers: change("x-request"),
            response_headers: change("x-response"),
            ..rule(vec![to("cart", 1)])
        }),
    );
    let proxy = world.proxy(&["cart"], &[]).await;
    let answer = talk(proxy.listeners[0], &get("/", "X-Request: old\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    assert!(head.contains("x-response: 1"), "{head}");
    assert!(body.contains("x-request: 1") && !body.contains("old"), "{body}");
}

#[tokio::test]
async fn a_slow_response_is_cut_off_by_the_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let world = World::new();
    world.service("cart", &[silent.local_addr().expect("bound")]);
    let timeouts =
        Timeouts { request: Some(ferrule_config::Duration::from_millis(100)), ..Timeouts::default() };
    world.configure("cart", always(Rule { timeouts, ..rule(vec![to("cart", 1)]) }));
    let proxy = world.proxy(&["cart"], &[]).await;
    let answer = talk(proxy.listeners[0], &get("/", "")).await;
    assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout\r\nferrule-error: timeout\r\n"), "{answer}");
}

#[tokio::test]
async fn a_missing_backend_gets_its_share_of_500() {
    let world = World::new();
    world.service("cart", &[]);
    world.configure("cart", always(rule(vec![to("gone", 1)])));
    let proxy = world.proxy(&["cart"], &[]).await;
    let answer = talk(proxy.listeners[0], &get("/", "")).await;
    assert!(
        answer.starts_with("HTTP/1.1 500 Internal Server Error\r\nferrule-error: backend-not-found"),
        "{answer}"
    );
    assert!(answer.contains("shop/gone:80"), "{answer}");
}

#[tokio::test]
async fn without_endpoints_the_cause_is_named() {
    let world = World::new();
    world.service("cart", &[]);
    let proxy = world.proxy(&["cart"], &[]).await;
    let answer = talk(proxy.listeners[0], &get("/", "")).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 Service Unavailable\r\nferrule-error: no-endpoints\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_dead_endpoint_costs_no_request() {
    let alive = server(|_| ok("alive")).await;
    let dead = TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    let world = World::new();
    world.service("cart", &[alive, dead]);
    let proxy = world.proxy(&["cart"], &[]).await;
    for _ in 0..50 {
        let answer = talk_once(proxy.listeners[0]).await;
        assert!(answer.ends_with("alive"), "{answer}");
    }
}

/// A pod whose application is gone while its sidecar still answers: the other endpoint gets the request, even one
/// that may not be sent twice, for it was provably not processed.
#[tokio::test]
async fn a_post_to_an_application_that_is_gone_goes_elsewhere() {
    let alive = server(|_| ok("alive")).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    let world = World::new();
    let sidecar = world.proxy(&[], &[gone]).await;
    world.service("cart", &[alive, sidecar.listeners[0]]);
    let proxy = world.proxy(&["cart"], &[]).await;
    for _ in 0..30 {
        let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
        let mut stream = TcpStream::connect(proxy.listeners[0]).await.expect("the proxy listens");
        stream.write_all(post.as_bytes()).await.expect("sent");
        let answer = read_all(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// What may have been processed is not sent again unless its method is idempotent.
#[tokio::test]
async fn a_post_that_broke_off_is_not_sent_twice() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let breaks = server(move |_| {
        counted.fetch_add(1, SeqCst);
        String::new()
    })
    .await;
    let world = World::new();
    world.service("cart", &[breaks]);
    let proxy = world.proxy(&["cart"], &[]).await;
    let answer = talk(proxy.listeners[0], "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\nferrule-error: reset\r\n"), "{answer}");
    assert_eq!(count.load(SeqCst), 1);
    talk(proxy.listeners[0], &get("/", "")).await;
    assert_eq!(count.load(SeqCst), 1 + ferrule_proxy::retry::MAX_ATTEMPTS);
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let app = server(|head| ok(head.split(' ').nth(1).unwrap_or_default())).await;
    let world = World::new();
    world.service("cart", &[app]);
    let proxy = world.proxy(&["cart"], &[]).await;
    let pipelined: String = (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    let answer = talk(proxy.listeners[0], &pipelined).await;
    let bodies: Vec<_> = answer.match_indices("\r\n\r\n/").map(|(at, _)| &answer[at + 4..at + 6]).collect();
    assert_eq!(bodies.len(), 20, "{answer}");
}

#[tokio::test]
async fn a_large_body_streams_both_ways() {
    const SIZE: usize = 3_000_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("connected");
        read_head(&mut stream).await.expect("a head");
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.expect("sent");
        let mut left = SIZE;
        let mut piece = vec![0; 64 * 1024];
        while left > 0 {
            let count = stream.read(&mut piece).await.expect("the body");
            left -= count;
            stream.write_all(format!("{count:x}\r\n").as_bytes()).await.expect("sent");
            stream.write_all(&piece[..count]).await.expect("sent");
            stream.write_all(b"\r\n").await.expect("sent");
        }
        stream.write_all(b"0\r\n\r\n").await.expect("sent");
    });
    let world = World::new();
    world.service("cart", &[address]);
    let proxy = world.proxy(&["cart"], &[]).await;
    let mut stream = TcpStream::connect(proxy.listeners[0]).await.expect("the proxy listens");
    let (mut read, mut write) = stream.split();
    let send = async {
        write
            .write_all(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes())
            .await?;
        write.write_all(&vec![b'x'; SIZE]).await
    };
    let receive = async {
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n0\r\n\r\n") {
            assert!(read.read_buf(&mut seen).await.expect("the response") > 0);
        }
        seen.iter().filter(|&&byte| byte == b'x').count()
    };
    let (sent, count) = tokio::join!(send, receive);
    sent.expect("sent");
    assert_eq!(count, SIZE);
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("connected");
        let head = read_head(&mut stream).await.expect("a head");
        assert!(head.contains("Upgrade: echo"), "{head}");
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello ";
        stream.write_all(switch.as_bytes()).await.expect("sent");
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.expect("echoed");
    });
    let world = World::new();
    world.service("cart", &[address]);
    let proxy = world.proxy(&["cart"], &[]).await;
    let upgrade = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nworld";
    let answer = talk(proxy.listeners[0], upgrade).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.ends_with("hello world"), "{answer}");
}

#[tokio::test]
async fn smuggled_requests_are_refused() {
    let app = server(|_| ok("reached")).await;
    let world = World::new();
    world.service("cart", &[app]);
    let proxy = world.proxy(&["cart"], &[]).await;
    for lines in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: a\n b: c\r\n",
    ] {
        let answer = talk(proxy.listeners[0], &format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\nabc")).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 Bad Request\r\nferrule-error: bad-request\r\n"),
            "{lines}: {answer}"
        );
        assert!(answer.contains("connection: close"), "{answer}");
        assert!(!answer.contains("reached"), "{answer}");
    }
}

#[tokio::test]
async fn an_old_client_gets_content_without_chunks() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let app = server(move |_| chunked.to_owned()).await;
    let world = World::new();
    world.service("cart", &[app]);
    let proxy = world.proxy(&["cart"], &[]).await;
    let answer = talk(proxy.listeners[0], "GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcde");
}

/// A greeting comes through without the client having said a word; the second time with no delay at all.
#[tokio::test]
async fn a_server_that_speaks_first_is_not_held_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(b"220 ready\r\n").await.expect("sent");
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let world = World::new();
    let inbound = world.proxy(&[], &[address]).await;
    world.service("mail", &[inbound.listeners[0]]);
    let proxy = world.proxy(&["mail"], &[]).await;
    for _ in 0..2 {
        let mut stream = TcpStream::connect(proxy.listeners[0]).await.expect("the proxy listens");
        let mut greeting = [0; 11];
        let waited = Instant::now();
        stream.read_exact(&mut greeting).await.expect("a greeting");
        assert_eq!(&greeting, b"220 ready\r\n");
        assert!(waited.elapsed() < Duration::from_secs(1), "waited {:?}", waited.elapsed());
        stream.write_all(b"EHLO\r\n").await.expect("sent");
        stream.shutdown().await.expect("half closed");
        assert_eq!(read_all(&mut stream).await, "EHLO\r\n");
    }
}

#[tokio::test]
async fn a_client_that_hesitates_is_still_understood() {
    let app = server(|_| ok("late")).await;
    let world = World::new();
    world.service("cart", &[app]);
    let proxy = world.proxy(&["cart"], &[]).await;
    let mut stream = TcpStream::connect(proxy.listeners[0]).await.expect("the proxy listens");
    tokio::time::sleep(Duration::from_millis(200)).await;
    stream.write_all(get("/", "").as_bytes()).await.expect("sent");
    let answer = read_all(&mut stream).await;
    assert!(answer.contains("Connection: close") && answer.ends_with("late"), "handled as HTTP: {answer}");
}

#[tokio::test]
async fn a_configuration_that_does_not_parse_changes_nothing() {
    let v1 = server(|_| ok("v1")).await;
    let v2 = server(|_| ok("v2")).await;
    let world = World::new();
    world.service("cart", &[v1]);
    world.service("cart-v2", &[v2]);
    world.configure("cart", always(rule(vec![to("cart-v2", 1)])));
    let proxy = world.proxy(&["cart"], &[]).await;
    assert!(talk_once(proxy.listeners[0]).await.ends_with("v2"));
    world.config_map(&serde_json::json!({"mesh.json": "garbage"}));
    eventually("the refusal is counted", async || {
        !talk(proxy.admin, &get("/metrics", "")).await.contains("ferrule_config_refused_total 0")
    })
    .await;
    assert!(talk_once(proxy.listeners[0]).await.ends_with("v2"));
    let config = talk(proxy.admin, &get("/config", "")).await;
    assert!(config.contains("was it edited by hand?"), "{config}");
}

#[tokio::test]
async fn requests_are_counted() {
    let app = server(|_| ok("x")).await;
    let world = World::new();
    world.service("cart", &[app]);
    let proxy = world.proxy(&["cart"], &[]).await;
    for _ in 0..3 {
        talk_once(proxy.listeners[0]).await;
    }
    let metrics = talk(proxy.admin, &get("/metrics", "")).await;
    let expected =
        r#"ferrule_requests_total{direction="outbound",service="shop/cart",route="",status="200",error=""}"#;
    assert_eq!(support::counted(&metrics, expected), 3, "{metrics}");
}

#[tokio::test]
async fn a_drain_lets_requests_finish_and_asks_clients_to_close() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("connected");
        read_head(&mut stream).await.expect("a head");
        tokio::time::sleep(Duration::from_millis(500)).await;
        stream.write_all(ok("done").as_bytes()).await.expect("sent");
    });
    let world = World::new();
    world.service("cart", &[address]);
    let proxy = world.proxy(&["cart"], &[]).await;
    let mut stream = TcpStream::connect(proxy.listeners[0]).await.expect("the proxy listens");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut answer = String::new();
    let (_, read) = tokio::join!(proxy.end(), stream.read_to_string(&mut answer));
    read.expect("a proper end");
    assert!(answer.contains("Connection: close") && answer.ends_with("done"), "{answer}");
}

#[tokio::test]
async fn a_listener_for_a_service_that_is_not_there_resets_its_connections() {
    let world = World::new();
    let proxy = world.proxy(&["cart"], &[]).await;
    let start = Instant::now();
    let mut client = TcpStream::connect(proxy.listeners[0]).await.expect("the proxy listens");
    client.write_all(get("/", "").as_bytes()).await.expect("sent");
    let error = tokio::time::timeout(Duration::from_secs(20), client.read_u8()).await.expect("an end");
    assert_eq!(error.expect_err("nothing was sent").kind(), std::io::ErrorKind::ConnectionReset);
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "the Service may be on its way: {:?}",
        start.elapsed()
    );
    // And when it is there, it is used.
    world.service("cart", &[server(|_| ok("v1")).await]);
    assert!(talk_once(proxy.listeners[0]).await.ends_with("v1"));
}
