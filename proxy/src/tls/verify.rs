//! Whether a peer is who it has to be: its chain leads to a trusted root now, and its certificate names one identity of
//! this mesh and nothing else. Host names play no part.

use std::sync::Arc;

use ferrule_config::identity::{SpiffeId, TrustDomain};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use thiserror::Error as ThisError;
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use super::expected::Accounts;

/// What is wrong with a name in a certificate whose chain is good.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Objection {
    /// It can't be read.
    #[error("the peer's certificate can't be read")]
    Malformed,
    /// It has no name, several, or one that is no identity.
    #[error("the peer's certificate has not one SPIFFE identity as its only name, but {0:?}")]
    Names(Vec<String>),
    /// It is of another mesh.
    #[error("the peer is {0}, of another trust domain")]
    TrustDomain(SpiffeId),
    /// It is not whom the Service runs as.
    #[error("the peer is {found}, and not one of {} in namespace {}", .wanted.names.join(", "), .wanted.namespace)]
    Account {
        /// Who it is.
        found: SpiffeId,
        /// Who it should be.
        wanted: Arc<Accounts>,
    },
}

impl From<Objection> for Error {
    fn from(objection: Objection) -> Self {
        CertificateError::Other(OtherError(Arc::new(objection))).into()
    }
}

/// The identity that a certificate names. The chain is not looked at.
///
/// # Errors
/// When it does not name exactly one, of this trust domain.
pub fn identity(certificate: &CertificateDer<'_>, domain: &TrustDomain) -> Result<SpiffeId, Objection> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|_| Objection::Malformed)?;
    let names = parsed.subject_alternative_name().map_err(|_| Objection::Malformed)?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let id = match names {
        [GeneralName::URI(uri)] => uri.parse::<SpiffeId>().ok(),
        _ => None,
    };
    let Some(id) = id else {
        return Err(Objection::Names(names.iter().take(4).map(ToString::to_string).collect()));
    };
    if id.trust_domain() == domain { Ok(id) } else { Err(Objection::TrustDomain(id)) }
}

/// Whether this is one of the accounts.
fn expect(id: &SpiffeId, wanted: &Arc<Accounts>) -> Result<(), Objection> {
    let named =
        id.namespace() == wanted.namespace && wanted.names.iter().any(|name| name == id.service_account());
    if named { Ok(()) } else { Err(Objection::Account { found: id.clone(), wanted: Arc::clone(wanted) }) }
}

/// Looks once more at a certificate that was verified in an earlier connection: it may have ended since.
///
/// # Errors
/// What is wrong with it.
pub fn again(
    certificate: &CertificateDer<'_>,
    domain: &TrustDomain,
    wanted: Option<&Arc<Accounts>>,
    now: UnixTime,
) -> Result<SpiffeId, Error> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|_| Objection::Malformed)?;
    if u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0) < now.as_secs() {
        return Err(CertificateError::Expired.into());
    }
    let id = identity(certificate, domain)?;
    if let Some(wanted) = wanted {
        expect(&id, wanted)?;
    }
    Ok(id)
}

/// Verifies servers: they must run as one of these accounts.
#[derive(Debug)]
pub struct Servers {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) domain: TrustDomain,
    pub(super) accounts: Arc<Accounts>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        expect(&identity(end_entity, &self.domain)?, &self.accounts)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies clients: they may be anybody in the mesh. What each may do is decided elsewhere.
#[derive(Debug)]
pub struct Clients {
    chain: Arc<dyn ClientCertVerifier>,
    domain: TrustDomain,
}

impl Clients {
    /// Clients whose chains lead to these roots.
    ///
    /// # Errors
    /// When there is no root.
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        domain: TrustDomain,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { chain, domain })
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Every sidecar has one certificate: hints would only make the handshake longer.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        identity(end_entity, &self.domain)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
