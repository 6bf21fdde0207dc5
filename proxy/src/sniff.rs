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
    stream::Stream,
    telemetry::Told,
};

/// What was found.
pub(crate) enum Found {
    /// HTTP/1, with what was read so far; and a connection to an endpoint if one was made meanwhile.
    Http1(Buffer, Option<Early>),
    /// HTTP/2, with what was read so far.
    Http2(Buffer),
    /// Bytes, likewise.
    Opaque(Buffer, Option<Early>),
    /// The client closed without a word.
    Nothing,
}

/// A connection to an endpoint that was made before it was known what it is to carry.
pub(crate) struct Early {
    pub address: SocketAddr,
    pub stream: Stream,
    /// What was read from it.
    pub said: Buffer,
}

impl Early {
    pub fn new(address: SocketAddr, stream: Stream) -> Self {
        Self { address, stream, said: Buffer::default() }
    }

    /// Waits until the endpoint has said something, which stays to be read, or has closed; and whether it is what an
    /// HTTP/2 server begins with.
    async fn says(&mut self) -> io::Result<(usize, bool)> {
        match &mut self.stream {
            Stream::Plain(tcp) => {
                let mut greeting = [0; frame::HEADER];
                let said = tcp.peek(&mut greeting).await?;
                Ok((said, greets_in_http2(&greeting[..said])))
            }
            Stream::Tls(_) => {
                let count = self.said.fill(&mut self.stream).await?;
                Ok((count, greets_in_http2(self.said.data())))
            }
        }
    }
}

/// Tells what the connection carries, and by what that was told. `connect` connects an endpoint of the destination.
/// `hello`: how long a client may take to begin TLS with this sidecar after the application has spoken; nothing: it never
/// does.
pub(crate) async fn sniff(
    client: &mut TcpStream,
    destination: &Destination,
    limits: &Limits,
    hello: Option<Duration>,
    connect: impl AsyncFnOnce() -> io::Result<Early>,
) -> io::Result<(Found, Told)> {
    let declared = match destination.now().protocol {
        Protocol::Http1 => http(client, limits, Found::Http1).await,
        Protocol::Http2 => http(client, limits, |read, _| Found::Http2(read)).await,
        Protocol::Opaque => Ok(Found::Opaque(Buffer::default(), None)),
        Protocol::Detect => return detected(client, destination, limits, hello, connect).await,
    };
    Ok((declared?, Told::AppProtocol))
}

/// The same, of a connection of which nothing is declared.
async fn detected(
    client: &mut TcpStream,
    destination: &Destination,
    limits: &Limits,
    hello: Option<Duration>,
    connect: impl AsyncFnOnce() -> io::Result<Early>,
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
    let mut early = match connect().await {
        Ok(early) => early,
        Err(error) => {
            return Ok((unconnected(client, read, limits, hello.is_some(), error).await?, Told::FirstBytes));
        }
    };
    if !read.is_empty() {
        // It has begun, with something that we do not know to be HTTP: it may be waiting for an answer.
        return Ok((Found::Opaque(read, Some(early)), Told::TimeOut));
    }
    // Looked at, for a socket may be called readable when nothing has come.
    let mut word = [0];
    tokio::select! {
        biased;
        said = client.peek(&mut word) => {
            said?;
        }
        said = early.says() => {
            let (said, in_http2) = said?;
            let speaks = match hello {
                Some(grace) if !in_http2 => timeout(grace, client.peek(&mut word)).await.is_ok(),
                _ => in_http2,
            };
            if !speaks {
                if said > 0 {
                    destination.set_server_first(true);
                }
                let told = if remembered { Told::Remembered } else { Told::ServerFirst };
                return Ok((Found::Opaque(read, Some(early)), told));
            }
            // It speaks as soon as it is connected to, and its client speaks all the same.
            if in_http2 && timeout(limits.idle, client.peek(&mut word)).await.is_err() {
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
        return Ok((Found::Opaque(read, Some(early)), Told::TimeOut));
    };
    let found = match verdict? {
        None => Found::Nothing,
        Some(Verdict::Http1) => Found::Http1(read, Some(early)),
        Some(Verdict::Http2) => Found::Http2(read),
        Some(_) => Found::Opaque(read, Some(early)),
    };
    Ok((found, Told::FirstBytes))
}

/// No endpoint takes the connection. A client that turns out to speak HTTP is told so in HTTP.
async fn unconnected(
    client: &mut TcpStream,
    mut read: Buffer,
    limits: &Limits,
    may_be_tls: bool,
    error: io::Error,
) -> io::Result<Found> {
    match timeout(limits.detect, decide(client, &mut read)).await {
        Ok(Ok(Some(Verdict::Http1))) => Ok(Found::Http1(read, None)),
        Ok(Ok(Some(Verdict::Http2))) => Ok(Found::Http2(read)),
        Ok(Ok(Some(Verdict::Tls))) if may_be_tls => Ok(Found::Opaque(read, None)),
        _ => Err(error),
    }
}

/// The Service is declared to speak HTTP: only the version is to be told. What is neither is refused as the version
/// that was declared refuses it.
async fn http(
    client: &mut TcpStream,
    limits: &Limits,
    refusing: impl FnOnce(Buffer, Option<Early>) -> Found,
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
