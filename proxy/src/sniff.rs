//! Finds out what a connection carries, without holding up a server that speaks first.
//!
//! The client's first bytes decide. A client that stays silent is waited for only briefly; then the endpoint is
//! connected, and whoever speaks first decides: a server's greeting makes it a byte stream (and the next
//! connection is not held up at all), a late client's bytes are looked at as if they had come in time.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, time::timeout};

use crate::{
    buffer::Buffer,
    detect::{Verdict, detect, greets_in_http2},
    http2::frame,
    limits::Limits,
    snapshot::{Destination, Protocol},
    telemetry::Told,
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

/// Tells what the connection carries, and by what that was told. `connect` connects an endpoint of the destination.
pub(crate) async fn sniff(
    client: &mut TcpStream,
    destination: &Destination,
    limits: &Limits,
    connect: impl AsyncFnOnce() -> io::Result<(SocketAddr, TcpStream)>,
) -> io::Result<(Found, Told)> {
    let declared = match destination.now().protocol {
        Protocol::Http1 => http(client, limits, Found::Http1).await,
        Protocol::Http2 => http(client, limits, |read, _| Found::Http2(read)).await,
        Protocol::Opaque => Ok(Found::Opaque(Buffer::default(), None)),
        Protocol::Detect => return detected(client, destination, limits, connect).await,
    };
    Ok((declared?, Told::AppProtocol))
}

/// The same, of a connection of which nothing is declared.
async fn detected(
    client: &mut TcpStream,
    destination: &Destination,
    limits: &Limits,
    connect: impl AsyncFnOnce() -> io::Result<(SocketAddr, TcpStream)>,
) -> io::Result<(Found, Told)> {
    let mut read = Buffer::default();
    let remembered = destination.is_server_first();
    let patience = if remembered { Duration::ZERO } else { limits.detect };
    if !patience.is_zero()
        && let Ok(verdict) = timeout(patience, decide(client, &mut read)).await
    {
        let found = match verdict? {
            None => Found::Nothing,
            Some(Verdict::Http1) => Found::Http1(read, None),
            Some(Verdict::Http2) => Found::Http2(read),
            Some(_) => Found::Opaque(read, None),
        };
        return Ok((found, Told::FirstBytes));
    }
    let (address, upstream) = match connect().await {
        Ok(connected) => connected,
        Err(error) => return Ok((unconnected(client, read, limits, error).await?, Told::FirstBytes)),
    };
    if !read.is_empty() {
        // It has begun, with something that we do not know to be HTTP: it may be waiting for an answer.
        return Ok((Found::Opaque(read, Some((address, upstream))), Told::TimeOut));
    }
    // Looked at, for a socket may be called readable when nothing has come.
    let (mut word, mut greeting) = ([0], [0; frame::HEADER]);
    tokio::select! {
        biased;
        said = client.peek(&mut word) => {
            said?;
        }
        said = upstream.peek(&mut greeting) => {
            let said = said?;
            if !greets_in_http2(&greeting[..said]) {
                if said > 0 {
                    destination.set_server_first(true);
                }
                let told = if remembered { Told::Remembered } else { Told::ServerFirst };
                return Ok((Found::Opaque(read, Some((address, upstream))), told));
            }
            // It speaks as soon as it is connected to, and its client speaks all the same.
            if timeout(limits.idle, client.peek(&mut word)).await.is_err() {
                return Ok((Found::Nothing, Told::TimeOut));
            }
        }
    }
    let verdict = timeout(limits.detect.max(Duration::from_millis(1)), decide(client, &mut read)).await;
    if !read.is_empty() {
        // Not when it has closed without a word, as a probe does: that says nothing of the protocol.
        destination.set_server_first(false);
    }
    let Ok(verdict) = verdict else {
        return Ok((Found::Opaque(read, Some((address, upstream))), Told::TimeOut));
    };
    let found = match verdict? {
        None => Found::Nothing,
        Some(Verdict::Http1) => Found::Http1(read, Some((address, upstream))),
        Some(Verdict::Http2) => Found::Http2(read),
        Some(_) => Found::Opaque(read, Some((address, upstream))),
    };
    Ok((found, Told::FirstBytes))
}

/// No endpoint takes the connection. A client that turns out to speak HTTP is told so in HTTP.
async fn unconnected(
    client: &mut TcpStream,
    mut read: Buffer,
    limits: &Limits,
    error: io::Error,
) -> io::Result<Found> {
    match timeout(limits.detect, decide(client, &mut read)).await {
        Ok(Ok(Some(Verdict::Http1))) => Ok(Found::Http1(read, None)),
        Ok(Ok(Some(Verdict::Http2))) => Ok(Found::Http2(read)),
        _ => Err(error),
    }
}

/// The Service is declared to speak HTTP: only the version is to be told. What is neither is refused as the version
/// that was declared refuses it.
async fn http(
    client: &mut TcpStream,
    limits: &Limits,
    refusing: impl FnOnce(Buffer, Option<(SocketAddr, TcpStream)>) -> Found,
) -> io::Result<Found> {
    // Looked at, as above: what counts as a head begins with its first byte.
    let Ok(said) = timeout(limits.idle, client.peek(&mut [0])).await else { return Ok(Found::Nothing) };
    said?;
    let mut read = Buffer::default();
    let verdict = timeout(limits.head, decide(client, &mut read)).await;
    Ok(match verdict {
        Ok(verdict) => match verdict? {
            None => Found::Nothing,
            Some(Verdict::Http2) => Found::Http2(read),
            Some(Verdict::Http1) => Found::Http1(read, None),
            Some(_) => refusing(read, None),
        },
        Err(_) => refusing(read, None),
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
