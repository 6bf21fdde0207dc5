//! Who may call what, through real sidecars with identities.

mod http2_harness;
mod mtls_harness;
mod support;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use ferrule_config::{FORMAT, Mesh, Modes, access::Access};
use http2_harness::{Endpoint, Peer};
use mtls_harness::{Lab, Sidecar, metrics, peers};
use serde_json::{Value, json};
use support::{SWITCHED, World, counted, echoed, eventually, get, ok, read_head, serving};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A pod that is called, and two that call it.
struct Town {
    cart: Sidecar,
    web: Sidecar,
    batch: Sidecar,
    world: World,
    _lab: Lab,
}

impl Town {
    /// With these policies.
    async fn new(application: SocketAddr, protocol: Option<&str>, policies: &Value) -> Self {
        let (lab, world) = (Lab::new().await, World::new());
        set(&world, policies);
        let labels = [("FERRULE_LABELS", "app=cart")];
        let cart = lab.sidecar("cart", &world, &[], &[application], &labels).await;
        world.service_speaking("cart", &[cart.app.listeners[0]], protocol);
        let web = lab.sidecar("web", &world, &["cart"], &[], &[("FERRULE_LABELS", "app=web")]).await;
        let batch = lab.sidecar("batch", &world, &["cart"], &[], &[("FERRULE_LABELS", "app=batch")]).await;
        Self { cart, web, batch, world, _lab: lab }
    }

    fn set(&self, policies: &Value) {
        set(&self.world, policies);
    }

    fn web(&self) -> SocketAddr {
        self.web.app.listeners[0]
    }

    fn batch(&self) -> SocketAddr {
        self.batch.app.listeners[0]
    }

    /// The pod itself, without a sidecar in between.
    fn plain(&self) -> SocketAddr {
        self.cart.app.listeners[0]
    }

    async fn counted(&self, labels: &str) -> u64 {
        counted(&metrics(&self.cart.app).await, &format!("ferrule_access_refused_total{{{labels}}}"))
    }
}

fn set(world: &World, policies: &Value) {
    let access: Vec<Access> = serde_json::from_value(policies.clone()).expect("policies");
    let services = [("cart".to_owned(), peers(&["cart"], Modes::default()))].into();
    world.mesh(&Mesh { format: FORMAT, namespace: "shop".into(), services, access, ..Mesh::default() });
}

/// A policy for the pod that is called.
fn policy(name: &str, rules: Value) -> Value {
    let mut policy = json!({"name": format!("shop/{name}"), "selector": {"matchLabels": {"app": "cart"}}});
    let parts = policy.as_object_mut().expect("an object");
    parts.extend(rules.as_object().expect("an object").clone());
    policy
}

/// What web may do, and nobody else anything.
fn only_web(to: Value) -> Value {
    json!([policy("cart", json!({"allow": [{"from": [{"serviceAccount": "shop/web"}], "to": [to]}]}))])
}

/// A server that remembers the request lines that it was sent.
async fn remembers() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = Arc::clone(&seen);
    let answer = move |head: &str| {
        let line = head.lines().next().expect("a line").to_owned();
        sees.lock().expect("sound").push(line);
        ok("answered")
    };
    (support::server(answer).await, seen)
}

fn is_denied(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 403 ") && answer.contains("\r\nferrule-error: access-denied\r\n")
}

/// Sends one request that ends its connection, and reads its answer.
async fn talk(address: SocketAddr, request: &str) -> String {
    let mut client = connect(address).await;
    client.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut answer)).await;
    read.expect("it ends").expect("not by a reset");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends one request on a connection that stays open, and reads its answer's head and body.
async fn ask(client: &mut TcpStream, head: &str) -> String {
    client.write_all(head.as_bytes()).await.expect("sent");
    let head = read_head(client).await.expect("a head");
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    client.read_exact(&mut body).await.expect("a body");
    head + &String::from_utf8_lossy(&body)
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("listens")
}

/// Waits until the connection has ended, and tells whether it was reset.
async fn is_reset(client: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), client.read_to_end(&mut rest)).await;
    read.expect("it ends").is_err()
}

const GET: &str = "GET /reviews/1 HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn who_is_not_allowed_is_refused_and_the_application_hears_nothing_of_it() {
    let (app, seen) = remembers().await;
    let only = only_web(json!({"methods": ["GET"], "paths": ["/reviews/*"]}));
    let town = Town::new(app, None, &only).await;
    let allowed = talk(town.web(), &get("/reviews/1", "")).await;
    assert!(allowed.starts_with("HTTP/1.1 200 "), "{allowed}");
    let post = "POST /reviews/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody";
    let refused = [
        talk(town.web(), post).await,
        talk(town.web(), &get("/other", "")).await,
        talk(town.batch(), &get("/reviews/1", "")).await,
        talk(town.plain(), &get("/reviews/1", "Ferrule-Client: spiffe://cluster.local/ns/shop/sa/web\r\n"))
            .await,
    ];
    for answer in &refused {
        assert!(is_denied(answer), "{answer}");
        assert!(
            !answer.contains("shop/cart"),
            "the policy's name is nothing for those who are refused: {answer}"
        );
    }
    assert_eq!(*seen.lock().expect("sound"), ["GET /reviews/1 HTTP/1.1"]);
    let labels = r#"policy="shop/cart",reason="not-allowed",mode="enforced",carried="http""#;
    assert_eq!(town.counted(labels).await, 4);
    let requests = metrics(&town.cart.app).await;
    assert_eq!(
        counted(
            &requests,
            "ferrule_requests_total{direction=\"inbound\",status=\"403\",error=\"access-denied\"}"
        ),
        4
    );
    // What the sidecar itself answers is nothing that policies are about.
    assert!(talk(town.cart.app.admin, &get("/ready", "")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_policy_holds_for_the_next_request_of_connections_that_are_open() {
    let (app, _) = remembers().await;
    let town = Town::new(app, None, &json!([])).await;
    let mut clients = [connect(town.web()).await, connect(town.plain()).await];
    for client in &mut clients {
        assert!(ask(client, GET).await.starts_with("HTTP/1.1 200 "));
    }
    let post = "POST /reviews/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
    town.set(&json!([policy("no-posts", json!({"deny": [{"to": [{"methods": ["POST"]}]}]}))]));
    eventually("it is in force", async || {
        is_denied(&talk(town.web(), &post.replace("Host", "Connection: close\r\nHost")).await)
    })
    .await;
    for client in &mut clients {
        // A refusal does not cost the connection, and what follows is read where it begins.
        for _ in 0..2 {
            assert!(is_denied(&ask(client, post).await));
            assert!(ask(client, GET).await.starts_with("HTTP/1.1 200 "));
        }
    }
    town.set(&json!([]));
    eventually("it is gone", async || {
        talk(town.web(), &post.replace("Host", "Connection: close\r\nHost"))
            .await
            .starts_with("HTTP/1.1 200 ")
    })
    .await;
    for client in &mut clients {
        assert!(ask(client, post).await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn http2_is_refused_by_request_and_grpc_as_grpc_has_it() {
    let endpoint = Endpoint::named("app").await;
    let rules = json!({"allow": [{"from": [{"serviceAccount": "shop/web"}],
        "to": [{"grpcMethods": ["shop.Cart/Get"]}, {"methods": ["GET"], "paths": ["/health"]}]}]});
    let town = Town::new(endpoint.address, Some("kubernetes.io/h2c"), &json!([policy("cart", rules)])).await;
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    let mut web = Peer::client(town.web()).await;
    for _ in 0..2 {
        let id = web.request("POST", "/shop.Cart/Get", &grpc, true).await;
        let answer = web.response(id).await;
        assert_eq!(answer.field(":status"), "200");
        assert_eq!(answer.field("ferrule-error"), "");
        let id = web.request("POST", "/shop.Cart/Empty", &grpc, true).await;
        let answer = web.response(id).await;
        assert_eq!((answer.field(":status"), answer.field("grpc-status")), ("200", "7"));
        assert_eq!(answer.field("ferrule-error"), "access-denied");
        assert!(!answer.field("grpc-message").contains("shop/cart"));
        assert_eq!(web.get("/health", &[]).await.field(":status"), "200");
        let answer = web.get("/other", &[]).await;
        assert_eq!((answer.field(":status"), answer.field("ferrule-error")), ("403", "access-denied"));
    }
    let mut batch = Peer::client(town.batch()).await;
    let id = batch.request("POST", "/shop.Cart/Get", &grpc, true).await;
    assert_eq!(batch.response(id).await.field("grpc-status"), "7");
    let mut plain = Peer::client(town.plain()).await;
    assert_eq!(plain.get("/health", &[]).await.field(":status"), "403");
}

/// Each of these is `/admin/x` to some server.
const ODD: [&str; 21] = [
    "//admin/x",
    "/./admin/x",
    "/a/../admin/x",
    "/a/%2e%2e/admin/x",
    "/%2e/admin/x",
    "/%61dmin/x",
    "/%61%64%6d%69%6e/x",
    "/admin%2fx",
    "/admin%2Fx",
    "/admin;x/x",
    "/a/..;/admin/x",
    "/;/admin/x",
    "/%5cadmin/x",
    "/admin%5Cx",
    "/%2561dmin/x",
    "/a/%252e%252e/admin/x",
    "/a//../admin/x",
    "/admin/../admin/x",
    "/%c0%afadmin/x",
    "/admin/x%00",
    "/admin/x",
];

#[tokio::test]
async fn a_path_is_not_passed_by_writing_it_in_another_way() {
    let (app, seen) = remembers().await;
    let closed = json!([policy("admin", json!({"deny": [{"to": [{"paths": ["/admin/*"]}]}]}))]);
    let town = Town::new(app, None, &closed).await;
    let mut http2 = Peer::client(town.web()).await;
    for path in ODD {
        for address in [town.web(), town.plain()] {
            for target in [path.to_owned(), format!("http://x{path}"), format!("{path}?a=/public")] {
                let answer = talk(address, &get(&target, "")).await;
                // What is no target at all is refused before.
                assert!(is_denied(&answer) || answer.starts_with("HTTP/1.1 400 "), "{target}: {answer}");
            }
        }
        let answer = http2.get(path, &[]).await;
        assert_eq!(answer.field("ferrule-error"), "access-denied", "{path}");
    }
    assert_eq!(seen.lock().expect("sound").len(), 0);
    for path in ["/", "/public/x", "/administration", "/a%20b", "/a.b/..c", "/x?y=/admin/x", "/x?//admin"] {
        let answer = talk(town.web(), &get(path, "")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        // The application does not speak HTTP/2, but it was asked.
        assert_ne!(http2.get(path, &[]).await.field("ferrule-error"), "access-denied", "{path}");
    }

    // Nor is what is allowed widened by it.
    town.set(&only_web(json!({"paths": ["/public/*"]})));
    eventually("it is in force", async || is_denied(&talk(town.web(), &get("/x", "")).await)).await;
    for path in
        ["/public/../admin/x", "/public/%2e%2e/admin/x", "/public/..%2fadmin", "/public/..;/x", "/public//x"]
    {
        assert!(is_denied(&talk(town.web(), &get(path, "")).await), "{path}");
        assert_eq!(http2.get(path, &[]).await.field(":status"), "403", "{path}");
    }
    assert!(talk(town.web(), &get("/public/x", "")).await.starts_with("HTTP/1.1 200 "));
}

/// A server that speaks first and echoes.
async fn echo() -> SocketAddr {
    serving(|mut stream| async move {
        if stream.write_all(b"hello\n").await.is_ok() {
            let _ = echoed(&mut stream).await;
        }
    })
    .await
}

/// Greets, sends and reads back.
async fn speaks(address: SocketAddr) -> std::io::Result<TcpStream> {
    let mut client = TcpStream::connect(address).await?;
    let mut greeting = [0; 6];
    client.read_exact(&mut greeting).await?;
    assert_eq!(&greeting, b"hello\n");
    again(&mut client).await?;
    Ok(client)
}

async fn again(client: &mut TcpStream) -> std::io::Result<()> {
    client.write_all(b"ping").await?;
    let mut echoed = [0; 4];
    client.read_exact(&mut echoed).await?;
    assert_eq!(&echoed, b"ping");
    Ok(())
}

#[tokio::test]
async fn connections_that_carry_bytes_are_reset_at_their_begin_and_when_they_are_not_allowed_any_more() {
    let from = |source: Value| json!([policy("cart", json!({"allow": [{"from": [source]}]}))]);
    let town = Town::new(echo().await, None, &from(json!({"serviceAccount": "shop/*"}))).await;
    let mut web = speaks(town.web()).await.expect("allowed");
    let mut batch = speaks(town.batch()).await.expect("allowed");
    assert!(speaks(town.plain()).await.is_err(), "it has no identity");
    let labels = r#"policy="shop/cart",reason="not-allowed",mode="enforced",carried="tcp""#;
    assert_eq!(town.counted(labels).await, 1);

    town.set(&from(json!({"serviceAccount": "shop/web"})));
    assert!(is_reset(&mut batch).await, "it is not allowed any more");
    assert!(speaks(town.batch()).await.is_err());
    again(&mut web).await.expect("it is still allowed");
    assert_eq!(town.counted(labels).await, 3);

    town.set(&from(json!({"cidr": "127.0.0.0/8"})));
    eventually("plain clients are let in by their address", async || speaks(town.plain()).await.is_ok())
        .await;
    let mut plain = speaks(town.plain()).await.expect("allowed");
    again(&mut web).await.expect("it has such an address too");
    town.set(&from(json!({"cidr": "192.0.2.0/24"})));
    assert!(is_reset(&mut plain).await);
    assert!(is_reset(&mut web).await);
}

#[tokio::test]
async fn what_is_denied_of_requests_can_not_be_hidden_among_bytes() {
    let denied = |to: Value| json!([policy("cart", json!({"deny": [{"to": [to]}]}))]);
    let town = Town::new(echo().await, None, &denied(json!({"paths": ["/admin/*"]}))).await;
    assert!(speaks(town.web()).await.is_err());
    assert_eq!(town.counted(r#"reason="denied",carried="tcp""#).await, 1);
    town.set(&denied(json!({"paths": ["/admin/*"], "ports": [1]})));
    eventually("another port is not meant", async || speaks(town.web()).await.is_ok()).await;
    town.set(&only_web(json!({"methods": ["GET"]})));
    eventually("bytes are no GET", async || speaks(town.web()).await.is_err()).await;
}

#[tokio::test]
async fn a_client_that_waits_with_its_request_is_decided_on_all_the_same() {
    let (app, seen) = remembers().await;
    let town = Town::new(app, None, &only_web(json!({"methods": ["GET"]}))).await;
    let mut late = connect(town.plain()).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(is_denied(&ask(&mut late, GET).await));
    assert_eq!(seen.lock().expect("sound").len(), 0);
}

#[tokio::test]
async fn a_connection_that_has_changed_its_protocol_ends_when_its_request_is_not_allowed_any_more() {
    let app = serving(|mut stream| async move {
        let Some(_) = read_head(&mut stream).await else { return };
        stream.write_all(SWITCHED.as_bytes()).await.expect("sent");
        let _ = echoed(&mut stream).await;
    })
    .await;
    let town = Town::new(app, None, &only_web(json!({"paths": ["/chat", "/other"]}))).await;
    let mut chats = Vec::new();
    for path in ["/chat", "/other"] {
        let mut client = connect(town.web()).await;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("sent");
        assert!(read_head(&mut client).await.expect("a head").starts_with("HTTP/1.1 101 "));
        again(&mut client).await.expect("echoed");
        chats.push(client);
    }
    town.set(&only_web(json!({"paths": ["/other"]})));
    let [chat, other] = &mut chats[..] else { panic!("two") };
    assert!(is_reset(chat).await);
    again(other).await.expect("it is still allowed");
}

#[tokio::test]
async fn what_is_only_tried_is_counted_and_let_in() {
    let (app, seen) = remembers().await;
    let mut tried = only_web(json!({"methods": ["GET"]}));
    tried[0]["audit"] = json!(true);
    let town = Town::new(app, None, &tried).await;
    for address in [town.web(), town.batch(), town.plain()] {
        assert!(talk(address, &get("/", "")).await.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(
        town.counted(r#"policy="shop/cart",reason="not-allowed",mode="audit",carried="http""#).await,
        2
    );
    assert_eq!(town.counted(r#"mode="enforced""#).await, 0);
    assert_eq!(seen.lock().expect("sound").len(), 3);
}

#[tokio::test]
async fn a_policy_that_is_not_understood_closes_the_pods_that_it_selects_and_no_others() {
    let (app, _) = remembers().await;
    let town =
        Town::new(app, None, &json!([policy("new", json!({"allow": [{"from": [{"jwt": {}}]}]}))])).await;
    for address in [town.web(), town.plain()] {
        assert!(is_denied(&talk(address, &get("/", "")).await));
    }
    assert_eq!(town.counted(r#"policy="shop/new",reason="not-understood""#).await, 2);
    town.set(&json!([{"name": "shop/new", "selector": {"matchLabels": {"app": "other"}}, "later": true}]));
    eventually("others are open", async || {
        talk(town.web(), &get("/", "")).await.starts_with("HTTP/1.1 200 ")
    })
    .await;
    town.set(&json!([policy("new", json!({"later": true, "audit": true}))]));
    eventually("what is only tried refuses nothing", async || {
        talk(town.web(), &get("/", "")).await.starts_with("HTTP/1.1 200 ")
            && town.counted(r#"reason="not-understood",mode="audit""#).await > 0
    })
    .await;
}

#[tokio::test]
async fn a_pod_may_talk_to_itself() {
    let (app, _) = remembers().await;
    let world = World::new();
    set(&world, &json!([{"name": "shop/closed", "allow": []}]));
    let variables = [("POD_NAMESPACE", "shop"), ("FERRULE_LABELS", "app=cart")];
    let closed = world.proxy_with(&[], &[app], &variables).await;
    assert!(is_denied(&talk(closed.listeners[0], &get("/", "")).await));
    let own = [("POD_NAMESPACE", "shop"), ("FERRULE_LABELS", "app=cart"), ("POD_IPS", "127.0.0.1")];
    let itself = world.proxy_with(&[], &[app], &own).await;
    assert!(talk(itself.listeners[0], &get("/", "")).await.starts_with("HTTP/1.1 200 "));
}
