//! Certificates as PEM, and what can be read of them.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use thiserror::Error;
use x509_parser::{parse_x509_certificate, time::ASN1Time};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// Certificates that a chain or a set of roots may hold; each one is sent in every handshake, or read by every sidecar.
const MAX_CERTIFICATES: usize = 4;

/// Why a text holds no certificates that can be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// There is none.
    #[error("holds no certificate in PEM")]
    None,
    /// There are too many.
    #[error("holds more than {MAX_CERTIFICATES} certificates")]
    TooMany,
    /// One is not a certificate.
    #[error("its certificate number {0} can't be read")]
    Malformed(usize),
}

/// A certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    pem: String,
    der: CertificateDer<'static>,
    validity: Validity,
}

/// From and to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Begin.
    pub not_before: SystemTime,
    /// End.
    pub not_after: SystemTime,
}

impl Certificate {
    /// All certificates of a text in PEM, in order.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn parse_all(text: &str) -> Result<Vec<Self>, CertificateError> {
        let mut all = Vec::new();
        let mut rest = text;
        while let Some(begin) = rest.find(BEGIN) {
            if all.len() == MAX_CERTIFICATES {
                return Err(CertificateError::TooMany);
            }
            let malformed = || CertificateError::Malformed(all.len() + 1);
            let end = rest[begin..].find(END).ok_or_else(malformed)? + begin + END.len();
            all.push(Self::parse(&rest[begin..end]).ok_or_else(malformed)?);
            rest = &rest[end..];
        }
        if all.is_empty() { Err(CertificateError::None) } else { Ok(all) }
    }

    fn parse(pem: &str) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let (rest, parsed) = parse_x509_certificate(&der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let time = |time: ASN1Time| {
            UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(time.timestamp()).ok()?))
        };
        let validity = parsed.validity();
        let validity =
            Validity { not_before: time(validity.not_before)?, not_after: time(validity.not_after)? };
        Some(Self { pem: format!("{}\n", pem.trim()), der, validity })
    }

    /// As PEM, with a line feed at the end.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// As DER.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// From and to when it is valid.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// SHA-256 of its DER, in hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        sha256(&self.der)
    }

    /// Whether it may sign other certificates: basic constraints, and key usage where that is stated.
    #[must_use]
    pub fn is_authority(&self) -> bool {
        let Ok((_, parsed)) = parse_x509_certificate(&self.der) else { return false };
        let signs = |usage: Option<bool>| usage.unwrap_or(true);
        parsed.is_ca() && signs(parsed.key_usage().ok().flatten().map(|usage| usage.value.key_cert_sign()))
    }

    /// How many authorities may stand below it, where that is stated.
    #[must_use]
    pub fn path_length(&self) -> Option<u32> {
        let (_, parsed) = parse_x509_certificate(&self.der).ok()?;
        parsed.basic_constraints().ok()??.value.path_len_constraint
    }

    /// The public key as DER of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key(&self) -> Option<Vec<u8>> {
        let (_, parsed) = parse_x509_certificate(&self.der).ok()?;
        Some(parsed.public_key().raw.to_vec())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("fingerprint", &self.fingerprint())
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// The certificates as one PEM text.
#[must_use]
pub fn pem(certificates: &[Certificate]) -> String {
    certificates.iter().map(Certificate::pem).collect()
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    use fmt::Write as _;
    digest::digest(&digest::SHA256, bytes).as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Seconds since 1970; 0 for what was before.
#[must_use]
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
