//! A small authority and a small identity service for tests.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ferrule_config::{identity::Issued, trust};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, IsCa,
    Issuer, KeyPair, SanType, string::Ia5String,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

pub(crate) const HOST: &str = "ferrule-identity.ferrule-system.svc";

pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, format!("root {}", fastrand::u64(..)));
        let pem = params.self_signed(&key).expect("made").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for the key of a request, under these names whatever it asks for.
    pub(crate) fn issue(&self, csr: &[u8], names: &[&str], life: Duration) -> String {
        let mut request = CertificateSigningRequestParams::from_der(&csr.into()).expect("a request");
        request.params.distinguished_name = DistinguishedName::new();
        request.params.subject_alt_names =
            names.iter().map(|name| SanType::URI(Ia5String::try_from(*name).expect("ASCII"))).collect();
        request.params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
        request.params.not_after = (SystemTime::now() + life).into();
        request.signed_by(&self.issuer).expect("signed").pem()
    }
}

impl Authority {
    /// A certificate under these names and its key, valid from and to so many seconds from now.
    pub(crate) fn leaf(
        &self,
        names: &[&str],
        (from, to): (i64, i64),
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf(names, (from, to)).signed_by(&key, &self.issuer).expect("signed");
        pair(&certificate, &key)
    }

    /// TLS of a server of this name.
    fn server(&self, host: &str) -> ServerConfig {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([host.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key");
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("accepted");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    }
}

/// A certificate that vouches for itself.
pub(crate) fn self_signed(names: &[&str]) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    pair(&leaf(names, (-60, 3600)).self_signed(&key).expect("signed"), &key)
}

fn leaf(names: &[&str], (from, to): (i64, i64)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names =
        names.iter().map(|name| SanType::URI(Ia5String::try_from(*name).expect("ASCII"))).collect();
    let at = |seconds: i64| {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        let now = SystemTime::now();
        if seconds < 0 { now - distance } else { now + distance }
    };
    params.not_before = at(from).into();
    params.not_after = at(to).into();
    params
}

fn pair(
    certificate: &rcgen::Certificate,
    key: &KeyPair,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    (chain, PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key"))
}

/// What a service answers: the status line and fields after it, and the body.
pub(crate) struct Answer(pub(crate) &'static str, pub(crate) String);

/// A service whose own certificate is of this authority and name; `answer` is given the head and the signing request.
pub(crate) async fn service(
    authority: &Authority,
    host: &str,
    mut answer: impl FnMut(&str, &[u8]) -> Answer + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let acceptor = TlsAcceptor::from(Arc::new(authority.server(host)));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut bytes = Vec::new();
            let (head, body) = loop {
                let mut piece = [0; 4096];
                let count = stream.read(&mut piece).await.unwrap_or(0);
                if count == 0 {
                    break (String::new(), Vec::new());
                }
                bytes.extend_from_slice(&piece[..count]);
                let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
                let length =
                    head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                if bytes.len() >= end + 4 + length.unwrap_or(0) {
                    break (head, bytes[end + 4..].to_vec());
                }
            };
            let Answer(status, body) = answer(&head, &body);
            let text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

/// A good answer: a certificate under these names, and the bundle of this number.
pub(crate) fn issued(authority: &Authority, csr: &[u8], names: &[&str], generation: u64) -> Answer {
    let issued = Issued {
        certificate: authority.issue(csr, names, Duration::from_secs(3600)),
        bundle: trust::write(generation, [authority.pem()]),
        renew_after_seconds: 1800,
    };
    Answer("200 OK", serde_json::to_string(&issued).expect("JSON"))
}
