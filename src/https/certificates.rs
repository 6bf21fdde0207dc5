//! What the server shows to its clients, exchangeable while it runs.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwapOption;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use thiserror::Error;

/// Why a certificate can't be served.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// Not PEM of a certificate or a key.
    #[error("the serving certificate or its key is not PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// The two don't fit, or the key is of a kind that is not supported.
    #[error("the serving certificate can't be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// The serving certificate; clones share it. Before the first one every handshake fails.
#[derive(Clone, Default)]
pub struct Certificates(Arc<ArcSwapOption<CertifiedKey>>);

impl Certificates {
    /// From now on new connections see this certificate chain. Both arguments are PEM.
    ///
    /// # Errors
    /// [`CertificateError`]; what was served before goes on being served.
    pub fn set(&self, chain: &str, key: &str) -> Result<(), CertificateError> {
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        let certified = CertifiedKey::from_der(chain, key, &provider())?;
        self.0.store(Some(Arc::new(certified)));
        Ok(())
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load().is_some()
    }

    /// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("present", &self.0.load().is_some()).finish()
    }
}

/// The one provider of cryptography, named explicitly so that nothing depends on a process-wide default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
