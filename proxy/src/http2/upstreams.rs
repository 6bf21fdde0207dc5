//! Connections to endpoints that speak HTTP/2: each carries many requests at once. Each worker thread has its own.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::SocketAddr,
    rc::Rc,
    time::Instant,
};

use tokio::sync::Mutex;

use super::{connection::Connection, core::Role, driver::Times, frame::MAX_31};
use crate::{
    buffer::Buffer,
    drain::Drain,
    limits::Http2Limits,
    pool::IDLE_LIMIT,
    stream::Stream,
    tls::{alpn::Alpn, dial::Secured, error::Failed},
};

/// Connections to one endpoint, per thread.
const MOST: usize = 64;

/// The HTTP/2 connections of a thread to endpoints.
#[derive(Debug, Default)]
pub struct Upstreams {
    by_endpoint: RefCell<HashMap<SocketAddr, Vec<Rc<Slot>>>>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Whom its connections were verified for, and what they carry; nothing: they are plain.
    secured: Option<(Secured, Alpn)>,
    connections: RefCell<Vec<Held>>,
    /// Held while a connection is made, so that requests that come meanwhile use that one.
    connecting: Mutex<()>,
    /// How often connecting failed, and how it did last: those who waited for it share its failure.
    failures: Cell<u64>,
    failure: RefCell<Option<Failure>>,
    /// Streams that the endpoint was last seen to allow.
    allowed: Cell<Option<u32>>,
}

#[derive(Debug)]
enum Failure {
    Tls(Failed),
    Other(io::ErrorKind, String),
}

#[derive(Debug)]
struct Held {
    connection: Rc<Connection>,
    used: Cell<Instant>,
}

/// What making a connection needs.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// Bounds of a connection.
    pub limits: Http2Limits,
    /// Time limits of a connection.
    pub times: Times,
    /// The process's end.
    pub drain: &'a Drain,
}

impl Upstreams {
    /// A connection to this endpoint on which a stream can be opened now, and whether it is new. Connections that were
    /// made with other expectations of the peer, plain ones among them, are none of these. `dial` makes one.
    ///
    /// # Errors
    /// Those of connecting; `QuotaExceeded` when there are 64 connections and all are full.
    pub async fn connection(
        &self,
        address: SocketAddr,
        secured: Option<(&Secured, Alpn)>,
        settings: Settings<'_>,
        dial: impl AsyncFnOnce() -> io::Result<Stream>,
    ) -> io::Result<(Rc<Connection>, bool)> {
        let slot = self.slot(address, secured);
        if let Some(connection) = slot.ready() {
            return Ok((connection, false));
        }
        let failures = slot.failures.get();
        let _alone = slot.connecting.lock().await;
        if let Some(connection) = slot.ready() {
            return Ok((connection, false));
        }
        if slot.failures.get() != failures
            && let Some(failure) = &*slot.failure.borrow()
        {
            return Err(match failure {
                Failure::Tls(failed) => failed.clone().into(),
                Failure::Other(kind, message) => io::Error::new(*kind, message.clone()),
            });
        }
        if slot.connections.borrow().len() >= MOST {
            let message = format!("all {MOST} connections to {address} are full");
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, message));
        }
        let stream = dial().await.inspect_err(|error| slot.failed(error))?;
        let connection = Connection::new(Role::Client, shared(settings.limits));
        if let Some(allowed) = slot.allowed.get() {
            // At least one, or the limit of a moment would last for ever.
            connection.assume_streams(allowed.max(1));
        }
        let (driven, times, drain) = (Rc::clone(&connection), settings.times, settings.drain.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = driven.drive(stream, Buffer::default(), times, &drain, drop).await {
                tracing::debug!(endpoint = %address, %error, "HTTP/2 connection to an endpoint ended");
            }
        });
        let held = Held { connection: Rc::clone(&connection), used: Cell::new(Instant::now()) };
        slot.connections.borrow_mut().push(held);
        Ok((connection, true))
    }

    fn slot(&self, address: SocketAddr, secured: Option<(&Secured, Alpn)>) -> Rc<Slot> {
        let mut by_endpoint = self.by_endpoint.borrow_mut();
        let slots = by_endpoint.entry(address).or_default();
        let found = slots.iter().find(|slot| match (&slot.secured, secured) {
            (None, None) => true,
            (Some((held, alpn)), Some((wanted, carried))) => *alpn == carried && held.is_same(wanted),
            _ => false,
        });
        if let Some(slot) = found {
            return Rc::clone(slot);
        }
        let secured = secured.map(|(secured, alpn)| (secured.clone(), alpn));
        let slot = Rc::new(Slot { secured, ..Slot::default() });
        slots.push(Rc::clone(&slot));
        slot
    }

    /// Connections that carry no stream now.
    #[must_use]
    pub fn idle(&self) -> usize {
        let idle = |slot: &Rc<Slot>| {
            let connections = slot.connections.borrow();
            connections.iter().filter(|held| held.connection.streams() == 0).count()
        };
        self.by_endpoint.borrow().values().flatten().map(idle).sum()
    }

    /// Forgets connections that have ended, and ends those that have been idle for too long or were made by a trust that
    /// is not in force any more.
    pub fn sweep(&self, now: Instant, is_current: impl Fn(&Secured) -> bool) {
        let keep = |slot: &Rc<Slot>| {
            let outdated = slot.secured.as_ref().is_some_and(|(secured, _)| !is_current(secured));
            slot.connections.borrow_mut().retain(|held| {
                if outdated {
                    held.connection.finish();
                } else if held.connection.streams() > 0 {
                    held.used.set(now);
                } else if now.saturating_duration_since(held.used.get()) >= IDLE_LIMIT {
                    held.connection.finish();
                }
                held.connection.is_usable()
            });
            !slot.connections.borrow().is_empty() || Rc::strong_count(slot) > 1
        };
        self.by_endpoint.borrow_mut().retain(|_, slots| {
            slots.retain(keep);
            !slots.is_empty()
        });
    }
}

/// A connection to an endpoint carries streams of clients that know nothing of one another: the windows of streams
/// bound what each may leave untaken, and no client can use the connection's up for the others.
fn shared(limits: Http2Limits) -> Http2Limits {
    let all = limits.stream_window.saturating_mul(limits.streams).min(MAX_31);
    Http2Limits { connection_window: limits.connection_window.max(all), ..limits }
}

impl Slot {
    fn failed(&self, error: &io::Error) {
        self.failures.set(self.failures.get() + 1);
        self.failure.replace(Some(match Failed::within(error) {
            Some(failed) => Failure::Tls(failed.clone()),
            None => Failure::Other(error.kind(), error.to_string()),
        }));
    }

    fn ready(&self) -> Option<Rc<Connection>> {
        let mut connections = self.connections.borrow_mut();
        if let Some(held) = connections.iter().find(|held| held.connection.can_open()) {
            return Some(Rc::clone(&held.connection));
        }
        if let Some(allowed) = connections.iter().rev().find_map(|held| held.connection.allowed_streams()) {
            self.allowed.set(Some(allowed));
        }
        connections.retain(|held| held.connection.is_usable());
        None
    }
}
