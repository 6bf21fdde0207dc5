//! Plain TCP: an echo, a server that speaks first, and the client to both.

use std::{
    io::Result,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::TcpStream,
    time::timeout,
};

use super::{dns::Resolver, report::TcpReport};

/// What a server that speaks first says.
pub const GREETING: &str = "220 testserver ready\r\n";

/// Sends back what comes in until the client ends its side, then ends its own.
///
/// # Errors
/// Those of the socket.
pub async fn echo(mut stream: TcpStream) -> Result<()> {
    let (mut read, mut write) = stream.split();
    copy(&mut read, &mut write).await?;
    write.shutdown().await
}

/// Says [`GREETING`] before anything came in, then does as [`echo`].
///
/// # Errors
/// Those of the socket.
pub async fn greet(mut stream: TcpStream) -> Result<()> {
    stream.write_all(GREETING.as_bytes()).await?;
    echo(stream).await
}

/// Connects, waits for a greeting if it is told to, sends, ends its side, and reads until the server ends its.
///
/// # Errors
/// Those of the name and the socket, or the limit that passed.
pub async fn talk(host: &str, port: u16, send: &str, wait_first: bool, limit: Duration) -> Result<TcpReport> {
    let address = SocketAddr::new(Resolver::system()?.resolve(host).await?, port);
    let start = Instant::now();
    let mut stream = timeout(limit, TcpStream::connect(address)).await??;
    let mut received = Vec::new();
    let mut first_byte_ms = None;
    let mut closed = false;
    if !wait_first {
        stream.write_all(send.as_bytes()).await?;
        stream.shutdown().await?;
    }
    let mut sent = !wait_first;
    loop {
        let mut part = [0; 4096];
        let Ok(read) = timeout(limit, stream.read(&mut part)).await else { break };
        let length = read?;
        if length == 0 {
            closed = true;
            break;
        }
        let elapsed = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        first_byte_ms.get_or_insert(elapsed);
        received.extend_from_slice(&part[..length]);
        if !sent {
            stream.write_all(send.as_bytes()).await?;
            stream.shutdown().await?;
            sent = true;
        }
    }
    Ok(TcpReport { received: String::from_utf8_lossy(&received).into_owned(), first_byte_ms, closed })
}
