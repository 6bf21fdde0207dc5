//! Connections that carry bytes rather than requests: counted while they last, so that a long one is seen before its
//! end, and told of at their end.

use std::{cell::Cell, net::SocketAddr, sync::Arc, time::Instant};

use super::{recorder::Recorder, value::Counter};
use crate::{direction::Direction, tcp::client_hello::ClientHello};

/// A connection that carries no requests; at its end it is told of.
#[derive(Debug)]
pub struct Flows<'a> {
    pub(super) recorder: &'a Recorder,
    pub(super) direction: Direction,
    pub(super) service: Arc<str>,
    /// The other end of the client's connection, if somebody wants to know.
    pub(super) peer: Option<SocketAddr>,
    pub(super) endpoint: SocketAddr,
    pub(super) began: Instant,
    /// Bytes from client to endpoint and back: of all connections, and of this one.
    pub(super) totals: [Counter; 2],
    pub(super) own: [Cell<u64>; 2],
    pub(super) is_broken: Cell<bool>,
}

impl Flows<'_> {
    /// So many bytes from the client were taken by the endpoint's socket.
    pub fn sent(&self, bytes: usize) {
        self.count(0, bytes);
    }

    /// So many bytes from the endpoint were taken by the client's socket.
    pub fn received(&self, bytes: usize) {
        self.count(1, bytes);
    }

    /// One side has broken the connection.
    pub fn broken(&self) {
        self.is_broken.set(true);
    }

    /// Counts a client's greeting, and logs the server's name, which is no label: clients choose it freely.
    pub fn tls(&self, hello: &ClientHello) {
        let ClientHello { server_name, version, mesh: _, encrypted } = hello;
        let (direction, version) = (self.direction.name(), version.name());
        tracing::debug!(direction, server_name, version, encrypted, "TLS passed through");
        self.recorder.tls(self.direction, version, server_name.is_some());
    }

    fn count(&self, way: usize, bytes: usize) {
        self.totals[way].inc_by(bytes as u64);
        self.own[way].set(self.own[way].get() + bytes as u64);
    }
}

impl Drop for Flows<'_> {
    fn drop(&mut self) {
        self.recorder.carried(self);
    }
}
