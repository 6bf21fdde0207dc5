//! Two sidecars with identities, and mutual TLS between them.

mod http2_harness;
mod mtls_harness;
mod support;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use ferrule_config::{FORMAT, Mesh, Modes, Selector, TlsMode, WorkloadTls};
use http2_harness::{Frame, Peer};
use mtls_harness::{Lab, Sidecar, id, metrics, peers};
use support::{
    SWITCHED, World, counted, echoed, eventually, get, ok, read_all, read_head, server, serving, talk,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const STRICT: Modes = Modes {
    mode: TlsMode::Strict,
    ports: std::collections::BTreeMap::new(),
    min_version: ferrule_config::MinVersion::V1_3,
};

/// A client's sidecar, a server's, and what was said between them.
struct Pair {
    outbound: Sidecar,
    inbound: Sidecar,
    wire: Arc<Mutex<Vec<u8>>>,
    world: World,
    _lab: Lab,
}

impl Pair {
    async fn new(application: SocketAddr) -> Self {
        Self::speaking(application, None).await
    }

    async fn speaking(application: SocketAddr, protocol: Option<&str>) -> Self {
        let (lab, world) = (Lab::new().await, World::new());
        let inbound =
            lab.sidecar("cart", &world, &[], &[application], &[("FERRULE_MESH_TLS", "strict")]).await;
        let (tap, wire) = tap(inbound.app.listeners[0]).await;
        world.service_speaking("cart", &[tap], protocol);
        world.configure("cart", peers(&["cart"], STRICT));
        let outbound = lab.sidecar("web", &world, &["cart"], &[], &[]).await;
        Self { outbound, inbound, wire, world, _lab: lab }
    }

    fn listener(&self) -> SocketAddr {
        self.outbound.app.listeners[0]
    }

    /// Whether this was to be read on the wire.
    fn leaked(&self, marker: &[u8]) -> bool {
        let wire = self.wire.lock().expect("sound");
        assert!(!wire.is_empty(), "nothing was said");
        wire.windows(marker.len()).any(|bytes| bytes == marker)
    }

    async fn handshakes(&self, result: &str) -> u64 {
        let series = format!("ferrule_tls_handshakes_total{{direction=\"outbound\",result=\"{result}\"}}");
        counted(&metrics(&self.outbound.app).await, &series)
    }
}

/// Passes bytes on and keeps them.
async fn tap(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let wire = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&wire);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(to).await.expect("listens");
            let (client_read, client_write) = client.into_split();
            let (server_read, server_write) = server.into_split();
            for (mut from, mut to) in [(client_read, server_write), (server_read, client_write)] {
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let mut piece = vec![0; 65_536];
                    while let Ok(count @ 1..) = from.read(&mut piece).await {
                        kept.lock().expect("sound").extend_from_slice(&piece[..count]);
                        if to.write_all(&piece[..count]).await.is_err() {
                            return;
                        }
                    }
                    let _ = to.shutdown().await;
                });
            }
        }
    });
    (address, wire)
}

#[tokio::test]
async fn requests_are_encrypted_share_a_connection_and_tell_the_application_who_sends_them() {
    let app = server(ok).await;
    let pair = Pair::new(app).await;
    let forged =
        "Ferrule-Client: spiffe://x/ns/a/sa/b\r\nX-Forwarded-Client-Cert: URI=me\r\nferrule_client: me\r\n";
    for number in 0..3 {
        let answer = talk(pair.listener(), &get(&format!("/marker-{number}"), forged)).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains(&format!("GET /marker-{number} HTTP/1.1")), "{answer}");
        assert!(answer.contains(&format!("ferrule-client: {}\r\n", id("web"))), "{answer}");
        let forwarded = format!("x-forwarded-client-cert: By={};URI={}\r\n", id("cart"), id("web"));
        assert!(answer.contains(&forwarded), "{answer}");
        assert!(
            !answer.contains("spiffe://x/") && !answer.contains("URI=me") && !answer.contains(": me"),
            "{answer}"
        );
    }
    assert!(!pair.leaked(b"marker"));
    assert_eq!(pair.handshakes("full").await, 1);
    let open = |direction| format!("ferrule_tls_connections_open{{direction=\"{direction}\"}}");
    assert_eq!(counted(&metrics(&pair.outbound.app).await, &open("outbound")), 1);
    assert_eq!(counted(&metrics(&pair.inbound.app).await, &open("inbound")), 1);
}

#[tokio::test]
async fn http2_keeps_its_trailers_and_tells_the_application_who_sends_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let app = listener.local_addr().expect("bound");
    let (seen, mut heads) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            let Some(mut peer) = Peer::server(stream, &[]).await else { continue };
            let seen = seen.clone();
            tokio::spawn(async move {
                loop {
                    match peer.wait_any().await {
                        Frame::Headers { id, fields, .. } => {
                            let _ = seen.send(fields);
                            peer.headers(
                                id,
                                &[(":status", "200"), ("content-type", "application/grpc")],
                                false,
                            )
                            .await;
                            peer.data(id, b"marker", false).await;
                            peer.headers(id, &[("grpc-status", "0")], true).await;
                        }
                        Frame::Closed | Frame::Aborted => return,
                        _ => {}
                    }
                }
            });
        }
    });
    let pair = Pair::speaking(app, Some("grpc")).await;
    let mut client = Peer::client(pair.listener()).await;
    let response = client.send("POST", b"marker", &[("ferrule-client", "me"), ("te", "trailers")]).await;
    assert_eq!(response.body, b"marker");
    assert!(response.trailers.iter().any(|(name, value)| name == "grpc-status" && value == "0"));
    let head = heads.recv().await.expect("a request");
    let clients: Vec<_> = head.iter().filter(|(name, _)| name == "ferrule-client").collect();
    assert_eq!(clients, [&("ferrule-client".to_owned(), id("web"))]);
    assert!(!pair.leaked(b"marker"));
}

#[tokio::test]
async fn a_connection_that_changes_its_protocol_is_carried_to_its_end() {
    let app = serving(|mut stream| async move {
        let Some(head) = read_head(&mut stream).await else { return };
        assert!(head.to_ascii_lowercase().contains("upgrade: websocket"), "{head}");
        assert!(head.contains("ferrule-client: "), "{head}");
        stream.write_all(SWITCHED.as_bytes()).await.expect("sent");
        echoed(&mut stream).await.expect("echoed");
        let _ = stream.shutdown().await;
    })
    .await;
    let pair = Pair::new(app).await;
    let mut client = TcpStream::connect(pair.listener()).await.expect("listens");
    let request = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.write_all(request.as_bytes()).await.expect("sent");
    let head = read_head(&mut client).await.expect("a head");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let content = vec![b'm'; 3_000_000];
    let (mut read, mut write) = client.split();
    let sends = async {
        write.write_all(&content).await.expect("sent");
        write.shutdown().await.expect("open");
    };
    let mut echoed = Vec::new();
    tokio::join!(sends, async { read.read_to_end(&mut echoed).await.expect("all of it") });
    assert!(echoed == content);
    assert!(!pair.leaked(b"websocket"));
}

#[tokio::test]
async fn long_bodies_arrive_whole_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let app = listener.local_addr().expect("bound");
    const LENGTH: usize = 10 * 1024 * 1024;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            tokio::spawn(async move {
                while read_head(&mut stream).await.is_some() {
                    let mut body = vec![0; LENGTH];
                    stream.read_exact(&mut body).await.expect("all of it");
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
                    stream.write_all(head.as_bytes()).await.expect("sent");
                    stream.write_all(&body).await.expect("sent");
                }
            });
        }
    });
    let pair = Pair::new(app).await;
    let mut client = TcpStream::connect(pair.listener()).await.expect("listens");
    let content: Vec<u8> = (0..LENGTH).map(|number| (number * 31 % 251) as u8).collect();
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {LENGTH}\r\n\r\n");
    client.write_all(head.as_bytes()).await.expect("sent");
    let (read, mut write) = client.split();
    let mut read = tokio::io::BufReader::new(read);
    let receives = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(read.read_u8().await.expect("a head"));
        }
        let mut body = vec![0; LENGTH];
        read.read_exact(&mut body).await.expect("all of it");
        body
    };
    let (_, body) = tokio::join!(async { write.write_all(&content).await.expect("sent") }, receives);
    assert!(body == content);
}

/// A server that speaks first, echoes, and says good-bye after its client has ended its side.
async fn speaks_first() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            tokio::spawn(async move {
                if stream.write_all(b"greeting-marker\n").await.is_err() {
                    return;
                }
                let (mut read, mut write) = stream.split();
                if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                    let _ = write.write_all(b"good-bye").await;
                    let _ = write.shutdown().await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_and_each_side_ends_by_itself() {
    let pair = Pair::new(speaks_first().await).await;
    for number in 0..3 {
        let mut client = TcpStream::connect(pair.listener()).await.expect("listens");
        let mut greeting = [0; 16];
        client.read_exact(&mut greeting).await.expect("a greeting");
        assert_eq!(&greeting, b"greeting-marker\n");
        client.write_all(b"hello-marker").await.expect("sent");
        client.shutdown().await.expect("open");
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.expect("the rest");
        assert_eq!(rest, "hello-markergood-bye", "{number}");
    }
    assert!(!pair.leaked(b"marker"));
    assert_eq!(pair.handshakes("full").await, 1, "the others were resumed");
    assert_eq!(pair.handshakes("resumed").await, 2);
    let inbound = metrics(&pair.inbound.app).await;
    assert_eq!(
        counted(&inbound, "ferrule_tls_handshakes_total{direction=\"inbound\",result=\"resumed\"}"),
        2
    );
}

#[tokio::test]
async fn a_strict_pod_refuses_what_is_not_encrypted_and_remembers_who_it_was() {
    let pair = Pair::new(server(ok).await).await;
    assert_eq!(talk(pair.inbound.app.listeners[0], &get("/", "")).await, "");
    let inbound = metrics(&pair.inbound.app).await;
    assert_eq!(counted(&inbound, "ferrule_tls_refused_total{reason=\"plaintext\"}"), 1);
    let report = talk(pair.inbound.app.admin, &get("/tls", "")).await;
    assert!(
        report.contains("\"address\": \"127.0.0.1\"") && report.contains("\"mode\": \"strict\""),
        "{report}"
    );
}

/// What holds for a pod is told by its labels, and takes effect while it runs; what is under way goes on.
#[tokio::test]
async fn a_policy_closes_a_pod_that_runs_and_opens_it_again() {
    let (lab, world) = (Lab::new().await, World::new());
    let accepts = |mode| {
        let match_labels = [("app".to_owned(), "cart".to_owned())].into();
        let closed =
            WorkloadTls { selector: Selector { match_labels }, modes: Modes { mode, ..Modes::default() } };
        world.mesh(&Mesh { format: FORMAT, namespace: "shop".into(), tls: vec![closed], ..Mesh::default() });
    };
    let app = server(ok).await;
    let cart = lab.sidecar("cart", &world, &[], &[app], &[("FERRULE_LABELS", "app=cart")]).await;
    let web = lab.sidecar("web", &world, &[], &[app], &[("FERRULE_LABELS", "app=web")]).await;
    let open =
        async |sidecar: &Sidecar| talk(sidecar.app.listeners[0], &get("/", "")).await.contains(" 200 ");
    assert!(open(&cart).await && open(&web).await);
    let mut kept = TcpStream::connect(cart.app.listeners[0]).await.expect("listens");
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut again = async || {
        kept.write_all(request).await.expect("sent");
        let mut answer = vec![0; 4096];
        let count = kept.read(&mut answer).await.expect("answered");
        String::from_utf8_lossy(&answer[..count]).contains(" 200 ")
    };
    assert!(again().await);
    accepts(TlsMode::Strict);
    eventually("it is closed", async || !open(&cart).await).await;
    assert!(open(&web).await, "it has other labels");
    assert!(again().await, "what was open stays so");
    accepts(TlsMode::Permissive);
    eventually("it is open", async || open(&cart).await).await;
}

#[tokio::test]
async fn a_permissive_pod_takes_both_and_a_plain_client_s_word_on_who_it_is_is_dropped() {
    let (lab, world) = (Lab::new().await, World::new());
    let app = server(ok).await;
    let inbound = lab.sidecar("cart", &world, &[], &[app], &[]).await;
    let plain =
        talk(inbound.app.listeners[0], &get("/", "Ferrule-Client: me\r\nX-Forwarded-Client-Cert: me\r\n"))
            .await;
    assert!(plain.starts_with("HTTP/1.1 200") && !plain.contains(": me"), "{plain}");
    world.service("cart", &[inbound.app.listeners[0]]);
    world.configure("cart", peers(&["cart"], Modes::default()));
    let outbound = lab.sidecar("web", &world, &["cart"], &[], &[]).await;
    let secure = talk(outbound.app.listeners[0], &get("/", "")).await;
    assert!(secure.contains(&id("web")), "{secure}");
    let report = talk(inbound.app.admin, &get("/tls", "")).await;
    assert_eq!(report.matches("\"address\"").count(), 1, "{report}");
}

#[tokio::test]
async fn without_a_certificate_on_either_side_a_permissive_road_is_plain_and_a_strict_one_ends() {
    let (lab, world) = (Lab::new().await, World::new());
    let app = server(ok).await;
    let nobody = world.proxy(&[], &[app]).await;
    world.service("cart", &[nobody.listeners[0]]);
    world.configure("cart", peers(&["cart"], Modes::default()));
    let outbound = lab.sidecar("web", &world, &["cart"], &[], &[]).await;
    let answer = talk(outbound.app.listeners[0], &get("/", "")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let plain =
        |reason| format!("ferrule_plain_connections_total{{direction=\"outbound\",reason=\"{reason}\"}}");
    assert_eq!(counted(&metrics(&outbound.app).await, &plain("peer-no-identity")), 1);

    let unknown = world.proxy(&["cart"], &[]).await;
    assert!(talk(unknown.listeners[0], &get("/", "")).await.starts_with("HTTP/1.1 200"));
    assert_eq!(counted(&metrics(&unknown).await, &plain("no-identity")), 1);

    world.configure("cart", peers(&["cart"], STRICT));
    for (proxy, cause) in [(&outbound.app, "tls-no-identity"), (&unknown, "tls-no-identity")] {
        eventually(cause, async || {
            let answer = talk(proxy.listeners[0], &get("/", "")).await;
            answer.contains(&format!("ferrule-error: {cause}\r\n")) && answer.starts_with("HTTP/1.1 503")
        })
        .await;
    }
}

#[tokio::test]
async fn a_pod_without_a_sidecar_is_spoken_to_plain_only_where_that_is_permitted() {
    let (lab, world) = (Lab::new().await, World::new());
    let app = server(ok).await;
    world.service("cart", &[app]);
    world.configure("cart", peers(&["cart"], Modes::default()));
    let outbound = lab.sidecar("web", &world, &["cart"], &[], &[]).await;
    // It waits for the end of a head that never comes, unless it is told the connection's end.
    let closing = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = closing.local_addr().expect("bound");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = closing.accept().await.expect("accepts");
            tokio::spawn(async move {
                let mut first = [0];
                if stream.read_exact(&mut first).await.is_err() || first[0] == 22 {
                    return;
                }
                let _ = read_head(&mut stream).await;
                let _ = stream.write_all(ok("plain").as_bytes()).await;
            });
        }
    });
    world.service("cart", &[address]);
    eventually("it is plain", async || {
        talk(outbound.app.listeners[0], &get("/", "")).await.ends_with("plain")
    })
    .await;
    world.configure("cart", peers(&["cart"], STRICT));
    eventually("it is refused", async || {
        talk(outbound.app.listeners[0], &get("/", "")).await.contains("ferrule-error: tls-handshake\r\n")
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_is_somebody_else_is_passed_over() {
    let (lab, world) = (Lab::new().await, World::new());
    let app = server(ok).await;
    let right = lab.sidecar("cart", &world, &[], &[app], &[]).await;
    let wrong = lab.sidecar("other", &world, &[], &[app], &[]).await;
    world.service("cart", &[wrong.app.listeners[0], right.app.listeners[0]]);
    world.configure("cart", peers(&["cart"], Modes::default()));
    let outbound = lab.sidecar("web", &world, &["cart"], &[], &[]).await;
    for _ in 0..10 {
        let answer = talk(outbound.app.listeners[0], &get("/", "")).await;
        assert!(answer.contains(&format!("By={}", id("cart"))), "{answer}");
    }
    world.configure("cart", peers(&["else"], Modes::default()));
    eventually("nobody is who is expected", async || {
        talk(outbound.app.listeners[0], &get("/", "")).await.contains("ferrule-error: tls-identity\r\n")
    })
    .await;
    let plain = "ferrule_plain_connections_total{direction=\"outbound\"}";
    assert_eq!(counted(&metrics(&outbound.app).await, plain), 0);
}

#[tokio::test]
async fn a_dead_application_behind_tls_is_told_of_as_one_behind_none() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = closed.local_addr().expect("bound");
    drop(closed);
    let pair = Pair::new(address).await;
    let answer = talk(pair.listener(), &get("/", "")).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("ferrule-error: "), "{answer}");
}

#[tokio::test]
async fn certificates_and_roots_change_under_load_and_no_request_fails() {
    let (lab, world) = (Lab::new().await, World::new());
    let first = Arc::clone(&lab.authority);
    let next = Arc::new(mtls_harness::testing::Authority::new());
    lab.give(&first, &[&first], 16);
    let app = server(ok).await;
    let inbound = lab.sidecar("cart", &world, &[], &[app], &[("FERRULE_MESH_TLS", "strict")]).await;
    world.service("cart", &[inbound.app.listeners[0]]);
    world.configure("cart", peers(&["cart"], STRICT));
    let outbound = lab.sidecar("web", &world, &["cart"], &[], &[]).await;
    let listener = outbound.app.listeners[0];
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let mut done = 0;
                let mut client = TcpStream::connect(listener).await.expect("listens");
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
                    let head = read_head(&mut client).await.expect("a head");
                    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                    let length = head.to_ascii_lowercase();
                    let length =
                        length.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                    let mut body = vec![0; length.expect("a length")];
                    client.read_exact(&mut body).await.expect("a body");
                    done += 1;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                done
            })
        })
        .collect();
    let trusts = async |generation: u64| {
        for sidecar in [&outbound, &inbound] {
            lab.mount(sidecar);
        }
        for sidecar in [&outbound, &inbound] {
            let says = format!("\"generation\": {generation}");
            for _ in 0..10 {
                if talk(sidecar.app.admin, &get("/identity", "")).await.contains(&says) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            assert!(talk(sidecar.app.admin, &get("/identity", "")).await.contains(&says));
        }
    };
    lab.give(&first, &[&first, &next], 16);
    trusts(3).await;
    lab.give(&next, &[&next, &first], 16);
    trusts(4).await;
    // Both have renewed before the old root goes.
    tokio::time::sleep(Duration::from_secs(10)).await;
    lab.give(&next, &[&next], 16);
    trusts(5).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for each in load {
        assert!(each.await.expect("no request failed") > 100);
    }
    let metrics = metrics(&outbound.app).await;
    assert!(counted(&metrics, "ferrule_tls_handshakes_total{direction=\"outbound\",result=\"full\"}") >= 3);
    let all = counted(&metrics, "ferrule_tls_handshakes_total{direction=\"outbound\"}");
    let good: u64 = ["full", "resumed"]
        .iter()
        .map(|result| {
            counted(
                &metrics,
                &format!("ferrule_tls_handshakes_total{{direction=\"outbound\",result=\"{result}\"}}"),
            )
        })
        .sum();
    assert_eq!(all, good);
}

#[tokio::test]
async fn a_response_that_is_cut_off_is_not_taken_for_a_whole_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let app = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            tokio::spawn(async move {
                let _ = stream.write_all(b"first half").await;
                tokio::time::sleep(Duration::from_millis(200)).await;
                let linger = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                linger.expect("a socket");
            });
        }
    });
    let pair = Pair::new(app).await;
    let mut client = TcpStream::connect(pair.listener()).await.expect("listens");
    let mut seen = Vec::new();
    let end = client.read_to_end(&mut seen).await;
    assert_eq!(seen, b"first half");
    assert!(end.is_err(), "a reset stays one");
    drop(read_all(&mut client).await);
    drop(pair.world);
}
