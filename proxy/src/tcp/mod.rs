//! Connections that carry no requests we know of: bytes both ways, each way closed on its own.
//!
//! ```text
//!   client ──▶ carry: copied, or spliced through a pipe ──▶ endpoint        a look at the first bytes: client_hello
//!   client ◀── carry ◀────────────────────────────────── endpoint
//! ```
//!
//! No time limit: what the mesh knows nothing of may be silent for days. Keep-alive probes find a dead peer.

mod carry;
pub mod client_hello;
mod pace;
#[cfg(target_os = "linux")]
mod pipe;
#[cfg(not(target_os = "linux"))]
#[path = "no_pipe.rs"]
mod pipe;
mod pump;

use std::{io, pin::pin};

use futures::future::{Either, select};
use tokio::net::TcpStream;

use self::{
    carry::{Broken, Direction, Look, failed},
    client_hello::Reading,
};
use crate::{buffer::Buffer, stream::Stream, telemetry::Flows};

/// Carries bytes both ways until both sides have ended, and counts them as they flow. `read` and `pending`: what was
/// already read from the client and from the endpoint. The end of one direction is passed on and the other goes on
/// (half-close); a failure of one side is one of the other (reset), after what had come before it. When `revoked` comes both
/// sides are reset at once.
pub async fn relay(
    client: Stream,
    read: Buffer,
    upstream: Stream,
    pending: Buffer,
    flows: &Flows<'_>,
    revoked: impl Future<Output = ()>,
) {
    let (mut client, mut upstream) = match (client, upstream) {
        (Stream::Plain(client), Stream::Plain(upstream)) => (client, upstream),
        (client, upstream) => {
            return Box::pin(pump::relay(client, read, upstream, pending, flows, revoked)).await;
        }
    };
    let carried = unless(revoked, both(&mut client, read, &mut upstream, pending, flows)).await;
    if let Err(error) = carried {
        tracing::debug!(%error, "a connection that carries bytes was broken by one side: both are reset");
        flows.broken();
        crate::net::reset(client);
        crate::net::reset(upstream);
    }
}

/// What comes of `carried`, unless the connection is revoked before.
async fn unless<E: From<io::Error>>(
    revoked: impl Future<Output = ()>,
    carried: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    match select(pin!(carried), pin!(revoked)).await {
        Either::Left((carried, _)) => carried,
        Either::Right(((), _)) => {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not allowed any more").into())
        }
    }
}

async fn both(
    client: &mut TcpStream,
    read: Buffer,
    upstream: &mut TcpStream,
    pending: Buffer,
    flows: &Flows<'_>,
) -> io::Result<()> {
    let (client_read, client_write) = client.split();
    let (upstream_read, upstream_write) = upstream.split();
    let there = Direction {
        from: client_read,
        to: upstream_write,
        seen: FromClient { flows, greeting: Some(Vec::new()) },
    };
    let back = Direction { from: upstream_read, to: client_write, seen: FromEndpoint { flows } };
    match select(pin!(there.carry(read)), pin!(back.carry(pending))).await {
        Either::Left((first, other)) => settle(first, other).await,
        Either::Right((first, other)) => settle(first, other).await,
    }
}

/// Goes on with the other direction as long as it makes sense.
async fn settle<'a, A: Look, B: Look + 'a>(
    first: Result<Direction<'_, A>, Broken>,
    other: impl Future<Output = Result<Direction<'a, B>, Broken>>,
) -> io::Result<()> {
    match first {
        Ok(ended) => tokio::select! {
            biased;
            result = other => match result {
                Ok(_) => Ok(()),
                Err(Broken::Source(error) | Broken::Sink(error)) => Err(error),
            },
            // It has ended its side, so nobody reads it and would see that it is gone altogether.
            () = failed(ended.from.as_ref()) => Err(io::ErrorKind::ConnectionReset.into()),
        },
        Err(Broken::Source(error)) => Err(error),
        Err(Broken::Sink(error)) => {
            // What it sent before it failed, an answer perhaps, is still there to be read; that ends by itself.
            let _ = other.await;
            Err(error)
        }
    }
}

/// Looks on from client to endpoint.
struct FromClient<'a> {
    flows: &'a Flows<'a>,
    /// What the client has begun with, while that may be a ClientHello.
    greeting: Option<Vec<u8>>,
}

impl Look for FromClient<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        let Some(greeting) = &mut self.greeting else { return };
        greeting.extend_from_slice(&bytes[..bytes.len().min(client_hello::MOST - greeting.len())]);
        match client_hello::read(greeting) {
            Reading::Incomplete => return,
            Reading::Other => {}
            Reading::Hello(hello) => self.flows.tls(&hello),
        }
        self.greeting = None;
    }

    fn passed(&mut self, count: usize) {
        self.flows.sent(count);
    }
}

/// Looks on from endpoint to client.
struct FromEndpoint<'a> {
    flows: &'a Flows<'a>,
}

impl Look for FromEndpoint<'_> {
    fn passed(&mut self, count: usize) {
        self.flows.received(count);
    }
}
