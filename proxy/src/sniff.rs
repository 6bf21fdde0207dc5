//! Finds out what a connection carries, without holding up a server that speaks first.
//!
//! The client's first bytes decide. A client that stays silent is waited for only briefly; then the endpoint is
//! connected, and whoever speaks first decides: a server's greeting makes it a byte stream (and the next
//! connection is not held up at all), a late client's bytes are looked at as if they had come in time.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, time::timeout};

use crate::{
    detect::{Verdict, begins_as_preface, detect},
    http1::buffer::Buffer,
    snapshot::{Destination, Protocol},
    worker::Limits,
};

/// What was found.
pub(crate) enum Found {
    /// HTTP/1, with what was read so far; and a connection to an endpoint if one was made meanwhile.
    Http1(Buffer, Option<(SocketAddr, TcpStream)>),
    /// HTTP/2, with what was read so far.
    Http2(Buffer),
    /// Bytes, likewise.
    Opaque(Buffer, Option<(SocketAddr, TcpStream)>),
    /// The client closed without a word.
    Nothing,
}

/// Tells what the connection carries. `connect` connects an endpoint of the destination.
pub(crate) async fn sniff(
    client: &mut TcpStream,
    destination: &Destination,
    limits: &Limits,
    connect: impl AsyncFnOnce() -> io::Result<(SocketAddr, TcpStream)>,
) -> io::Result<Found> {
    match destination.now().protocol {
        Protocol::Http1 | Protocol::Http2 => return http(client, limits).await,
        Protocol::Opaque => return Ok(Found::Opaque(Buffer::default(), None)),
        Protocol::Detect => {}
    }
    let mut read = Buffer::default();
    let patience = if destination.is_server_first() { Duration::ZERO } else { limits.detect };
    if !patience.is_zero()
        && let Ok(verdict) = timeout(patience, decide(client, &mut read)).await
    {
        return Ok(match verdict? {
            None => Found::Nothing,
            Some(Verdict::Http1) => Found::Http1(read, None),
            Some(Verdict::Http2) => Found::Http2(read),
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
            Some(Verdict::Http2) => Found::Http2(read),
            Some(_) => Found::Opaque(read, Some((address, upstream))),
        },
        Err(_) => Found::Opaque(read, Some((address, upstream))),
    })
}

/// The Service is declared to speak HTTP: only the version is to be told. What is neither is refused as HTTP/1.
async fn http(client: &mut TcpStream, limits: &Limits) -> io::Result<Found> {
    let Ok(readable) = timeout(limits.idle, client.readable()).await else { return Ok(Found::Nothing) };
    readable?;
    let mut read = Buffer::default();
    let preface = async {
        while read.fill(client).await? > 0 {
            match detect(read.data()) {
                Verdict::Http2 => return Ok(true),
                Verdict::Undecided if begins_as_preface(read.data()) => {}
                _ => return Ok(false),
            }
        }
        Ok::<_, io::Error>(false)
    };
    match timeout(limits.head, preface).await {
        Ok(Ok(true)) => Ok(Found::Http2(read)),
        Ok(Ok(false)) if read.is_empty() => Ok(Found::Nothing),
        Ok(Ok(false)) | Err(_) => Ok(Found::Http1(read, None)),
        Ok(Err(error)) => Err(error),
    }
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
