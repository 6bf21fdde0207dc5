//! TLS with the API server.

use std::{io, sync::Arc};

use anyhow::Context as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How an API server is known.
pub(super) struct Tls {
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl Tls {
    /// A server of this name, verified by these certificates (PEM).
    ///
    /// # Errors
    /// When it is no name, or a certificate can't be used.
    pub fn new(host: &str, pem: &[u8]) -> anyhow::Result<Self> {
        let name =
            ServerName::try_from(host.to_owned()).with_context(|| format!("API server's host {host:?}"))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { name, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// The handshake.
    pub async fn connect(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name.clone(), tcp).await
    }
}
