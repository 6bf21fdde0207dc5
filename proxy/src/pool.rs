//! Idle connections to endpoints, kept for the next request. Each worker thread has a pool of its own, so
//! nothing here is locked.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::net::TcpStream;

use crate::net;

/// Idle connections to one endpoint, per thread.
const MAX_IDLE_PER_ENDPOINT: usize = 64;
/// Idle connections in all, per thread.
const MAX_IDLE: usize = 1024;
/// How long a connection may be idle: well below the 75 s or more after which servers commonly close it, so
/// that a request seldom meets a connection that is being closed.
pub const IDLE_LIMIT: Duration = Duration::from_secs(45);

/// The idle connections of a thread.
#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    by_endpoint: HashMap<SocketAddr, Vec<Idle>>,
    count: usize,
}

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    since: Instant,
}

impl Pool {
    /// The connection to this endpoint that was used last, if one is there that its peer has not closed. `repeatable`:
    /// the request can be sent again if the peer closes the connection at this very moment, so the system need not
    /// be asked whether it has.
    #[must_use]
    pub fn take(&self, endpoint: SocketAddr, repeatable: bool) -> Option<TcpStream> {
        let mut state = self.idle.borrow_mut();
        loop {
            let Idle { stream, .. } = state.by_endpoint.get_mut(&endpoint)?.pop()?;
            state.count -= 1;
            if (repeatable && net::seems_quiet(&stream)) || (!repeatable && net::is_quiet(&stream)) {
                return Some(stream);
            }
        }
    }

    /// Keeps a connection on which the last response was read to its end.
    pub fn put(&self, endpoint: SocketAddr, stream: TcpStream, now: Instant) {
        let mut state = self.idle.borrow_mut();
        if state.count >= MAX_IDLE {
            return;
        }
        let idle = state.by_endpoint.entry(endpoint).or_default();
        if idle.len() < MAX_IDLE_PER_ENDPOINT {
            idle.push(Idle { stream, since: now });
            state.count += 1;
        }
    }

    /// Closes the connections that have been idle for too long or whose peer has closed them.
    pub fn sweep(&self, now: Instant) {
        let mut state = self.idle.borrow_mut();
        let mut count = 0;
        state.by_endpoint.retain(|_, idle| {
            idle.retain(|Idle { stream, since }| {
                now.saturating_duration_since(*since) < IDLE_LIMIT && net::is_quiet(stream)
            });
            count += idle.len();
            !idle.is_empty()
        });
        state.count = count;
    }

    /// Connections that are idle now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.idle.borrow().count
    }

    /// Whether none is idle.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let client = TcpStream::connect(address).await.expect("listening");
        (client, listener.accept().await.expect("connected").0, address)
    }

    #[tokio::test]
    async fn a_connection_that_its_peer_closed_is_not_given_out() {
        let (pool, (ours, theirs, address)) = (Pool::default(), pair().await);
        pool.put(address, ours, Instant::now());
        drop(theirs);
        assert!(pool.take(address, false).is_none());
        assert!(pool.is_empty());
    }

    #[tokio::test]
    async fn a_quiet_connection_is_given_out_once() {
        let (pool, (ours, _theirs, address)) = (Pool::default(), pair().await);
        pool.put(address, ours, Instant::now());
        assert!(pool.take(address, true).is_some());
        assert!(pool.take(address, false).is_none());
    }

    #[tokio::test]
    async fn a_sweep_closes_what_was_idle_for_too_long() {
        let (pool, (ours, _theirs, address)) = (Pool::default(), pair().await);
        let now = Instant::now();
        pool.put(address, ours, now);
        pool.sweep(now + IDLE_LIMIT / 2);
        assert_eq!(pool.len(), 1);
        pool.sweep(now + IDLE_LIMIT);
        assert!(pool.is_empty());
    }
}
