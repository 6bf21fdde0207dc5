//! Connections that carry no requests, through an outbound and an inbound sidecar: bytes, ends and failures arrive as
//! without them.

mod support;

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use ferrule_proxy::app::App;
use support::{World, eventually, read_all, talk};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const MIB: usize = 1024 * 1024;

/// An application that is given each of its connections.
async fn app<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Two sidecars before an application.
struct Road {
    world: World,
    inbound: App,
    outbound: App,
}

impl Road {
    async fn to(application: SocketAddr, variables: &[(&str, &str)]) -> Self {
        let world = World::new();
        let inbound = world.proxy_with(&[], &[application], variables).await;
        world.service("db", &[inbound.listeners[0]]);
        let outbound = world.proxy_with(&["db"], &[], variables).await;
        Self { world, inbound, outbound }
    }

    /// A connection whose client has spoken first, in no protocol that is known.
    async fn connect(&self) -> TcpStream {
        let mut stream = self.silent().await;
        stream.write_all(b"?").await.expect("sent");
        stream
    }

    async fn silent(&self) -> TcpStream {
        TcpStream::connect(self.outbound.listeners[0]).await.expect("the proxy listens")
    }
}

/// A value of a proxy's metrics.
async fn metric(proxy: &App, name: &str) -> u64 {
    let text = talk(proxy.admin, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    support::counted(&text, name)
}

/// The bytes from `at` on of a sequence that repeats only after a long time, so that a piece that is lost, doubled or
/// out of place is noticed.
fn piece(at: usize, length: usize) -> Vec<u8> {
    (at..at + length).map(|n| ((n / 4).wrapping_mul(0x9e37_79b1) >> (8 * (n % 4))) as u8).collect()
}

async fn send(stream: &mut (impl AsyncWriteExt + Unpin), length: usize) {
    for at in (0..length).step_by(MIB) {
        stream.write_all(&piece(at, MIB.min(length - at))).await.expect("sent");
    }
}

async fn expect(stream: &mut (impl AsyncReadExt + Unpin), length: usize) {
    let mut seen = vec![0; MIB];
    for at in (0..length).step_by(MIB) {
        let part = MIB.min(length - at);
        stream.read_exact(&mut seen[..part]).await.expect("received");
        assert!(seen[..part] == piece(at, part), "other bytes after {at}");
    }
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("open");
}

async fn first_byte(stream: &mut TcpStream) {
    assert_eq!(stream.read_u8().await.expect("the first byte"), b'?');
}

#[tokio::test]
async fn long_transfers_in_both_directions_at_once_arrive_intact() {
    const LENGTH: usize = 48 * MIB + 7;
    let application = app(async |mut stream| {
        first_byte(&mut stream).await;
        let (mut read, mut write) = stream.split();
        tokio::join!(expect(&mut read, LENGTH), async {
            send(&mut write, LENGTH).await;
            write.shutdown().await.expect("ended");
        });
    })
    .await;
    let road = Road::to(application, &[]).await;
    let mut stream = road.connect().await;
    let (mut read, mut write) = stream.split();
    tokio::join!(send(&mut write, LENGTH), expect(&mut read, LENGTH));
    write.shutdown().await.expect("ended");
    assert_eq!(read.read(&mut [0]).await.expect("a regular end"), 0);
    for (proxy, direction) in [(&road.outbound, "outbound"), (&road.inbound, "inbound")] {
        for (flow, bytes) in [("sent", LENGTH + 1), ("received", LENGTH)] {
            let name = format!("ferrule_tcp_bytes_total{{direction=\"{direction}\",flow=\"{flow}\"}}");
            assert_eq!(metric(proxy, &name).await, bytes as u64, "{name}");
        }
    }
}

#[tokio::test]
async fn talk_between_transfers_and_transfers_between_talk_keep_their_order() {
    let application = app(async |mut stream| {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let road = Road::to(application, &[]).await;
    let mut stream = road.connect().await;
    first_byte(&mut stream).await;
    let (mut read, mut write) = stream.split();
    for _ in 0..3 {
        tokio::join!(send(&mut write, 4 * MIB + 11), expect(&mut read, 4 * MIB + 11));
        for _ in 0..40 {
            send(&mut write, 13).await;
            expect(&mut read, 13).await;
        }
    }
}

#[tokio::test]
async fn either_side_may_end_first_and_still_receive() {
    let application = app(async |mut stream| {
        let mut seen = Vec::new();
        stream.read_to_end(&mut seen).await.expect("a regular end");
        stream.write_all(&seen).await.expect("sent");
    })
    .await;
    let mut stream = Road::to(application, &[]).await.connect().await;
    stream.write_all(b"to the end").await.expect("sent");
    stream.shutdown().await.expect("half closed");
    assert_eq!(read_all(&mut stream).await, "?to the end");

    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let application = app(move |mut stream| {
        let heard = heard.clone();
        async move {
            stream.write_all(b"bye").await.expect("sent");
            stream.shutdown().await.expect("half closed");
            let mut seen = String::new();
            stream.read_to_string(&mut seen).await.expect("a regular end");
            heard.send(seen).expect("the test waits");
        }
    })
    .await;
    let mut stream = Road::to(application, &[]).await.connect().await;
    let mut seen = String::new();
    stream.read_to_string(&mut seen).await.expect("a regular end");
    assert_eq!(seen, "bye");
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.write_all(b"still here").await.expect("sent");
    stream.shutdown().await.expect("closed");
    assert_eq!(hears.recv().await.as_deref(), Some("?still here"));
}

#[tokio::test]
async fn bytes_are_counted_while_the_connection_lasts() {
    let application = app(async |mut stream| {
        stream.write_all(b"four").await.expect("sent");
        std::future::pending::<()>().await;
    })
    .await;
    let road = Road::to(application, &[]).await;
    let mut stream = road.connect().await;
    stream.read_exact(&mut [0; 4]).await.expect("received");
    eventually("both directions counted", async || {
        let name = |flow| format!("ferrule_tcp_bytes_total{{direction=\"outbound\",flow=\"{flow}\"}}");
        (metric(&road.outbound, &name("sent")).await, metric(&road.outbound, &name("received")).await)
            == (1, 4)
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_dies_resets_the_client_after_what_it_had_sent() {
    for length in [5, 3 * MIB] {
        let application = app(move |mut stream| async move {
            first_byte(&mut stream).await;
            send(&mut stream, length).await;
            // Until it is read: a reset drops what is still to be sent.
            assert_eq!(stream.read_u8().await.expect("the client has it"), b'!');
            reset(stream);
        })
        .await;
        let mut stream = Road::to(application, &[]).await.connect().await;
        expect(&mut stream, length).await;
        stream.write_all(b"!").await.expect("sent");
        let error = stream.read(&mut [0]).await.expect_err("no regular end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_client_that_dies_resets_the_endpoint_even_if_it_had_ended_its_side() {
    for half_closed in [false, true] {
        let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
        let application = app(move |mut stream| {
            let heard = heard.clone();
            async move {
                first_byte(&mut stream).await;
                heard.send(None).expect("the test waits");
                let ended = stream.read(&mut [0]).await;
                let result = match ended {
                    // It says nothing, so only the reset itself can tell it.
                    Ok(0) => stream.ready(tokio::io::Interest::ERROR).await.map(|_| ()),
                    other => other.map(|_| ()),
                };
                let error = result.err().or(stream.take_error().expect("open"));
                heard.send(error.map(|error| error.kind())).expect("the test waits");
            }
        })
        .await;
        let mut stream = Road::to(application, &[]).await.connect().await;
        assert_eq!(hears.recv().await, Some(None));
        if half_closed {
            stream.shutdown().await.expect("half closed");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        reset(stream);
        let seen = tokio::time::timeout(Duration::from_secs(5), hears.recv()).await.expect("a reset");
        // Linux tells a reset after the other side's end so.
        let expected = if half_closed { ErrorKind::BrokenPipe } else { ErrorKind::ConnectionReset };
        assert_eq!(seen, Some(Some(expected)), "half closed: {half_closed}");
    }
}

#[tokio::test]
async fn an_answer_before_a_reset_reaches_a_client_that_is_still_sending() {
    let application = app(async |mut stream| {
        first_byte(&mut stream).await;
        stream.write_all(b"no more, please").await.expect("sent");
        // Closed with bytes that were not read: a reset. They fill all buffers on the way.
        tokio::time::sleep(Duration::from_millis(500)).await;
    })
    .await;
    let mut stream = Road::to(application, &[]).await.connect().await;
    let (mut read, mut write) = stream.split();
    let sending = async {
        let content = vec![0; MIB];
        while write.write_all(&content).await.is_ok() {}
    };
    let reading = async {
        let mut answer = [0; 15];
        read.read_exact(&mut answer).await.expect("the answer");
        assert_eq!(&answer, b"no more, please");
    };
    tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(sending, reading) })
        .await
        .expect("the reset reaches the sender too");
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
}

#[tokio::test]
async fn readers_that_stop_hold_up_their_own_senders_and_nothing_else() {
    const LENGTH: usize = 96 * MIB;
    // More than there are pipes.
    const READERS: usize = 24;
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let content = Arc::new(piece(0, MIB));
    let application = app(move |mut stream| {
        let (counter, content) = (Arc::clone(&counter), Arc::clone(&content));
        async move {
            first_byte(&mut stream).await;
            for _ in 0..LENGTH / MIB {
                if stream.write_all(&content).await.is_err() {
                    return;
                }
                counter.fetch_add(MIB as u64, Relaxed);
            }
        }
    })
    .await;
    let road = Road::to(application, &[]).await;
    let before = resident();
    let mut stopped = Vec::new();
    for _ in 0..READERS {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(64 * 1024).expect("a small buffer");
        let mut stream = socket.connect(road.outbound.listeners[0]).await.expect("the proxy listens");
        stream.write_all(b"?").await.expect("sent");
        stopped.push(stream);
    }
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let now = sent.load(Relaxed);
        if std::mem::replace(&mut last, now) == now && now > 0 {
            break;
        }
    }
    assert!((last as usize) < READERS * LENGTH / 2, "{last} bytes were taken without a reader");
    let grown = resident().saturating_sub(before) / MIB;
    assert!(grown < 24, "the process has grown by {grown} MiB");

    // Another one is served meanwhile, and one that goes on misses nothing.
    for mut stream in [road.connect().await, stopped.pop().expect("some")] {
        let content = piece(0, MIB);
        let mut seen = vec![0; MIB];
        for _ in 0..LENGTH / MIB {
            stream.read_exact(&mut seen).await.expect("received");
            assert!(seen == content, "other bytes");
        }
        assert_eq!(stream.read(&mut seen).await.expect("a regular end"), 0);
    }
}

#[tokio::test]
async fn a_connection_that_no_endpoint_takes_is_reset() {
    let road = Road::to("127.0.0.1:1".parse().expect("an address"), &[]).await;
    for endpoints in [&[road.inbound.listeners[0]][..], &[]] {
        road.world.service("db", endpoints);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut stream = road.connect().await;
        let error = stream.read(&mut [0]).await.expect_err("no regular end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_is_waited_for_once_on_the_whole_road() {
    const DETECT: Duration = Duration::from_secs(1);
    let application = app(async |mut stream| {
        stream.write_all(b"220 ready\r\n").await.expect("sent");
        std::future::pending::<()>().await;
    })
    .await;
    let road = Road::to(application, &[("FERRULE_LIMIT_DETECT", "1s")]).await;
    for (connection, most) in [(1, DETECT * 19 / 10), (2, DETECT / 2)] {
        let begun = Instant::now();
        road.silent().await.read_exact(&mut [0; 11]).await.expect("a greeting");
        assert!(begun.elapsed() < most, "connection {connection}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn the_first_request_to_an_application_that_is_not_there_is_answered_in_http() {
    let world = World::new();
    let inbound = world.proxy(&[], &["127.0.0.1:1".parse().expect("an address")]).await;
    let answer = talk(inbound.listeners[0], "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("ferrule-error: app-connect"), "{answer}");
}

/// As without a mesh: the kernel asks such an application again, first after a second.
#[tokio::test]
async fn an_application_with_more_clients_waiting_than_it_holds_is_waited_for() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().expect("an address").into()).expect("a free port");
    socket.listen(1).expect("listens");
    socket.set_nonblocking(true).expect("a socket");
    let listener = TcpListener::from_std(socket.into()).expect("listens");
    let application = listener.local_addr().expect("bound");
    let mut waiting = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(application)).await
    {
        waiting.push(connected.expect("queued"));
    }
    let road = Road::to(application, &[]).await;
    let mut stream = road.connect().await;
    // The sidecar has to have asked while nobody accepts, and to be told nothing.
    tokio::time::sleep(Duration::from_millis(500)).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    assert_eq!(stream.read_u8().await.expect("an answer"), b'?');
}
