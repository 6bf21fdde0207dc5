//! What lasts: long transfers, many idle connections, slow peers; and that the proxies' memory stays flat meanwhile.
//!
//! The proxies are processes of their own, so their memory is theirs alone. By default short and small; with
//! `FERRULE_ENDURANCE=full`, as `make endurance` has it, at full length. Either way the figures are printed.

#![cfg(target_os = "linux")]

mod http2_harness;
mod support;

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use http2_harness::{Endpoint, Frame, Peer, value};
use support::World;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// Bytes of a test's reads and writes.
const PIECE: usize = 64 * 1024;
/// What a proxy may take in all, whatever it carries. A build without optimization is larger by itself.
const MOST_RSS: u64 = if cfg!(debug_assertions) { 40 * MIB } else { 24 * MIB };
/// What an idle connection may take.
const MOST_PER_CONNECTION: u64 = 8 * KIB;
/// What browsers and libraries send with each request: header tables remember it.
const USUAL_FIELDS: [(&str, &str); 8] = [
    ("accept", "application/json, text/plain, */*"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-language", "en-GB,en;q=0.9"),
    ("content-type", "application/json"),
    ("user-agent", "cart-frontend/1.27.3 (linux; x86_64)"),
    ("x-forwarded-for", "10.0.12.113"),
    ("x-request-source", "checkout"),
    ("x-tenant", "shop-of-the-north"),
];

fn full() -> bool {
    std::env::var("FERRULE_ENDURANCE").is_ok_and(|value| value == "full")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

/// A proxy's process, ended when this is dropped.
struct Proxy {
    child: Child,
    listener: SocketAddr,
}

impl Proxy {
    fn start(world: &World, variable: &str, listener: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ferrule-proxy"))
            .env("FERRULE_DISCOVERY", format!("dir:{}", world.path().display()))
            .env("FERRULE_REDIRECTED", "false")
            .env("FERRULE_ADMIN", "127.0.0.1:0")
            .env("FERRULE_WORKERS", "1")
            .env(variable, listener)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the proxy's binary");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        let listener = loop {
            line.clear();
            assert!(log.read_line(&mut line).expect("a log") > 0, "the proxy ended before it was ready");
            if let Some((_, rest)) = line.split_once("listeners=[") {
                let address = rest.split([']', ',']).next().expect("one at least");
                break address.parse().expect("an address");
            }
        };
        std::thread::spawn(move || log.lines().for_each(drop));
        Self { child, listener }
    }

    fn inbound(world: &World, application: SocketAddr) -> Self {
        Self::start(world, "FERRULE_INBOUND_LISTENERS", &format!("127.0.0.1:0={application}"))
    }

    fn outbound(world: &World) -> Self {
        Self::start(world, "FERRULE_OUTBOUND_LISTENERS", "127.0.0.1:0=shop/cart:80")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("a number of kB");
        kib.trim().parse::<u64>().expect("a number") * KIB
    }

    /// Memory now.
    fn rss(&self) -> u64 {
        self.status("VmRSS")
    }

    /// The most memory that it ever had.
    fn peak(&self) -> u64 {
        self.status("VmHWM")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Outbound and inbound proxy, one behind the other.
struct Road {
    outbound: Proxy,
    inbound: Proxy,
    /// Without it there are no endpoints.
    _world: World,
}

impl Road {
    fn to(application: SocketAddr) -> Self {
        let world = World::new();
        let inbound = Proxy::inbound(&world, application);
        world.service("cart", &[inbound.listener]);
        let outbound = Proxy::outbound(&world);
        Self { outbound, inbound, _world: world }
    }

    fn rss(&self) -> [u64; 2] {
        [self.outbound.rss(), self.inbound.rss()]
    }

    fn peak(&self) -> [u64; 2] {
        [self.outbound.peak(), self.inbound.peak()]
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

fn mibs([outbound, inbound]: [u64; 2]) -> String {
    format!("outbound {:.1} MiB, inbound {:.1} MiB", mib(outbound), mib(inbound))
}

// The two versions, from either end.

/// What the windows of the other side allow to send on one stream.
struct Windows {
    stream: i64,
    connection: i64,
}

impl Windows {
    fn note(&mut self, frame: &Frame, id: u32) {
        match frame {
            Frame::WindowUpdate { id: 0, increment } => self.connection += i64::from(*increment),
            Frame::WindowUpdate { id: of, increment } if *of == id => self.stream += i64::from(*increment),
            _ => {}
        }
    }
}

/// The proxies grant a stream 256 KiB at first.
const STREAM_WINDOW: i64 = 256 * 1024;

/// Sends content as fast as it is taken. `connection`: what WINDOW_UPDATE has granted it so far.
async fn pump(peer: &mut Peer, id: u32, size: u64, connection: i64) {
    let mut windows = Windows { stream: STREAM_WINDOW, connection };
    let content = vec![7; 16 * 1024];
    let mut left = size;
    while left > 0 {
        let allowed = windows.stream.min(windows.connection).max(0) as u64;
        let count = allowed.min(left).min(content.len() as u64);
        if count == 0 {
            let frame = peer.wait_any().await;
            if matches!(frame, Frame::Closed | Frame::Aborted | Frame::Reset { .. }) {
                return;
            }
            windows.note(&frame, id);
            continue;
        }
        left -= count;
        if !peer.data(id, &content[..count as usize], left == 0).await {
            return;
        }
        windows.stream -= count as i64;
        windows.connection -= count as i64;
    }
}

/// An application that takes uploads, slowly when asked to, and gives downloads. `moved`: bytes that it has taken.
async fn application(version: Version, moved: Arc<AtomicU64>) -> SocketAddr {
    match version {
        Version::Http1 => {
            Endpoint::raw(move |stream, _| {
                let moved = Arc::clone(&moved);
                async move { drop(serve_http1(stream, &moved).await) }
            })
            .await
            .address
        }
        Version::Http2 => {
            let endpoint = Endpoint::new(&[], move |peer, _| {
                let moved = Arc::clone(&moved);
                async move { serve_http2(peer, &moved).await }
            });
            endpoint.await.address
        }
    }
}

/// `/down/SIZE` is answered with so much; a request with content when all of it has come; `/slow` is read slowly.
async fn serve_http1(mut stream: TcpStream, moved: &AtomicU64) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head).expect("text");
        let path = head.split(' ').nth(1).expect("a request line").to_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
        let mut left: u64 = length.unwrap_or(0);
        while left > 0 {
            let slow = path == "/slow";
            let most = if slow { 4096 } else { PIECE };
            let count = stream.read(&mut piece[..most]).await?;
            if count == 0 {
                return Ok(());
            }
            left -= count as u64;
            moved.fetch_add(count as u64, SeqCst);
            if slow {
                sleep(Duration::from_millis(10)).await;
            }
        }
        let size: u64 = path.strip_prefix("/down/").map_or(0, |size| size.parse().expect("a size"));
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes()).await?;
        let mut left = size;
        while left > 0 {
            let count = left.min(PIECE as u64);
            stream.write_all(&piece[..count as usize]).await?;
            left -= count;
        }
    }
}

async fn serve_http2(mut peer: Peer, moved: &AtomicU64) {
    peer.gives_back = false;
    let mut connection = 65_535;
    let mut slow = false;
    loop {
        let frame = peer.wait_any().await;
        if let Frame::WindowUpdate { id: 0, increment } = frame {
            connection += i64::from(increment);
        }
        let done = match frame {
            Frame::Headers { id, fields, end } => {
                let path = value(&fields, ":path");
                slow = path == "/slow";
                if let Some(size) = path.strip_prefix("/down/") {
                    peer.headers(id, &[(":status", "200")], false).await;
                    pump(&mut peer, id, size.parse().expect("a size"), connection).await;
                    connection = 0;
                    continue;
                }
                end.then_some(id)
            }
            Frame::Data { id, content, end } => {
                if slow {
                    sleep(Duration::from_millis(10)).await;
                }
                moved.fetch_add(content.len() as u64, SeqCst);
                if !content.is_empty() {
                    peer.window(0, content.len() as u32).await;
                    peer.window(id, content.len() as u32).await;
                }
                end.then_some(id)
            }
            Frame::Closed | Frame::Aborted => return,
            _ => None,
        };
        if let Some(id) = done {
            let usual = [(":status", "200"), ("server", "cart/2.1"), ("content-type", "application/json")];
            peer.headers(id, &[&usual[..], &[("vary", "accept-encoding, x-tenant")]].concat(), true).await;
        }
    }
}

async fn upload(version: Version, proxy: SocketAddr, path: &str, size: u64) {
    match version {
        Version::Http1 => {
            let mut stream = TcpStream::connect(proxy).await.expect("the proxy listens");
            let head = format!("POST {path} HTTP/1.1\r\nHost: cart\r\nContent-Length: {size}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("sent");
            let piece = vec![7; PIECE];
            let mut left = size;
            while left > 0 {
                let count = left.min(PIECE as u64);
                stream.write_all(&piece[..count as usize]).await.expect("taken");
                left -= count;
            }
            let mut answer = [0; 15];
            stream.read_exact(&mut answer).await.expect("a response");
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
        }
        Version::Http2 => {
            let mut peer = Peer::client(proxy).await;
            let id = peer.request("POST", path, &[], false).await;
            pump(&mut peer, id, size, 65_535).await;
            assert_eq!(peer.response(id).await.status, 200);
        }
    }
}

/// Reads a download; `pause` after every few KiB. `moved`: bytes that came.
async fn download(version: Version, proxy: SocketAddr, size: u64, pause: Duration, moved: &AtomicU64) {
    let path = format!("/down/{size}");
    let mut seen = 0;
    match version {
        Version::Http1 => {
            let mut stream = TcpStream::connect(proxy).await.expect("the proxy listens");
            let head = format!("GET {path} HTTP/1.1\r\nHost: cart\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("sent");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("a head"));
            }
            assert!(head.starts_with(b"HTTP/1.1 200 OK"), "{}", head.escape_ascii());
            let mut piece = vec![0; if pause.is_zero() { PIECE } else { 4096 }];
            while seen < size {
                let count = stream.read(&mut piece).await.expect("content");
                assert!(count > 0, "it broke off after {seen} bytes");
                seen += count as u64;
                moved.fetch_add(count as u64, SeqCst);
                if !pause.is_zero() {
                    sleep(pause).await;
                }
            }
        }
        Version::Http2 => {
            let mut peer = Peer::client(proxy).await;
            let id = peer.request("GET", &path, &[], true).await;
            while seen < size {
                match peer.next().await {
                    Frame::Headers { fields, .. } => assert_eq!(value(&fields, ":status"), "200"),
                    Frame::Data { id: of, content, .. } => {
                        assert_eq!(of, id);
                        seen += content.len() as u64;
                        moved.fetch_add(content.len() as u64, SeqCst);
                        if !pause.is_zero() {
                            sleep(pause).await;
                        }
                    }
                    other => panic!("{other:?} after {seen} bytes"),
                }
            }
        }
    }
    assert_eq!(seen, size);
}

async fn transfers(version: Version) {
    let size = if full() { 1024 * MIB } else { 128 * MIB };
    for upwards in [true, false] {
        let road = Road::to(application(version, Arc::default()).await);
        let idle = road.rss();
        let begun = Instant::now();
        if upwards {
            upload(version, road.outbound.listener, "/", size).await;
        } else {
            download(version, road.outbound.listener, size, Duration::ZERO, &AtomicU64::new(0)).await;
        }
        let took = begun.elapsed();
        let peak = road.peak();
        println!(
            "{version:?} {} of {:.0} MiB through two proxies in {:.1} s; before: {}; at most: {}",
            if upwards { "upload" } else { "download" },
            mib(size),
            took.as_secs_f64(),
            mibs(idle),
            mibs(peak),
        );
        assert!(peak.iter().all(|peak| *peak < MOST_RSS), "{}", mibs(peak));
        let grown = peak[0].saturating_sub(idle[0]).max(peak[1].saturating_sub(idle[1]));
        assert!(grown < 8 * MIB, "a transfer takes {:.1} MiB", mib(grown));
    }
}

#[tokio::test]
async fn a_long_transfer_over_http1_leaves_memory_flat() {
    transfers(Version::Http1).await;
}

#[tokio::test]
async fn a_long_transfer_over_http2_leaves_memory_flat() {
    transfers(Version::Http2).await;
}

/// Connections that have carried a request and then idle.
async fn idle_connections(version: Version) {
    let count = if full() { 10_000 } else { 1_000 };
    let application = application(version, Arc::default()).await;
    let world = World::new();
    world.service("cart", &[application]);
    let proxy = Proxy::outbound(&world);
    // What one use allocates for good is no connection's.
    idle_connection(version, proxy.listener).await;
    sleep(Duration::from_millis(100)).await;
    let before = proxy.rss();
    let mut most = Vec::new();
    for burst in 1..=2 {
        let mut open = Vec::new();
        for _ in 0..count {
            open.push(idle_connection(version, proxy.listener).await);
        }
        // Memory goes back to the system after a burst that the proxy has seen: it looks every other second.
        sleep(Duration::from_millis(2500)).await;
        let during = proxy.rss();
        drop(open);
        let mut after = proxy.rss();
        let deadline = Instant::now() + Duration::from_secs(12);
        while after > before + before / 5 && Instant::now() < deadline {
            sleep(Duration::from_millis(200)).await;
            after = proxy.rss();
        }
        let each = during.saturating_sub(before) / count;
        println!(
            "{version:?} {count} idle connections, burst {burst}: {:.1} MiB before, {:.1} MiB with them, {:.2} KiB \
             each, {:.1} MiB after",
            mib(before),
            mib(during),
            each as f64 / KIB as f64,
            mib(after),
        );
        assert!(each <= MOST_PER_CONNECTION, "an idle connection takes {each} bytes");
        assert!(after <= before + before / 5, "{:.1} MiB are left of {:.1} MiB", mib(after), mib(before));
        most.push(during);
    }
    assert!(most[1] <= most[0] + most[0] / 10, "the second burst takes more than the first");
}

async fn idle_connection(version: Version, proxy: SocketAddr) -> TcpStream {
    match version {
        Version::Http1 => {
            let mut stream = TcpStream::connect(proxy).await.expect("the proxy listens");
            stream.write_all(b"GET / HTTP/1.1\r\nHost: cart\r\n\r\n").await.expect("sent");
            let mut answer = [0; 38];
            stream.read_exact(&mut answer).await.expect("a response");
            assert!(answer.ends_with(b"Content-Length: 0\r\n\r\n"), "{}", answer.escape_ascii());
            stream
        }
        Version::Http2 => {
            let mut peer = Peer::client(proxy).await;
            for _ in 0..3 {
                assert_eq!(peer.get("/", &USUAL_FIELDS).await.status, 200);
            }
            peer.stream
        }
    }
}

#[tokio::test]
async fn idle_connections_over_http1_cost_little_and_leave_nothing() {
    idle_connections(Version::Http1).await;
}

#[tokio::test]
async fn idle_connections_over_http2_cost_little_and_leave_nothing() {
    idle_connections(Version::Http2).await;
}

/// A reader that is slower than what writes to it: the proxies keep what the windows and sockets allow, and no more.
async fn slow(version: Version) {
    let length = Duration::from_secs(if full() { 60 } else { 5 });
    let endless = 64 * 1024 * MIB;
    for upwards in [true, false] {
        let moved = Arc::new(AtomicU64::new(0));
        let road = Road::to(application(version, Arc::clone(&moved)).await);
        let idle = road.rss();
        let address = road.outbound.listener;
        let counted = Arc::clone(&moved);
        let mut transfer = tokio::spawn(async move {
            if upwards {
                upload(version, address, "/slow", endless).await;
            } else {
                download(version, address, endless, Duration::from_millis(10), &counted).await;
            }
        });
        sleep(length / 3).await;
        let (filled, early) = (road.rss(), moved.load(SeqCst));
        let rest = timeout(length - length / 3, &mut transfer).await;
        assert!(rest.is_err(), "the transfer ended: {rest:?}");
        transfer.abort();
        let (end, late) = (road.rss(), moved.load(SeqCst));
        println!(
            "{version:?} slow {} for {} s: {:.1} MiB moved; before: {}; after a third: {}; at the end: {}",
            if upwards { "endpoint" } else { "client" },
            length.as_secs(),
            mib(late),
            mibs(idle),
            mibs(filled),
            mibs(end),
        );
        assert!(late > early, "it went on");
        let grown = end[0].saturating_sub(filled[0]).max(end[1].saturating_sub(filled[1]));
        assert!(grown < MIB, "memory grew by {grown} bytes while nothing was to be kept");
        assert!(end.iter().all(|rss| *rss < MOST_RSS), "{}", mibs(end));
    }
}

#[tokio::test]
async fn a_slow_peer_over_http1_is_waited_for_without_memory() {
    slow(Version::Http1).await;
}

#[tokio::test]
async fn a_slow_peer_over_http2_is_waited_for_without_memory() {
    slow(Version::Http2).await;
}
