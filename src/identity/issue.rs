//! Making certificates: of sidecars (X.509-SVIDs), of the identity service itself, of issuers and roots. All keys made
//! here are ECDSA P-256.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use ferrule_config::identity::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, string::Ia5String,
};
use thiserror::Error;
use x509_parser::time::ASN1Time;

use super::{
    authority::{Authority, AuthorityError, Key},
    certificate::seconds,
    state::CURRENT,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Life of a root that is made here.
pub(super) const ROOT_LIFE: Duration = DAY.saturating_mul(3650);
/// Life of an issuer that is made here.
pub(super) const ISSUER_LIFE: Duration = DAY.saturating_mul(365);
/// Certificates are valid from this long before they are made, for clocks that are slow.
pub(super) const BACKDATE: Duration = Duration::from_secs(60);
/// The same for authorities, which last.
const AUTHORITY_BACKDATE: Duration = Duration::from_secs(60 * 60);
/// Bytes of a serial number: RFC 5280 allows 20, and asks for no more than that they are unique.
const SERIAL: usize = 16;

/// Why a certificate could not be made.
#[derive(Debug, Error)]
pub enum IssueError {
    /// The library's word.
    #[error("cannot make a certificate: {0}")]
    Rcgen(#[from] rcgen::Error),
    /// It makes no sense to the reader.
    #[error("cannot use the authority just made: {0}")]
    Authority(#[from] AuthorityError),
    /// No randomness.
    #[error("the system has no random numbers")]
    Random,
    /// A time before 1970 or after 9999.
    #[error("the time is out of range; check the clock")]
    Clock,
    /// A name that is no ASCII.
    #[error("{0:?} can't be a name in a certificate")]
    Name(String),
    /// It ends before anything that it would sign.
    #[error("the authority has expired; rotate it, or put a new one into its Secret")]
    Expired,
    /// Only roots that were made here make issuers here.
    #[error("the root was not made here, so its issuer can't be made here either")]
    Foreign,
}

/// A certificate with all that leads to its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// PEM, the certificate first, the root left out.
    pub chain: String,
    /// When it ends.
    pub not_after: SystemTime,
}

/// A certificate of a sidecar (X.509-SVID, section 4): the identity as its only name, critical as there is no subject.
///
/// # Errors
/// [`IssueError`].
pub fn workload(
    authority: &Authority,
    key: &impl PublicKeyData,
    id: &SpiffeId,
    life: Duration,
    now: SystemTime,
) -> Result<Leaf, IssueError> {
    let name = id.to_string();
    let uri = Ia5String::try_from(name.as_str()).map_err(|_| IssueError::Name(name))?;
    let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    leaf(authority, key, SanType::URI(uri), &usages, life, now)
}

/// A certificate of the identity service, under its name in the cluster. It can't be taken for a sidecar's, as it names
/// no identity; and a sidecar's not for this one, as it names no host.
pub(super) fn server(
    authority: &Authority,
    key: &KeyPair,
    host: &str,
    life: Duration,
    now: SystemTime,
) -> Result<Leaf, IssueError> {
    let dns = Ia5String::try_from(host).map_err(|_| IssueError::Name(host.to_owned()))?;
    leaf(authority, key, SanType::DnsName(dns), &[ExtendedKeyUsagePurpose::ServerAuth], life, now)
}

fn leaf(
    authority: &Authority,
    key: &impl PublicKeyData,
    name: SanType,
    usages: &[ExtendedKeyUsagePurpose],
    life: Duration,
    now: SystemTime,
) -> Result<Leaf, IssueError> {
    let not_after = (now + life).min(authority.not_after());
    if not_after <= now {
        return Err(IssueError::Expired);
    }
    let mut params = params(now - BACKDATE, not_after)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.subject_alt_names = vec![name];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages.to_vec();
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(key, authority.signer())?;
    Ok(Leaf { chain: certificate.pem() + &authority.chain(), not_after })
}

/// A root and an issuer below it.
pub(super) fn authority(now: SystemTime) -> Result<Authority, IssueError> {
    let key = KeyPair::generate()?;
    let mut params = params(now - AUTHORITY_BACKDATE, now + ROOT_LIFE)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = distinct("Ferrule root")?;
    let root = params.self_signed(&key)?.pem();
    issuer(&root, Key::new(key.serialize_pem()), now + ROOT_LIFE, now)
}

/// The same root with a new issuer.
pub(super) fn new_issuer(authority: &Authority, now: SystemTime) -> Result<Authority, IssueError> {
    let key = authority.root_key().ok_or(IssueError::Foreign)?;
    issuer(authority.roots()[0].pem(), key.clone(), authority.root_not_after(), now)
}

fn issuer(root: &str, root_key: Key, end: SystemTime, now: SystemTime) -> Result<Authority, IssueError> {
    let key = KeyPair::generate()?;
    let mut params = params(now - AUTHORITY_BACKDATE, (now + ISSUER_LIFE).min(end))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name = distinct("Ferrule issuer")?;
    let signer = Issuer::from_ca_cert_pem(root, KeyPair::from_pem(root_key.pem())?)?;
    let certificate = params.signed_by(&key, &signer)?.pem();
    Ok(Authority::new(CURRENT, root, &certificate, Key::new(key.serialize_pem()), Some(root_key))?)
}

fn params(from: SystemTime, to: SystemTime) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial()?));
    let date = |time| {
        let seconds = i64::try_from(seconds(time)).map_err(|_| IssueError::Clock)?;
        let time = ASN1Time::from_timestamp(seconds).map_err(|_| IssueError::Clock)?;
        Ok::<_, IssueError>(time.to_datetime())
    };
    params.not_before = date(from)?;
    params.not_after = date(to)?;
    Ok(params)
}

/// A name of its own for each, so that a verifier can tell two of them in a bundle apart.
fn distinct(what: &str) -> Result<DistinguishedName, IssueError> {
    let mut name = DistinguishedName::new();
    let [a, b, c, d, ..] = serial()?;
    name.push(DnType::CommonName, format!("{what} {a:02x}{b:02x}{c:02x}{d:02x}"));
    Ok(name)
}

/// Positive and never zero, as RFC 5280 wants it.
fn serial() -> Result<[u8; SERIAL], IssueError> {
    let mut serial = [0; SERIAL];
    rand::fill(&mut serial).map_err(|_| IssueError::Random)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use ferrule_config::identity::TrustDomain;
    use x509_parser::{extensions::GeneralName, parse_x509_certificate};

    use super::*;
    use crate::identity::certificate::Certificate;

    fn now() -> SystemTime {
        UNIX_EPOCH + DAY * 20_000
    }

    #[test]
    fn a_certificate_is_what_spiffe_says() {
        let authority = authority(now()).expect("made");
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().expect("an identity");
        let key = KeyPair::generate().expect("a key");
        let leaf = workload(&authority, &key, &id, DAY, now()).expect("issued");
        assert_eq!(leaf.not_after, now() + DAY);
        let chain = Certificate::parse_all(&leaf.chain).expect("certificates");
        assert_eq!(chain.len(), 2, "the certificate and its issuer, not the root");
        let (_, parsed) = parse_x509_certificate(chain[0].der()).expect("a certificate");
        assert_eq!(parsed.subject().iter().count(), 0);
        let names = parsed.subject_alternative_name().expect("readable").expect("there");
        assert!(names.critical, "as the subject is empty");
        assert_eq!(names.value.general_names, [GeneralName::URI("spiffe://cluster.local/ns/shop/sa/cart")]);
        let usage = parsed.key_usage().expect("readable").expect("there");
        assert!(usage.critical && usage.value.digital_signature());
        assert_eq!(usage.value.flags.count_ones(), 1);
        let extended = parsed.extended_key_usage().expect("readable").expect("there").value;
        assert!(extended.client_auth && extended.server_auth && !extended.any);
        assert!(!parsed.is_ca());
        assert_eq!(chain[0].validity().not_before, now() - BACKDATE);
        assert!(parsed.raw_serial().len() >= 16);
    }

    #[test]
    fn serials_differ() {
        assert_ne!(serial().expect("random"), serial().expect("random"));
    }

    #[test]
    fn an_authority_verifies_what_it_signs_as_long_as_it_lives() {
        let domain = TrustDomain::default();
        let authority = authority(now()).expect("made");
        assert_eq!(authority.objection(&domain, now()), Ok(()));
        let later = now() + ISSUER_LIFE;
        assert!(authority.objection(&domain, later).is_err());
        let renewed = new_issuer(&authority, later).expect("made");
        assert_eq!(renewed.objection(&domain, later), Ok(()));
        assert!(renewed.has_roots_of(&authority));
        assert_ne!(renewed.issuer(), authority.issuer());
        let before = now() - DAY;
        assert!(authority.objection(&domain, before).is_err());
    }

    #[test]
    fn no_certificate_outlives_its_authority() {
        let authority = authority(now()).expect("made");
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().expect("an identity");
        let key = KeyPair::generate().expect("a key");
        let late = now() + ISSUER_LIFE - Duration::from_secs(60);
        let leaf = workload(&authority, &key, &id, DAY, late).expect("issued");
        assert_eq!(leaf.not_after, authority.not_after());
        let over = workload(&authority, &key, &id, DAY, now() + ISSUER_LIFE);
        assert!(matches!(over, Err(IssueError::Expired)));
    }
}
