//! The trust bundle: whom this sidecar believes who they are.

use std::sync::Arc;

use aws_lc_rs::digest;
use ferrule_config::{identity::BundleReport, trust};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use thiserror::Error;

/// Longest text; two roots have 1.5 KiB.
const MAX_BYTES: usize = 64 * 1024;
/// Roots that a bundle may hold.
const MAX_ROOTS: usize = 16;

/// Why a text can't be used as a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BundleError {
    /// It is longer than any bundle has reason to be.
    #[error("the trust bundle is longer than {MAX_BYTES} bytes, or has more than {MAX_ROOTS} roots")]
    TooLarge,
    /// It has none that can be read.
    #[error("the trust bundle holds no certificate in PEM that can be used")]
    NoRoot,
}

/// Roots that are trusted.
#[derive(Clone, Debug)]
pub struct Bundle {
    report: BundleReport,
    certificates: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
}

impl Bundle {
    /// Reads a bundle. One without a number is older than all others.
    ///
    /// # Errors
    /// [`BundleError`]; one root that can't be read spoils all, for it may be the next to sign.
    pub fn parse(text: &str) -> Result<Self, BundleError> {
        if text.len() > MAX_BYTES {
            return Err(BundleError::TooLarge);
        }
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| BundleError::NoRoot)?;
        if certificates.len() > MAX_ROOTS {
            return Err(BundleError::TooLarge);
        }
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|_| BundleError::NoRoot)?;
        }
        if roots.is_empty() {
            return Err(BundleError::NoRoot);
        }
        let generation = trust::generation(text).unwrap_or(0);
        let report = BundleReport { generation, hash: sha256([text.as_bytes()]) };
        Ok(Self { report, certificates, roots: Arc::new(roots) })
    }

    /// Later bundles have higher numbers.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.report.generation
    }

    /// Number and hash.
    #[must_use]
    pub fn report(&self) -> &BundleReport {
        &self.report
    }

    /// The roots, for a verifier.
    #[must_use]
    pub fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// The roots as certificates, the one first that signs now.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// SHA-256 of the root that signs now, in hexadecimal.
    #[must_use]
    pub fn signing_root(&self) -> String {
        sha256(self.certificates.first().map(|root| &**root))
    }
}

/// SHA-256 of the pieces, one after the other, in hexadecimal.
pub(super) fn sha256<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    use std::fmt::Write as _;
    let mut context = digest::Context::new(&digest::SHA256);
    pieces.into_iter().for_each(|piece| context.update(piece));
    context.finish().as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::Authority;

    #[test]
    fn a_bundle_has_a_number_and_keeps_its_order() {
        let (one, two) = (Authority::new(), Authority::new());
        let bundle = Bundle::parse(&trust::write(7, [one.pem(), two.pem()])).expect("a bundle");
        assert_eq!((bundle.generation(), bundle.certificates().len()), (7, 2));
        assert_eq!(bundle.signing_root(), sha256([&*bundle.certificates()[0]]));
        assert_eq!(Bundle::parse(one.pem()).expect("a bundle").generation(), 0);
    }

    #[test]
    fn what_is_no_bundle_is_refused() {
        let one = Authority::new();
        let spoilt = format!("{}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", one.pem());
        for text in ["", "garbage", &spoilt] {
            assert_eq!(Bundle::parse(text).map(drop), Err(BundleError::NoRoot), "{text}");
        }
        assert_eq!(Bundle::parse(&" ".repeat(MAX_BYTES + 1)).map(drop), Err(BundleError::TooLarge));
    }
}
