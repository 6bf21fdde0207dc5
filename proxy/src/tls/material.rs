//! What handshakes are made with: key, certificate, roots, and what makes the next handshake with the same peer short.
//!
//! All of it is made anew when the identity or the trust bundle changes, tickets and caches too: a connection is never
//! resumed on the ground of a trust that is no more.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use ferrule_config::{MinVersion, identity::SpiffeId};
use rustls::{
    ClientConfig, Error, RootCertStore, ServerConfig, SupportedProtocolVersion,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use tokio::sync::watch;

use super::{
    Tls,
    alpn::Alpn,
    expected::Accounts,
    verify::{Clients, Servers},
};
use crate::identity::{Bundle, Current, Identity};

/// Sets of accounts that are dialled and remembered; a pod talks to few Services.
const MOST_SETS: usize = 1024;
/// Endpoints whose tickets are kept for each set.
const MOST_TICKETS: usize = 64;

/// What is expected of a server.
type Expectation = (Arc<Accounts>, MinVersion);

/// What handshakes are made with, for as long as identity and trust bundle stay.
#[derive(Debug)]
pub struct Material {
    /// Who this sidecar is.
    pub id: SpiffeId,
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    servers: [Arc<ServerConfig>; 2],
    clients: Mutex<HashMap<Expectation, [Arc<ClientConfig>; 4]>>,
}

impl Material {
    /// Of an identity and a trust bundle.
    ///
    /// # Errors
    /// Those of `rustls`.
    pub(super) fn new(current: &Current, bundle: &Bundle) -> Result<Self, Error> {
        let provider = Arc::new(provider());
        let (id, key, roots) = (current.id.clone(), Arc::clone(&current.key), Arc::clone(bundle.roots()));
        let clients =
            Arc::new(Clients::new(Arc::clone(&roots), id.trust_domain().clone(), Arc::clone(&provider))?);
        let tickets = aws_lc_rs::Ticketer::new()?;
        let server = |min_version| {
            let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(versions(min_version))?
                .with_client_cert_verifier(Arc::clone(&clients) as _)
                .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&key))));
            config.alpn_protocols = Alpn::ALL.map(|each| each.name().to_vec()).into();
            config.ticketer = Arc::clone(&tickets);
            // The one that a client takes for its next connection, and the sign that it was believed.
            config.send_tls13_tickets = 1;
            Ok::<_, Error>(Arc::new(config))
        };
        let servers = [server(MinVersion::V1_2)?, server(MinVersion::V1_3)?];
        Ok(Self { id, key, roots, provider, servers, clients: Mutex::default() })
    }

    /// For a client's connection.
    pub(super) fn server(&self, min_version: MinVersion) -> Arc<ServerConfig> {
        Arc::clone(&self.servers[usize::from(min_version == MinVersion::V1_3)])
    }

    /// For a connection to one of these accounts. Tickets of one set are never shown to another.
    pub(super) fn client(
        &self,
        accounts: &Arc<Accounts>,
        min_version: MinVersion,
        alpn: Alpn,
    ) -> Result<Arc<ClientConfig>, Error> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(accounts), min_version);
        if let Some(configs) = clients.get(&key) {
            return Ok(Arc::clone(&configs[alpn as usize]));
        }
        if clients.len() >= MOST_SETS {
            clients.clear();
        }
        let servers = Servers {
            roots: Arc::clone(&self.roots),
            domain: self.id.trust_domain().clone(),
            accounts: Arc::clone(accounts),
            provider: Arc::clone(&self.provider),
        };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions(min_version))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(servers))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&self.key))));
        config.resumption = Resumption::in_memory_sessions(MOST_TICKETS);
        config.enable_sni = false;
        let configs = Alpn::ALL.map(|each| {
            let mut config = config.clone();
            config.alpn_protocols = vec![each.name().to_vec()];
            Arc::new(config)
        });
        let config = Arc::clone(&configs[alpn as usize]);
        clients.insert(key, configs);
        Ok(config)
    }
}

impl Tls {
    /// Keeps keys and roots as the identity has them, on the current runtime.
    pub fn follow(&self, identity: Identity) {
        let (tls, mut changes) = (self.clone(), identity.changes());
        tls.take(&identity, &mut changes);
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                tls.take(&identity, &mut changes);
            }
        });
    }

    fn take(&self, identity: &Identity, changes: &mut watch::Receiver<u64>) {
        changes.borrow_and_update();
        let made = match (identity.current(), identity.bundle()) {
            (Some(current), Some(bundle)) => Material::new(&current, &bundle),
            _ => return self.0.material.store(None),
        };
        match made {
            Ok(material) => self.0.material.store(Some(Arc::new(material))),
            // What was in force may be trusted no more.
            Err(error) => {
                tracing::error!(%error, "certificate or trust bundle can't be used for TLS; there is no encryption");
                self.0.material.store(None);
            }
        }
    }
}

/// The hybrid key exchange first: whoever records today can't read it with a quantum computer
/// tomorrow.
fn provider() -> CryptoProvider {
    let kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
    ];
    CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() }
}

fn versions(min: MinVersion) -> &'static [&'static SupportedProtocolVersion] {
    static VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match min {
        MinVersion::V1_2 => &VERSIONS,
        MinVersion::V1_3 => &VERSIONS[..1],
    }
}
