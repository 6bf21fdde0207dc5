//! Certificates for the proxies that encrypt what goes between them, from one authority: files for the peers, and for
//! Ferrule, whose sidecars keep no key in a file, a small identity service.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use ferrule_config::{
    identity::{Issued, SpiffeId, TrustDomain},
    names::{IDENTITY_ADDRESS_KEY, TRUST_BUNDLE_KEY},
    trust,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// Namespace of both sidecars.
pub const NAMESPACE: &str = "bench";
/// Service account of both.
pub const ACCOUNT: &str = "items";
/// Host name in the certificates of the identity service and of the peers, for those who must have one.
pub const NAME: &str = "bench.internal";

/// Longest request to the identity service.
const MAX_REQUEST: usize = 16 * 1024;
/// Longest time for one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Material {
    /// File with the root.
    pub root: PathBuf,
    /// File with a certificate of this root and its key, for both ends: P-256, as sidecars have.
    pub pair: PathBuf,
    /// Directory as it is mounted into a sidecar.
    pub mounted: PathBuf,
    /// The identity service.
    pub service: SocketAddr,
}

/// Makes an authority, writes what proxies need into a directory, and serves sidecars for as long as this process runs.
///
/// # Errors
/// When a file can't be written or nothing can be listened on.
pub fn start(directory: &Path) -> anyhow::Result<Material> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "benchmark");
    let root = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);

    let own = KeyPair::generate()?;
    let mut params = CertificateParams::new([NAME.to_owned()])?;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&own, &issuer)?;
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        anyhow::Ok(path)
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let service = listener.local_addr()?;
    let material = Material {
        root: write("root.pem", &root)?,
        pair: write("pair.pem", &(certificate.pem() + &own.serialize_pem()))?,
        mounted: directory.to_owned(),
        service,
    };
    let bundle = trust::write(1, [root.as_str()]);
    write(TRUST_BUNDLE_KEY, &bundle)?;
    write(IDENTITY_ADDRESS_KEY, &service.to_string())?;
    write("token", "a token")?;

    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate.der().to_vec())],
            PrivateKeyDer::from_pem_slice(own.serialize_pem().as_bytes())?,
        )?;
    let service = Service { config: Arc::new(config), issuer, bundle };
    thread::spawn(move || {
        for stream in listener.incoming() {
            if let Err(error) = stream.map_err(Into::into).and_then(|stream| service.serve(stream)) {
                eprintln!("the identity service: {error:#}");
            }
        }
    });
    Ok(material)
}

struct Service {
    config: Arc<ServerConfig>,
    issuer: Issuer<'static, KeyPair>,
    bundle: String,
}

impl Service {
    /// Answers one request: signs what it is given.
    fn serve(&self, stream: TcpStream) -> anyhow::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&self.config))?, stream);
        let request = body(&mut stream)?;
        let issued = Issued {
            certificate: self.sign(&request)?,
            bundle: self.bundle.clone(),
            renew_after_seconds: 12 * 3600,
        };
        let answer = serde_json::to_string(&issued)?;
        let length = answer.len();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{answer}")?;
        stream.conn.send_close_notify();
        stream.flush()?;
        Ok(())
    }

    fn sign(&self, request: &[u8]) -> anyhow::Result<String> {
        let mut request = CertificateSigningRequestParams::from_der(&request.into())?;
        let id = SpiffeId::new(TrustDomain::default(), NAMESPACE, ACCOUNT)?;
        request.params.distinguished_name = DistinguishedName::new();
        request.params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
        request.params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Ok(request.signed_by(&self.issuer)?.pem())
    }
}

/// Reads a request and returns its body.
fn body(stream: &mut impl io::Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece)?;
        anyhow::ensure!(count > 0 && bytes.len() < MAX_REQUEST, "no request");
        bytes.extend_from_slice(&piece[..count]);
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(end) = head.parse(&bytes)? else { continue };
        let length = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
        let length: usize = length
            .map_or(Ok(0), |field| std::str::from_utf8(field.value)?.parse().map_err(anyhow::Error::from))?;
        if bytes.len() >= end + length {
            return Ok(bytes[end..end + length].to_vec());
        }
    }
}
