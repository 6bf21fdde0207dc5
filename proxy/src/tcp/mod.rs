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

use std::io;

use futures::future::{Either, select};
use tokio::net::TcpStream;

use self::{
    carry::{Broken, Direction, Look, failed},
    client_hello::Reading,
};
use crate::{buffer::Buffer, telemetry::Flows};

/// Carries bytes both ways until both sides have ended, and counts them as they flow. `read` and `pending`: what was
/// already read from the client and from the endpoint. The end of one direction is passed on and the other goes on
/// (half-close); a failure of one side is one of the other (reset), after what had come before it.
///
/// # Errors
/// The first that either side meets; both connections end with it.
pub async fn relay(
    mut client: TcpStream,
    read: Buffer,
    mut upstream: TcpStream,
    pending: Buffer,
    flows: &Flows,
) -> io::Result<()> {
    let result = both(&mut client, read, &mut upstream, pending, flows).await;
    if result.is_err() {
        // The other side is to see a failure as well, not a regular end.
        crate::net::reset(client);
        crate::net::reset(upstream);
    }
    result
}

async fn both(
    client: &mut TcpStream,
    read: Buffer,
    upstream: &mut TcpStream,
    pending: Buffer,
    flows: &Flows,
) -> io::Result<()> {
    let (client_read, client_write) = client.split();
    let (upstream_read, upstream_write) = upstream.split();
    let greeting = Greeting::Listening(Vec::new());
    let mut there =
        Direction { from: client_read, to: upstream_write, seen: FromClient { flows, greeting } };
    let mut back = Direction { from: upstream_read, to: client_write, seen: FromEndpoint { flows } };
    let there = async {
        let result = there.carry(read.data()).await;
        drop(read);
        result.map_err(|broken| (broken, there.from.as_ref()))
    };
    todo!()
}
