//! A connection as those see it who carry messages over it: plain or in TLS.

use std::{
    io,
    net::{Shutdown, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, tcp},
};

use crate::{net, tls::stream::TlsStream};

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// Bytes as they are.
    Plain(TcpStream),
    /// Encrypted, and the other end has proved who it is.
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Both directions, for one task.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        match self {
            Self::Plain(tcp) => {
                let (read, write) = tcp.split();
                (ReadHalf::Plain(read), WriteHalf::Plain(write))
            }
            Self::Tls(tls) => (ReadHalf::Tls(tls), WriteHalf::Tls(tls)),
        }
    }

    /// The other end's address.
    ///
    /// # Errors
    /// When there is none any more.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(tcp) => tcp.peer_addr(),
            Self::Tls(tls) => tls.peer_addr(),
        }
    }

    /// Waits until there is something to be read, or the end.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => tcp.poll_read_ready(cx),
            Self::Tls(tls) => tls.poll_readable(cx),
        }
    }

    /// Waits until the other end has closed its side; see [`net::client_gone`].
    pub async fn gone(&self) {
        match self {
            Self::Plain(tcp) => net::client_gone(tcp).await,
            Self::Tls(tls) => tls.gone().await,
        }
    }

    /// Ends it in a reset.
    pub fn reset(self) {
        match self {
            Self::Plain(tcp) => net::reset(tcp),
            Self::Tls(tls) => net::reset(tls.into_tcp()),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, into),
            Self::Tls(tls) => tls.poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => tls.poll_write(cx, &[io::IoSlice::new(bytes)]),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, pieces),
            Self::Tls(tls) => tls.poll_write(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => tls.poll_shutdown(cx),
        }
    }
}

/// The reading direction of a connection.
#[derive(Debug)]
pub enum ReadHalf<'a> {
    /// Of a plain one.
    Plain(tcp::ReadHalf<'a>),
    /// Of one in TLS.
    Tls(&'a TlsStream),
}

impl ReadHalf<'_> {
    /// Waits until the other end has closed its side; see [`net::client_gone`].
    pub async fn gone(&self) {
        match self {
            Self::Plain(half) => net::client_gone(half.as_ref()).await,
            Self::Tls(tls) => tls.gone().await,
        }
    }
}

impl AsyncRead for ReadHalf<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_read(cx, into),
            Self::Tls(tls) => tls.poll_read(cx, into),
        }
    }
}

/// The writing direction of a connection. A write in TLS is done when the socket has taken it.
#[derive(Debug)]
pub enum WriteHalf<'a> {
    /// Of a plain one.
    Plain(tcp::WriteHalf<'a>),
    /// Of one in TLS.
    Tls(&'a TlsStream),
}

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_write(cx, bytes),
            Self::Tls(tls) => tls.poll_write(cx, &[io::IoSlice::new(bytes)]),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_write_vectored(cx, pieces),
            Self::Tls(tls) => tls.poll_write(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(half) => Pin::new(half).poll_shutdown(cx),
            Self::Tls(tls) => tls.poll_shutdown(cx),
        }
    }
}

/// One of several views of a connection; all of them belong to the same task.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a>(pub &'a Stream);

impl AsyncRead for Shared<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let tcp = match self.0 {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => return tls.poll_read(cx, into),
        };
        loop {
            ready!(tcp.poll_read_ready(cx))?;
            match tcp.try_read_buf(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(1..) if into.remaining() > 0 => {
                    net::drained(tcp);
                    return Poll::Ready(Ok(()));
                }
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Shared<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let tcp = match self.0 {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => return tls.poll_write(cx, &[io::IoSlice::new(bytes)]),
        };
        loop {
            ready!(tcp.poll_write_ready(cx))?;
            match tcp.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tcp = match self.0 {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => return tls.poll_write(cx, pieces),
        };
        loop {
            ready!(tcp.poll_write_ready(cx))?;
            match tcp.try_write_vectored(pieces) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(tls) => tls.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {
            Stream::Plain(tcp) => Poll::Ready(SockRef::from(tcp).shutdown(Shutdown::Write)),
            Stream::Tls(tls) => tls.poll_shutdown(cx),
        }
    }
}
