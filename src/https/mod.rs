//! An HTTPS server whose certificate can change while it runs.
//!
//! ```text
//!   accept ─(at most 512 connections)─▶ TLS ─▶ HTTP/1.1 or 2 ─▶ router
//! ```
//!
//! Everything a peer can be slow or greedy about is bounded: handshake, header, connections, streams; bodies are the
//! router's to bound. When told to stop it goes on for a moment, as its clients may not have heard yet that this
//! replica is going; then it lets what is under way end.

mod certificates;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

pub(crate) use certificates::provider;
pub use certificates::{CertificateError, Certificates};

const CONNECTIONS: usize = 512;
const STREAMS: u32 = 128;
/// Finds peers that went without a word; the API server keeps its connections open for long.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the Service may go on sending new connections here after the request to stop.
const LINGER: Duration = Duration::from_secs(3);
const DRAIN: Duration = Duration::from_secs(5);
/// After running out of file descriptors or the like.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a request's connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Open connections by address; clones share the count.
#[derive(Clone, Debug, Default)]
struct Peers(Arc<Mutex<HashMap<Peer, usize>>>);

/// A connection that is counted until it is dropped.
struct Place(Peers, Peer);

impl Peers {
    fn enter(&self, peer: Peer, most: usize) -> Option<Place> {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = peers.entry(peer).or_default();
        // Whoever has none gets one, so no entry is left behind.
        if *count >= most.max(1) {
            return None;
        }
        *count += 1;
        Some(Place(self.clone(), peer))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self(peers, peer) = self;
        let mut peers = peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = peers.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                peers.remove(peer);
            }
        }
    }
}

/// Listens on both families where the host has IPv6, else on IPv4.
pub(crate) async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
        }
        bound => bound,
    }
}

/// What a server's clients may take of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How long a connection may last, where clients need it only once in a while.
    pub(crate) longest: Option<Duration>,
    /// Connections from one address, where there are many clients.
    pub(crate) of_one_peer: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { longest: None, of_one_peer: CONNECTIONS }
    }
}

/// Serves until `shutdown` turns true, and then until connections have ended or some seconds are over.
/// `name` is what log lines call it. Each request carries its [`Peer`].
pub(crate) async fn serve(
    name: &'static str,
    bounds: Bounds,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    shutdown: watch::Receiver<bool>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let peers = Peers::default();
    let graceful = GracefulShutdown::new();
    let mut stop = pin!(async {
        stopped(shutdown).await;
        sleep(LINGER).await;
    });
    loop {
        let accepted = tokio::select! {
            accepted = accept(name, &listener, &connections) => accepted,
            () = &mut stop => break,
        };
        let Some((stream, peer, permit)) = accepted else { continue };
        let Some(place) = peers.enter(peer, bounds.of_one_peer) else {
            debug!(name, ?peer, "connection refused: too many of this address");
            continue;
        };
        let service = TowerToHyperService::new(router.clone().layer(Extension(peer)));
        let connection = connection(name, stream, acceptor.clone(), service, graceful.watcher());
        tokio::spawn(async move {
            let _held = (permit, place);
            match bounds.longest {
                Some(longest) => timeout(longest, connection)
                    .await
                    .unwrap_or_else(|_| debug!(name, "connection ended for its age")),
                None => connection.await,
            }
        });
    }
    drop(listener);
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        warn!(name, "connections were still open {} s after the request to stop", DRAIN.as_secs());
    }
    info!(name, "server stopped");
}

/// Resolves when the value is true or nobody is left to set it.
pub(crate) async fn stopped(mut shutdown: watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn accept(
    name: &'static str,
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(TcpStream, Peer, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.expect("the semaphore is never closed");
    match listener.accept().await {
        Ok((stream, address)) => Some((stream, Peer(address.ip().to_canonical()), permit)),
        Err(error) => {
            warn!(name, %error, "cannot accept a connection");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(
    name: &'static str,
    stream: TcpStream,
    acceptor: TlsAcceptor,
    service: TowerToHyperService<Router>,
    watcher: Watcher,
) {
    // An exchange is one small write each way; waiting to fill a segment would cost 40 ms.
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(name, %error, "handshake failed"),
        Err(_) => return debug!(name, "handshake timed out"),
    };
    // By what the handshake agreed on: guessing from the first bytes would wait for them for ever.
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        debug!(name, %error, "connection failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_bounded_number_of_connections() {
        let peers = Peers::default();
        let [one, two] = [1, 2].map(|last| Peer(Ipv4Addr::new(10, 0, 0, last).into()));
        let held: Vec<_> = (0..3).filter_map(|_| peers.enter(one, 2)).collect();
        assert_eq!(held.len(), 2);
        assert!(peers.enter(two, 2).is_some(), "others are not held up");
        drop(held);
        assert!(peers.enter(one, 2).is_some());
        assert!(peers.0.lock().expect("not poisoned").is_empty(), "nobody is remembered");
    }
}
