//! TLS is passed through untouched, and the server's name in it is seen.

mod support;

use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};
use support::{World, eventually, get, talk};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What a real client begins with.
fn greeting(server_name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider's own")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(server_name.to_owned()).expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("into memory");
    bytes
}

#[tokio::test]
async fn the_name_is_seen_however_the_greeting_is_cut_and_nothing_is_changed_or_held_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let endpoint = listener.local_addr().expect("bound");
    let world = World::new();
    world.service("secure", &[endpoint]);
    let proxy = world.proxy(&["secure"], &[]).await;
    let named = greeting("cart.shop.svc");
    // An address is never sent as a name.
    let unnamed = greeting("127.0.0.1");
    for (bytes, segment) in [(&named, usize::MAX), (&named, 50), (&unnamed, usize::MAX)] {
        let mut client = TcpStream::connect(proxy.listeners[0]).await.expect("the proxy listens");
        client.set_nodelay(true).expect("open");
        let mut server = None;
        for part in bytes.chunks(segment) {
            client.write_all(part).await.expect("sent");
            if server.is_none() {
                server = Some(listener.accept().await.expect("the proxy connects").0);
            }
            // Each part arrives before the next is sent: nobody waits for the whole.
            let mut seen = vec![0; part.len()];
            server.as_mut().expect("accepted").read_exact(&mut seen).await.expect("received");
            assert_eq!(seen, part);
        }
    }
    let count = |name: &str| {
        format!(
            "ferrule_tls_passed_through_total{{direction=\"outbound\",version=\"1.3\",server_name=\"{name}\"}}"
        )
    };
    eventually("three are counted", async || {
        let metrics = talk(proxy.admin, &get("/metrics", "")).await;
        metrics.contains(&format!("{} 2", count("yes"))) && metrics.contains(&format!("{} 1", count("no")))
    })
    .await;
}
