//! When requests are sent again, and how their time runs out, asked of real proxies.

mod http2_harness;
mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use ferrule_config::{
    self as config, Backend, Backoff, Match, Retry, RetryBudget, RetryOn, RouteEntry, Rule, Service, Timeouts,
};
use ferrule_proxy::app::App;
use http2_harness::{Endpoint, Frame, Peer, value};
use support::{World, counted, get, ok, read_all, read_head, server, serving, talk};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

fn millis(millis: u64) -> config::Duration {
    config::Duration::from_millis(millis)
}

/// All conditions, without a pause and as often as wanted.
fn retry() -> Retry {
    Retry {
        attempts: 3,
        per_try_timeout: None,
        on: vec![RetryOn::ConnectFailure, RetryOn::Refused, RetryOn::Reset, RetryOn::Timeout],
        codes: vec![503],
        grpc_codes: Vec::new(),
        backoff: None,
        budget: None,
        non_idempotent: false,
    }
}

fn rule(retry: Option<Retry>) -> Rule {
    let cart = Backend {
        namespace: "shop".into(),
        name: "cart".into(),
        port: Some(80),
        weight: 1,
        ..Backend::default()
    };
    Rule { name: "shop/r/0".into(), backends: vec![cart], retry, ..Rule::default() }
}

fn always(rule: Rule) -> Service {
    Service {
        routes: vec![RouteEntry { port: None, matches: Match::default(), rule: 0 }],
        rules: vec![rule],
        ..Service::default()
    }
}

async fn proxy(rule: Rule, endpoints: &[SocketAddr]) -> (World, App) {
    proxy_speaking(rule, endpoints, None).await
}

async fn proxy_speaking(rule: Rule, endpoints: &[SocketAddr], protocol: Option<&str>) -> (World, App) {
    let world = World::new();
    world.service_speaking("cart", endpoints, protocol);
    world.configure("cart", always(rule));
    let proxy = world.proxy(&["cart"], &[]).await;
    (world, proxy)
}

/// A server that counts the requests whose head and body it has read as a whole, and then closes without a word.
async fn dies(body: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&count);
    let address = serving(move |mut stream| {
        let counting = Arc::clone(&counting);
        async move {
            if read_head(&mut stream).await.is_some() {
                let mut content = vec![0; body];
                if stream.read_exact(&mut content).await.is_ok() {
                    counting.fetch_add(1, SeqCst);
                }
            }
        }
    });
    (address.await, count)
}

/// A server that counts its requests and answers each so.
async fn counting(answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&count);
    let address = server(move |_| {
        counting.fetch_add(1, SeqCst);
        answer.to_owned()
    });
    (address.await, count)
}

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nX-From: app\r\nContent-Length: 4\r\n\r\nbusy";

fn post() -> String {
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello".to_owned()
}

#[tokio::test]
async fn a_post_is_never_sent_twice_by_default() {
    // Without a rule for it, and with all conditions that there are: a server that dies within the request has maybe done it.
    for retry in [None, Some(retry())] {
        for protocol in [None, Some("kubernetes.io/h2c")] {
            let ((one, first), (two, second)) = (dies(5).await, dies(5).await);
            let (_world, proxy) = proxy_speaking(rule(retry.clone()), &[one, two], None).await;
            let listener = proxy.listeners[0];
            if protocol.is_none() {
                let answer = talk(listener, &post()).await;
                assert!(
                    answer.starts_with("HTTP/1.1 502 Bad Gateway\r\nferrule-error: reset\r\n"),
                    "{answer}"
                );
            } else {
                let mut client = Peer::client(listener).await;
                let id = client.request("POST", "/", &[("content-length", "5")], false).await;
                client.data(id, b"hello", true).await;
                assert_eq!(client.response(id).await.status, 502);
            }
            assert_eq!(first.load(SeqCst) + second.load(SeqCst), 1, "{retry:?} {protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_post_that_is_answered_with_an_error_is_not_sent_again_either() {
    let (busy, count) = counting(BUSY).await;
    let (_world, proxy) = proxy(rule(Some(retry())), &[busy]).await;
    let answer = talk(proxy.listeners[0], &post()).await;
    assert!(
        answer.ends_with("X-From: app\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy"),
        "{answer}"
    );
    assert_eq!(count.load(SeqCst), 1);
}

#[tokio::test]
async fn a_post_is_sent_again_on_the_users_word() {
    let (dying, first) = dies(5).await;
    let (good, second) = counting("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let retry = Retry { non_idempotent: true, ..retry() };
    let (_world, proxy) = proxy(rule(Some(retry)), &[dying, good]).await;
    for _ in 0..20 {
        assert!(talk(proxy.listeners[0], &post()).await.ends_with("ok"));
    }
    assert!(first.load(SeqCst) > 0, "the one that dies was never asked");
    assert_eq!(second.load(SeqCst), 20);
}

#[tokio::test]
async fn a_status_leads_to_another_endpoint_and_the_last_one_is_the_clients() {
    let ((one, first), (two, second)) = (counting(BUSY).await, counting(BUSY).await);
    let retry = Retry { attempts: 1, ..retry() };
    let (_world, proxy) = proxy(rule(Some(retry.clone())), &[one, two]).await;
    let answer = talk(proxy.listeners[0], &get("/", "")).await;
    assert!(answer.contains("X-From: app\r\n") && answer.ends_with("busy"), "{answer}");
    assert_eq!((first.load(SeqCst), second.load(SeqCst)), (1, 1), "never the same while there is another");
    let metrics = talk(proxy.admin, &get("/metrics", "")).await;
    assert_eq!(counted(&metrics, "ferrule_retries_total{error=\"status\"}"), 1);

    let good = server(ok).await;
    let (_world, proxy) = self::proxy(rule(Some(retry)), &[one, good]).await;
    for _ in 0..20 {
        let answer = talk(proxy.listeners[0], &get("/", "")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let attempt = answer.contains("ferrule-attempt: 2\r\n");
        let again = answer.contains("ferrule-attempt");
        assert_eq!(attempt, again, "the second is the last: {answer}");
    }
}

#[tokio::test]
async fn a_status_leads_to_another_endpoint_over_http2_too() {
    let grpc = async |status: &'static str| {
        let endpoint = Endpoint::new(&[], move |mut peer, _| async move {
            loop {
                match peer.next_ever().await {
                    Frame::Headers { id, end: true, .. } => {
                        let head = [
                            (":status", "200"),
                            ("content-type", "application/grpc"),
                            ("grpc-status", status),
                        ];
                        peer.headers(id, &head, true).await;
                    }
                    Frame::Closed | Frame::Aborted => return,
                    _ => {}
                }
            }
        });
        endpoint.await
    };
    let (busy, good) = (grpc("14").await, grpc("0").await);
    let call = [("content-type", "application/grpc")];
    for (non_idempotent, expected) in [(true, 0), (false, 1)] {
        let retry = Retry { grpc_codes: vec![14], non_idempotent, ..retry() };
        let (_world, proxy) =
            proxy_speaking(rule(Some(retry)), &[busy.address, good.address], Some("grpc")).await;
        let mut client = Peer::client(proxy.listeners[0]).await;
        let mut failed = 0;
        for _ in 0..20 {
            let id = client.request("POST", "/shop.Cart/Add", &call, true).await;
            let response = client.response(id).await;
            failed += usize::from(response.field("grpc-status") != "0");
        }
        assert_eq!(failed.min(1), expected, "{failed} of 20 calls failed");
    }
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_given_up_for_another() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let good = server(ok).await;
    let retry = Retry { per_try_timeout: Some(millis(100)), ..retry() };
    let endpoints = [silent.local_addr().expect("bound"), good];
    let (_world, proxy) = proxy(rule(Some(retry.clone())), &endpoints).await;
    for _ in 0..10 {
        let answer = talk(proxy.listeners[0], &get("/", "")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let (_world, proxy) = self::proxy(rule(Some(Retry { attempts: 1, ..retry })), &endpoints[..1]).await;
    let begun = Instant::now();
    let mut stream = TcpStream::connect(proxy.listeners[0]).await.expect("the proxy listens");
    stream.write_all(get("/", "").as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout\r\nferrule-error: timeout\r\n"), "{answer}");
    assert!(begun.elapsed() >= Duration::from_millis(200), "two attempts of 100 ms");
}

#[tokio::test]
async fn a_response_that_has_begun_is_not_cut_off_by_the_time_of_an_attempt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        read_head(&mut stream).await.expect("a head");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await.expect("sent");
        tokio::time::sleep(Duration::from_millis(250)).await;
        stream.write_all(b"cd").await.expect("sent");
    });
    let retry = Retry { per_try_timeout: Some(millis(100)), ..retry() };
    let (_world, proxy) = proxy(rule(Some(retry)), &[address]).await;
    let answer = talk(proxy.listeners[0], &get("/", "")).await;
    assert!(answer.ends_with("\r\n\r\nabcd"), "{answer}");
}

#[tokio::test]
async fn a_retry_after_is_waited_for_within_limits() {
    let after = |seconds: &'static str| {
        let first = AtomicUsize::new(0);
        let first = Arc::new(first);
        server(move |_| {
            if first.fetch_add(1, SeqCst) == 0 {
                format!(
                    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n"
                )
            } else {
                ok("ok")
            }
        })
    };
    let ask = async |endpoint: SocketAddr| {
        let (_world, proxy) = proxy(rule(Some(retry())), &[endpoint]).await;
        let begun = Instant::now();
        let mut stream = TcpStream::connect(proxy.listeners[0]).await.expect("the proxy listens");
        stream.write_all(get("/", "").as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        (answer, begun.elapsed())
    };
    let (answer, took) = ask(after("1").await).await;
    assert!(answer.ends_with("ok") && took >= Duration::from_secs(1), "{took:?}: {answer}");
    for too_long in ["60", "Wed, 21 Oct 2026 07:28:00 GMT"] {
        let (answer, took) = ask(after(too_long).await).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{too_long}: {answer}");
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

#[tokio::test]
async fn a_body_that_comes_in_pieces_is_kept_for_another_attempt() {
    let (dying, count) = dies(10).await;
    let good = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = good.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = good.accept().await {
            tokio::spawn(async move {
                if read_head(&mut stream).await.is_some() {
                    let mut content = [0; 10];
                    stream.read_exact(&mut content).await.expect("the whole body");
                    let text = String::from_utf8(content.to_vec()).expect("text");
                    stream.write_all(ok(&text).as_bytes()).await.expect("sent");
                }
            });
        }
    });
    let (_world, proxy) = proxy(rule(Some(retry())), &[dying, address]).await;
    for _ in 0..20 {
        let mut stream = TcpStream::connect(proxy.listeners[0]).await.expect("the proxy listens");
        let head = "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream.write_all(b"hello").await.expect("sent");
        tokio::time::sleep(Duration::from_millis(10)).await;
        stream.write_all(b"world").await.expect("sent");
        let answer = read_all(&mut stream).await;
        assert!(answer.ends_with("helloworld"), "{answer}");
    }
    assert!(count.load(SeqCst) > 0, "the one that dies was never asked");
}

#[tokio::test]
async fn what_came_as_a_retry_is_not_sent_again_unless_it_was_not_processed() {
    let ((one, first), (two, second)) = (counting(BUSY).await, counting(BUSY).await);
    let (_world, proxy) = proxy(rule(Some(retry())), &[one, two]).await;
    let answer = talk(proxy.listeners[0], &get("/", "ferrule-attempt: 2\r\n")).await;
    assert!(answer.ends_with("busy"), "{answer}");
    assert_eq!(first.load(SeqCst) + second.load(SeqCst), 1, "attempts of two hops would multiply");

    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    let good = server(ok).await;
    let (_world, proxy) = self::proxy(rule(Some(retry())), &[nobody, good]).await;
    for _ in 0..20 {
        let answer = talk(proxy.listeners[0], &get("/", "Ferrule-Attempt: 2\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(answer.to_ascii_lowercase().matches("ferrule-attempt: ").count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn a_budget_of_nothing_allows_nothing() {
    let (busy, count) = counting(BUSY).await;
    let budget = Some(RetryBudget { share: 0, min_per_second: 0, window: millis(10_000) });
    let (world, proxy) = proxy(rule(Some(Retry { budget, ..retry() })), &[busy]).await;
    assert!(talk(proxy.listeners[0], &get("/", "")).await.ends_with("busy"), "the endpoint's own answer");
    assert_eq!(count.load(SeqCst), 1);
    drop(world);
}

#[tokio::test]
async fn what_was_spent_of_a_budget_stays_spent_when_endpoints_change() {
    let ((busy, count), (other, others)) = (counting(BUSY).await, counting(BUSY).await);
    let budget = Some(RetryBudget { share: 0, min_per_second: 1, window: millis(1000) });
    let (world, proxy) = proxy(rule(Some(Retry { budget, ..retry() })), &[busy]).await;
    for _ in 0..3 {
        talk(proxy.listeners[0], &get("/", "")).await;
        world.service("cart", &[busy, other]);
        world.service("cart", &[busy]);
    }
    // Each of the requests takes 300 ms at least: the budget gives one retry a second.
    let sent = count.load(SeqCst) + others.load(SeqCst);
    assert!((4..=6).contains(&sent), "{sent} attempts for 3 requests");
}

#[tokio::test]
async fn the_wait_before_another_attempt_is_bounded_by_the_deadline() {
    let (busy, count) = counting(BUSY).await;
    let backoff = Some(Backoff { base: millis(60_000), max: millis(60_000) });
    let timeouts = Timeouts { request: Some(millis(150)), ..Timeouts::default() };
    let rule = Rule { timeouts, ..rule(Some(Retry { backoff, ..retry() })) };
    let (_world, proxy) = proxy(rule, &[busy]).await;
    let begun = Instant::now();
    let answer = talk(proxy.listeners[0], &get("/", "")).await;
    // A random part of a minute may be less than the 150 ms, and hardly ever is.
    assert!(answer.ends_with("busy") || answer.contains("ferrule-error: timeout"), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(count.load(SeqCst) >= 1);
}

#[tokio::test]
async fn a_deadline_is_passed_on_with_what_is_left_of_it() {
    let app = server(ok).await;
    let (_world, proxy) = proxy(rule(None), &[app]).await;
    let fields =
        "Grpc-Timeout: 5S\r\nX-Kept: 1\r\nferrule-deadline: 4000\r\nx-envoy-expected-rq-timeout-ms: 9000\r\n";
    let answer = talk(proxy.listeners[0], &get("/", fields)).await;
    let value = |name: &str| {
        let lower = answer.to_ascii_lowercase();
        let line =
            lower.lines().find(|line| line.starts_with(&format!("{name}: "))).expect("the field").to_owned();
        line.split_once(": ").expect("a value").1.to_owned()
    };
    for name in ["ferrule-deadline", "x-envoy-expected-rq-timeout-ms"] {
        let left: u64 = value(name).parse().expect("milliseconds");
        assert!((3000..=4000).contains(&left), "the earliest counts for all: {name} {left}");
    }
    let left: u64 = value("grpc-timeout").strip_suffix('u').expect("microseconds").parse().expect("a number");
    assert!((3_000_000..=4_000_000).contains(&left), "{left}");
    assert!(answer.contains("X-Kept: 1\r\n"), "{answer}");
}

#[tokio::test]
async fn the_time_limit_of_the_rule_shortens_the_deadline() {
    let app = server(ok).await;
    let timeouts = Timeouts { request: Some(millis(2000)), ..Timeouts::default() };
    let (_world, proxy) = proxy(Rule { timeouts, ..rule(None) }, &[app]).await;
    let answer = talk(proxy.listeners[0], &get("/", "ferrule-deadline: 60000\r\n")).await;
    let left =
        answer.split("ferrule-deadline: ").nth(1).and_then(|rest| rest.split("\r\n").next()).expect("it");
    assert!((1000..=2000).contains(&left.parse::<u64>().expect("milliseconds")), "{left}");
    assert!(!talk(proxy.listeners[0], &get("/", "")).await.contains("ferrule-deadline"), "none is made up");
}

#[tokio::test]
async fn past_its_deadline_a_request_is_stopped() {
    let (silent, count) = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let count = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&count);
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                counting.fetch_add(1, SeqCst);
                held.push(stream);
            }
        });
        (address, count)
    };
    let (_world, proxy) = proxy(rule(None), &[silent]).await;
    let answer = talk(proxy.listeners[0], &get("/", "ferrule-deadline: 100\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout\r\nferrule-error: deadline\r\n"), "{answer}");
    assert_eq!(count.load(SeqCst), 1);
    // One that has passed already is not sent at all.
    let answer = talk(proxy.listeners[0], &get("/", "ferrule-deadline: 0\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout\r\nferrule-error: deadline\r\n"), "{answer}");
    assert_eq!(count.load(SeqCst), 1);
}

#[tokio::test]
async fn past_its_deadline_a_call_of_grpc_is_told_so_even_if_its_response_has_begun() {
    let endpoint = Endpoint::new(&[], |mut peer, _| async move {
        loop {
            match peer.next_ever().await {
                Frame::Headers { id, fields, .. } if value(&fields, ":path") == "/shop.Cart/Watch" => {
                    let head = [(":status", "200"), ("content-type", "application/grpc")];
                    peer.headers(id, &head, false).await;
                }
                Frame::Closed | Frame::Aborted => return,
                _ => {}
            }
        }
    })
    .await;
    let (_world, proxy) = proxy_speaking(rule(None), &[endpoint.address], Some("grpc")).await;
    for path in ["/shop.Cart/Add", "/shop.Cart/Watch"] {
        let mut client = Peer::client(proxy.listeners[0]).await;
        let call = [("content-type", "application/grpc"), ("grpc-timeout", "200m")];
        let id = client.request("POST", path, &call, true).await;
        let response = client.response(id).await;
        assert_eq!(response.status, 200, "{path}");
        let of = if path.ends_with("Watch") { &response.trailers } else { &response.fields };
        assert_eq!(value(of, "grpc-status"), "4", "{path}: {response:?}");
    }
}
