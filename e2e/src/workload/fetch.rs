//! One HTTP/1.1 request over a connection of one's own.

use std::{
    io::{Error, ErrorKind, Result},
    net::SocketAddr,
    path::Path,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
};
use tokio_rustls::TlsConnector;

use super::{
    dns::Resolver,
    http1::{Connection, Framing, Headers, closes},
    report::Response,
};

/// For how long an address is used before its name is looked up again: CoreDNS' own TTL for Services.
const ADDRESS_TTL: Duration = Duration::from_secs(5);

/// A byte stream, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where a request goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    tls: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let uri: http::Uri = text.parse().map_err(|error| format!("{text:?} is not a URL: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("{text:?}: want http://HOST[:PORT]/PATH or https://…")),
        };
        let authority = uri.authority().ok_or_else(|| format!("{text:?} has no host"))?;
        Ok(Self {
            tls,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

/// A request, ready to be sent any number of times.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    headers: Headers,
    wire: Vec<u8>,
}

impl Request {
    /// A request with these header fields after `Host`, and this body.
    #[must_use]
    pub fn new(target: &Target, method: &str, extra: &[(String, String)], body: &[u8], close: bool) -> Self {
        let mut headers = vec![("Host".to_owned(), target.authority.clone())];
        headers.extend_from_slice(extra);
        if close {
            headers.push(("Connection".to_owned(), "close".to_owned()));
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
            headers.push(("Content-Length".to_owned(), body.len().to_string()));
        }
        let mut wire = format!("{method} {} HTTP/1.1\r\n", target.path);
        for (name, value) in &headers {
            wire.push_str(&format!("{name}: {value}\r\n"));
        }
        wire.push_str("\r\n");
        let wire = [wire.as_bytes(), body].concat();
        Self { method: method.to_owned(), headers, wire }
    }
}

/// Opens connections to one [`Target`].
pub struct Connector {
    target: Target,
    resolver: Resolver,
    tls: Option<TlsConnector>,
    resolved: Mutex<Option<(SocketAddr, Instant)>>,
}

impl Connector {
    /// A connector that trusts, for https, the certificates in the PEM file `ca`.
    ///
    /// # Errors
    /// When `/etc/resolv.conf` or `ca` can't be read.
    pub fn new(target: Target, ca: Option<&Path>) -> Result<Self> {
        let tls = if target.tls { Some(tls(ca)?) } else { None };
        Ok(Self { target, resolver: Resolver::system()?, tls, resolved: Mutex::new(None) })
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// The name's, the socket's, the handshake's.
    pub async fn connect(&self) -> Result<Connection<Box<dyn Stream>>> {
        let address = self.address().await?;
        let stream = TcpStream::connect(address).await.map_err(|error| context("connect", &error))?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Connection::new(Box::new(stream)));
        };
        let name = ServerName::try_from(self.target.host.clone()).map_err(Error::other)?;
        let stream = tls.connect(name, stream).await.map_err(|error| context("TLS handshake", &error))?;
        Ok(Connection::new(Box::new(stream)))
    }

    async fn address(&self) -> Result<SocketAddr> {
        let mut resolved = self.resolved.lock().await;
        if let Some((address, at)) = *resolved
            && at.elapsed() < ADDRESS_TTL
        {
            return Ok(address);
        }
        let ip = self.resolver.resolve(&self.target.host).await.map_err(|error| context("DNS", &error))?;
        let address = SocketAddr::new(ip, self.target.port);
        *resolved = Some((address, Instant::now()));
        Ok(address)
    }
}

fn tls(ca: Option<&Path>) -> Result<TlsConnector> {
    let ca = ca.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "https needs --ca FILE"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(Error::other)? {
        roots.add(certificate.map_err(Error::other)?).map_err(Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Sends a request over a connection and reads the whole response; also tells whether the connection can
/// carry another one.
///
/// # Errors
/// Those of the connection, a malformed response, one that ends early.
pub async fn exchange<S: Stream>(
    connection: &mut Connection<S>,
    request: &Request,
) -> Result<(Response, bool)> {
    let start = Instant::now();
    connection.send(&request.wire).await.map_err(|error| context("send", &error))?;
    let head = connection.response_head().await.map_err(|error| context("response", &error))?;
    let framing = Framing::of_response(&request.method, &head)?;
    let body = connection.body(framing).await.map_err(|error| context("response", &error))?;
    let reusable = framing != Framing::UntilClose && !closes(&head.headers) && !closes(&request.headers);
    let response = Response {
        sent: request.headers.clone(),
        status: head.status,
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
        micros: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
    };
    Ok((response, reusable))
}

fn context(doing: &str, error: &Error) -> Error {
    Error::new(error.kind(), format!("{doing}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_names_and_of_both_address_families_are_read() {
        let target: Target = "http://reviews:8080/a?b=c".parse().expect("valid");
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("reviews", 8080, "/a?b=c"));
        let target: Target = "http://[fd96::1]:8080".parse().expect("valid");
        assert_eq!((target.host.as_str(), target.authority.as_str()), ("fd96::1", "[fd96::1]:8080"));
        assert_eq!("https://kubernetes.default".parse::<Target>().expect("valid").port, 443);
        assert!("reviews:8080".parse::<Target>().is_err());
    }
}
