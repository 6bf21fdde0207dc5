//! What a worker thread has: everything that serving a connection needs, shared by the thread's tasks alone.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::{drain::Drain, pool::Pool, telemetry::Telemetry};

/// Which way a connection crosses the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the pod's application to the mesh.
    Outbound,
    /// From the mesh to the pod's application.
    Inbound,
}

impl Direction {
    /// Label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// Time limits of the data path.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Establishing a connection to an endpoint. Default: 1 s (Linkerd's).
    pub connect: Duration,
    /// From the first byte of a request's head to its last. Default: 30 s.
    pub head: Duration,
    /// Without a request on a client's connection. Default: 1 h (Envoy's).
    pub idle: Duration,
    /// How long a silent client may delay the choice of protocol. Default: 50 ms.
    pub detect: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(3600),
            detect: Duration::from_millis(50),
        }
    }
}

/// A worker thread's own things.
#[derive(Debug)]
pub struct Worker {
    /// Idle connections to endpoints of other pods.
    pub outbound: Pool,
    /// Idle connections to the application.
    pub inbound: Pool,
    /// Time limits.
    pub limits: Limits,
    /// Counters, shared with the other threads.
    pub telemetry: Arc<Telemetry>,
    /// Whether the process is ending.
    pub drain: Drain,
}

impl Worker {
    /// The pool for this direction: the two never share a connection, for a sidecar is trusted with other things
    /// than an application is.
    #[must_use]
    pub fn pool(&self, direction: Direction) -> &Pool {
        match direction {
            Direction::Outbound => &self.outbound,
            Direction::Inbound => &self.inbound,
        }
    }

    /// An idle connection to the endpoint, or a new one; and whether it is new.
    ///
    /// # Errors
    /// Those of connecting.
    pub async fn connection(
        &self,
        direction: Direction,
        endpoint: SocketAddr,
    ) -> std::io::Result<(tokio::net::TcpStream, bool)> {
        if let Some(stream) = self.pool(direction).take(endpoint) {
            return Ok((stream, false));
        }
        Ok((crate::net::connect(endpoint, self.limits.connect).await?, true))
    }
}
