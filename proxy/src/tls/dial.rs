//! The client's side: how an endpoint is spoken to, and connections to it. Each worker thread has its own.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ferrule_config::MinVersion;
use tokio::time::timeout;

use super::{
    Tls,
    alpn::Alpn,
    error::Failed,
    expected::{Accounts, Expected, PlainReason, Security},
    handshake,
    material::Material,
    stream::TlsStream,
};
use crate::{
    balance::Endpoint,
    cause::Cause,
    direction::Direction,
    limits::{Limit, Limits},
    net,
    stream::Stream,
};

/// How long an endpoint that could not encrypt is spoken to plain before it is asked again.
const PLAIN_FOR: Duration = Duration::from_secs(10);
/// Endpoints of which that is remembered.
const MOST_PLAIN: usize = 4096;

/// How a thread dials endpoints.
#[derive(Debug)]
pub struct Dialer {
    tls: Tls,
    plain: RefCell<HashMap<SocketAddr, (Instant, PlainReason)>>,
}

/// How an endpoint is dialled now.
#[derive(Clone, Debug)]
pub enum Way {
    /// As bytes come, for this reason.
    Plain(PlainReason),
    /// In TLS.
    Tls(Secured),
}

/// What a TLS connection is made with. Two that are [the same](Secured::is_same) may share a connection.
#[derive(Clone, Debug)]
pub struct Secured {
    accounts: Arc<Accounts>,
    strict: bool,
    min_version: MinVersion,
    material: Arc<Material>,
}

impl Secured {
    /// Whether a connection that was made with the other one satisfies this one: the same peers are expected, by the same
    /// trust.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let Self { accounts, strict: _, min_version, material } = self;
        Arc::ptr_eq(material, &other.material)
            && *min_version == other.min_version
            && (Arc::ptr_eq(accounts, &other.accounts) || *accounts == other.accounts)
    }
}

impl Dialer {
    /// One that knows of no endpoint yet.
    #[must_use]
    pub fn new(tls: Tls) -> Self {
        Self { tls, plain: RefCell::default() }
    }

    /// What all threads share.
    #[must_use]
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Whether connections that were made with this are as good as new ones.
    #[must_use]
    pub fn is_current(&self, secured: &Secured) -> bool {
        self.tls.0.material.load().as_ref().is_some_and(|material| Arc::ptr_eq(material, &secured.material))
    }

    /// Whether some of these endpoints may be spoken to in TLS now.
    #[must_use]
    pub fn encrypts(&self, expected: Option<&Expected>) -> bool {
        expected.is_some_and(Expected::is_meshed) && self.tls.0.material.load().is_some()
    }

    /// How this endpoint is to be dialled.
    ///
    /// # Errors
    /// When it must be in TLS and can't.
    pub fn way(&self, endpoint: SocketAddr, expected: Option<&Expected>) -> Result<Way, Failed> {
        let Some(expected) = expected else { return Ok(Way::Plain(PlainReason::NotMeshed)) };
        let (accounts, strict, min_version) = match expected.of(endpoint) {
            Security::Plain(reason) => return Ok(Way::Plain(reason)),
            Security::Tls { accounts, strict, min_version } => (accounts, strict, min_version),
        };
        if self.tls.is_own(endpoint.ip()) {
            return Ok(Way::Plain(PlainReason::OwnPod));
        }
        if !strict && let Some(reason) = self.remembered(endpoint, Instant::now()) {
            return Ok(Way::Plain(reason));
        }
        match self.tls.material() {
            Some(material) => Ok(Way::Tls(Secured { accounts, strict, min_version, material })),
            None if !strict => Ok(Way::Plain(PlainReason::NoIdentity)),
            None => {
                let detail = format!(
                    "{endpoint} takes only encrypted connections, and this sidecar has no certificate yet"
                );
                Err(Failed::new(Cause::TlsNoIdentity, detail))
            }
        }
    }

    fn remembered(&self, endpoint: SocketAddr, now: Instant) -> Option<PlainReason> {
        let mut plain = self.plain.borrow_mut();
        if plain.is_empty() {
            return None;
        }
        let (since, reason) = *plain.get(&endpoint)?;
        if now.saturating_duration_since(since) < PLAIN_FOR {
            return Some(reason);
        }
        plain.remove(&endpoint);
        None
    }

    /// Connects an endpoint as it has to be now, for what the connection is to carry; again, if it has to be dialled
    /// otherwise when that has failed.
    ///
    /// # Errors
    /// Those of connecting, [`Failed`] among them.
    pub async fn connect(
        &self,
        endpoint: &Endpoint,
        expected: Option<&Expected>,
        alpn: Alpn,
        limit: Duration,
        limits: &Limits,
    ) -> io::Result<Stream> {
        let mut newer = None;
        loop {
            let expected = newer.as_deref().or(expected);
            match self.way(endpoint.address, expected)? {
                Way::Plain(reason) => return self.plain(endpoint, reason, limit).await.map(Stream::Plain),
                Way::Tls(secured) => match self.secure(endpoint, &secured, alpn, limit, limits).await {
                    Ok(made) => return Ok(Stream::Tls(Box::new(made))),
                    Err(error) => match to_repeat(error, expected, newer.is_some()).await? {
                        Repeat::AsBefore => {}
                        Repeat::With(found) => newer = Some(found),
                    },
                },
            }
        }
    }

    /// A plain connection, counted.
    ///
    /// # Errors
    /// Those of connecting.
    pub async fn plain(
        &self,
        endpoint: &Endpoint,
        reason: PlainReason,
        limit: Duration,
    ) -> io::Result<tokio::net::TcpStream> {
        let stream = net::connect_either(endpoint.address, endpoint.other(), limit).await?;
        self.tls.telemetry().tls.plain(Direction::Outbound, reason.name());
        Ok(stream)
    }

    /// A connection in TLS to one of the accounts that are expected.
    ///
    /// # Errors
    /// Those of connecting, and [`Failed`]; [`to_repeat`] says when the endpoint is to be dialled otherwise now.
    pub async fn secure(
        &self,
        endpoint: &Endpoint,
        secured: &Secured,
        alpn: Alpn,
        limit: Duration,
        limits: &Limits,
    ) -> io::Result<TlsStream> {
        let tcp = net::connect_either(endpoint.address, endpoint.other(), limit).await?;
        let Secured { accounts, strict, min_version, material } = secured;
        let name = endpoint.address.ip();
        let mut stream = handshake::client(material, accounts, *min_version, alpn, name, tcp)?;
        let made = match timeout(limits.tls_handshake, stream.handshake()).await {
            Ok(Ok(())) => handshake::who_answers(&stream, material, accounts, alpn),
            Ok(Err(failed)) => Err(failed),
            Err(_) => {
                self.tls.telemetry().limit(Direction::Outbound, Limit::TlsHandshake);
                let detail = format!("no handshake within {:?}", limits.tls_handshake);
                Err(Failed::new(Cause::TlsHandshake, detail))
            }
        };
        let metrics = &self.tls.telemetry().tls;
        match made {
            Ok(()) => {
                metrics.established(Direction::Outbound, stream.is_resumed());
                stream.count(metrics.open(Direction::Outbound));
                Ok(stream)
            }
            Err(failed) => {
                metrics.failed(Direction::Outbound, failed.cause);
                let (address, cause) = (endpoint.address, failed.cause.name());
                tracing::debug!(%address, cause, detail = failed.detail, "TLS handshake with an endpoint failed");
                let unproved = failed.unproved.filter(|_| !strict);
                if let Some(reason) = unproved {
                    self.remember(address, reason);
                }
                Err(Failed { unproved, ..failed }.into())
            }
        }
    }

    fn remember(&self, endpoint: SocketAddr, reason: PlainReason) {
        let mut plain = self.plain.borrow_mut();
        if plain.len() >= MOST_PLAIN {
            plain.clear();
        }
        plain.insert(endpoint, (Instant::now(), reason));
    }
}

/// How an endpoint is to be dialled once more.
#[derive(Debug)]
pub enum Repeat {
    /// It has proved nothing, and is spoken to plain from now on for a while.
    AsBefore,
    /// Something else is known of it now.
    With(Arc<Expected>),
}

/// Whether an endpoint is to be dialled once more after this error. `known`: what was expected of it was asked for just
/// now.
///
/// # Errors
/// The error, if it isn't.
pub async fn to_repeat(error: io::Error, expected: Option<&Expected>, known: bool) -> io::Result<Repeat> {
    let Some(failed) = Failed::within(&error) else { return Err(error) };
    if failed.unproved.is_some() {
        return Ok(Repeat::AsBefore);
    }
    match expected.filter(|_| !known) {
        Some(expected) => expected.newer().await.map(Repeat::With).ok_or(error),
        None => Err(error),
    }
}
