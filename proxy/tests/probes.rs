//! The kubelet's probes, asked at the admin port of a real sidecar.

mod support;

use std::{convert::Infallible, net::SocketAddr, num::NonZeroU16, sync::Arc};

use bytes::Bytes;
use ferrule_config::probe::Probe;
use ferrule_proxy::app::App;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{World, get, ok, server, talk};
use tokio::net::TcpListener;

fn port(address: SocketAddr) -> NonZeroU16 {
    NonZeroU16::new(address.port()).expect("a port")
}

async fn sidecar(probes: &[Probe]) -> App {
    let probes: Vec<_> = probes.iter().map(ToString::to_string).collect();
    let probes = serde_json::json!(probes).to_string();
    World::new().proxy_with(&[], &[], &[("FERRULE_PROBES", &probes), ("POD_IPS", "127.0.0.1")]).await
}

async fn asked(proxy: &App, probe: &Probe, fields: &str) -> String {
    talk(proxy.admin, &get(&probe.to_string(), fields)).await
}

#[tokio::test]
async fn an_http_probe_gets_the_applications_own_answer() {
    let app = server(|request| {
        if request.starts_with("GET /down ") {
            "HTTP/1.1 500 Oops\r\nContent-Type: text/x\r\nContent-Length: 3\r\n\r\nbad".into()
        } else {
            ok(request)
        }
    })
    .await;
    let well = Probe::http(port(app), "/healthz?full=1", false);
    let down = Probe::http(port(app), "/down", false);
    let proxy = sidecar(&[well.clone(), down.clone()]).await;
    let answer = asked(&proxy, &well, "User-Agent: kube-probe/1.36\r\nX-Own: 1\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("GET /healthz?full=1 HTTP/1.1\r\n"), "{answer}");
    for field in ["user-agent: kube-probe/1.36\r\n", "x-own: 1\r\n"] {
        assert!(answer.to_ascii_lowercase().contains(field), "{answer}");
    }
    let answer = asked(&proxy, &down, "").await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.ends_with("bad") && answer.contains("content-type: text/x"), "{answer}");
}

#[tokio::test]
async fn the_host_is_the_pods_unless_the_probe_names_one() {
    let app = server(ok).await;
    let probe = Probe::http(port(app), "/", false);
    let proxy = sidecar(std::slice::from_ref(&probe)).await;
    let host = async |host: &str| {
        let request = format!("GET {probe} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        talk(proxy.admin, &request).await.to_ascii_lowercase()
    };
    assert!(host("10.0.0.7:15110").await.contains(&format!("\r\nhost: {app}\r\n")));
    assert!(host("shop").await.contains("\r\nhost: shop\r\n"));
}

#[tokio::test]
async fn nothing_is_asked_that_is_no_probe_of_the_pod() {
    let app = server(ok).await;
    let probe = Probe::http(port(app), "/healthz", false);
    let proxy = sidecar(std::slice::from_ref(&probe)).await;
    for path in [format!("{probe}/../admin"), format!("{probe}?x"), format!("/probe/tcp/{}", app.port())] {
        let answer = talk(proxy.admin, &get(&path, "")).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    let posted =
        format!("POST {probe} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert!(talk(proxy.admin, &posted).await.starts_with("HTTP/1.1 405 "));
}

#[tokio::test]
async fn redirects_are_followed_in_the_pod_and_not_out_of_it() {
    let app = server(|request| {
        let location = match request.split(' ').nth(1) {
            Some("/in") => "/there",
            Some("/out") => "http://shop.example/",
            Some("/circle") => "/circle",
            _ => return ok("arrived"),
        };
        format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
    })
    .await;
    let probes = ["/in", "/out", "/circle"].map(|path| Probe::http(port(app), path, false));
    let proxy = sidecar(&probes).await;
    assert!(asked(&proxy, &probes[0], "").await.ends_with("arrived"));
    let out = asked(&proxy, &probes[1], "").await.to_ascii_lowercase();
    assert!(out.starts_with("http/1.1 302 ") && !out.contains("location"), "{out}");
    assert!(asked(&proxy, &probes[2], "").await.starts_with("HTTP/1.1 503 "));
}

#[tokio::test]
async fn an_application_that_does_not_listen_or_answer_fails_its_probe() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("address");
    let mute = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mute_port = port(mute.local_addr().expect("address"));
    let probes = [
        Probe::tcp(port(gone)),
        Probe::http(port(gone), "/", false),
        Probe::grpc(port(gone), ""),
        Probe::tcp(mute_port),
        Probe::http(mute_port, "/", false),
    ];
    let proxy = sidecar(&probes).await;
    for probe in &probes[..3] {
        let answer = asked(&proxy, probe, "").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{probe}: {answer}");
    }
    assert!(asked(&proxy, &probes[3], "").await.starts_with("HTTP/1.1 200 "));
    // The kubelet's own time limit decides.
    assert_eq!(asked(&proxy, &probes[4], "").await, "");
}

#[tokio::test]
async fn an_https_probe_takes_any_certificate() {
    let certified = rcgen::generate_simple_self_signed(["nobody".to_owned()]).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certified.cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key"),
        )
        .expect("a certificate");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let probe = Probe::http(port(listener.local_addr().expect("address")), "/live", true);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service = service_fn(|request: Request<Incoming>| async move {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(request.uri().to_string()))))
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    });
    let proxy = sidecar(std::slice::from_ref(&probe)).await;
    let answer = asked(&proxy, &probe, "").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("/live"), "{answer}");
}

/// A gRPC health service that serves `shop.Cart`, does not serve the whole, and knows nothing else.
async fn health(
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let asked = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let (message, status) = match asked.get(5..) {
        Some([]) => (vec![0, 0, 0, 0, 2, 8, 2], "0"),
        Some(named) if named.ends_with(b"shop.Cart") => (vec![0, 0, 0, 0, 2, 8, 1], "0"),
        _ => (vec![], "5"),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    let body = Full::new(Bytes::from(message)).with_trailers(async move { Some(Ok(trailers)) });
    Ok(Response::builder().header("content-type", "application/grpc").body(body).expect("a response"))
}

#[tokio::test]
async fn a_grpc_probe_asks_the_health_service() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = port(listener.local_addr().expect("address"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service_fn(health)),
            );
        }
    });
    let probes = ["shop.Cart", "", "shop.Other"].map(|service| Probe::grpc(at, service));
    let proxy = sidecar(&probes).await;
    assert!(asked(&proxy, &probes[0], "").await.starts_with("HTTP/1.1 200 "));
    let answer = asked(&proxy, &probes[1], "").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("health 2"), "{answer}");
    let answer = asked(&proxy, &probes[2], "").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("gRPC status 5"), "{answer}");
}
