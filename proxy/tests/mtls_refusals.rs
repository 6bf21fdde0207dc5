//! Whoever is not who he should be is refused, each for a cause of its own, and never spoken to plain instead.

mod mtls_harness;
mod support;

use std::{net::SocketAddr, sync::Arc};

use ferrule_config::{Modes, TlsMode};
use mtls_harness::{
    Lab, id, metrics, peers,
    testing::{Authority, self_signed},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
};
use support::{World, counted, echoed, eventually, get, ok, read_head, server, serving, talk};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

const VALID: (i64, i64) = (-60, 3600);

/// What is wrong with a certificate, and what that is called.
fn table(authority: &Authority) -> Vec<(&'static str, Pair, &'static str)> {
    let cart = id("cart");
    let elsewhere = "spiffe://elsewhere.example/ns/shop/sa/cart";
    vec![
        ("expired", authority.leaf(&[&cart], (-7200, -600)), "tls-expired"),
        (
            "not yet valid, by a clock that is ten minutes off",
            authority.leaf(&[&cart], (600, 7200)),
            "tls-not-yet-valid",
        ),
        ("of another trust domain", authority.leaf(&[elsewhere], VALID), "tls-identity"),
        ("self-signed", self_signed(&[&cart]), "tls-untrusted"),
        ("of another authority", Authority::new().leaf(&[&cart], VALID), "tls-untrusted"),
        ("with a name that is no identity", authority.leaf(&["https://cart.shop"], VALID), "tls-identity"),
        ("with two names", authority.leaf(&[&cart, &id("web")], VALID), "tls-identity"),
        ("with no name", authority.leaf(&[], VALID), "tls-identity"),
    ]
}

/// A server that shows this certificate, and answers `secret` over HTTP/1.
async fn shows((chain, key): Pair) -> SocketAddr {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    config.alpn_protocols = vec![b"ferrule/http1".to_vec(), b"ferrule/h2-http1".to_vec()];
    let (acceptor, listener) =
        (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.expect("loopback"));
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut first = [0];
                stream.peek(&mut first).await.expect("open");
                if first[0] != 22 {
                    // Nobody must come here without TLS.
                    let _ = read_head(&mut stream).await;
                    let _ = stream.write_all(ok("spoken to plain").as_bytes()).await;
                    return;
                }
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let answer =
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nsecret";
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";

#[tokio::test]
async fn a_server_with_a_bad_certificate_is_refused_in_both_modes() {
    let (lab, world) = (Lab::new().await, World::new());
    world.service("cart", &[]);
    world.configure("cart", peers(&["cart"], Modes::default()));
    let proxy = lab.sidecar("web", &world, &["cart"], &[], &[]).await;
    let listener = proxy.app.listeners[0];
    let good = shows(lab.authority.leaf(&[&id("cart")], VALID)).await;
    world.service("cart", &[good]);
    eventually("a good one is taken", async || talk(listener, UPGRADE).await.ends_with("secret")).await;
    let other = [
        ("of another account", lab.authority.leaf(&[&id("web")], VALID), "tls-identity"),
        (
            "of the same account in another namespace",
            lab.authority.leaf(&["spiffe://cluster.local/ns/pay/sa/cart"], VALID),
            "tls-identity",
        ),
    ];
    for mode in [TlsMode::Permissive, TlsMode::Strict] {
        world.configure("cart", peers(&["cart"], Modes { mode, ..Modes::default() }));
        for (what, pair, cause) in table(&lab.authority).into_iter().chain(
            other.iter().map(|(what, pair, cause)| (*what, (pair.0.clone(), pair.1.clone_key()), *cause)),
        ) {
            world.service("cart", &[shows(pair).await]);
            eventually(&format!("{what}: {cause}"), async || {
                let upgrade = talk(listener, UPGRADE).await;
                let request = talk(listener, &get("/", "")).await;
                assert!(![&upgrade, &request].iter().any(|it| it.contains("spoken to plain")), "{what}");
                [upgrade, request]
                    .iter()
                    .all(|answer| answer.contains(&format!("ferrule-error: {cause}\r\n")))
            })
            .await;
            let series = format!("ferrule_tls_handshakes_total{{direction=\"outbound\",result=\"{cause}\"}}");
            assert!(counted(&metrics(&proxy.app).await, &series) > 0, "{what}");
        }
    }
    let plain = "ferrule_plain_connections_total{direction=\"outbound\"}";
    assert_eq!(counted(&metrics(&proxy.app).await, plain), 0);
}

/// Believes everybody.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Says `hello` as this client, and what comes back; `None` if it is not believed.
async fn says_hello(to: SocketAddr, pair: Option<Pair>, alpn: &str, old: bool) -> Option<String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: &[_] = if old { &[&rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match pair {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).expect("a certificate"),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = if alpn.is_empty() { Vec::new() } else { vec![alpn.as_bytes().to_vec()] };
    let tcp = TcpStream::connect(to).await.expect("listens");
    let name = ServerName::try_from("cart.shop").expect("a name");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.ok()?;
    stream.write_all(b"hello").await.ok()?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

async fn echo() -> SocketAddr {
    serving(|mut stream| async move {
        let _ = echoed(&mut stream).await;
    })
    .await
}

#[tokio::test]
async fn a_client_with_a_bad_certificate_or_none_is_refused_in_both_modes() {
    let (lab, world, app) = (Lab::new().await, World::new(), echo().await);
    for mode in ["permissive", "strict"] {
        let proxy = lab.sidecar("cart", &world, &[], &[app], &[("FERRULE_MESH_TLS", mode)]).await;
        let to = proxy.app.listeners[0];
        let good = || Some(lab.authority.leaf(&[&id("web")], VALID));
        assert_eq!(says_hello(to, good(), "ferrule/tcp", false).await.as_deref(), Some("hello"));
        let count = async |result: &str| {
            let series = format!("ferrule_tls_handshakes_total{{direction=\"inbound\",result=\"{result}\"}}");
            counted(&metrics(&proxy.app).await, &series)
        };
        let mut bad: Vec<_> =
            table(&lab.authority).into_iter().map(|(what, pair, cause)| (what, Some(pair), cause)).collect();
        bad.push(("no certificate", None, "tls-identity"));
        for (what, pair, cause) in bad {
            let before = count(cause).await;
            assert_eq!(says_hello(to, pair, "ferrule/tcp", false).await, None, "{what}");
            eventually(&format!("{what}: {cause}"), async || count(cause).await == before + 1).await;
        }
        let before = count("tls-handshake").await;
        assert_eq!(says_hello(to, good(), "ferrule/else", false).await, None, "an unknown protocol");
        assert_eq!(says_hello(to, good(), "ferrule/tcp", true).await, None, "TLS 1.2 was not allowed");
        eventually("both are counted", async || count("tls-handshake").await == before + 2).await;
        assert_eq!(count("full").await, 1);
    }
}

#[tokio::test]
async fn other_tls_is_the_application_s_where_plain_is_permitted_and_refused_elsewhere() {
    let (lab, world) = (Lab::new().await, World::new());
    let app = shows(lab.authority.leaf(&[&id("cart")], VALID)).await;
    let permissive = lab.sidecar("cart", &world, &[], &[app], &[]).await;
    let answer = says_hello(permissive.app.listeners[0], None, "", false).await;
    assert_eq!(answer.as_deref(), Some("HTTP/"), "it is the application that answers");
    let strict = lab.sidecar("cart", &world, &[], &[app], &[("FERRULE_MESH_TLS", "strict")]).await;
    assert_eq!(says_hello(strict.app.listeners[0], None, "", false).await, None);
    let metrics = metrics(&strict.app).await;
    assert_eq!(counted(&metrics, "ferrule_tls_refused_total{reason=\"plaintext\"}"), 1);
}

#[tokio::test]
async fn who_is_of_a_root_that_is_trusted_no_more_is_refused() {
    let (lab, world) = (Lab::new().await, World::new());
    let old = Arc::new(Authority::new());
    lab.give(&lab.authority, &[&lab.authority, &old], 3600);
    let app = server(ok).await;
    let server = shows(old.leaf(&[&id("cart")], VALID)).await;
    world.service("cart", &[server]);
    world.configure("cart", peers(&["cart"], Modes::default()));
    let proxy = lab.sidecar("web", &world, &["cart"], &[app], &[]).await;
    assert!(talk(proxy.app.listeners[0], UPGRADE).await.ends_with("secret"));
    lab.give(&lab.authority, &[&lab.authority], 3600);
    lab.mount(&proxy);
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    eventually("it is not believed", async || {
        talk(proxy.app.listeners[0], UPGRADE).await.contains("ferrule-error: tls-untrusted\r\n")
    })
    .await;
    let pair = Some(old.leaf(&[&id("web")], VALID));
    assert_eq!(says_hello(proxy.app.listeners[1], pair, "ferrule/tcp", false).await, None);
}

#[tokio::test]
async fn a_client_that_never_ends_its_handshake_is_not_waited_for() {
    let (lab, world, app) = (Lab::new().await, World::new(), echo().await);
    let limits = [("FERRULE_LIMIT_TLS_HANDSHAKE", "300ms"), ("FERRULE_MESH_TLS", "strict")];
    let proxy = lab.sidecar("cart", &world, &[], &[app], &limits).await;
    for begun in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut client = TcpStream::connect(proxy.app.listeners[0]).await.expect("listens");
        client.write_all(begun).await.expect("sent");
        let mut rest = Vec::new();
        let end =
            tokio::time::timeout(std::time::Duration::from_secs(3), client.read_to_end(&mut rest)).await;
        assert!(end.is_ok() && rest.is_empty(), "it is over");
    }
}
