//! Finds out what a connection carries, without holding up a server that speaks first.
//!
//! The client's first bytes decide. A client that stays silent is waited for only briefly; then the endpoint is
//! connected, and whoever speaks first decides: a server's greeting makes it a byte stream (and the next
//! connection is not held up at all), a late client's bytes are looked at as if they had come in time.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, time::timeout};

use crate::{
    detect::{Verdict, detect},
    http1::buffer::Buffer,
    snapshot::{Destination, Protocol},
};

/// What was found.
pub(crate) enum Found {
    /// HTTP/1, with what was read so far; and a connection to an endpoint if one was made meanwhile.
    Http1(Buffer, Option<(SocketAddr, TcpStream)>),
    /// Bytes, likewise.
    Opaque(Buffer, Option<(SocketAddr, TcpStream)>),
    /// The client closed without a word.
    Nothing,
}

/// Tells what the connection carries. `connect` connects an endpoint of the destination.
pub(crate) async fn sniff(
    client: &mut TcpStream,
    destination: &Destination,
    patience: Duration,
    connect: impl AsyncFnOnce() -> io::Result<(SocketAddr, TcpStream)>,
) -> io::Result<Found> {
    match destination.now().protocol {
        Protocol::Http1 => return Ok(Found::Http1(Buffer::default(), None)),
        Protocol::Opaque => return Ok(Found::Opaque(Buffer::default(), None)),
        Protocol::Detect => {}
    }
    let mut read = Buffer::default();
    let patience = if destination.is_server_first() { Duration::ZERO } else { patience };
    if !patience.is_zero()
        && let Ok(verdict) = timeout(patience, decide(client, &mut read)).await
    {
        return Ok(match verdict? {
            None => Found::Nothing,
            Some(Verdict::Http1) => Found::Http1(read, None),
            Some(_) => Found::Opaque(read, None),
        });
    }
    let (address, upstream) = connect().await?;
    if !read.is_empty() {
        // It has begun, with something that we do not know to be HTTP: it may be waiting for an answer.
        return Ok(Found::Opaque(read, Some((address, upstream))));
    }
    tokio::select! {
        biased;
        readable = client.readable() => readable?,
        readable = upstream.readable() => {
            readable?;
            destination.set_server_first(true);
            return Ok(Found::Opaque(read, Some((address, upstream))));
        }
    }
    destination.set_server_first(false);
    Ok(match timeout(patience.max(Duration::from_millis(1)), decide(client, &mut read)).await {
        Ok(verdict) => match verdict? {
            None => Found::Nothing,
            Some(Verdict::Http1) => Found::Http1(read, Some((address, upstream))),
            Some(_) => Found::Opaque(read, Some((address, upstream))),
        },
        Err(_) => Found::Opaque(read, Some((address, upstream))),
    })
}

/// Reads until the bytes decide; `None` if the client closed before its first.
async fn decide(client: &mut TcpStream, read: &mut Buffer) -> io::Result<Option<Verdict>> {
    loop {
        let count = read.fill(client).await?;
        match detect(read.data()) {
            Verdict::Undecided if count == 0 && read.is_empty() => return Ok(None),
            Verdict::Undecided if count == 0 => return Ok(Some(Verdict::Opaque)),
            Verdict::Undecided => {}
            verdict => return Ok(Some(verdict)),
        }
    }
}
