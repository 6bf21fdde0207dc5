//! The server's side: a client that has begun with a ClientHello for the sidecar is listened to, and believed or not.

use std::{cell::Cell, sync::Arc};

use ferrule_config::identity::SpiffeId;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

use super::{Tls, alpn::Alpn, error::Failed, handshake, stream::TlsStream};
use crate::{
    buffer::Buffer,
    cause::Cause,
    direction::Direction,
    limits::{Limit, Limits},
};

/// A fatal alert `certificate_unobtainable` in a record of its own.
const NO_CERTIFICATE: [u8; 7] = [21, 3, 3, 0, 2, 2, 111];

/// Counts the handshakes of a thread that are under way.
#[derive(Debug, Default)]
pub struct Handshakes(Cell<usize>);

struct Permit<'a>(&'a Handshakes);

impl Handshakes {
    fn begin(&self, most: usize) -> Option<Permit<'_>> {
        let under_way = self.0.get();
        (under_way < most).then(|| {
            self.0.set(under_way + 1);
            Permit(self)
        })
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

/// A client that has proved who it is.
#[derive(Debug)]
pub struct Accepted {
    /// Its connection.
    pub stream: TlsStream,
    /// What it carries.
    pub alpn: Alpn,
    /// Who it is.
    pub identity: Arc<SpiffeId>,
}

impl Tls {
    /// Makes the handshake with a client; `read`: what was read of it. `port`: of the application.
    ///
    /// # Errors
    /// Why it is not believed; it was told, and the connection is closed.
    pub async fn accept(
        &self,
        mut client: TcpStream,
        read: Buffer,
        port: u16,
        handshakes: &Handshakes,
        limits: &Limits,
    ) -> Result<Accepted, Failed> {
        let metrics = &self.telemetry().tls;
        let policy = self.inbound().policy();
        let disabled = policy.tls.of(port) == ferrule_config::TlsMode::Disabled;
        let Some(material) = self.material().filter(|_| !disabled) else {
            let failed = Failed::new(
                Cause::TlsNoIdentity,
                "this sidecar has no certificate, or encryption is disabled",
            );
            metrics.failed(Direction::Inbound, failed.cause);
            // Whoever is gone needs no answer.
            if client.write_all(&NO_CERTIFICATE).await.is_ok() && client.shutdown().await.is_ok() {
                drain(client, limits);
            }
            return Err(failed);
        };
        let Some(permit) = handshakes.begin(limits.tls_handshakes) else {
            self.telemetry().limit(Direction::Inbound, Limit::TlsHandshakes);
            crate::net::reset(client);
            return Err(Failed::new(Cause::TlsHandshake, "too many handshakes are under way"));
        };
        let mut stream = handshake::server(&material, policy.tls.min_version, client, read.data())?;
        drop(read);
        let made = match timeout(limits.tls_handshake, stream.handshake()).await {
            Ok(Ok(())) => handshake::who_calls(&stream, &material),
            Ok(Err(failed)) => Err(failed),
            Err(_) => {
                self.telemetry().limit(Direction::Inbound, Limit::TlsHandshake);
                let detail = format!("no handshake within {:?}", limits.tls_handshake);
                Err(Failed::new(Cause::TlsHandshake, detail))
            }
        };
        drop(permit);
        match made {
            Ok((alpn, identity)) => {
                metrics.established(Direction::Inbound, stream.is_resumed());
                stream.count(metrics.open(Direction::Inbound));
                Ok(Accepted { stream, alpn, identity: Arc::new(identity) })
            }
            Err(failed) => {
                metrics.failed(Direction::Inbound, failed.cause);
                let limit = limits.tls_handshake;
                tokio::task::spawn_local(async move {
                    let _ = timeout(limit, stream.last_words()).await;
                });
                Err(failed)
            }
        }
    }
}

/// Lets the client read what it was told before the connection ends.
fn drain(mut client: TcpStream, limits: &Limits) {
    let limit = limits.tls_handshake;
    tokio::task::spawn_local(async move {
        let mut rest = Buffer::default();
        let read = async {
            while let Ok(1..) = rest.fill(&mut client).await {
                rest.consume(rest.data().len());
            }
        };
        let _ = timeout(limit, read).await;
    });
}
