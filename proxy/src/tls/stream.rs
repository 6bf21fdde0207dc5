//! A TLS connection: what is read from its socket is decrypted in as few calls as can be, and what is written goes out in
//! full records.
//!
//! All of its methods take `&self`: the task that serves a connection reads, writes and watches it at once.

use std::{
    cell::{RefCell, RefMut},
    future::poll_fn,
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::{Connection, HandshakeKind};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::error::Failed;
use crate::telemetry::OpenConnection;

/// Bytes of a read from the socket: four full records.
const READ: usize = 64 * 1024;
/// Plain bytes that are encrypted before they go to the socket.
const WRITE: usize = 128 * 1024;

thread_local! {
    /// Where all connections of a thread read to.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// A TLS connection.
pub struct TlsStream {
    inner: RefCell<Inner>,
    _open: Option<OpenConnection>,
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream").finish_non_exhaustive()
    }
}

struct Inner {
    tcp: TcpStream,
    tls: Connection,
    /// What was read and is not decrypted yet, for want of room.
    pending: Vec<u8>,
    /// How much of it is used up.
    used: usize,
    /// The peer's bytes have ended, in order or not.
    ended: bool,
    closed: bool,
    failure: Option<rustls::Error>,
}

impl TlsStream {
    /// Before its handshake. `read`: what was already read from the socket.
    pub(super) fn new(tcp: TcpStream, mut tls: Connection, read: &[u8]) -> Self {
        tls.set_buffer_limit(Some(WRITE));
        let inner =
            Inner { tcp, tls, pending: read.to_vec(), used: 0, ended: false, closed: false, failure: None };
        Self { inner: RefCell::new(inner), _open: None }
    }

    /// Has it counted for as long as it is there.
    pub(super) fn count(&mut self, open: OpenConnection) {
        self._open = Some(open);
    }

    /// Makes the handshake. A client waits until the server has believed it, too: until then a failure could be told
    /// from a broken connection no more.
    ///
    /// # Errors
    /// Why there is none; the peer was told.
    pub(super) async fn handshake(&self) -> Result<(), Failed> {
        let result = poll_fn(|cx| {
            let mut inner = self.inner.borrow_mut();
            loop {
                // A failure to write is told by reading, after what the peer said before it closed.
                let flushed = inner.poll_flush(cx);
                if inner.is_established() {
                    return flushed;
                }
                if inner.ended {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                if let Err(error) = ready!(inner.poll_fill(cx, &mut ReadBuf::new(&mut []))) {
                    // The alert that tells the peer why.
                    let _ = inner.poll_flush(cx);
                    return Poll::Ready(Err(error));
                }
            }
        });
        let result = result.await;
        let inner = self.inner.borrow();
        let begun = inner.tls.handshake_kind().is_some() && matches!(inner.tls, Connection::Client(_));
        match (result, &inner.failure) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(error)) => Err(Failed::of(error, begun)),
            (Err(error), None) => Err(Failed::broken(&error, begun)),
        }
    }

    /// Sees the socket's end after a failed handshake, so that what was said last is not lost to a reset.
    pub(super) async fn last_words(&self) {
        poll_fn(|cx| {
            let mut inner = self.inner.borrow_mut();
            let _ = inner.poll_flush(cx);
            if Pin::new(&mut inner.tcp).poll_shutdown(cx).is_pending() {
                return Poll::Pending;
            }
            SCRATCH.with_borrow_mut(|scratch| {
                loop {
                    let mut read = ReadBuf::new(scratch);
                    match ready!(Pin::new(&mut inner.tcp).poll_read(cx, &mut read)) {
                        Ok(()) if !read.filled().is_empty() => {}
                        _ => return Poll::Ready(()),
                    }
                }
            })
        })
        .await;
    }

    /// What `rustls` knows of it.
    pub(super) fn tls(&self) -> RefMut<'_, Connection> {
        RefMut::map(self.inner.borrow_mut(), |inner| &mut inner.tls)
    }

    /// Whether the handshake was a short one.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.inner.borrow().tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The other end's address.
    ///
    /// # Errors
    /// When there is none any more.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.inner.borrow().tcp.peer_addr()
    }

    /// The socket below, to be given up.
    #[must_use]
    pub fn into_tcp(self) -> TcpStream {
        self.inner.into_inner().tcp
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// Those of the socket; `InvalidData` for what is no proper TLS; `UnexpectedEof` when the peer did not end in order.
    pub fn poll_read(&self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.borrow_mut();
        let before = into.filled().len();
        loop {
            inner.decrypt_pending(into)?;
            if into.filled().len() > before || into.remaining() == 0 {
                break;
            }
            if inner.ended {
                return Poll::Ready(inner.end());
            }
            match inner.poll_fill(cx, into) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // An answer to what was read, the update of a key for example.
                    let _ = inner.poll_flush(cx);
                    return Poll::Pending;
                }
            }
        }
        let _ = inner.poll_flush(cx);
        Poll::Ready(Ok(()))
    }

    /// Waits until there is something to be read, or the end.
    ///
    /// # Errors
    /// As those of reading.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.borrow_mut();
        let mut nothing = ReadBuf::new(&mut []);
        loop {
            inner.decrypt_pending(&mut nothing)?;
            if inner.has_plaintext()? || inner.ended {
                return Poll::Ready(Ok(()));
            }
            ready!(inner.poll_fill(cx, &mut nothing))?;
        }
    }

    /// Waits until the peer has closed its side; for ever if it sends something instead.
    pub async fn gone(&self) {
        if poll_fn(|cx| self.poll_readable(cx)).await.is_err() {
            return;
        }
        let more = self.inner.borrow_mut().has_plaintext().unwrap_or(false);
        if more {
            std::future::pending::<()>().await;
        }
    }

    /// Encrypts bytes, and sends what the socket takes; the rest goes with the next write or flush.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_write(&self, cx: &mut Context<'_>, pieces: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut inner = self.inner.borrow_mut();
        ready!(inner.poll_flush(cx))?;
        if inner.closed || inner.failure.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = inner.tls.writer().write_vectored(pieces)?;
        match inner.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    /// Sends what was encrypted.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.borrow_mut().poll_flush(cx)
    }

    /// Ends this side in order.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.borrow_mut();
        if !inner.closed {
            inner.closed = true;
            inner.tls.send_close_notify();
        }
        ready!(inner.poll_flush(cx))?;
        Pin::new(&mut inner.tcp).poll_shutdown(cx)
    }
}

impl Inner {
    /// The handshake has come to its end on both sides.
    fn is_established(&mut self) -> bool {
        if self.tls.is_handshaking() {
            return false;
        }
        let believed = match &self.tls {
            Connection::Client(client) => {
                client.protocol_version() != Some(rustls::ProtocolVersion::TLSv1_3)
                    || client.tls13_tickets_received() > 0
            }
            Connection::Server(_) => true,
        };
        believed || self.has_plaintext().unwrap_or(true)
    }

    fn has_plaintext(&mut self) -> io::Result<bool> {
        Ok(self.tls.process_new_packets().map_err(|error| self.failed(error))?.plaintext_bytes_to_read() > 0)
    }

    /// Reads from the socket once, and decrypts as far as there is room.
    fn poll_fill(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.used < self.pending.len() {
            return Poll::Ready(self.decrypt_pending(into));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            let result = ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut read));
            if let Err(error) = result {
                self.ended = true;
                return Poll::Ready(Err(error));
            }
            if read.filled().is_empty() {
                self.ended = true;
                let _ = self.tls.read_tls(&mut io::empty());
                return Poll::Ready(self.process().map(drop));
            }
            let used = self.decrypt(read.filled(), into)?;
            self.pending.extend_from_slice(&read.filled()[used..]);
            Poll::Ready(Ok(()))
        })
    }

    fn decrypt_pending(&mut self, into: &mut ReadBuf<'_>) -> io::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let count = self.decrypt(&pending[self.used..], into)?;
        self.used += count;
        if self.used < pending.len() {
            self.pending = pending;
        } else {
            self.used = 0;
        }
        Ok(())
    }

    /// Decrypts until there is no more room for what comes out of it; tells how many bytes were used.
    fn decrypt(&mut self, bytes: &[u8], into: &mut ReadBuf<'_>) -> io::Result<usize> {
        let mut rest = bytes;
        loop {
            self.take(into)?;
            let waiting = self.process()?;
            if rest.is_empty() || waiting > 0 {
                return Ok(bytes.len() - rest.len());
            }
            if self.tls.read_tls(&mut rest)? == 0 {
                // What follows the end in order is nobody's.
                self.ended = true;
                return Ok(bytes.len());
            }
            self.process()?;
        }
    }

    /// Hands out what is decrypted.
    fn take(&mut self, into: &mut ReadBuf<'_>) -> io::Result<()> {
        while into.remaining() > 0 {
            match self.tls.reader().read(into.initialize_unfilled()) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(count) => into.advance(count),
                // Whether it has ended in order is told when everything is read.
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// How the peer's bytes have ended.
    fn end(&mut self) -> io::Result<()> {
        match self.tls.reader().read(&mut [0]) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Takes in what was given to it; tells how much is decrypted and waits to be taken.
    fn process(&mut self) -> io::Result<usize> {
        match self.tls.process_new_packets() {
            Ok(state) => Ok(state.plaintext_bytes_to_read()),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&mut self, error: rustls::Error) -> io::Error {
        let told = io::Error::new(io::ErrorKind::InvalidData, error.clone());
        self.failure.get_or_insert(error);
        told
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            ready!(self.tcp.poll_write_ready(cx))?;
            match self.tls.write_tls(&mut Socket(&self.tcp)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The socket as `rustls` writes to it: all records at once.
struct Socket<'a>(&'a TcpStream);

impl io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
