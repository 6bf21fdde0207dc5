//! The identity service as sidecars see it: over TLS, against an API server in memory.

mod api;
mod replica;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use api::{Api, text};
use axum::{Json, Router, routing::get};
use ferrule_config::{identity::Report, names::TRUST_CONFIG_MAP, trust as bundle};
use hyper::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, PKCS_ECDSA_P384_SHA384};
use replica::{Replica, SECRET, Sidecar, add_namespace, add_pod, csr, key, review, trust};
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

const OWN: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn loopback(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().expect("PEM")
}

/// Verifies a chain as a server does with its client's, and gives the names in it.
fn names(chain: &str, roots: &str) -> Vec<String> {
    let chain = certificates(chain);
    let mut store = RootCertStore::empty();
    for root in certificates(roots) {
        store.add(root).expect("a root");
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(store.into(), provider)
        .build()
        .expect("a verifier")
        .verify_client_cert(&chain[0], &chain[1..], UnixTime::now())
        .expect("verified");
    let (_, leaf) = parse_x509_certificate(&chain[0]).expect("a certificate");
    let names = leaf.subject_alternative_name().expect("readable").expect("names");
    names
        .value
        .general_names
        .iter()
        .map(|name| match name {
            GeneralName::URI(uri) => (*uri).to_owned(),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn published(api: &Api, namespace: &str) -> Option<String> {
    Some(api.object(&trust(namespace))?["data"]["ca.crt"].as_str()?.to_owned())
}

fn root_of(api: &Api) -> Option<String> {
    Some(text(&api.object(SECRET)?["data"]["ca.crt"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_a_certificate_for_its_service_account() {
    let (api, client) = Api::start().await;
    add_namespace(&api, "shop");
    let token = add_pod(&api, "cart-1", "127.0.0.1");
    let replica = Replica::leader(&client).await;
    let sidecar = Sidecar { api: &api, address: loopback(1) };
    for wanted in [&[][..], &[OWN]] {
        let issued = sidecar.ask(&replica, Some(&token), csr(&key(), wanted)).await.issued();
        assert_eq!(names(&issued.certificate, &issued.bundle), [OWN]);
        assert_eq!(Some(issued.bundle), published(&api, "shop"));
        // From 0.3 to 0.45 of 24 hours.
        assert!((25_920..=38_880).contains(&issued.renew_after_seconds), "{}", issued.renew_after_seconds);
    }
    assert_eq!(replica.metrics.issued(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_proves_nothing_gets_nothing() {
    let (api, client) = Api::start().await;
    add_namespace(&api, "shop");
    let token = add_pod(&api, "cart-1", "127.0.0.1");
    let replica = Replica::leader(&client).await;

    let wrong_audience = json!({ "authenticated": false, "error": "[token audiences [\"x\"] is invalid for the target audiences]" });
    api.token("token-other-audience", wrong_audience);
    let mut unchecked = review("system:serviceaccount:shop:cart", "cart-1", "uid-of-cart-1");
    unchecked["audiences"] = json!([]);
    api.token("token-unchecked-audience", unchecked);
    let mut unbound = review("system:serviceaccount:shop:cart", "cart-1", "");
    unbound["user"]["extra"] = json!({});
    api.token("token-unbound", unbound);
    api.token("token-person", review("jane", "cart-1", "uid-of-cart-1"));
    // A token outlives its pod: another one has the name by now.
    api.token("token-replayed", review("system:serviceaccount:shop:cart", "cart-1", "uid-of-the-one-before"));
    api.token("token-deleted", review("system:serviceaccount:shop:cart", "cart-9", "uid-of-cart-9"));
    api.token("token-other-account", review("system:serviceaccount:shop:admin", "cart-1", "uid-of-cart-1"));
    let stolen = add_pod(&api, "cart-2", "127.0.0.2");

    let good = csr(&key(), &[OWN]);
    let p384 = csr(&KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key"), &[]);
    let other = csr(&key(), &["spiffe://cluster.local/ns/shop/sa/admin"]);
    let two = csr(&key(), &[OWN, "spiffe://cluster.local/ns/shop/sa/admin"]);
    let mut forged = good.clone();
    // In the middle of the key.
    let place = forged.len() / 3;
    forged[place] ^= 1;

    let own = Some(token.as_str());
    for (sender, (token, body, status, cause)) in (10u8..).zip([
        (None, &good, 401, "no-token"),
        (Some("token-unknown"), &good, 401, "token"),
        (Some("token-other-audience"), &good, 401, "token"),
        (Some("token-unchecked-audience"), &good, 401, "token"),
        (Some("token-unbound"), &good, 403, "unbound"),
        (Some("token-person"), &good, 403, "not-service-account"),
        (Some("token-replayed"), &good, 403, "pod-gone"),
        (Some("token-deleted"), &good, 403, "pod-gone"),
        (Some("token-other-account"), &good, 403, "other-account"),
        (Some(&stolen), &good, 403, "other-address"),
        (own, &p384, 400, "csr-key"),
        (own, &forged, 400, "csr-signature"),
        (own, &b"{}".to_vec(), 400, "csr-malformed"),
        (own, &vec![0x30; 16 * 1024 + 1], 413, "too-large"),
    ]) {
        let sidecar = Sidecar { api: &api, address: loopback(sender) };
        let before = replica.metrics.refused(cause);
        let answer = sidecar.ask(&replica, token, body.clone()).await;
        let found = (answer.status.as_u16(), answer.cause());
        // A key with a changed bit may be no point of the curve at all.
        let either = cause == "csr-signature" && found == (400, "csr-malformed");
        assert!(either || found == (status, cause), "{cause}: {found:?} {}", answer.body);
        assert!(either || replica.metrics.refused(cause) == before + 1);
        let told = answer.body.to_string();
        assert!(token.is_none_or(|token| !told.contains(token)), "{told}");
    }
    for body in [&other, &two] {
        let answer = Sidecar { api: &api, address: loopback(1) }.ask(&replica, own, body.clone()).await;
        assert_eq!((answer.status, answer.cause()), (StatusCode::FORBIDDEN, "csr-names"));
    }
    assert_eq!(replica.metrics.issued(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_costs_the_api_server_nothing() {
    let (api, client) = Api::start().await;
    add_namespace(&api, "shop");
    let token = add_pod(&api, "cart-1", "127.0.0.1");
    let replica = Replica::leader(&client).await;
    let sidecar = Sidecar { api: &api, address: loopback(1) };
    for _ in 0..5 {
        sidecar.ask(&replica, Some(&token), b"garbage".to_vec()).await;
        sidecar.ask(&replica, None, csr(&key(), &[])).await;
    }
    assert_eq!(api.reviews(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_asks_too_often_has_to_wait_and_others_have_not() {
    let (api, client) = Api::start().await;
    add_namespace(&api, "shop");
    let token = add_pod(&api, "cart-1", "127.0.0.1");
    let other = add_pod(&api, "cart-2", "127.0.0.2");
    let replica = Replica::leader(&client).await;
    let (one, two) =
        (Sidecar { api: &api, address: loopback(1) }, Sidecar { api: &api, address: loopback(2) });
    let mut refused = None;
    for _ in 0..8 {
        let answer = one.ask(&replica, Some(&token), csr(&key(), &[])).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(answer);
        }
    }
    let refused = refused.expect("a limit");
    assert_eq!(refused.cause(), "rate-limited");
    assert!(refused.retry_after.is_some_and(|seconds| (1..=20).contains(&seconds)));
    two.ask(&replica, Some(&other), csr(&key(), &[])).await.issued();
    // And who has no pod to show is held up by address.
    let mut limited = false;
    for _ in 0..40 {
        limited |= Sidecar { api: &api, address: loopback(3) }.ask(&replica, None, Vec::new()).await.status
            == StatusCode::TOO_MANY_REQUESTS;
    }
    assert!(limited);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_together_make_one_authority() {
    for _ in 0..10 {
        let (api, client) = Api::start().await;
        add_namespace(&api, "shop");
        let token = add_pod(&api, "cart-1", "127.0.0.1");
        let (first, second, third) = tokio::join!(
            Replica::with(&client, false, |_| {}),
            Replica::leader(&client),
            Replica::with(&client, false, |_| {})
        );
        let sidecar = Sidecar { api: &api, address: loopback(1) };
        for replica in [&first, &second, &third] {
            // They all have a certificate that the one bundle verifies.
            let issued = sidecar.ask(replica, Some(&token), csr(&key(), &[])).await.issued();
            let trusted = published(&api, "shop").expect("published");
            assert_eq!(names(&issued.certificate, &trusted), [OWN]);
        }
        assert_eq!(api.created(SECRET), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bundle_is_in_every_meshed_namespace_and_put_back() {
    let (api, client) = Api::start().await;
    add_namespace(&api, "shop");
    api.put(
        "/api/v1/namespaces/ferrule-system/services/ferrule-identity",
        json!({
            "spec": { "clusterIP": "10.96.0.7", "ports": [{ "port": 15113 }] },
        }),
    );
    let _replica = Replica::leader(&client).await;
    let wanted = |api: &Api, namespace: &str| {
        let data = api.object(&trust(namespace)).map(|object| object["data"].clone()).unwrap_or_default();
        root_of(api).is_some_and(|root| data["ca.crt"].as_str().is_some_and(|text| text.contains(&root)))
            && data["address"] == "10.96.0.7:15113"
    };
    api.until("published", |api| wanted(api, "shop") && wanted(api, "ferrule-system")).await;
    assert!(api.object(&trust("shop")).expect("there")["data"].get("status.json").is_none());
    let text = published(&api, "shop").expect("there");
    assert!(bundle::generation(&text).is_some(), "{text}");

    api.put(
        &trust("shop"),
        json!({ "metadata": { "name": TRUST_CONFIG_MAP }, "data": { "ca.crt": "evil" } }),
    );
    api.until("an edit is undone", |api| wanted(api, "shop")).await;
    api.delete(&trust("shop"));
    api.until("it comes back", |api| wanted(api, "shop")).await;
    add_namespace(&api, "bank");
    api.until("a new namespace has it", |api| wanted(api, "bank")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_somebody_deleted_or_spoilt_comes_back_as_it_was() {
    let (api, client) = Api::start().await;
    let _replica = Replica::leader(&client).await;
    api.until("an authority is made", |api| root_of(api).is_some()).await;
    let first = api.object(SECRET).expect("there")["data"].clone();
    // The replica has it in memory once it has published it.
    api.until("published", |api| published(api, "ferrule-system").is_some()).await;
    api.delete(SECRET);
    api.until("it comes back", |api| api.object(SECRET).is_some_and(|secret| secret["data"] == first)).await;
    let mut spoilt = api.object(SECRET).expect("there");
    spoilt["data"]["tls.key"] = json!("c3BvaWx0");
    api.put(SECRET, spoilt);
    api.until("it is mended", |api| api.object(SECRET).is_some_and(|secret| secret["data"] == first)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoilt_secret_of_which_nobody_knows_the_content_is_left_alone() {
    let (api, client) = Api::start().await;
    add_namespace(&api, "shop");
    let spoilt = json!({ "data": { "ca.crt": "c3BvaWx0" } });
    api.put(SECRET, spoilt.clone());
    let _replica = Replica::leader(&client).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(api.object(SECRET).expect("there")["data"], spoilt["data"]);
    assert_eq!(published(&api, "shop"), None);
}

const USERS: &str = "/api/v1/namespaces/ferrule-system/secrets/mesh-ca";

/// A root that signs by itself, as cert-manager writes it.
fn users_authority() -> (String, Value) {
    let key = key();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "the user's");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let pem = params.self_signed(&key).expect("made").pem();
    let base64 = |text: &str| json!(k8s_openapi::ByteString(text.as_bytes().to_vec()));
    let data =
        json!({ "ca.crt": base64(&pem), "tls.crt": base64(&pem), "tls.key": base64(&key.serialize_pem()) });
    (pem, json!({ "type": "kubernetes.io/tls", "data": data }))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_the_user_signs_and_a_bad_one_changes_nothing() {
    let (api, client) = Api::start().await;
    add_namespace(&api, "shop");
    let token = add_pod(&api, "cart-1", "127.0.0.1");
    let replica = Replica::with(&client, true, |settings| {
        settings.authority_secret = Some("mesh-ca".into());
    })
    .await;
    // Without it nothing is made instead.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(api.object(SECRET), None);

    let (root, secret) = users_authority();
    api.put(USERS, secret.clone());
    api.until("it is published", |api| published(api, "shop").is_some_and(|text| text.contains(&root))).await;
    let sidecar = Sidecar { api: &api, address: loopback(1) };
    let issued = sidecar.ask(&replica, Some(&token), csr(&key(), &[])).await.issued();
    assert_eq!(names(&issued.certificate, &root), [OWN]);

    let mut bad = secret;
    bad["data"]["tls.key"] = users_authority().1["data"]["tls.key"].clone();
    api.put(USERS, bad);
    let status = |api: &Api| -> Value {
        let text = api.object(&trust("ferrule-system")).map(|object| object["data"]["status.json"].clone());
        serde_json::from_str(text.unwrap_or_default().as_str().unwrap_or_default()).unwrap_or_default()
    };
    api.until("it is told", |api| {
        status(api)["problem"].as_str().is_some_and(|text| text.contains("tls.key is not the key"))
    })
    .await;
    let issued = sidecar.ask(&replica, Some(&token), csr(&key(), &[])).await.issued();
    assert_eq!(names(&issued.certificate, &root), [OWN]);

    let (next, secret) = users_authority();
    api.put(USERS, secret);
    api.until("both are trusted", |api| {
        published(api, "shop").is_some_and(|text| text.contains(&root) && text.contains(&next))
    })
    .await;
    let issued = sidecar.ask(&replica, Some(&token), csr(&key(), &[])).await.issued();
    assert_eq!(names(&issued.certificate, &root), [OWN], "the former one still signs");
}

/// What a sidecar tells of itself.
async fn admin(report: Arc<std::sync::Mutex<Report>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let router = Router::new().route(
        "/identity",
        get(move || {
            let report = report.lock().expect("nobody panics with the lock").clone();
            async move { Json(report) }
        }),
    );
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_waits_for_sidecars_and_goes_on_with_another_leader() {
    let (api, client) = Api::start().await;
    add_namespace(&api, "shop");
    let token = add_pod(&api, "cart-1", "127.0.0.1");
    let report = Arc::new(std::sync::Mutex::new(Report { id: Some(OWN.into()), ..Report::default() }));
    let port = admin(Arc::clone(&report)).await;
    let fast = move |settings: &mut ferrule::identity::Settings| {
        settings.grace = Duration::from_millis(300);
        settings.admin_port = port;
    };
    let leader = Replica::with(&client, true, fast).await;
    let sidecar = Sidecar { api: &api, address: loopback(1) };
    let old = sidecar.ask(&leader, Some(&token), csr(&key(), &[])).await.issued();

    let mut secret = api.object(SECRET).expect("there");
    secret["metadata"]["annotations"]["ferrule.dev/rotate"] = json!("r1");
    api.put(SECRET, secret);
    api.until("two roots are trusted", |api| {
        published(api, "shop").is_some_and(|text| certificates(&text).len() == 2)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let both = published(&api, "shop").expect("there");
    assert_eq!(certificates(&both)[0], certificates(&old.bundle)[0], "the sidecar has not got the bundle");
    assert_eq!(certificates(&both).len(), 2);

    // The leader dies, another one takes over, the sidecar says that it has the bundle.
    drop(leader);
    let leader = Replica::with(&client, true, fast).await;
    report.lock().expect("lock").bundle = Some(ferrule_config::identity::BundleReport {
        generation: bundle::generation(&both).expect("numbered"),
        hash: String::new(),
    });
    let root = |text: &str| certificates(text)[0].clone();
    api.until("the next root signs", |api| {
        published(api, "shop").is_some_and(|text| root(&text) == certificates(&both)[1])
    })
    .await;
    let new = sidecar.ask(&leader, Some(&token), csr(&key(), &[])).await.issued();
    // Whoever has the bundle of before verifies both.
    for issued in [&old, &new] {
        assert_eq!(names(&issued.certificate, &both), [OWN]);
    }
    assert_eq!(certificates(&new.bundle).len(), 2);

    report.lock().expect("lock").root = Some(fingerprint(&root(&new.bundle)));
    api.until("the old root is trusted no more", |api| {
        published(api, "shop").is_some_and(|text| certificates(&text) == [root(&new.bundle)])
    })
    .await;
    let secret = api.object(SECRET).expect("there");
    assert!(secret["data"].get("old-ca.crt").is_none() && secret["data"].get("next-tls.key").is_none());
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sidecars as they are, with a kubelet that copies the ConfigMap into their volumes.
mod sidecars {
    use std::{path::Path, time::SystemTime};

    use ferrule_proxy::identity::{Identity, Service, Settings};
    use tempfile::TempDir;

    use super::*;

    struct Pod {
        files: TempDir,
        identity: Identity,
    }

    impl Pod {
        fn start(token: &str, address: &str) -> Self {
            let files = tempfile::tempdir().expect("a directory");
            std::fs::write(files.path().join("token"), token).expect("written");
            std::fs::write(files.path().join("address"), address).expect("written");
            let service = Service { host: replica::SERVER.to_owned(), port: 15113 };
            let id = OWN.parse().expect("an identity");
            let settings = Settings { service, id, files: files.path().to_owned() };
            Self { identity: Identity::start(Some(&settings), Arc::default()), files }
        }
    }

    fn mount(api: &Api, files: &Path) {
        let Some(text) = published(api, "shop") else { return };
        // At one stroke, as the kubelet does.
        let new = files.join("new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(new, files.join("ca.crt")).expect("renamed");
    }

    /// Each verifies what the other shows.
    fn agree(one: &Identity, two: &Identity) {
        for (verifier, shown) in [(one, two), (two, one)] {
            let (Some(bundle), Some(current)) = (verifier.bundle(), shown.current()) else { continue };
            if verifier.current().is_none() || !current.is_valid(SystemTime::now()) {
                continue;
            }
            let provider = Arc::new(aws_lc_rs::default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(bundle.roots()), provider);
            verifier
                .build()
                .expect("a verifier")
                .verify_client_cert(&current.key.cert[0], &current.key.cert[1..], UnixTime::now())
                .expect("sidecars verify each other at every moment");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_root_changes_under_sidecars_that_verify_each_other_all_the_time() {
        let (api, client) = Api::start().await;
        add_namespace(&api, "shop");
        let tokens = [add_pod(&api, "cart-1", "127.0.0.1"), add_pod(&api, "cart-2", "127.0.0.1")];
        let pods = {
            // The operator is not there yet; the sidecars start all the same.
            let reserved = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = reserved.local_addr().expect("bound").to_string();
            tokens.each_ref().map(|token| Pod::start(token, &address))
        };
        // Both pods are asked at the same address here, so the slower one speaks for both.
        let reports = pods.each_ref().map(|pod| pod.identity.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let slower = move || {
            let [one, two] = reports.each_ref().map(Identity::report);
            let generation = |report: &Report| report.bundle.as_ref().map(|bundle| bundle.generation);
            let one_is = generation(&one) < generation(&two);
            let first = if one_is { one.clone() } else { two.clone() };
            // The root of the other one, unless they agree.
            let root = if one.root == two.root { one.root } else { None };
            async move { Json(Report { root, ..first }) }
        };
        let router = Router::new().route("/identity", get(slower));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let replica = Replica::with(&client, true, |settings| {
            settings.grace = Duration::from_millis(500);
            settings.admin_port = port;
            settings.life = "2m".parse().expect("a life");
        })
        .await;
        for pod in &pods {
            std::fs::write(pod.files.path().join("address"), replica.address.to_string()).expect("written");
        }

        let mut asked = None;
        let mut roots = std::collections::BTreeSet::new();
        let begin = std::time::Instant::now();
        loop {
            for pod in &pods {
                mount(&api, pod.files.path());
            }
            agree(&pods[0].identity, &pods[1].identity);
            let both: Vec<_> = pods.iter().filter_map(|pod| pod.identity.report().root).collect();
            roots.extend(both.clone());
            if both.len() == 2 && asked.is_none() {
                let mut secret = api.object(SECRET).expect("there");
                secret["metadata"]["annotations"]["ferrule.dev/rotate"] = json!("r1");
                api.put(SECRET, secret);
                asked = Some(both[0].clone());
            }
            let over = published(&api, "shop").is_some_and(|text| certificates(&text).len() == 1);
            if let Some(old) = &asked
                && over
                && both.iter().all(|root| root != old)
            {
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(120), "{roots:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(roots.len(), 2, "one root before, another after");
    }
}
