//! Discovery against an API server that does everything wrong that one can, over real sockets.

mod api_server;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use api_server::{ApiServer, TooOld, eventually};
use ferrule_config::{FORMAT, Mesh, Modes, TlsMode, WorkloadTls, peers, shard};
use ferrule_proxy::{
    balance::Locality,
    discovery::{Discovery, Labels, Own, Pod, Resolved, Times},
    settings::{ServicePort, Source},
    snapshot::Destination,
    telemetry::{Format, Telemetry},
    tls::expected::{PlainReason, Security},
};
use http::StatusCode;
use serde_json::json;

/// Everything that takes seconds takes milliseconds here, and what a test does not ask for does not happen.
fn times() -> Times {
    Times {
        settle: Duration::from_millis(50),
        grace: Duration::from_millis(300),
        check: Duration::from_secs(3600),
        backoff: (Duration::from_millis(10), Duration::from_millis(100)),
        ..Times::default()
    }
}

struct Proxy {
    discovery: Discovery,
    telemetry: Arc<Telemetry>,
}

impl Proxy {
    fn start(server: &ApiServer, times: Times) -> Self {
        Self::with(server, times, None)
    }

    fn with(server: &ApiServer, times: Times, own: Option<Own>) -> Self {
        let telemetry = Arc::new(Telemetry::default());
        let discovery = Discovery::start(
            &Source::Server(server.address()),
            times,
            Locality::default(),
            own,
            Arc::clone(&telemetry),
        );
        Self { discovery: discovery.expect("discovery starts"), telemetry }
    }

    async fn service(&self, address: &str) -> Arc<Destination> {
        match self.discovery.resolve(format!("{address}:80").parse().expect("an address")).await {
            Resolved::Service(destination) => destination,
            Resolved::Outside => panic!("{address} is no Service's"),
        }
    }

    async fn is_outside(&self, address: &str) -> bool {
        let resolved = self.discovery.resolve(address.parse().expect("an address")).await;
        matches!(resolved, Resolved::Outside)
    }

    async fn watches(&self) -> Vec<String> {
        let dump = self.discovery.dump().await;
        let watches = dump["watches"].as_array().expect("a list").iter();
        watches.map(|watch| watch.as_str().expect("text").to_owned()).collect()
    }

    async fn until_watches_are(&self, expected: &[&str]) {
        let mut seen = Vec::new();
        for _ in 0..500 {
            seen = self.watches().await;
            seen.sort_unstable();
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            if seen == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{seen:?} is watched, not {expected:?}");
    }

    fn metric(&self, line: &str) -> f64 {
        let text = String::from_utf8(self.telemetry.encode(Format::Text)).expect("text");
        let found = text.lines().find_map(|each| each.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0.0, |value| value.parse().expect("a number"))
    }
}

fn endpoints(destination: &Destination) -> Vec<String> {
    destination.now().cluster.balancer.endpoints().map(|endpoint| endpoint.address.ip().to_string()).collect()
}

async fn until_endpoints_are(destination: &Destination, expected: &[&str]) {
    eventually(&format!("endpoints {expected:?}"), || endpoints(destination) == expected).await;
}

/// A namespace `shop` with Services `a` to `e` at 10.0.0.1 to 10.0.0.5, each with an endpoint.
async fn shop() -> ApiServer {
    let server = ApiServer::start().await;
    for (index, name) in ["a", "b", "c", "d", "e"].iter().enumerate() {
        server.service("shop", name, &format!("10.0.0.{}", index + 1));
        server.endpoints("shop", name, &[&format!("10.1.{}.1", index + 1)]);
    }
    server
}

fn is_watch(request: &str) -> bool {
    request.contains("watch=1")
}

#[tokio::test]
async fn a_service_is_found_by_its_address_and_stays_up_to_date() {
    let server = shop().await;
    let proxy = Proxy::start(&server, times());
    let cart = proxy.service("10.0.0.1").await;
    assert_eq!(endpoints(&cart), ["10.1.1.1"]);
    let before = proxy.discovery.freshness();
    server.endpoints("shop", "a", &["10.1.1.1", "10.1.1.2"]);
    until_endpoints_are(&cart, &["10.1.1.1", "10.1.1.2"]).await;
    server.slice("shop", "a", 1, &["10.1.1.3"]);
    until_endpoints_are(&cart, &["10.1.1.1", "10.1.1.2", "10.1.1.3"]).await;
    server.delete("endpointslices", "shop", "a-0");
    until_endpoints_are(&cart, &["10.1.1.3"]).await;
    let after = proxy.discovery.freshness();
    assert!(after.generation >= before.generation + 3, "{before:?} {after:?}");
    assert!(proxy.is_outside("10.9.9.9:80").await);
    assert!(proxy.is_outside("10.0.0.1:81").await, "the Service has no such port");
    server.delete("services", "shop", "a");
    eventually("the Service is gone", || proxy.metric("ferrule_destinations") == 0.0).await;
    assert!(proxy.is_outside("10.0.0.1:80").await);
}

#[tokio::test]
async fn a_second_address_is_found_page_by_page() {
    let server = shop().await;
    for number in 0..600 {
        server.service("other", &format!("s{number}"), &format!("10.2.{}.{}", number / 250, number % 250));
    }
    let spec = json!({
        "clusterIP": "10.3.0.1", "clusterIPs": ["10.3.0.1", "fd00::7"], "ports": [{"name": "http", "port": 80}],
    });
    server.service_with("zoo", "both", &spec);
    let proxy = Proxy::start(&server, times());
    let both = proxy.service("[fd00::7]").await;
    assert_eq!(&*both.now().cluster.service, "zoo/both");
}

#[tokio::test]
async fn five_services_of_a_large_namespace_take_three_watches() {
    let server = shop().await;
    for number in 0..300 {
        let name = format!("s{number}");
        server.service("shop", &name, &format!("10.2.{}.{}", number / 250, number % 250));
        server.endpoints("shop", &name, &["10.4.0.1"]);
    }
    let proxy = Proxy::start(&server, times());
    let mut held = Vec::new();
    for last in 1..=5 {
        held.push(proxy.service(&format!("10.0.0.{last}")).await);
    }
    let expected = ["services of shop", "configmap shop/ferrule", "endpointslices of shop/a,b,c,d,e"];
    let mut sorted = expected;
    sorted.sort_unstable();
    eventually("joined", || proxy.metric("ferrule_watches") == 3.0).await;
    let mut watches = proxy.watches().await;
    watches.sort_unstable();
    assert_eq!(watches, sorted);
    eventually("the others have ended", || server.open_watches() == 3).await;

    // Every one of them is still followed.
    for (index, destination) in held.iter().enumerate() {
        let (name, address) = (["a", "b", "c", "d", "e"][index], format!("10.1.{}.9", index + 1));
        server.endpoints("shop", name, &[&address]);
        until_endpoints_are(destination, &[&address]).await;
    }
    server.service_with(
        "shop",
        "e",
        &json!({"clusterIP": "10.0.0.5", "ports": [{"name": "http", "port": 80, "appProtocol": "grpc"}]}),
    );
    eventually("the Service's change", || held[4].now().protocol == ferrule_proxy::snapshot::Protocol::Http2)
        .await;
    // Nothing that it does not use was ever listed.
    let lists: Vec<_> = server.take_requests().into_iter().filter(|request| !is_watch(request)).collect();
    assert!(lists.iter().all(|list| list.contains("Selector=")), "{lists:#?}");
    // And where they were joined it went on without a list.
    assert!(!lists.iter().any(|list| list.contains("%20in%20")), "{lists:#?}");
}

#[tokio::test]
async fn nothing_is_lost_while_watches_are_joined() {
    let server = Arc::new(shop().await);
    let proxy = Proxy::start(&server, Times { settle: Duration::from_millis(5), ..times() });
    let changing = Arc::clone(&server);
    let changes = tokio::spawn(async move {
        for round in 0..60 {
            for (index, name) in ["a", "b", "c", "d", "e"].iter().enumerate() {
                changing.endpoints("shop", name, &[&format!("10.1.{}.{round}", index + 1)]);
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
    });
    let mut held = Vec::new();
    for last in 1..=5 {
        held.push(proxy.service(&format!("10.0.0.{last}")).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    changes.await.expect("no panic");
    for (index, destination) in held.iter().enumerate() {
        until_endpoints_are(destination, &[&format!("10.1.{}.59", index + 1)]).await;
    }
}

#[tokio::test]
async fn a_watch_that_was_behind_loses_nothing_when_it_is_joined() {
    let server = shop().await;
    let proxy = Proxy::start(&server, times());
    let behind = proxy.service("10.0.0.1").await;
    eventually("watches are open", || server.open_watches() == 3).await;
    server.mute(true);
    server.endpoints("shop", "a", &["10.1.1.2"]);
    // The list of this one is newer than what the other one's watch was told.
    let ahead = proxy.service("10.0.0.2").await;
    let expected =
        ["configmap shop/ferrule", "service shop/a", "service shop/b", "endpointslices of shop/a,b"];
    proxy.until_watches_are(&expected).await;
    assert_eq!(endpoints(&behind), ["10.1.1.1"]);
    server.mute(false);
    until_endpoints_are(&behind, &["10.1.1.2"]).await;
    assert_eq!(endpoints(&ahead), ["10.1.2.1"]);
}

#[tokio::test]
async fn what_nobody_uses_is_dropped_and_what_is_used_is_not() {
    let server = shop().await;
    let proxy = Proxy::start(&server, Times { idle: Duration::from_secs(1), ..times() });
    let held = proxy.service("10.0.0.1").await;
    drop(proxy.service("10.0.0.2").await);
    let explicit = ServicePort { namespace: "shop".into(), name: "c".into(), port: 80 };
    drop(proxy.discovery.named(&explicit).await.expect("it is there"));
    assert_eq!(proxy.metric("ferrule_destinations"), 3.0);
    eventually("two are left", || proxy.metric("ferrule_destinations") == 2.0).await;
    // Two Services are too few to begin a watch of all, and enough to keep it.
    proxy
        .until_watches_are(&["configmap shop/ferrule", "services of shop", "endpointslices of shop/a,c"])
        .await;
    // What is held is still followed, though no new connection asks for it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.endpoints("shop", "a", &["10.1.1.7"]);
    until_endpoints_are(&held, &["10.1.1.7"]).await;
    drop(held);
    eventually("one is left", || proxy.metric("ferrule_destinations") == 1.0).await;
    // And it can be used again.
    assert_eq!(endpoints(&*proxy.service("10.0.0.2").await), ["10.1.2.1"]);
}

#[tokio::test]
async fn a_destination_in_use_by_short_connections_stays() {
    let server = shop().await;
    let proxy = Proxy::start(&server, Times { idle: Duration::from_secs(2), ..times() });
    drop(proxy.service("10.0.0.1").await);
    eventually("watches are open", || server.open_watches() == 3).await;
    server.take_requests();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        drop(proxy.service("10.0.0.1").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.take_requests(), Vec::<String>::new());
}

#[tokio::test]
async fn each_service_gets_its_rules_though_only_those_in_use_are_kept() {
    let server = shop().await;
    let configure = |rule: &str| {
        let service = |name: &str| {
            let rule = ferrule_config::Rule { name: format!("{name}/{rule}"), ..Default::default() };
            (name.to_owned(), ferrule_config::Service { rules: vec![rule], ..Default::default() })
        };
        let services = ["a", "b", "c"].map(service).into();
        let mesh = Mesh { format: FORMAT, namespace: "shop".into(), services, ..Mesh::default() };
        let data = shard::split(&mesh).expect("small").remove(0);
        server.put("configmaps", "shop", "ferrule", json!({ "data": data }));
    };
    configure("one");
    let proxy = Proxy::start(&server, times());
    let rule = |destination: &Destination| destination.now().rules.first().map(|rule| rule.name.to_string());
    let mut held = Vec::new();
    for (last, name) in [(1, "a"), (2, "b"), (3, "c")] {
        let destination = proxy.service(&format!("10.0.0.{last}")).await;
        assert_eq!(rule(&destination), Some(format!("{name}/one")));
        held.push(destination);
    }
    configure("two");
    for (destination, name) in held.iter().zip(["a", "b", "c"]) {
        eventually(name, || rule(destination) == Some(format!("{name}/two"))).await;
    }
    assert_eq!(rule(&*proxy.service("10.0.0.4").await), None);
}

#[tokio::test]
async fn a_watch_goes_on_where_it_broke_off() {
    let server = shop().await;
    let proxy = Proxy::start(&server, times());
    let cart = proxy.service("10.0.0.1").await;
    eventually("watches are open", || server.open_watches() == 3).await;
    let bookmark = server.bookmark();
    // The bookmark itself has no visible effect.
    server.endpoints("shop", "a", &["10.1.1.2"]);
    until_endpoints_are(&cart, &["10.1.1.2"]).await;
    let seen = bookmark + 1;
    server.take_requests();
    server.network.down(true);
    server.endpoints("shop", "a", &["10.1.1.3"]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(endpoints(&cart), ["10.1.1.2"]);
    server.network.down(false);
    until_endpoints_are(&cart, &["10.1.1.3"]).await;
    eventually("all are open again", || server.open_watches() == 3).await;
    let requests = server.take_requests();
    assert!(requests.iter().all(|request| is_watch(request)), "nothing was listed again: {requests:#?}");
    let from = |kind: &str, version: u64| {
        let version = format!("resourceVersion={version}");
        requests.iter().any(|request| request.contains(kind) && request.ends_with(&version))
    };
    assert!(from("endpointslices", seen), "from its last change: {requests:#?}");
    assert!(from("configmaps", bookmark), "from the bookmark: {requests:#?}");
}

#[tokio::test]
async fn a_version_that_is_too_old_means_a_new_list() {
    for how in [TooOld::Status, TooOld::Event] {
        let server = shop().await;
        let proxy = Proxy::start(&server, times());
        let mut held = Vec::new();
        for last in 1..=5 {
            held.push(proxy.service(&format!("10.0.0.{last}")).await);
        }
        eventually("joined", || server.open_watches() == 3).await;
        server.network.down(true);
        server.endpoints("shop", "a", &["10.1.1.2"]);
        server.delete("endpointslices", "shop", "b-0");
        server.delete("services", "shop", "c");
        server.slice("shop", "d", 1, &["10.1.4.2"]);
        server.compact(how);
        server.network.down(false);
        until_endpoints_are(&held[0], &["10.1.1.2"]).await;
        until_endpoints_are(&held[1], &[]).await;
        until_endpoints_are(&held[3], &["10.1.4.1", "10.1.4.2"]).await;
        eventually("the Service is gone", || proxy.metric("ferrule_destinations") == 4.0).await;
        eventually("watched again", || server.open_watches() == 3).await;
        server.endpoints("shop", "e", &["10.1.5.2"]);
        until_endpoints_are(&held[4], &["10.1.5.2"]).await;
    }
}

#[tokio::test]
async fn a_lost_event_is_mended_and_counted() {
    let server = shop().await;
    let proxy = Proxy::start(
        &server,
        Times { check: Duration::from_millis(300), grace: Duration::from_secs(1), ..times() },
    );
    let mut held = Vec::new();
    for last in 1..=5 {
        held.push(proxy.service(&format!("10.0.0.{last}")).await);
    }
    eventually("joined", || server.open_watches() == 3).await;
    let mended = |kind: &str| proxy.metric(&format!("ferrule_discovery_mended_total{{kind=\"{kind}\"}}"));
    // Changes that are told are no one's loss, however often it is checked meanwhile.
    for round in 0..40 {
        server.endpoints("shop", "e", &[&format!("10.1.5.{round}")]);
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    until_endpoints_are(&held[4], &["10.1.5.39"]).await;
    assert!(proxy.metric("ferrule_discovery_checks_total") > 0.0);
    assert_eq!(mended("endpointslice"), 0.0);

    server.lose(true);
    server.endpoints("shop", "a", &["10.1.1.2"]);
    server.delete("endpointslices", "shop", "b-0");
    server.slice("shop", "c", 1, &["10.1.3.2"]);
    server.delete("services", "shop", "d");
    let mesh = Mesh { format: FORMAT, namespace: "shop".into(), ..Mesh::default() };
    let data = shard::split(&mesh).expect("small").remove(0);
    server.put("configmaps", "shop", "ferrule", json!({ "data": data }));
    server.lose(false);
    until_endpoints_are(&held[0], &["10.1.1.2"]).await;
    until_endpoints_are(&held[1], &[]).await;
    until_endpoints_are(&held[2], &["10.1.3.1", "10.1.3.2"]).await;
    eventually("the Service is gone", || proxy.metric("ferrule_destinations") == 4.0).await;
    eventually("all are counted", || {
        mended("endpointslice") == 3.0 && mended("service") == 1.0 && mended("configmap") == 1.0
    })
    .await;
    // And later changes are told again.
    server.endpoints("shop", "a", &["10.1.1.3"]);
    until_endpoints_are(&held[0], &["10.1.1.3"]).await;
}

#[tokio::test]
async fn a_connection_that_froze_is_noticed_by_pings() {
    let server = shop().await;
    let ping = (Duration::from_millis(200), Duration::from_millis(200));
    let proxy = Proxy::start(&server, Times { ping, ..times() });
    let cart = proxy.service("10.0.0.1").await;
    eventually("watches are open", || server.open_watches() == 3).await;
    server.network.freeze();
    server.endpoints("shop", "a", &["10.1.1.2"]);
    until_endpoints_are(&cart, &["10.1.1.2"]).await;
    let Times { ping, backoff, connect, .. } = Times::default();
    assert!(ping.0 + ping.1 + backoff.1 + connect <= Duration::from_secs(30), "as it is by default");
}

#[tokio::test]
async fn a_connection_that_froze_while_nothing_was_watched_is_noticed_too() {
    let server = shop().await;
    let ping = (Duration::from_millis(200), Duration::from_millis(200));
    let proxy = Proxy::start(&server, Times { ping, ..times() });
    assert!(proxy.is_outside("10.9.9.9:80").await);
    server.network.freeze();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    assert_eq!(endpoints(&*proxy.service("10.0.0.1").await), ["10.1.1.1"]);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_watch_that_says_nothing_is_begun_again() {
    let server = shop().await;
    let proxy = Proxy::start(&server, Times { quiet: Duration::from_secs(1), ..times() });
    let cart = proxy.service("10.0.0.1").await;
    eventually("watches are open", || server.open_watches() == 3).await;
    server.mute(true);
    server.endpoints("shop", "a", &["10.1.1.2"]);
    server.take_requests();
    eventually("it was begun again", || server.take_requests().iter().any(|request| is_watch(request))).await;
    assert_eq!(endpoints(&cart), ["10.1.1.1"]);
    server.mute(false);
    until_endpoints_are(&cart, &["10.1.1.2"]).await;
}

#[tokio::test]
async fn while_the_api_server_is_away_nobody_waits_for_it_and_it_is_not_stormed() {
    let server = shop().await;
    let backoff = (Duration::from_millis(100), Duration::from_secs(1));
    let proxy = Proxy::start(&server, Times { backoff, ..times() });
    let cart = proxy.service("10.0.0.1").await;
    eventually("watches are open", || server.open_watches() == 3).await;
    let before = server.network.connections();
    server.network.down(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    for last in 0..50 {
        assert!(proxy.is_outside(&format!("10.7.0.{last}:80")).await);
        assert_eq!(endpoints(&cart), ["10.1.1.1"]);
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Pauses of at most 100, 200, 400, 800 ms and then of 1 s; none is shorter than a tenth of that. One connection is
    // tried for all three watches and all look-ups.
    let tried = server.network.connections() - before;
    assert!((2..=30).contains(&tried), "{tried} connections were tried");
    server.network.down(false);
    server.endpoints("shop", "a", &["10.1.1.2"]);
    until_endpoints_are(&cart, &["10.1.1.2"]).await;
    eventually("all watches are back", || server.open_watches() == 3).await;
}

#[tokio::test]
async fn an_overloaded_api_server_is_left_alone() {
    let server = shop().await;
    let proxy = Proxy::start(&server, times());
    let cart = proxy.service("10.0.0.1").await;
    eventually("watches are open", || server.open_watches() == 3).await;
    server.refuse(Some((StatusCode::TOO_MANY_REQUESTS, "too many requests")));
    server.network.cut();
    server.take_requests();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let requests = server.take_requests().len();
    assert!((3..=150).contains(&requests), "{requests} requests in a second");
    server.refuse(None);
    server.endpoints("shop", "a", &["10.1.1.2"]);
    until_endpoints_are(&cart, &["10.1.1.2"]).await;
}

/// A sidecar of namespace `shop`, and the modes that it has been told.
fn own() -> (Own, Arc<Mutex<Vec<TlsMode>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let labels = Labels::Fixed([("app".to_owned(), "cart".to_owned())].into());
    let pod = Pod { namespace: "shop".into(), account: None, system: Some("ferrule-system".into()), labels };
    (
        Own::new(pod, Modes::default(), move |holds| telling.lock().expect("sound").push(holds.modes.mode)),
        told,
    )
}

fn put_peers(server: &ApiServer, address: &str, account: &str) {
    put_peer(server, address, account, TlsMode::Permissive);
}

fn put_peer(server: &ApiServer, address: &str, account: &str, mode: TlsMode) {
    let address = address.parse().expect("an address");
    let modes = Modes { mode, ..Modes::default() };
    let peer = peers::Peer { namespace: "shop".into(), account: account.into(), modes };
    let shards = peers::split(&peers::Addresses::from([(address, peer)])).expect("fits");
    let index = peers::shard(address);
    server.put("configmaps", "ferrule-system", &peers::name(index), json!({"data": shards[index]}));
}

#[tokio::test]
async fn a_pod_that_is_dialled_by_its_address_is_known() {
    let server = shop().await;
    put_peers(&server, "10.1.7.1", "cart");
    let proxy = Proxy::with(&server, times(), Some(own().0));
    let who = |destination: &Destination| {
        let cluster = Arc::clone(&destination.now().cluster);
        match cluster.expected.as_ref().expect("known").of("10.1.7.1:80".parse().expect("an address")) {
            Security::Tls { accounts, .. } => accounts.names.clone(),
            Security::Plain(reason) => panic!("{reason:?}"),
        }
    };
    let pod = proxy.service("10.1.7.1").await;
    assert_eq!(who(&pod), ["cart"]);
    assert_eq!(&*pod.now().cluster.service, "shop/-");
    assert_eq!(endpoints(&pod), ["10.1.7.1"]);
    assert!(proxy.is_outside("10.1.7.2:80").await, "it is in no list");
    assert!(proxy.is_outside("192.0.2.1:443").await, "it is outside of the cluster");
    // Asked once for each; nothing is watched for it.
    let asked = server.take_requests();
    assert_eq!(asked.iter().filter(|path| path.contains("/ferrule-system/")).count(), 3, "{asked:?}");
    assert!(proxy.watches().await.iter().all(|watch| watch.contains("shop/ferrule")));
    // Another port of the same pod.
    let resolved = proxy.discovery.resolve("10.1.7.1:81".parse().expect("an address")).await;
    assert!(matches!(resolved, Resolved::Service(other) if !Arc::ptr_eq(&other, &pod)));
}

#[tokio::test]
async fn before_a_connection_to_a_pod_fails_it_is_asked_about_again() {
    let server = shop().await;
    put_peer(&server, "10.1.7.1", "cart", TlsMode::Strict);
    let proxy = Proxy::with(&server, times(), Some(own().0));
    let pod = proxy.service("10.1.7.1").await;
    let held = pod.now().cluster.expected.clone().expect("known");
    assert!(held.newer().await.is_none(), "it is as it was");
    put_peer(&server, "10.1.7.1", "cart", TlsMode::Disabled);
    server.take_requests();
    // A hundred connections fail at once: they ask one question.
    let all = futures::future::join_all((0..100).map(|_| held.newer())).await;
    let address = "10.1.7.1:80".parse().expect("an address");
    for found in all {
        let found = found.expect("something else is known");
        assert_eq!(found.of(address), Security::Plain(PlainReason::Disabled));
    }
    let asked = server.take_requests();
    assert_eq!(asked.iter().filter(|path| path.contains("/ferrule-system/")).count(), 1, "{asked:?}");
    let of_pod = pod.now().cluster.expected.clone().expect("known");
    assert!(of_pod.of(address) == Security::Plain(PlainReason::Disabled), "the next ones know it");
}

#[tokio::test]
async fn what_is_known_of_a_pod_holds_while_the_api_server_is_away() {
    let server = shop().await;
    put_peer(&server, "10.1.7.1", "cart", TlsMode::Strict);
    let proxy = Proxy::with(&server, times(), Some(own().0));
    let pod = proxy.service("10.1.7.1").await;
    server.network.down(true);
    server.network.cut();
    let held = pod.now().cluster.expected.clone().expect("known");
    for _ in 0..3 {
        assert!(held.newer().await.is_none(), "nothing can be asked");
        assert!(Arc::ptr_eq(&proxy.service("10.1.7.1").await, &pod), "it is not taken for a stranger");
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
}

#[tokio::test]
async fn without_the_list_of_addresses_connections_go_straight_on() {
    let server = shop().await;
    let proxy = Proxy::with(&server, times(), Some(own().0));
    assert!(proxy.is_outside("10.1.7.1:80").await);
    server.put(
        "configmaps",
        "ferrule-system",
        &peers::name(peers::shard("10.1.7.3".parse().expect("one"))),
        json!({
            "data": {"peers.json": "garbage"},
        }),
    );
    assert!(proxy.is_outside("10.1.7.3:80").await);
}

#[tokio::test]
async fn what_the_pod_itself_accepts_is_known_from_the_start_and_followed() {
    let server = shop().await;
    let (own, told) = own();
    let _proxy = Proxy::with(&server, times(), Some(own));
    let told = || told.lock().expect("sound").clone();
    eventually("no configuration is known to be none", || told() == [TlsMode::Permissive]).await;
    let strict =
        WorkloadTls { modes: Modes { mode: TlsMode::Strict, ..Modes::default() }, ..WorkloadTls::default() };
    let mesh = Mesh { format: FORMAT, namespace: "shop".into(), tls: vec![strict], ..Mesh::default() };
    let data = shard::split(&mesh).expect("small").remove(0);
    server.put("configmaps", "shop", "ferrule", json!({"data": data}));
    eventually("it is closed", || told() == [TlsMode::Permissive, TlsMode::Strict]).await;
    server.delete("configmaps", "shop", "ferrule");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(told(), [TlsMode::Permissive, TlsMode::Strict], "what is gone opens nothing");
}
