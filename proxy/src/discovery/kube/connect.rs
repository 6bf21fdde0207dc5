//! Connections to the API server: HTTP/2 over TLS, as few as there are streams for, watched by pings.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpStream, time::Instant};

use super::{backoff::Backoff, error::ApiError, tls::Tls};
use crate::discovery::Times;

/// Where the injector mounts the credentials.
const CREDENTIALS: &str = "/var/run/secrets/ferrule.dev/api";
/// Streams of one connection: the API server allows 100, and a stream beyond that would wait for ever behind
/// watches.
const MAX_STREAMS: usize = 80;
/// What the API server may send ahead on a stream and on a connection, in bytes: memory of the proxy while it has
/// not come to read it.
const WINDOWS: (u32, u32) = (256 * 1024, 1024 * 1024);

/// Where an API server is, and with what it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Directory with `ca.crt` and `token`, as Kubernetes projects them.
    pub credentials: PathBuf,
}

impl Address {
    /// From the variables that Kubernetes sets in every container.
    ///
    /// # Errors
    /// When they are not there.
    pub fn in_cluster() -> anyhow::Result<Self> {
        let host = std::env::var("KUBERNETES_SERVICE_HOST")
            .context("KUBERNETES_SERVICE_HOST is not set: not in a pod?")?;
        let port = std::env::var("KUBERNETES_SERVICE_PORT").unwrap_or_else(|_| "443".into());
        let port = port.parse().with_context(|| format!("KUBERNETES_SERVICE_PORT={port}"))?;
        let credentials = std::env::var("FERRULE_API_CREDENTIALS").unwrap_or_else(|_| CREDENTIALS.into());
        Ok(Self { host, port, credentials: credentials.into() })
    }

    /// Host and port as a URL has them.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

type Sender = SendRequest<Empty<Bytes>>;

/// All connections to the API server.
pub(super) struct Connections {
    address: Address,
    times: Times,
    open: Mutex<Vec<Open>>,
    /// One connects for all; the others wait for that.
    gate: tokio::sync::Mutex<Gate>,
    /// Whether the last attempt to connect failed.
    failing: AtomicBool,
}

struct Open {
    sender: Sender,
    streams: Arc<AtomicUsize>,
}

/// When the next attempt to connect may be made.
struct Gate {
    backoff: Backoff,
    not_before: Option<Instant>,
    /// Certificates of the file that it was made from, and what they made.
    tls: (Vec<u8>, Tls),
}

/// A stream of a connection; counted until it is dropped.
pub(super) struct Stream(Arc<AtomicUsize>);

impl Stream {
    fn begin(streams: &Arc<AtomicUsize>) -> Self {
        streams.fetch_add(1, Relaxed);
        Self(Arc::clone(streams))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Connections {
    /// None yet.
    ///
    /// # Errors
    /// When the address or the certificates can't be used.
    pub fn new(address: Address, times: Times) -> anyhow::Result<Self> {
        let ca = address.credentials.join("ca.crt");
        let pem = std::fs::read(&ca).with_context(|| format!("reading {}", ca.display()))?;
        let tls = Tls::new(&address.host, &pem).with_context(|| format!("reading {}", ca.display()))?;
        let gate = Gate {
            backoff: Backoff::new(times.backoff.0, times.backoff.1),
            not_before: None,
            tls: (pem, tls),
        };
        Ok(Self {
            address,
            times,
            open: Mutex::default(),
            gate: tokio::sync::Mutex::new(gate),
            failing: AtomicBool::new(false),
        })
    }

    /// Where the API server is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// A connection with room for a stream. Who is not patient gets none while the API server is away, for an
    /// attempt to reach it may take seconds.
    pub async fn take(&self, patient: bool) -> Result<(Sender, Stream), ApiError> {
        if let Some(found) = self.find() {
            return Ok(found);
        }
        if !patient && self.failing.load(SeqCst) {
            return Err(ApiError::Away);
        }
        let mut gate = self.gate.lock().await;
        // Somebody else may have connected meanwhile.
        if let Some(found) = self.find() {
            return Ok(found);
        }
        if let Some(not_before) = gate.not_before {
            tokio::time::sleep_until(not_before).await;
        }
        let connected = tokio::time::timeout(self.times.connect, self.connect(&mut gate)).await;
        match connected.map_err(|_| ApiError::Slow).and_then(|result| result) {
            Ok(sender) => {
                gate.not_before = None;
                gate.backoff.reset();
                self.failing.store(false, SeqCst);
                let streams = Arc::default();
                let stream = Stream::begin(&streams);
                self.lock().push(Open { sender: sender.clone(), streams });
                Ok((sender, stream))
            }
            Err(error) => {
                gate.not_before = Some(Instant::now() + gate.backoff.pause(fastrand::f64()));
                self.failing.store(true, SeqCst);
                Err(error)
            }
        }
    }

    async fn connect(&self, gate: &mut Gate) -> Result<Sender, ApiError> {
        let Address { host, port, credentials } = &self.address;
        // The cluster's authority may be replaced while the pod lives.
        if let Ok(pem) = std::fs::read(credentials.join("ca.crt"))
            && pem != gate.tls.0
        {
            match Tls::new(host, &pem) {
                Ok(tls) => gate.tls = (pem, tls),
                Err(error) => {
                    tracing::warn!(%error, "new ca.crt of the API server refused; the old one stays");
                }
            }
        }
        let tcp = TcpStream::connect((host.as_str(), *port)).await?;
        crate::net::prepare(&tcp);
        let tls = gate.tls.1.connect(tcp).await?;
        let handshake = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(self.times.ping.0)
            .keep_alive_timeout(self.times.ping.1)
            // A look-up must not be the first to find out that the network has forgotten the connection.
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .handshake(TokioIo::new(tls));
        let (sender, connection) = handshake.await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the API server ended");
            }
        });
        Ok(sender)
    }

    fn find(&self) -> Option<(Sender, Stream)> {
        let mut open = self.lock();
        open.retain(|connection| !connection.sender.is_closed());
        let free = open.iter().find(|connection| connection.streams.load(Relaxed) < MAX_STREAMS)?;
        Some((free.sender.clone(), Stream::begin(&free.streams)))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bearer token. Read anew each time: the kubelet renews the file.
pub(super) fn bearer(address: &Address) -> io::Result<http::HeaderValue> {
    let token = std::fs::read_to_string(address.credentials.join("token"))?;
    let mut bearer = http::HeaderValue::try_from(format!("Bearer {}", token.trim()))
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the token file holds no token"))?;
    bearer.set_sensitive(true);
    Ok(bearer)
}
