//! An authority that the user supplies: a Secret as cert-manager writes it for a CA certificate.

use std::{collections::BTreeMap, time::SystemTime};

use ferrule_config::identity::TrustDomain;
use k8s_openapi::ByteString;

use super::authority::{Authority, AuthorityError, Key, Parts};

/// The Secret's keys: `tls.crt` is the issuer and what leads from it to the root, `ca.crt` the root.
const PARTS: Parts = Parts { roots: "ca.crt", chain: "tls.crt", key: "tls.key", root_key: "" };

/// Reads and checks it, as of this time.
///
/// # Errors
/// [`AuthorityError`], for an event and a condition; it holds no secret.
pub fn read(
    data: &BTreeMap<String, ByteString>,
    domain: &TrustDomain,
    now: SystemTime,
) -> Result<Authority, AuthorityError> {
    let text = |part: &'static str| {
        let bytes =
            data.get(part).filter(|bytes| !bytes.0.is_empty()).ok_or(AuthorityError::Missing(part))?;
        std::str::from_utf8(&bytes.0).map_err(|_| AuthorityError::NotText(part))
    };
    let key = Key::new(text(PARTS.key)?.to_owned());
    let authority = Authority::new(PARTS, text(PARTS.roots)?, text(PARTS.chain)?, key, None)?;
    authority.objection(domain, now)?;
    Ok(authority)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn now() -> SystemTime {
        UNIX_EPOCH + DAY * 20_000
    }

    struct Made {
        pem: String,
        key: KeyPair,
    }

    fn params(name: &str, ca: IsCa) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = ca;
        params.not_before = rcgen::date_time_ymd(2024, 1, 1);
        params.not_after = rcgen::date_time_ymd(2034, 1, 1);
        params
    }

    fn path_length(length: u8) -> IsCa {
        IsCa::Ca(BasicConstraints::Constrained(length))
    }

    fn root(ca: IsCa) -> Made {
        let key = KeyPair::generate().expect("a key");
        Made { pem: params("root", ca).self_signed(&key).expect("made").pem(), key }
    }

    fn below(parent: &Made, params: &CertificateParams) -> Made {
        let issuer = Issuer::from_ca_cert_pem(
            &parent.pem,
            KeyPair::from_pem(&parent.key.serialize_pem()).expect("a key"),
        )
        .expect("an issuer");
        let key = KeyPair::generate().expect("a key");
        Made { pem: params.signed_by(&key, &issuer).expect("made").pem(), key }
    }

    fn read_at(
        roots: &str,
        chain: &str,
        key: &KeyPair,
        now: SystemTime,
    ) -> Result<Authority, AuthorityError> {
        let parts = [("ca.crt", roots), ("tls.crt", chain), ("tls.key", &key.serialize_pem())];
        let data = parts.map(|(part, text)| (part.to_owned(), ByteString(text.as_bytes().to_vec()))).into();
        read(&data, &TrustDomain::default(), now)
    }

    #[test]
    fn a_root_that_signs_by_itself_will_do() {
        let root = root(IsCa::Ca(BasicConstraints::Unconstrained));
        let authority = read_at(&root.pem, &root.pem, &root.key, now()).expect("usable");
        assert_eq!(authority.chain(), "", "a root is not sent along");
        assert!(!authority.is_self_made());
    }

    #[test]
    fn an_issuer_below_others_will_do() {
        let root = root(path_length(2));
        let middle = below(&root, &params("middle", path_length(1)));
        let issuer = below(&middle, &params("issuer", path_length(0)));
        let chain = format!("{}{}", issuer.pem, middle.pem);
        let authority = read_at(&root.pem, &chain, &issuer.key, now()).expect("usable");
        assert_eq!(authority.chain().matches("BEGIN").count(), 2);
        let incomplete = read_at(&root.pem, &issuer.pem, &issuer.key, now());
        assert!(matches!(incomplete, Err(AuthorityError::Chain(_))), "{incomplete:?}");
    }

    #[test]
    fn a_path_that_is_too_long_is_refused() {
        let root = root(path_length(0));
        let issuer = below(&root, &params("issuer", path_length(0)));
        let refused = read_at(&root.pem, &issuer.pem, &issuer.key, now());
        assert_eq!(refused, Err(AuthorityError::PathLength("ca.crt", "tls.crt")));
        let root = self::root(path_length(2));
        let middle = below(&root, &params("middle", path_length(0)));
        let issuer = below(&middle, &params("issuer", path_length(0)));
        let refused = read_at(&root.pem, &format!("{}{}", issuer.pem, middle.pem), &issuer.key, now());
        assert!(matches!(refused, Err(AuthorityError::Chain(_))), "{refused:?}");
    }

    #[test]
    fn what_may_not_sign_is_refused() {
        let root = root(path_length(1));
        let leaf = below(&root, &params("leaf", IsCa::NoCa));
        let refused = read_at(&root.pem, &leaf.pem, &leaf.key, now());
        assert_eq!(refused, Err(AuthorityError::NotAuthority("tls.crt")));
        let mut wrong = params("issuer", path_length(0));
        wrong.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let issuer = below(&root, &wrong);
        let refused = read_at(&root.pem, &issuer.pem, &issuer.key, now());
        assert_eq!(refused, Err(AuthorityError::NotAuthority("tls.crt")));
    }

    #[test]
    fn another_key_or_root_is_refused() {
        let (first, second) = (root(path_length(1)), root(path_length(1)));
        let issuer = below(&first, &params("issuer", path_length(0)));
        let refused = read_at(&first.pem, &issuer.pem, &second.key, now());
        assert_eq!(refused, Err(AuthorityError::Mismatch("tls.key", "tls.crt")));
        let refused = read_at(&second.pem, &issuer.pem, &issuer.key, now());
        assert!(matches!(refused, Err(AuthorityError::Chain(_))), "{refused:?}");
    }

    #[test]
    fn what_is_not_valid_now_is_refused() {
        let root = root(path_length(1));
        for time in [UNIX_EPOCH + DAY, UNIX_EPOCH + DAY * 365 * 65] {
            let refused = read_at(&root.pem, &root.pem, &root.key, time);
            assert!(matches!(refused, Err(AuthorityError::Validity("the roots", _))), "{refused:?}");
        }
    }

    #[test]
    fn what_is_missing_or_garbage_is_named() {
        let root = root(path_length(1));
        let empty = read(&BTreeMap::new(), &TrustDomain::default(), now());
        assert_eq!(empty, Err(AuthorityError::Missing("tls.key")));
        let garbage = read_at("garbage", &root.pem, &root.key, now()).expect_err("no certificate");
        assert_eq!(garbage.to_string(), "ca.crt holds no certificate in PEM");
    }

    #[test]
    fn keys_are_not_printed() {
        let root = root(path_length(1));
        let authority = read_at(&root.pem, &root.pem, &root.key, now()).expect("usable");
        let secret = root.key.serialize_pem().lines().nth(1).expect("base64").to_owned();
        assert!(!format!("{authority:?}").contains(&secret));
    }
}
