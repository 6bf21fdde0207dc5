//! A new key, and the request to have it certified. The key never leaves the memory of this process, and what is not
//! needed of it any more is overwritten.

use std::sync::Arc;

use ferrule_config::identity::SpiffeId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType, string::Ia5String};
use rustls::{
    crypto::aws_lc_rs::sign::any_ecdsa_type,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::SigningKey,
};
use thiserror::Error;
use zeroize::Zeroize as _;

/// Why there is no request.
#[derive(Debug, Error)]
#[error("cannot make a key or a signing request: {0}")]
pub struct RequestError(String);

/// A key that waits for its certificate.
#[derive(Debug)]
pub(super) struct Request {
    /// PKCS #10 in DER.
    pub(super) csr: Vec<u8>,
    /// Signs handshakes; the cryptography library holds it and overwrites it at its end.
    pub(super) key: Arc<dyn SigningKey>,
}

impl Request {
    /// A new ECDSA P-256 key, for this identity.
    pub(super) fn new(id: &SpiffeId) -> Result<Self, RequestError> {
        let error = |error: &dyn std::fmt::Display| RequestError(error.to_string());
        let mut pair = KeyPair::generate().map_err(|problem| error(&problem))?;
        let csr = csr(&pair, id).map_err(|problem| error(&problem));
        let mut der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let key = any_ecdsa_type(&der).map_err(|problem| error(&problem));
        // Copies in transit: the library keeps its own.
        der.zeroize();
        pair.zeroize();
        Ok(Self { csr: csr?, key: key? })
    }
}

fn csr(pair: &KeyPair, id: &SpiffeId) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id.to_string())?)];
    Ok(params.serialize_request(pair)?.der().to_vec())
}
