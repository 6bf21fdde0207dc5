//! What signs certificates: an issuer with its key, and the roots that what it signs is verified against.

use std::{fmt, sync::Arc, time::SystemTime};

use ferrule_config::identity::{SpiffeId, TrustDomain};
use rcgen::{Issuer, KeyPair, PublicKeyData as _};
use rustls::{RootCertStore, pki_types::UnixTime, server::WebPkiClientVerifier};
use thiserror::Error;
use zeroize::Zeroize as _;

use super::{
    certificate::{Certificate, CertificateError, Validity, pem, seconds},
    issue::{self, IssueError},
    life::SHORTEST,
};
use crate::https::provider;

/// Why something can't be the authority of a mesh. No message carries a key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthorityError {
    /// A part is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A part is no text.
    #[error("{0} is not PEM")]
    NotText(&'static str),
    /// Certificates that can't be read.
    #[error("{0} {1}")]
    Certificates(&'static str, CertificateError),
    /// A key that can't be read.
    #[error(
        "{0} is not a private key in PEM (PKCS #8, SEC 1 or PKCS #1) of a kind that is supported: ECDSA P-256 or P-384, RSA"
    )]
    Key(&'static str),
    /// A key of another certificate.
    #[error("{0} is not the key of the first certificate in {1}")]
    Mismatch(&'static str, &'static str),
    /// A certificate that may not sign.
    #[error(
        "a certificate in {0} is not an authority: it needs basic constraints CA:TRUE and, where key usage is stated, keyCertSign"
    )]
    NotAuthority(&'static str),
    /// A root below which there are too many.
    #[error("{0} allows fewer authorities below it (path length) than there are in {1}")]
    PathLength(&'static str, &'static str),
    /// Outside of its validity.
    #[error("a certificate in {0} is {1}")]
    Validity(&'static str, &'static str),
    /// What it signs can't be verified.
    #[error(
        "what it signs is not verified by its roots: {0}; are the chain complete, its path lengths long enough, and ca.crt its root?"
    )]
    Chain(String),
    /// It can't sign.
    #[error("it can't sign: {0}")]
    Sign(String),
}

/// Names of the parts of an authority, for messages and Secrets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    pub(super) roots: &'static str,
    pub(super) chain: &'static str,
    pub(super) key: &'static str,
    pub(super) root_key: &'static str,
}

/// A private key in PEM, overwritten when it is dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    pub(super) fn new(pem: String) -> Self {
        Self(pem)
    }

    pub(super) fn pem(&self) -> &str {
        &self.0
    }

    fn pair(&self) -> Option<KeyPair> {
        KeyPair::from_pem(&self.0).ok()
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// An authority; clones share the key that signs.
#[derive(Clone)]
pub struct Authority {
    roots: Vec<Certificate>,
    /// The first one signs; the others lead from it to a root.
    issuers: Vec<Certificate>,
    key: Key,
    /// Only of a root that was made here.
    root_key: Option<Key>,
    signer: Arc<Issuer<'static, KeyPair>>,
}

impl Authority {
    /// Puts the parts together. What depends on the time is [`Self::objection`]'s.
    pub(super) fn new(
        parts: Parts,
        roots: &str,
        chain: &str,
        key: Key,
        root_key: Option<Key>,
    ) -> Result<Self, AuthorityError> {
        let read = |part, text| {
            Certificate::parse_all(text).map_err(|error| AuthorityError::Certificates(part, error))
        };
        let (roots, issuers) = (read(parts.roots, roots)?, read(parts.chain, chain)?);
        for (part, certificates) in [(parts.roots, &roots), (parts.chain, &issuers)] {
            if !certificates.iter().all(Certificate::is_authority) {
                return Err(AuthorityError::NotAuthority(part));
            }
        }
        // Sidecars take a root as it is; other verifiers do not, and tools for people least of all.
        let below = issuers.iter().filter(|issuer| !roots.contains(issuer)).count();
        let room = |root: &Certificate| root.path_length().is_none_or(|length| below <= length as usize);
        if !roots.iter().any(room) {
            return Err(AuthorityError::PathLength(parts.roots, parts.chain));
        }
        let pair = key.pair().ok_or(AuthorityError::Key(parts.key))?;
        if issuers[0].public_key() != Some(pair.subject_public_key_info()) {
            return Err(AuthorityError::Mismatch(parts.key, parts.chain));
        }
        if let Some(root_key) = &root_key {
            let pair = root_key.pair().ok_or(AuthorityError::Key(parts.root_key))?;
            if roots[0].public_key() != Some(pair.subject_public_key_info()) {
                return Err(AuthorityError::Mismatch(parts.root_key, parts.roots));
            }
        }
        let signer = Issuer::from_ca_cert_der(issuers[0].der(), pair)
            .map_err(|error| AuthorityError::Sign(error.to_string()))?;
        Ok(Self { roots, issuers, key, root_key, signer: Arc::new(signer) })
    }

    /// What speaks against signing with it at this time, if anything does: a certificate is signed on trial and verified
    /// as sidecars would.
    ///
    /// # Errors
    /// The objection.
    pub fn objection(&self, domain: &TrustDomain, now: SystemTime) -> Result<(), AuthorityError> {
        for (part, certificates) in [("the roots", &self.roots), ("the chain", &self.issuers)] {
            for Validity { not_before, not_after } in certificates.iter().map(Certificate::validity) {
                if now < not_before {
                    return Err(AuthorityError::Validity(part, "not valid yet; is a clock wrong?"));
                }
                if now + SHORTEST >= not_after {
                    return Err(AuthorityError::Validity(part, "expired, or about to"));
                }
            }
        }
        let sign = |error: IssueError| AuthorityError::Sign(error.to_string());
        let id = SpiffeId::new(domain.clone(), "trial", "trial")
            .map_err(|error| AuthorityError::Sign(error.to_string()))?;
        let key = KeyPair::generate().map_err(|error| AuthorityError::Sign(error.to_string()))?;
        let trial = issue::workload(self, &key, &id, SHORTEST, now).map_err(sign)?;
        let trial = Certificate::parse_all(&trial.chain)
            .map_err(|error| AuthorityError::Certificates("the chain", error))?;
        self.verify(&trial, now).map_err(AuthorityError::Chain)
    }

    /// Verifies a chain as sidecars do.
    fn verify(&self, chain: &[Certificate], now: SystemTime) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        for root in &self.roots {
            roots.add(root.der().clone()).map_err(|error| error.to_string())?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider())
            .build()
            .map_err(|error| error.to_string())?;
        let intermediates: Vec<_> =
            chain.iter().skip(1).map(|certificate| certificate.der().clone()).collect();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds(now)));
        verifier
            .verify_client_cert(chain[0].der(), &intermediates, now)
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// What its certificates are verified against.
    #[must_use]
    pub fn roots(&self) -> &[Certificate] {
        &self.roots
    }

    /// Whether its root was made here, so that it can make issuers and successors.
    #[must_use]
    pub fn is_self_made(&self) -> bool {
        self.root_key.is_some()
    }

    /// Whether what one signs is verified by the roots of the other.
    #[must_use]
    pub fn has_roots_of(&self, other: &Self) -> bool {
        self.roots.len() == other.roots.len() && self.roots.iter().all(|root| other.roots.contains(root))
    }

    /// The certificate that signs.
    #[must_use]
    pub fn issuer(&self) -> &Certificate {
        &self.issuers[0]
    }

    /// What is sent along with each certificate: all that leads to a root, without the root.
    pub(super) fn chain(&self) -> String {
        self.issuers.iter().filter(|issuer| !self.roots.contains(issuer)).map(Certificate::pem).collect()
    }

    /// When the first of its certificates ends.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        let all = self.roots.iter().chain(&self.issuers).map(|certificate| certificate.validity().not_after);
        all.min().unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// When the first of its roots ends.
    #[must_use]
    pub fn root_not_after(&self) -> SystemTime {
        let all = self.roots.iter().map(|certificate| certificate.validity().not_after);
        all.min().unwrap_or(SystemTime::UNIX_EPOCH)
    }

    pub(super) fn signer(&self) -> &Issuer<'static, KeyPair> {
        &self.signer
    }

    pub(super) fn root_key(&self) -> Option<&Key> {
        self.root_key.as_ref()
    }

    /// Its parts as PEM: roots, chain, key, and the root's key.
    pub(super) fn to_pem(&self) -> (String, String, &str, Option<&str>) {
        (pem(&self.roots), pem(&self.issuers), self.key.pem(), self.root_key.as_ref().map(Key::pem))
    }
}

impl PartialEq for Authority {
    fn eq(&self, other: &Self) -> bool {
        let Self { roots, issuers, key, root_key, signer: _ } = self;
        (roots, issuers, key, root_key) == (&other.roots, &other.issuers, &other.key, &other.root_key)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("roots", &self.roots)
            .field("issuers", &self.issuers)
            .finish_non_exhaustive()
    }
}
