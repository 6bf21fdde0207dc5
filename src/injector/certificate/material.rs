//! What the Secret holds, parsed and checked.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::ByteString;
use rcgen::{KeyPair, PublicKeyData};
use rustls::{
    client::danger::ServerCertVerifier,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use thiserror::Error;
use x509_parser::parse_x509_certificate;

use crate::https::provider;

const SERVING_CERTIFICATE: &str = "tls.crt";
const SERVING_KEY: &str = "tls.key";
const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const NEXT_CERTIFICATE: &str = "next-ca.crt";
const NEXT_KEY: &str = "next-ca.key";
const PREVIOUS_CERTIFICATE: &str = "previous-ca.crt";

/// `data` of the Secret.
pub(super) type Data = BTreeMap<String, ByteString>;

/// Why the Secret's content can't be used. No variant carries key material.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum MaterialError {
    #[error("key {0:?} is missing")]
    Missing(&'static str),
    #[error("key {0:?} is not PEM of the right kind")]
    Malformed(&'static str),
    #[error("key {key:?} does not belong to {certificate:?}")]
    Mismatch { key: &'static str, certificate: &'static str },
}

/// A certificate and its private key, both PEM, and how long it is valid.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) validity: Validity,
}

/// From and to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

/// Everything in the Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Material {
    /// Signs serving certificates.
    pub(super) authority: Pair,
    /// Is trusted already and signs later.
    pub(super) next: Option<Pair>,
    /// Certificate of the authority before this one, still trusted.
    pub(super) previous: Option<String>,
    /// What the server shows.
    pub(super) serving: Pair,
}

impl Pair {
    pub(super) fn new(certificate: String, key: String) -> Result<Self, MaterialError> {
        Self::named(certificate, key, CA_CERTIFICATE, CA_KEY)
    }

    fn parse(
        data: &Data,
        certificate: &'static str,
        key: &'static str,
    ) -> Result<Option<Self>, MaterialError> {
        match (text(data, certificate)?, text(data, key)?) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(MaterialError::Missing(certificate)),
            (Some(_), None) => Err(MaterialError::Missing(key)),
            (Some(pem), Some(key_pem)) => Self::named(pem, key_pem, certificate, key).map(Some),
        }
    }

    fn named(
        certificate: String,
        key: String,
        certificate_name: &'static str,
        key_name: &'static str,
    ) -> Result<Self, MaterialError> {
        let malformed = |_| MaterialError::Malformed(certificate_name);
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(malformed)?;
        let (_, parsed) =
            parse_x509_certificate(&der).map_err(|_| MaterialError::Malformed(certificate_name))?;
        let pair = KeyPair::from_pem(&key).map_err(|_| MaterialError::Malformed(key_name))?;
        if parsed.public_key().raw != pair.subject_public_key_info() {
            return Err(MaterialError::Mismatch { key: key_name, certificate: certificate_name });
        }
        let validity = parsed.validity();
        let validity = Validity {
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        };
        Ok(Self { certificate, key, validity })
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("validity", &self.validity).finish_non_exhaustive()
    }
}

impl Material {
    pub(super) fn parse(data: &Data) -> Result<Self, MaterialError> {
        let authority = Pair::parse(data, CA_CERTIFICATE, CA_KEY)?;
        let serving = Pair::parse(data, SERVING_CERTIFICATE, SERVING_KEY)?;
        Ok(Self {
            authority: authority.ok_or(MaterialError::Missing(CA_CERTIFICATE))?,
            next: Pair::parse(data, NEXT_CERTIFICATE, NEXT_KEY)?,
            previous: text(data, PREVIOUS_CERTIFICATE)?,
            serving: serving.ok_or(MaterialError::Missing(SERVING_CERTIFICATE))?,
        })
    }

    pub(super) fn to_data(&self) -> Data {
        let Self { authority, next, previous, serving } = self;
        [
            (CA_CERTIFICATE, Some(&authority.certificate)),
            (CA_KEY, Some(&authority.key)),
            (NEXT_CERTIFICATE, next.as_ref().map(|next| &next.certificate)),
            (NEXT_KEY, next.as_ref().map(|next| &next.key)),
            (PREVIOUS_CERTIFICATE, previous.as_ref()),
            (SERVING_CERTIFICATE, Some(&serving.certificate)),
            (SERVING_KEY, Some(&serving.key)),
        ]
        .into_iter()
        .filter_map(|(key, pem)| Some((key.to_owned(), ByteString(pem?.clone().into_bytes()))))
        .collect()
    }

    /// The PEM of all authorities to be trusted.
    pub(super) fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|next| next.certificate.as_str());
        [Some(self.authority.certificate.as_str()), next, self.previous.as_deref()]
            .into_iter()
            .flatten()
            .flat_map(|pem| [pem.trim_end(), "\n"])
            .collect()
    }

    /// What a client that trusts the authority would object to at this time, if it calls this name.
    pub(super) fn objection(&self, name: &str, now: SystemTime) -> Option<String> {
        let verify = || -> Result<(), String> {
            let mut roots = rustls::RootCertStore::empty();
            let authority = CertificateDer::from_pem_slice(self.authority.certificate.as_bytes());
            roots.add(authority.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
            let verifier =
                rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider())
                    .build()
                    .map_err(|error| error.to_string())?;
            let serving = CertificateDer::from_pem_slice(self.serving.certificate.as_bytes());
            let serving = serving.map_err(|error| error.to_string())?;
            let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
            let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
            verifier
                .verify_server_cert(&serving, &[], &name, &[], now)
                .map(drop)
                .map_err(|error| error.to_string())
        };
        verify().err()
    }
}

fn text(data: &Data, key: &'static str) -> Result<Option<String>, MaterialError> {
    let Some(bytes) = data.get(key).filter(|bytes| !bytes.0.is_empty()) else { return Ok(None) };
    String::from_utf8(bytes.0.clone()).map(Some).map_err(|_| MaterialError::Malformed(key))
}

fn time(timestamp: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or(0))
}
