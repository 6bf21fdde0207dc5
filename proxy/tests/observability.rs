//! What the real proxy tells: metrics of each kind, in each format; lines of the access log; and trace contexts, which
//! are none of its business.

mod http2_harness;
mod support;

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use ferrule_proxy::app::App;
use http2_harness::{Endpoint, Frame, PATIENCE, Peer, metric, value};
use serde_json::Value;
use support::{World, eventually, get, ok, read_head, server, talk};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

/// An HTTP/1 server that answers with the head that it was sent.
async fn echo() -> SocketAddr {
    server(ok).await
}

/// A server that closes each connection after this greeting.
async fn greeter(greeting: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(greeting).await;
        }
    });
    address
}

/// An address at which nobody listens, and nobody will: it is taken until the end.
fn nobody() -> SocketAddr {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("loopback");
    let address = socket.local_addr().expect("bound");
    std::mem::forget(socket);
    address
}

/// Connects to something that may reset the connection at once.
async fn touch(address: SocketAddr) {
    if let Ok(mut stream) = TcpStream::connect(address).await {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
}

const CONTEXT: [(&str, &str); 6] = [
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("tracestate", "vendor=a:b;c, other=1"),
    ("tracestate", "third=2"),
    ("baggage", "user=1%20;p=q, k=v"),
    ("x-request-id", "r 1"),
    ("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
];
const MALFORMED: [(&str, &str); 4] = [
    ("traceparent", "00-NOT-a-context"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("tracestate", "=,;=="),
    ("baggage", "%%%"),
];

/// Those lines of an echo that are of these fields, in their order.
fn context_of(echo: &str) -> Vec<(String, String)> {
    let lines = echo.lines().filter_map(|line| line.split_once(": "));
    let names = ["traceparent", "tracestate", "baggage", "x-request-id", "x-b3-traceid"];
    lines
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .filter(|(name, _)| names.contains(&name.as_str()))
        .collect()
}

fn owned(context: &[(&str, &str)]) -> Vec<(String, String)> {
    context.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn trace_contexts_are_passed_on_as_they_are() {
    let (one, two) = (echo().await, Endpoint::named("app").await);
    let world = World::new();
    let inbound = world.proxy(&[], &[one, two.address]).await;
    world.service("one", &[inbound.listeners[0]]);
    world.service_speaking("two", &[inbound.listeners[1]], Some("kubernetes.io/h2c"));
    let outbound = world.proxy(&["one", "two"], &[]).await;
    for context in [&CONTEXT[..], &MALFORMED] {
        let extra: String = context.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        for (road, listener) in [("1 to 1", 0), ("1 to 2", 1)] {
            let seen = talk(outbound.listeners[listener], &get("/", &extra)).await;
            assert_eq!(context_of(&seen), owned(context), "{road}: {seen}");
        }
        let seen = Peer::client(outbound.listeners[1]).await.get("/", context).await.text();
        assert_eq!(context_of(&seen), owned(context), "2 to 2: {seen}");
    }
}

#[tokio::test]
async fn requests_are_told_by_method_and_status_and_size() {
    let world = World::new();
    let app = echo().await;
    let inbound = world.proxy(&[], &[app]).await;
    world.service("cart", &[inbound.listeners[0]]);
    let outbound = world.proxy(&["cart"], &[]).await;
    for request in [
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        "PROPFIND / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ] {
        assert!(talk(outbound.listeners[0], request).await.starts_with("HTTP/1.1 200"));
    }
    for (proxy, direction, service, peer) in [
        (&outbound, "outbound", "shop/cart".to_owned(), ""),
        (&inbound, "inbound", format!("port-{}", app.port()), "unknown"),
    ] {
        let labels = format!(r#"direction="{direction}",service="{service}",route="""#);
        let count = async |name: &str, more: &str| metric(proxy, &format!("{name}{{{labels}{more}}}")).await;
        for method in ["POST", "other"] {
            let more = format!(r#",method="{method}",status="200",grpc_status="",peer="{peer}",error="""#);
            assert_eq!(count("ferrule_requests_total", &more).await, 1, "{direction} {method}");
        }
        assert_eq!(count("ferrule_request_duration_seconds_count", "").await, 2, "{direction}");
        assert_eq!(count("ferrule_request_body_bytes_sum", "").await, 5, "{direction}");
        assert_eq!(count("ferrule_request_body_bytes_bucket", r#",le="64.0""#).await, 2, "{direction}");
        assert!(count("ferrule_response_body_bytes_sum", "").await > 80, "{direction}");
    }
    let refused = talk(outbound.listeners[0], "GET / HTTP/1.1\r\nHost: x\r\nno field\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    let unknown =
        r#"ferrule_requests_total{direction="outbound",method="",status="400",error="bad-request"}"#;
    assert_eq!(metric(&outbound, unknown).await, 1);
}

#[tokio::test]
async fn calls_of_grpc_are_told_by_their_own_status() {
    let endpoint = Endpoint::new(&[], |mut peer, _| async move {
        loop {
            match peer.next_ever().await {
                Frame::Headers { id, fields, .. } => {
                    let status = value(&fields, ":path").trim_start_matches('/').to_owned();
                    let grpc = ("content-type", "application/grpc");
                    if let Some(alone) = status.strip_prefix("alone/") {
                        peer.headers(id, &[(":status", "200"), grpc, ("grpc-status", alone)], true).await;
                    } else {
                        peer.headers(id, &[(":status", "200"), grpc], false).await;
                        peer.data(id, b"12345", false).await;
                        peer.headers(id, &[("grpc-status", &status)], true).await;
                    }
                }
                Frame::Closed | Frame::Aborted => return,
                _ => {}
            }
        }
    })
    .await;
    let world = World::new();
    world.service("cart", &[endpoint.address]);
    world.service("gone", &[nobody()]);
    let proxy = world.proxy(&["cart", "gone"], &[]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    for status in ["0", "5", "alone/12", "99", "alone/-1"] {
        assert_eq!(client.get(&format!("/{status}"), &[]).await.status, 200);
    }
    let grpc = [("content-type", "application/grpc")];
    let refused = Peer::client(proxy.listeners[1]).await.get("/", &grpc).await;
    assert_eq!(refused.field("grpc-status"), "14");
    for (service, status, error, count) in [
        ("cart", "0", "", 1),
        ("cart", "5", "", 1),
        ("cart", "12", "", 1),
        ("cart", "other", "", 2),
        ("gone", "14", "connect", 1),
    ] {
        let name = format!(
            r#"ferrule_requests_total{{service="shop/{service}",grpc_status="{status}",error="{error}"}}"#
        );
        eventually(&name, async || metric(&proxy, &name).await == count).await;
    }
    assert_eq!(metric(&proxy, r#"ferrule_response_body_bytes_sum{service="shop/cart"}"#).await, 15);
}

#[tokio::test]
async fn connections_are_told_by_what_their_protocol_was_told_by() {
    let (greets, silent) = (greeter(b"220 mail\r\n").await, echo().await);
    let world = World::new();
    world.service("mail", &[greets]);
    world.service("web", &[silent]);
    world.service_speaking("said", &[silent], Some("http"));
    let proxy = world.proxy(&["mail", "web", "said"], &[]).await;
    for _ in 0..3 {
        let mut client = TcpStream::connect(proxy.listeners[0]).await.expect("the proxy listens");
        let mut greeting = String::new();
        client.read_to_string(&mut greeting).await.expect("a greeting");
        assert_eq!(greeting, "220 mail\r\n");
    }
    for listener in [1, 2] {
        assert!(talk(proxy.listeners[listener], &get("/", "")).await.starts_with("HTTP/1.1 200"));
    }
    for (service, by, protocol, count) in [
        ("mail", "server-first", "tcp", 1),
        ("mail", "remembered", "tcp", 2),
        ("web", "first-bytes", "http1", 1),
        ("said", "app-protocol", "http1", 1),
    ] {
        let name = format!(
            r#"ferrule_detections_total{{direction="outbound",service="shop/{service}",by="{by}",protocol="{protocol}"}}"#
        );
        assert_eq!(metric(&proxy, &name).await, count, "{name}");
    }
    for (name, count) in [
        (r#"ferrule_tcp_connection_duration_seconds_count{service="shop/mail"}"#, 3),
        (r#"ferrule_connections_closed_total{service="shop/mail",protocol="tcp"}"#, 3),
        (r#"ferrule_tcp_bytes_total{service="shop/mail",flow="received"}"#, 30),
        (r#"ferrule_tcp_bytes_total{service="shop/mail",flow="sent"}"#, 0),
        ("ferrule_connections_open", 0),
    ] {
        eventually(name, async || metric(&proxy, name).await == count).await;
    }
}

#[tokio::test]
async fn endpoints_picks_retries_and_pools_are_told() {
    let world = World::new();
    let gone = nobody();
    world.service("cart", &[gone, echo().await]);
    let proxy = world.proxy(&["cart"], &[]).await;
    let endpoints = r#"ferrule_balancer_endpoints{service="shop/cart",port="80",state="ready"}"#;
    assert_eq!(metric(&proxy, endpoints).await, 0, "nobody has asked for it yet");
    for _ in 0..20 {
        assert!(talk(proxy.listeners[0], &get("/", "")).await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(metric(&proxy, endpoints).await, 2);
    let retries = metric(&proxy, r#"ferrule_retries_total{service="shop/cart",error="connect"}"#).await;
    assert_eq!(metric(&proxy, r#"ferrule_balancer_picks_total{service="shop/cart"}"#).await, 20 + retries);
    let pool = async |result: &str| {
        let name = format!(
            r#"ferrule_pool_connections_total{{direction="outbound",protocol="http1",result="{result}"}}"#
        );
        metric(&proxy, &name).await
    };
    assert_eq!(pool("failed").await, retries);
    assert_eq!(pool("new").await + pool("reused").await, 20);
    world.service("cart", &[gone]);
    eventually("the endpoint is gone", async || metric(&proxy, endpoints).await == 1).await;
    assert!(metric(&proxy, "ferrule_snapshots_total").await > 0);
}

#[tokio::test]
async fn connections_that_come_to_nothing_are_told() {
    let world = World::new();
    world.service_speaking("db", &[nobody()], Some("tcp"));
    world.service_speaking("none", &[], Some("tcp"));
    let proxy = world.proxy(&["db", "none"], &[]).await;
    for listener in 0..2 {
        touch(proxy.listeners[listener]).await;
    }
    for (service, error) in [("db", "connect"), ("none", "no-endpoints")] {
        let name = format!(
            r#"ferrule_connections_failed_total{{direction="outbound",service="shop/{service}",error="{error}"}}"#
        );
        eventually(&name, async || metric(&proxy, &name).await == 1).await;
    }
}

#[tokio::test]
async fn each_scraper_is_given_the_format_that_it_asks_for() {
    let proxy = World::new().proxy(&[], &[]).await;
    let ask = async |proxy: &App, accept: &str| talk(proxy.admin, &get("/metrics", accept)).await;
    let text = ask(&proxy, "").await;
    assert!(
        text.contains("text/plain; version=0.0.4")
            && text.contains("# TYPE ferrule_requests_total counter\n")
    );
    let open =
        ask(&proxy, "Accept: application/openmetrics-text;version=1.0.0;q=0.7, text/plain;q=0.1\r\n").await;
    assert!(open.contains("application/openmetrics-text") && open.ends_with("# EOF\n"), "{open}");
    let protobuf = "Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited\r\n";
    let protobuf = ask(&proxy, protobuf).await;
    assert!(protobuf.contains("content-type: application/vnd.google.protobuf;"), "{protobuf}");
    assert!(protobuf.contains("ferrule_build_info") && !protobuf.contains("# TYPE"));
    assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
}

/// The real program with its standard output.
struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
    listeners: Vec<SocketAddr>,
    _world: World,
}

impl Program {
    /// For the Services `cart` and `db`.
    async fn start(world: World, shape: &str, filter: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ferrule-proxy"))
            .env("FERRULE_DISCOVERY", format!("dir:{}", world.path().display()))
            .env("FERRULE_REDIRECTED", "false")
            .env("FERRULE_OUTBOUND_LISTENERS", "127.0.0.1:0=shop/cart:80,127.0.0.1:0=shop/db:80")
            .env("FERRULE_ADMIN", "127.0.0.1:0")
            .env("FERRULE_WORKERS", "1")
            .env("FERRULE_DRAIN_SECONDS", "0")
            .env("FERRULE_ACCESS_LOG", shape)
            .env("FERRULE_ACCESS_LOG_FILTER", filter)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = reader(child.stdout.take().expect("piped"));
        let log = reader(child.stderr.take().expect("piped"));
        let listeners = loop {
            let line = log.recv_timeout(PATIENCE).expect("it says where it listens");
            if let Some((_, listeners)) = line.split_once("listeners=[") {
                let listeners = listeners.split(']').next().unwrap_or_default();
                break listeners.split(", ").map(|address| address.parse().expect("an address")).collect();
            }
        };
        Self { child, lines, listeners, _world: world }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }

    fn json(&self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    fn end(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().expect("kill").success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reader(from: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

async fn shop(cart: &[SocketAddr], db: SocketAddr) -> World {
    let world = World::new();
    world.service_speaking("cart", cart, Some("http"));
    world.service_speaking("db", &[db], Some("tcp"));
    world
}

#[tokio::test]
async fn each_request_and_each_connection_has_a_line() {
    let (app, greets) = (echo().await, greeter(b"hello").await);
    let program = Program::start(shop(&[app], greets).await, "json", "all").await;
    let context = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nX-Request-Id: a\"b\u{9b}31m\u{202e}c\r\n";
    let request = get("/basket/7?token=secret", context);
    let mut client = TcpStream::connect(program.listeners[0]).await.expect("the proxy listens");
    client.write_all(request.as_bytes()).await.expect("sent");
    let peer = client.local_addr().expect("connected").to_string();
    let head = read_head(&mut client).await.expect("a response");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let raw = program.line();
    assert!(raw.chars().all(|char| !char.is_control() && char != '\u{202e}'), "{raw}");
    let line: Value = serde_json::from_str(&raw).expect("JSON");
    for (name, expected) in [
        ("direction", "outbound"),
        ("service", "shop/cart"),
        ("protocol", "HTTP/1.1"),
        ("method", "GET"),
        ("host", "x"),
        ("path", "/basket/7"),
        ("peer", &peer),
        ("endpoint", &app.to_string()),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("request_id", "a\"b\u{9b}31m\u{202e}c"),
    ] {
        assert_eq!(line[name], expected, "{line}");
    }
    assert_eq!((&line["status"], &line["attempts"]), (&200.into(), &1.into()));
    let (first, all) = (line["first_byte_ms"].as_f64(), line["duration_ms"].as_f64());
    assert!(first > Some(0.0) && first <= all, "{line}");
    assert!(line["response_bytes"].as_u64() > Some(20) && line["error"].is_null(), "{line}");
    assert!(!line.to_string().contains("secret"));

    let answer = Peer::client(program.listeners[0]).await.get("/two?x", &[("x-request-id", "7")]).await;
    assert_eq!(answer.status, 200);
    let line = program.json();
    assert_eq!(
        (&line["protocol"], &line["path"], &line["request_id"]),
        (&"HTTP/2".into(), &"/two".into(), &"7".into()),
        "{line}"
    );

    let mut client = TcpStream::connect(program.listeners[1]).await.expect("the proxy listens");
    client.write_all(b"abc").await.expect("sent");
    client.shutdown().await.expect("ended");
    let mut greeting = Vec::new();
    // It may be reset, for the server does not read what was sent.
    let _ = client.read_to_end(&mut greeting).await;
    let line = program.json();
    assert_eq!((&line["protocol"], &line["service"]), (&"TCP".into(), &"shop/db".into()), "{line}");
    assert_eq!(
        (&line["endpoint"], &line["response_bytes"]),
        (&greets.to_string().into(), &5.into()),
        "{line}"
    );
    assert!(line["status"].is_null() && line["method"].is_null());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn no_core_dump_of_the_program_can_hold_its_key() {
    let world = shop(&[echo().await], greeter(b"hello").await).await;
    let program = Program::start(world, "off", "all").await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.child.id())).expect("it runs");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().skip(4).collect::<Vec<_>>(), ["0", "0", "bytes"]);
}

#[tokio::test]
async fn only_what_failed_has_a_line_if_that_is_wanted() {
    let app = server(|head| {
        if head.contains("/bad") { "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n".into() } else { ok("") }
    });
    let program = Program::start(shop(&[app.await], nobody()).await, "text", "errors").await;
    for path in ["/good", "/bad", "/good"] {
        talk(program.listeners[0], &get(path, "")).await;
    }
    touch(program.listeners[1]).await;
    let line = program.line();
    assert!(line.contains(" path=/bad status=500 ") && line.contains(" service=shop/cart "), "{line}");
    let line = program.line();
    assert!(line.contains(" service=shop/db protocol=TCP error=connect "), "{line}");
}

#[tokio::test]
async fn the_last_lines_are_written_before_the_end() {
    let program = Program::start(shop(&[echo().await], nobody()).await, "text", "all").await;
    let mut client = TcpStream::connect(program.listeners[0]).await.expect("the proxy listens");
    for number in 0..50 {
        client
            .write_all(format!("GET /{number} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .await
            .expect("sent");
        let head = read_head(&mut client).await.expect("a response");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
        let mut body = vec![0; length.expect("a length")];
        client.read_exact(&mut body).await.expect("a body");
    }
    program.end();
    for number in 0..50 {
        assert!(program.line().contains(&format!(" path=/{number} ")));
    }
    assert!(program.lines.recv_timeout(Duration::from_secs(30)).is_err(), "the program has ended");
}
