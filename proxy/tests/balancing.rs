//! Which endpoint a request goes to, through the real proxy: in every mix of protocols, and for connections without
//! requests.

mod http2_harness;
mod support;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use ferrule_config::{
    Algorithm, Balancer, ConsistentHash, Duration, EndpointWeight, HashKey, PortBalancer, Service, Session,
    SessionKeeper, Zones,
};
use ferrule_proxy::app::App;
use http2_harness::{Endpoint, PATIENCE, Peer};
use serde_json::json;
use support::{World, eventually, get, read_head, server, talk};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    time::timeout,
};

const NAMES: [&str; 4] = ["one", "two", "three", "four"];

/// What a client and an endpoint speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http1,
    Http2,
}

const MIXES: [(Speaks, Speaks); 4] = [
    (Speaks::Http1, Speaks::Http1),
    (Speaks::Http1, Speaks::Http2),
    (Speaks::Http2, Speaks::Http1),
    (Speaks::Http2, Speaks::Http2),
];

/// Endpoints that say who they are.
async fn endpoints(speak: Speaks, count: usize) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for name in NAMES.into_iter().take(count) {
        addresses.push(match speak {
            Speaks::Http1 => {
                server(move |_| format!("HTTP/1.1 200 OK\r\nx-server: {name}\r\nContent-Length: 0\r\n\r\n"))
                    .await
            }
            Speaks::Http2 => {
                let endpoint = Endpoint::named(name).await;
                let address = endpoint.address;
                // It listens for as long as the test runs.
                std::mem::forget(endpoint);
                address
            }
        });
    }
    addresses
}

fn all_ports(balancer: Balancer) -> Service {
    Service { balancers: vec![PortBalancer { port_name: None, balancer }], ..Service::default() }
}

fn hashing(key: HashKey) -> Balancer {
    let algorithm = Algorithm::Maglev(ConsistentHash { key, size: None });
    Balancer { algorithm, ..Balancer::default() }
}

/// A proxy before `cart`, whose endpoints speak that.
async fn proxy(speak: Speaks, endpoints: &[SocketAddr], balancer: Balancer) -> (World, App) {
    let world = World::new();
    let protocol = match speak {
        Speaks::Http1 => "http",
        Speaks::Http2 => "kubernetes.io/h2c",
    };
    world.service_speaking("cart", endpoints, Some(protocol));
    world.configure("cart", all_ports(balancer));
    let proxy = world.proxy(&["cart"], &[]).await;
    (world, proxy)
}

/// Who has answered, and the cookie that came with it.
#[derive(Debug)]
struct Answer {
    by: String,
    cookie: Option<String>,
    field: Option<String>,
}

async fn ask(speak: Speaks, proxy: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Answer {
    let fields = match speak {
        Speaks::Http1 => {
            let extra: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let mut stream = TcpStream::connect(proxy).await.expect("the proxy listens");
            stream.write_all(get(path, &extra).as_bytes()).await.expect("sent");
            let head = timeout(PATIENCE, read_head(&mut stream)).await.expect("in time").expect("a head");
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            let line = |line: &str| {
                let (name, value) = line.split_once(": ")?;
                Some((name.to_ascii_lowercase(), value.to_owned()))
            };
            head.lines().filter_map(line).collect()
        }
        Speaks::Http2 => {
            let answer = Peer::client(proxy).await.get(path, fields).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.fields
        }
    };
    let value = |name: &str| fields.iter().find(|(each, _)| each == name).map(|(_, value)| value.clone());
    Answer { by: value("x-server").expect("a name"), cookie: value("set-cookie"), field: value("x-session") }
}

#[tokio::test]
async fn a_key_leads_to_the_same_endpoint_whoever_asks_in_whatever_protocol() {
    let mut owners: HashMap<String, HashSet<String>> = HashMap::new();
    for (client, endpoint) in MIXES {
        let endpoints = endpoints(endpoint, 4).await;
        let (_world, proxy) = proxy(endpoint, &endpoints, hashing(HashKey::Header("x-user".into()))).await;
        let mut seen = HashSet::new();
        for user in 0..12 {
            let user = format!("user-{user}");
            let first = ask(client, proxy.listeners[0], "/", &[("x-user", &user)]).await.by;
            for _ in 0..3 {
                let again = ask(client, proxy.listeners[0], "/", &[("x-user", &user)]).await.by;
                assert_eq!(first, again, "{client:?} to {endpoint:?}");
            }
            seen.insert(first.clone());
            let position = NAMES.iter().position(|name| *name == first).expect("one of them");
            owners.entry(user).or_default().insert(endpoints[position].to_string());
        }
        assert!(seen.len() > 1, "{client:?} to {endpoint:?}: twelve users are spread");
    }
}

#[tokio::test]
async fn two_proxies_agree_on_the_owner_of_a_key() {
    let endpoints = endpoints(Speaks::Http1, 4).await;
    for algorithm in [Algorithm::Maglev, Algorithm::RingHash] {
        let algorithm = algorithm(ConsistentHash { key: HashKey::Header("x-user".into()), size: None });
        let balancer = Balancer { algorithm, ..Balancer::default() };
        let (_one_world, one) = proxy(Speaks::Http1, &endpoints, balancer.clone()).await;
        let turned: Vec<_> = endpoints.iter().rev().copied().collect();
        let (_two_world, two) = proxy(Speaks::Http1, &turned, balancer).await;
        for user in 0..10 {
            let user = user.to_string();
            let fields = [("x-user", user.as_str())];
            let there = ask(Speaks::Http1, one.listeners[0], "/", &fields).await.by;
            let here = ask(Speaks::Http2, two.listeners[0], "/", &fields).await.by;
            assert_eq!(there, here);
        }
    }
}

#[tokio::test]
async fn cookies_queries_and_addresses_are_keys_too() {
    for (client, endpoint) in MIXES {
        let endpoints = endpoints(endpoint, 4).await;
        let world = World::new();
        for (key, path, field) in [
            (HashKey::Cookie("id".into()), "/", Some(("cookie", "a=b; id=7"))),
            (HashKey::Query("id".into()), "/x?a=b&id=7", None),
            (HashKey::SourceAddress, "/", None),
        ] {
            let protocol = if endpoint == Speaks::Http1 { "http" } else { "kubernetes.io/h2c" };
            world.service_speaking("cart", &endpoints, Some(protocol));
            world.configure("cart", all_ports(hashing(key.clone())));
            let proxy = world.proxy(&["cart"], &[]).await;
            let fields: Vec<_> = field.into_iter().collect();
            let mut owners = HashSet::new();
            for _ in 0..8 {
                owners.insert(ask(client, proxy.listeners[0], path, &fields).await.by);
            }
            assert_eq!(owners.len(), 1, "{client:?} to {endpoint:?} by {key:?}");
        }
    }
}

#[tokio::test]
async fn requests_without_the_key_go_anywhere() {
    let endpoints = endpoints(Speaks::Http1, 4).await;
    let (_world, proxy) = proxy(Speaks::Http1, &endpoints, hashing(HashKey::Header("x-user".into()))).await;
    let mut owners = HashSet::new();
    for _ in 0..30 {
        owners.insert(ask(Speaks::Http1, proxy.listeners[0], "/", &[]).await.by);
    }
    assert!(owners.len() > 1);
}

#[tokio::test]
async fn a_session_stays_where_it_began() {
    let session = Session {
        kept_in: SessionKeeper::Cookie,
        name: "ferrule".into(),
        ttl: Some(Duration::from_millis(60_000)),
    };
    for (client, endpoint) in MIXES {
        let mix = format!("{client:?} to {endpoint:?}");
        let endpoints = endpoints(endpoint, 4).await;
        let balancer = Balancer { session: Some(session.clone()), ..Balancer::default() };
        let (world, proxy) = proxy(endpoint, &endpoints, balancer).await;
        let first = ask(client, proxy.listeners[0], "/", &[]).await;
        let cookie = first.cookie.expect("a new session");
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=60"), "{mix}: {cookie}");
        let kept = cookie.split(';').next().expect("a pair").to_owned();
        let fields = [("cookie", kept.as_str())];
        for _ in 0..8 {
            let next = ask(client, proxy.listeners[0], "/", &fields).await;
            assert_eq!((next.by.as_str(), next.cookie), (first.by.as_str(), None), "{mix}");
        }
        // Its endpoint goes: it begins anew elsewhere, and is told so.
        let gone = NAMES.iter().position(|name| *name == first.by).expect("one of them");
        let mut rest = endpoints.clone();
        rest.remove(gone);
        let protocol = if endpoint == Speaks::Http1 { "http" } else { "kubernetes.io/h2c" };
        world.service_speaking("cart", &rest, Some(protocol));
        eventually("the session moves", || async {
            let next = ask(client, proxy.listeners[0], "/", &fields).await;
            next.by != first.by && next.cookie.is_some_and(|cookie| !cookie.starts_with(&kept))
        })
        .await;
    }
}

#[tokio::test]
async fn a_session_can_be_kept_in_a_header_field() {
    let session = Session { kept_in: SessionKeeper::Header, name: "x-session".into(), ttl: None };
    for (client, endpoint) in MIXES {
        let endpoints = endpoints(endpoint, 4).await;
        let balancer = Balancer { session: Some(session.clone()), ..Balancer::default() };
        let (_world, proxy) = proxy(endpoint, &endpoints, balancer).await;
        let first = ask(client, proxy.listeners[0], "/", &[]).await;
        let kept = first.field.expect("a new session");
        for _ in 0..8 {
            let next = ask(client, proxy.listeners[0], "/", &[("x-session", &kept)]).await;
            assert_eq!(
                (next.by.as_str(), next.field),
                (first.by.as_str(), None),
                "{client:?} to {endpoint:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_key_goes_on_to_the_next_endpoint_when_its_own_takes_no_connections() {
    let mut endpoints = endpoints(Speaks::Http1, 3).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    endpoints.push(nobody);
    let (_world, proxy) = proxy(Speaks::Http1, &endpoints, hashing(HashKey::Header("x-user".into()))).await;
    for user in 0..20 {
        let user = user.to_string();
        let mut owners = HashSet::new();
        for _ in 0..3 {
            owners.insert(ask(Speaks::Http1, proxy.listeners[0], "/", &[("x-user", &user)]).await.by);
        }
        assert_eq!(owners.len(), 1, "always the same next one");
    }
}

#[tokio::test]
async fn round_robin_goes_in_turns() {
    let endpoints = endpoints(Speaks::Http1, 3).await;
    let balancer = Balancer { algorithm: Algorithm::RoundRobin, ..Balancer::default() };
    let (_world, proxy) = proxy(Speaks::Http1, &endpoints, balancer).await;
    let mut counts: HashMap<String, usize> = HashMap::new();
    for _ in 0..9 {
        *counts.entry(ask(Speaks::Http1, proxy.listeners[0], "/", &[]).await.by).or_default() += 1;
    }
    assert!(counts.len() == 3 && counts.values().all(|count| *count == 3), "{counts:?}");
}

/// A slice of `cart` with these endpoints: address, pod, and what else is said of each.
fn slice(world: &World, name: &str, port: u16, endpoints: &[serde_json::Value]) {
    world.write(
        &format!("slice-{name}.json"),
        &json!({
            "kind": "EndpointSlice",
            "metadata": {
                "name": name,
                "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "cart"},
            },
            "endpoints": endpoints,
            "ports": [{"name": "http", "port": port}],
        }),
    );
}

fn cart(world: &World, spec: serde_json::Value) {
    let mut spec = spec;
    spec["ports"] = json!([{"name": "http", "port": 80, "appProtocol": "http"}]);
    let metadata = json!({"name": "cart", "namespace": "shop"});
    world.write("cart.json", &json!({"kind": "Service", "metadata": metadata, "spec": spec}));
}

async fn who_answers(proxy: &App, times: usize) -> HashSet<String> {
    let mut names = HashSet::new();
    for _ in 0..times {
        names.insert(ask(Speaks::Http1, proxy.listeners[0], "/", &[]).await.by);
    }
    names
}

#[tokio::test]
async fn the_own_zone_answers_as_long_as_it_can() {
    let endpoints = endpoints(Speaks::Http1, 2).await;
    let world = World::new();
    cart(&world, json!({}));
    let local = TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    let told = |address: SocketAddr, zone: &str, node: &str, hints: serde_json::Value| json!({"addresses": [address.ip()], "zone": zone, "nodeName": node, "hints": hints});
    let hint = |zone: &str| json!({"forZones": [{"name": zone}]});
    let put = |index: usize, address: SocketAddr, zone: &str, hints| {
        let node = format!("node-{zone}");
        slice(&world, &index.to_string(), address.port(), &[told(address, zone, &node, hints)]);
    };
    put(0, endpoints[0], "a", hint("a"));
    put(1, endpoints[1], "b", hint("b"));
    // The zone is known from the environment, or from an endpoint of the same node.
    for here in [("FERRULE_ZONE", "a"), ("FERRULE_NODE", "node-a")] {
        let proxy = world.proxy_with(&["cart"], &[], &[here]).await;
        assert_eq!(who_answers(&proxy, 8).await, HashSet::from(["one".to_owned()]), "{here:?}");
    }
    let elsewhere = world.proxy_with(&["cart"], &[], &[("FERRULE_ZONE", "c")]).await;
    assert_eq!(who_answers(&elsewhere, 20).await.len(), 2);
    let proxy = world.proxy_with(&["cart"], &[], &[("FERRULE_ZONE", "a")]).await;
    // The zone's only endpoint takes no connections: the other zone does.
    put(0, local, "a", hint("a"));
    eventually("the other zone helps out", || async {
        who_answers(&proxy, 1).await == HashSet::from(["two".to_owned()])
    })
    .await;
    put(0, endpoints[0], "a", json!(null));
    eventually("hints that not all have are not followed", || async {
        who_answers(&proxy, 20).await.len() == 2
    })
    .await;
    world.configure("cart", all_ports(Balancer { zones: Zones::Prefer, ..Balancer::default() }));
    eventually("the own zone is preferred without hints", || async {
        who_answers(&proxy, 8).await == HashSet::from(["one".to_owned()])
    })
    .await;
}

#[tokio::test]
async fn weights_go_by_pod_and_by_port() {
    let endpoints = endpoints(Speaks::Http1, 2).await;
    let world = World::new();
    cart(&world, json!({}));
    for (index, (address, pod)) in endpoints.iter().zip(["cart-old-1", "cart-canary-1"]).enumerate() {
        let pod = json!({"addresses": [address.ip()], "targetRef": {"kind": "Pod", "name": pod}});
        slice(&world, &index.to_string(), address.port(), &[pod]);
    }
    let weight = |prefix: &str| {
        let weights =
            vec![EndpointWeight { pod_prefix: Some(prefix.into()), weight: 0, ..EndpointWeight::default() }];
        Balancer { weights, ..Balancer::default() }
    };
    let entry = |port: Option<&str>, balancer| PortBalancer { port_name: port.map(str::to_owned), balancer };
    let balancers = vec![
        entry(None, weight("cart-old-")),
        entry(Some("grpc"), weight("cart-old-")),
        entry(Some("http"), weight("cart-canary-")),
    ];
    world.configure("cart", Service { balancers, ..Service::default() });
    let proxy = world.proxy(&["cart"], &[]).await;
    assert_eq!(
        who_answers(&proxy, 12).await,
        HashSet::from(["one".to_owned()]),
        "the port's own entry decides"
    );
    world.configure("cart", all_ports(weight("cart-old-")));
    eventually("the whole Service's entry decides", || async {
        who_answers(&proxy, 8).await == HashSet::from(["two".to_owned()])
    })
    .await;
}

#[tokio::test]
async fn session_affinity_of_a_service_is_kept() {
    let endpoints = endpoints(Speaks::Http1, 4).await;
    let world = World::new();
    cart(&world, json!({"sessionAffinity": "ClientIP"}));
    for (index, address) in endpoints.iter().enumerate() {
        slice(&world, &index.to_string(), address.port(), &[json!({"addresses": [address.ip()]})]);
    }
    let proxy = world.proxy(&["cart"], &[]).await;
    assert_eq!(who_answers(&proxy, 16).await.len(), 1);
    // A policy comes first.
    world.configure("cart", all_ports(Balancer { algorithm: Algorithm::RoundRobin, ..Balancer::default() }));
    eventually("the policy decides", || async { who_answers(&proxy, 4).await.len() == 4 }).await;
}

#[tokio::test]
async fn connections_without_requests_have_their_address_as_key() {
    let endpoints = endpoints(Speaks::Http1, 4).await;
    let world = World::new();
    world.service_speaking("cart", &endpoints, Some("tcp"));
    world.configure("cart", all_ports(hashing(HashKey::SourceAddress)));
    let proxy = world.proxy(&["cart"], &[]).await;
    assert_eq!(who_answers(&proxy, 16).await.len(), 1);
    world.configure("cart", all_ports(hashing(HashKey::Header("x".into()))));
    eventually("without a key they go anywhere", || async { who_answers(&proxy, 12).await.len() > 1 }).await;
}

#[tokio::test]
async fn a_dual_stack_pod_is_reached_by_its_other_address() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else { return };
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(b"hello").await;
            });
        }
    });
    let world = World::new();
    world.service_speaking("cart", &[], Some("tcp"));
    let pod = |address: &str| json!({"addresses": [address], "targetRef": {"kind": "Pod", "name": "cart-1"}});
    slice(&world, "v4", address.port(), &[pod("127.0.0.1")]);
    slice(&world, "v6", address.port(), &[pod("::1")]);
    let proxy = world.proxy(&["cart"], &[]).await;
    assert_eq!(talk(proxy.listeners[0], "x").await, "hello");
}

#[tokio::test]
async fn a_balancer_that_can_not_be_built_changes_nothing() {
    let endpoints = endpoints(Speaks::Http1, 2).await;
    let session = |name: &str| {
        let session = Session { kept_in: SessionKeeper::Cookie, name: name.into(), ttl: None };
        all_ports(Balancer { session: Some(session), ..Balancer::default() })
    };
    let world = World::new();
    world.service("cart", &endpoints);
    world.configure("cart", session("good"));
    let proxy = world.proxy(&["cart"], &[]).await;
    assert!(ask(Speaks::Http1, proxy.listeners[0], "/", &[]).await.cookie.is_some());
    world.configure("cart", session("bad\r\nx: y"));
    eventually("it is refused", || async {
        talk(proxy.admin, &get("/config", "")).await.contains("is no name of a session")
    })
    .await;
    let cookie = ask(Speaks::Http1, proxy.listeners[0], "/", &[]).await.cookie.expect("the last good one");
    assert!(cookie.starts_with("good="), "{cookie}");
}
