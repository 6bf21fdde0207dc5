//! Making keys and certificates (ECDSA P-256, which every API server can verify).

use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use thiserror::Error;
use x509_parser::time::ASN1Time;

use super::{
    material::{Material, MaterialError, Pair},
    plan::{AUTHORITY_LIFE, BACKDATE, Plan, SERVING_LIFE},
};

/// Why a certificate could not be made.
#[derive(Debug, Error)]
pub(super) enum IssueError {
    #[error("cannot make a certificate: {0}")]
    Rcgen(#[from] rcgen::Error),
    #[error("cannot read the certificate just made: {0}")]
    Material(#[from] MaterialError),
    #[error("the time is out of range; check the clock")]
    Clock,
}

/// What the Secret is to hold after the plan, or `None` if that is what it holds now.
pub(super) fn carry_out(
    plan: &Plan,
    material: Option<&Material>,
    now: SystemTime,
    name: &str,
) -> Result<Option<Material>, IssueError> {
    let Some(material) = material.filter(|_| !matches!(plan, Plan::Create(_))) else {
        let authority = authority(now)?;
        let serving = serving(&authority, now, name)?;
        return Ok(Some(Material { authority, next: None, previous: None, serving }));
    };
    let changed = match plan {
        Plan::Keep | Plan::Create(_) => return Ok(None),
        // The one before has not been served for half a serving certificate's life.
        Plan::RenewServing(_) => {
            Material { serving: serving(&material.authority, now, name)?, previous: None, ..material.clone() }
        }
        Plan::PrepareAuthority => Material { next: Some(authority(now)?), ..material.clone() },
        Plan::PromoteAuthority => {
            let authority = match &material.next {
                Some(next) => next.clone(),
                None => authority(now)?,
            };
            Material {
                serving: serving(&authority, now, name)?,
                authority,
                next: None,
                previous: Some(material.authority.certificate.clone()),
            }
        }
    };
    Ok(Some(changed))
}

fn authority(now: SystemTime) -> Result<Pair, IssueError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Of its own name each, so that a verifier can tell two of them in a bundle apart.
    params.distinguished_name.push(DnType::CommonName, format!("Ferrule webhook CA {}", timestamp(now)?));
    set_validity(&mut params, now, now + AUTHORITY_LIFE)?;
    let certificate = params.self_signed(&key)?;
    Ok(Pair::new(certificate.pem(), key.serialize_pem())?)
}

fn serving(authority: &Pair, now: SystemTime, name: &str) -> Result<Pair, IssueError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name.push(DnType::CommonName, "ferrule-webhook");
    set_validity(&mut params, now, (now + SERVING_LIFE).min(authority.validity.not_after))?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Pair::new(certificate.pem(), key.serialize_pem())?)
}

fn set_validity(params: &mut CertificateParams, from: SystemTime, to: SystemTime) -> Result<(), IssueError> {
    let date = |time| {
        let time = ASN1Time::from_timestamp(timestamp(time)?).map_err(|_| IssueError::Clock)?;
        Ok::<_, IssueError>(time.to_datetime())
    };
    params.not_before = date(from - BACKDATE)?;
    params.not_after = date(to)?;
    Ok(())
}

fn timestamp(time: SystemTime) -> Result<i64, IssueError> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| IssueError::Clock)?;
    i64::try_from(since.as_secs()).map_err(|_| IssueError::Clock)
}
