//! The identity in force: a certificate that was checked as every other sidecar will check it, and its key.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ferrule_config::identity::SpiffeId;
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SigningKey},
};
use thiserror::Error;
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use super::bundle::{Bundle, sha256};

/// Certificates in a chain: the own one, and what leads to a root.
const MAX_CHAIN: usize = 6;

/// Why a certificate that was issued can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// Not a chain of certificates.
    #[error("the certificate that was issued can't be read")]
    Malformed,
    /// Of another key.
    #[error("the certificate that was issued is not of this sidecar's key")]
    OtherKey,
    /// For another identity, or for more than one.
    #[error("the certificate that was issued is not for {wanted} and nothing else, but for {found:?}")]
    OtherIdentity {
        /// Whose it should be.
        wanted: SpiffeId,
        /// Names in it.
        found: Vec<String>,
    },
    /// Others will not believe it.
    #[error(
        "the certificate that was issued is not verified by the trust bundle: {0}; is this node's clock right?"
    )]
    Untrusted(String),
}

/// An identity.
#[derive(Debug)]
pub struct Current {
    /// Who this is.
    pub id: SpiffeId,
    /// Certificate chain and key, for handshakes.
    pub key: Arc<CertifiedKey>,
    /// When the certificate ends.
    pub not_after: SystemTime,
    /// SHA-256 of the chain.
    pub(super) chain: String,
    /// SHA-256 of the root that the chain leads to.
    pub(super) root: String,
}

impl Current {
    /// Checks what was issued for a key: it is this identity's and no other's, and this bundle verifies it now.
    pub(super) fn new(
        id: &SpiffeId,
        chain: &str,
        key: Arc<dyn SigningKey>,
        bundle: &Bundle,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::Malformed)?;
        if chain.is_empty() || chain.len() > MAX_CHAIN {
            return Err(CertificateError::Malformed);
        }
        let (names, not_after) = read(&chain[0]).ok_or(CertificateError::Malformed)?;
        if names != [id.to_string()] {
            return Err(CertificateError::OtherIdentity { wanted: id.clone(), found: names });
        }
        let root = root_of(&chain, bundle, now)?;
        let hash = sha256(chain.iter().map(|certificate| &**certificate));
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(|_| CertificateError::OtherKey)?;
        Ok(Self { id: id.clone(), key: Arc::new(key), not_after, chain: hash, root })
    }

    /// Whether it can still be shown.
    #[must_use]
    pub fn is_valid(&self, now: SystemTime) -> bool {
        now < self.not_after
    }
}

/// Names and end of a certificate. A name that is no URI is shown as such, so that it equals no identity.
fn read(certificate: &CertificateDer<'_>) -> Option<(Vec<String>, SystemTime)> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()?.map_or(Vec::new(), |names| {
        let name = |name: &GeneralName<'_>| match name {
            GeneralName::URI(uri) => (*uri).to_owned(),
            other => format!("({other})"),
        };
        names.value.general_names.iter().map(name).collect()
    });
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    Some((names, UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?))
}

/// The root that a chain leads to. Each is tried alone, as it matters which it is.
fn root_of(
    chain: &[CertificateDer<'static>],
    bundle: &Bundle,
    now: SystemTime,
) -> Result<String, CertificateError> {
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut objection = String::new();
    for root in bundle.certificates() {
        let mut roots = RootCertStore::empty();
        let verified = roots.add(root.clone()).map_err(|error| error.to_string()).and_then(|()| {
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
                .build()
                .map_err(|error| error.to_string())?
                .verify_client_cert(&chain[0], &chain[1..], now)
                .map_err(|error| error.to_string())
        });
        match verified {
            Ok(_) => return Ok(sha256([&**root])),
            Err(error) => objection = error,
        }
    }
    Err(CertificateError::Untrusted(objection))
}

#[cfg(test)]
mod tests {
    use ferrule_config::trust;

    use super::*;
    use crate::identity::{request::Request, testing::Authority};

    fn id() -> SpiffeId {
        "spiffe://cluster.local/ns/shop/sa/cart".parse().expect("an identity")
    }

    fn bundle(authorities: &[&Authority]) -> Bundle {
        Bundle::parse(&trust::write(1, authorities.iter().map(|one| one.pem()))).expect("a bundle")
    }

    fn check(authority: &Authority, names: &[&str], bundle: &Bundle) -> Result<Current, CertificateError> {
        let request = Request::new(&id()).expect("a key");
        let chain = authority.issue(&request.csr, names, Duration::from_secs(3600));
        Current::new(&id(), &chain, request.key, bundle, SystemTime::now())
    }

    #[test]
    fn a_certificate_is_taken_with_the_root_that_verifies_it() {
        let (old, new) = (Authority::new(), Authority::new());
        let current = check(&new, &[&id().to_string()], &bundle(&[&old, &new])).expect("usable");
        assert_eq!(current.root, sha256([&*bundle(&[&new]).certificates()[0]]));
        assert!(current.is_valid(SystemTime::now()));
        assert!(!current.is_valid(SystemTime::now() + Duration::from_secs(3600)));
    }

    #[test]
    fn what_is_not_ours_alone_is_refused() {
        let authority = Authority::new();
        let bundle = bundle(&[&authority]);
        let own = id().to_string();
        let other = "spiffe://cluster.local/ns/shop/sa/admin";
        for names in [&[][..], &[other], &[own.as_str(), other], &[own.as_str(), own.as_str()]] {
            let refused = check(&authority, names, &bundle);
            assert!(matches!(refused, Err(CertificateError::OtherIdentity { .. })), "{names:?}");
        }
        let (one, two) = (Request::new(&id()).expect("a key"), Request::new(&id()).expect("a key"));
        let chain = authority.issue(&one.csr, &[&own], Duration::from_secs(3600));
        let refused = Current::new(&id(), &chain, two.key, &bundle, SystemTime::now());
        assert_eq!(refused.map(drop), Err(CertificateError::OtherKey));
        let garbage = Current::new(&id(), "garbage", one.key, &bundle, SystemTime::now());
        assert_eq!(garbage.map(drop), Err(CertificateError::Malformed));
    }

    #[test]
    fn what_others_would_not_believe_is_refused() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let own = id().to_string();
        let refused = check(&theirs, &[&own], &bundle(&[&ours]));
        assert!(matches!(refused, Err(CertificateError::Untrusted(_))));
        let request = Request::new(&id()).expect("a key");
        let chain = ours.issue(&request.csr, &[&own], Duration::from_secs(60));
        let hour = Duration::from_secs(3600);
        for now in [SystemTime::now() + hour, SystemTime::now() - hour * 24] {
            let refused = Current::new(&id(), &chain, Arc::clone(&request.key), &bundle(&[&ours]), now);
            assert!(matches!(refused, Err(CertificateError::Untrusted(_))), "{now:?}");
        }
    }
}
