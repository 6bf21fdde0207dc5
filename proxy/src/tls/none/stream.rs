//! A build without TLS has no such connections.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    task::{Context, Poll},
};

use tokio::{io::ReadBuf, net::TcpStream};

use super::error::Failed;
use crate::telemetry::OpenConnection;

/// There is none.
#[derive(Debug)]
pub struct TlsStream(Infallible);

#[expect(missing_docs, reason = "they are never called")]
#[expect(clippy::missing_errors_doc, reason = "they are never called")]
#[expect(clippy::unused_async, reason = "as those that there are with TLS")]
impl TlsStream {
    pub(super) fn count(&mut self, _: OpenConnection) {}

    pub(super) async fn handshake(&self) -> Result<(), Failed> {
        match self.0 {}
    }

    pub(super) async fn last_words(&self) {
        match self.0 {}
    }

    #[must_use]
    pub fn is_resumed(&self) -> bool {
        match self.0 {}
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self.0 {}
    }

    #[must_use]
    pub fn into_tcp(self) -> TcpStream {
        match self.0 {}
    }

    pub fn poll_read(&self, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    pub fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    pub async fn gone(&self) {
        match self.0 {}
    }

    pub fn poll_write(&self, _: &mut Context<'_>, _: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    pub fn poll_flush(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    pub fn poll_shutdown(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}
