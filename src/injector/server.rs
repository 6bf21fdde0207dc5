//! The webhook's HTTPS server.
//!
//! ```text
//!   accept ─(at most 512 connections)─▶ TLS ─▶ HTTP/1.1 or 2 ─▶ POST /mutate ─(at most 64 bodies)─▶ review
//! ```
//!
//! Everything a peer can be slow or greedy about is bounded: handshake, header, body, connections, streams.
//! When told to stop it goes on for a moment, as the API server may not have heard yet that this replica is
//! going; then it lets what is under way end.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
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
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::{ReviewResult, Settings, namespaces::Namespaces, review};

/// etcd takes objects of 1.5 MiB, and the review of an update holds two.
const BODY_LIMIT: usize = 4 << 20;
const CONNECTIONS: usize = 512;
const BODIES: usize = 64;
const STREAMS: u32 = 128;
/// Finds peers that went without a word; the API server keeps its connections open for long.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// The chart's webhook times out after 5 s; nobody waits for an answer to a body that took longer.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the Service may go on sending new connections here after the request to stop.
const LINGER: Duration = Duration::from_secs(3);
const DRAIN: Duration = Duration::from_secs(5);
/// After running out of file descriptors or the like.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a review is answered from.
pub(super) struct App {
    pub(super) settings: Settings,
    pub(super) namespaces: Namespaces,
    pub(super) bodies: Semaphore,
}

impl App {
    pub(super) fn new(settings: Settings, namespaces: Namespaces) -> Self {
        Self { settings, namespaces, bodies: Semaphore::new(BODIES) }
    }
}

/// Serves until `shutdown` turns true, and then until connections have ended or some seconds are over.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    app: Arc<App>,
    shutdown: watch::Receiver<bool>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let service = TowerToHyperService::new(router(app));
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut stop = pin!(async {
        stopped(shutdown).await;
        sleep(LINGER).await;
    });
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            () = &mut stop => break,
        };
        let Some((stream, permit)) = accepted else { continue };
        let connection = connection(stream, acceptor.clone(), service.clone(), graceful.watcher());
        tokio::spawn(async move {
            connection.await;
            drop(permit);
        });
    }
    drop(listener);
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        warn!("webhook connections were still open {} s after the request to stop", DRAIN.as_secs());
    }
    info!("webhook stopped");
}

/// Resolves when the value is true or nobody is left to set it.
pub(super) async fn stopped(mut shutdown: watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.expect("the semaphore is never closed");
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            warn!(%error, "cannot accept a webhook connection");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    service: TowerToHyperService<Router>,
    watcher: Watcher,
) {
    // A review is one small write each way; waiting to fill a segment would cost 40 ms.
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "webhook handshake failed"),
        Err(_) => return debug!("webhook handshake timed out"),
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
        debug!(%error, "webhook connection failed");
    }
}

fn router(app: Arc<App>) -> Router {
    Router::new().route("/mutate", post(mutate)).route("/healthz", get(async || "ok\n")).with_state(app)
}

async fn mutate(State(app): State<Arc<App>>, request: Request) -> Response {
    let body = match read(&app, request.into_body()).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let start = Instant::now();
    let answer = review::answer(&body, &app.settings, |name| app.namespaces.enforced(name));
    let metrics = &app.settings.metrics;
    match answer {
        Ok(answer) => {
            metrics.observe(answer.result, start.elapsed());
            if let Some((namespace, refusal)) = answer.refusal {
                info!(namespace, %refusal, "pod refused");
            }
            ([(header::CONTENT_TYPE, "application/json")], answer.body).into_response()
        }
        Err(error) => {
            metrics.observe(ReviewResult::Malformed, start.elapsed());
            warn!(%error, "malformed admission review");
            (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response()
        }
    }
}

async fn read(app: &App, body: Body) -> Result<Bytes, Response> {
    let _permit = app.bodies.acquire().await.expect("the semaphore is never closed");
    match timeout(BODY_TIMEOUT, to_bytes(body, BODY_LIMIT)).await {
        Ok(Ok(body)) => Ok(body),
        // The limit is the only error that leaves someone to answer; a broken connection drops the answer.
        Ok(Err(error)) => Err((StatusCode::PAYLOAD_TOO_LARGE, format!("{error}\n")).into_response()),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body took too long\n").into_response()),
    }
}
