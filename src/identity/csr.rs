//! A request for a certificate (PKCS #10, RFC 2986), read with suspicion.

use ferrule_config::identity::SpiffeId;
use rcgen::SubjectPublicKeyInfo;
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject};
use thiserror::Error;
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256},
    prelude::FromDer as _,
};

/// Longest request in bytes; a usual one has 300.
pub const MAX_BYTES: usize = 16 * 1024;
/// An uncompressed point of P-256.
const POINT: usize = 65;

/// Why a request can't be answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CsrError {
    /// Not a request at all.
    #[error("the body is not a certificate signing request in PEM or DER")]
    Malformed,
    /// Another kind of key.
    #[error("the key is not ECDSA P-256, the only kind that is certified here")]
    Key,
    /// Whoever sent it does not hold the key, or the bytes were changed.
    #[error("the request is not signed by its own key with ECDSA and SHA-256")]
    Signature,
    /// It asks for another name than its own.
    #[error("the request asks for another name than {0}")]
    Names(SpiffeId),
}

/// A request: a key whose owner signed it, and the names that it asks for.
#[derive(Clone, Debug)]
pub struct Csr {
    key: SubjectPublicKeyInfo,
    names: Vec<Option<String>>,
}

impl Csr {
    /// Reads a request in PEM or DER and verifies its signature.
    ///
    /// # Errors
    /// [`CsrError`].
    pub fn parse(body: &[u8]) -> Result<Self, CsrError> {
        if body.len() > MAX_BYTES {
            return Err(CsrError::Malformed);
        }
        let pem;
        let der: &[u8] = if body.starts_with(b"-----") {
            pem = CertificateSigningRequestDer::from_pem_slice(body).map_err(|_| CsrError::Malformed)?;
            &pem
        } else {
            body
        };
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        // Before any arithmetic: what another key would cost to verify is its sender's choice.
        let key = &request.certification_request_info.subject_pki;
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let is_p256 = key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
            && curve.is_some_and(|curve| curve == OID_EC_P256)
            && key.subject_public_key.data.len() == POINT;
        if !is_p256 {
            return Err(CsrError::Key);
        }
        if request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
            return Err(CsrError::Signature);
        }
        request.verify_signature().map_err(|_| CsrError::Signature)?;
        let key = SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| CsrError::Key)?;
        Ok(Self { key, names: names(&request)? })
    }

    /// Whether it asks for any name.
    #[must_use]
    pub fn asks(&self) -> bool {
        !self.names.is_empty()
    }

    /// The key to be certified, as DER of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        rcgen::PublicKeyData::subject_public_key_info(&self.key)
    }

    /// The key to be certified.
    pub(super) fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }

    /// Checks that it asks for nothing, or for exactly this identity.
    ///
    /// # Errors
    /// [`CsrError::Names`].
    pub fn asks_only_for(&self, id: &SpiffeId) -> Result<(), CsrError> {
        let text = id.to_string();
        let same = |name: &Option<String>| name.as_ref() == Some(&text);
        let asked = self.names.len() <= 1 && self.names.iter().all(same);
        if asked { Ok(()) } else { Err(CsrError::Names(id.clone())) }
    }
}

/// Alternative names that are asked for; `None` for one that is no URI. Other extensions don't matter: none is copied.
fn names(request: &X509CertificationRequest<'_>) -> Result<Vec<Option<String>>, CsrError> {
    let mut names = Vec::new();
    for extension in request.requested_extensions().into_iter().flatten() {
        match extension {
            ParsedExtension::SubjectAlternativeName(alternative) => {
                names.extend(alternative.general_names.iter().map(|name| match name {
                    GeneralName::URI(uri) => Some((*uri).to_owned()),
                    _ => None,
                }));
            }
            ParsedExtension::ParseError { .. } => return Err(CsrError::Malformed),
            _ => {}
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{
        CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType,
        string::Ia5String,
    };

    use super::*;

    fn id() -> SpiffeId {
        "spiffe://cluster.local/ns/shop/sa/cart".parse().expect("an identity")
    }

    fn request(names: &[SanType], key: &KeyPair) -> rcgen::CertificateSigningRequest {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names.to_vec();
        params.serialize_request(key).expect("a request")
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(Ia5String::try_from(text).expect("ASCII"))
    }

    fn asked(names: &[SanType]) -> Result<(), CsrError> {
        let request = request(names, &KeyPair::generate().expect("a key"));
        Csr::parse(request.der()).expect("a request").asks_only_for(&id())
    }

    #[test]
    fn a_request_is_read_from_pem_and_der() {
        let key = KeyPair::generate().expect("a key");
        let request = request(&[], &key);
        for body in [request.pem().expect("PEM").into_bytes(), request.der().to_vec()] {
            let csr = Csr::parse(&body).expect("a request");
            assert_eq!(csr.public_key(), rcgen::PublicKeyData::subject_public_key_info(&key));
        }
    }

    #[test]
    fn only_the_own_name_may_be_asked_for() {
        assert_eq!(asked(&[]), Ok(()));
        assert_eq!(asked(&[uri("spiffe://cluster.local/ns/shop/sa/cart")]), Ok(()));
        let own = uri("spiffe://cluster.local/ns/shop/sa/cart");
        let other = uri("spiffe://cluster.local/ns/shop/sa/admin");
        let dns = SanType::DnsName(Ia5String::try_from("cart.shop.svc").expect("ASCII"));
        for names in
            [vec![other.clone()], vec![own.clone(), other], vec![dns.clone()], vec![own.clone(), dns]]
        {
            assert_eq!(asked(&names), Err(CsrError::Names(id())), "{names:?}");
        }
        assert!(asked(&[own.clone(), own]).is_err(), "a name twice");
    }

    #[test]
    fn other_keys_are_refused() {
        for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).expect("a key");
            assert_eq!(Csr::parse(request(&[], &key).der()).map(drop), Err(CsrError::Key));
        }
    }

    #[test]
    fn a_signature_by_another_key_is_refused() {
        let mut der = request(&[], &KeyPair::generate().expect("a key")).der().to_vec();
        // The last byte is one of the signature.
        *der.last_mut().expect("bytes") ^= 1;
        assert_eq!(Csr::parse(&der).map(drop), Err(CsrError::Signature));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let request = request(&[], &KeyPair::generate().expect("a key"));
        let mut trailing = request.der().to_vec();
        trailing.push(0);
        for body in
            [&b""[..], b"-----BEGIN CERTIFICATE REQUEST-----", b"{}", &trailing, &[0x30; MAX_BYTES + 1]]
        {
            assert_eq!(Csr::parse(body).map(drop), Err(CsrError::Malformed));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Csr::parse(&bytes);
        }

        // A signature can be written in more than one way, which does no harm.
        #[test]
        fn a_changed_byte_never_changes_what_is_certified(position in 0usize..400, change in 1u8..) {
            let own = request(&[uri("spiffe://cluster.local/ns/shop/sa/cart")], &KeyPair::generate().expect("a key"));
            let mut der = own.der().to_vec();
            let position = position % der.len();
            der[position] ^= change;
            if let Ok(read) = Csr::parse(&der) {
                let own = Csr::parse(own.der()).expect("a request");
                prop_assert_eq!((read.public_key(), read.names), (own.public_key(), own.names));
            }
        }
    }
}
