//! What the identity service and the sidecars say to each other.
//!
//! ```text
//!   sidecar ──token, CSR──▶ identity service ──Issued──▶ sidecar ──Report──▶ operator, people
//! ```

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest trust domain in bytes (SPIFFE-ID, section 2.1).
const MAX_TRUST_DOMAIN: usize = 255;
/// Longest name of a Kubernetes object.
const MAX_NAME: usize = 253;

/// The name under which all identities of a mesh stand, such as `cluster.local`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

/// Why a text is no identity or no trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// Not a trust domain.
    #[error(
        "{0:?} is not a trust domain; expected up to 255 lower-case letters, digits, dots, dashes and underscores"
    )]
    TrustDomain(String),
    /// Not an identity.
    #[error("{0:?} is not an identity; expected spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")]
    Form(String),
}

impl TrustDomain {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self("cluster.local".to_owned())
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if text.is_empty() || text.len() > MAX_TRUST_DOMAIN || !text.bytes().all(allowed) {
            return Err(IdentityError::TrustDomain(text.chars().take(MAX_TRUST_DOMAIN).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, IdentityError> {
        text.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who a workload is: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    namespace: String,
    service_account: String,
}

impl SpiffeId {
    /// The identity of a service account.
    ///
    /// # Errors
    /// [`IdentityError::Form`] when a name is not one that Kubernetes has.
    pub fn new(
        trust_domain: TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, IdentityError> {
        let id = Self {
            trust_domain,
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        };
        let named = is_name(namespace) && is_name(service_account);
        if named { Ok(id) } else { Err(IdentityError::Form(id.to_string())) }
    }

    /// The name that the identity stands under.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Namespace of the service account.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Name of the service account.
    #[must_use]
    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

/// A name as Kubernetes gives to objects (RFC 1123 subdomain).
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(allowed)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let form = || IdentityError::Form(text.chars().take(2 * MAX_TRUST_DOMAIN).collect());
        let rest = text.strip_prefix("spiffe://").ok_or_else(form)?;
        let mut parts = rest.split('/');
        let (Some(domain), Some("ns"), Some(namespace), Some("sa"), Some(service_account), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(form());
        };
        Self::new(domain.parse()?, namespace, service_account).map_err(|_| form())
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, namespace, service_account } = self;
        write!(f, "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

/// What the identity service answers to a request for a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issued {
    /// PEM: the certificate, then what leads from it to a root, without the root.
    pub certificate: String,
    /// The trust bundle at this moment; see [`crate::trust`].
    pub bundle: String,
    /// Seconds from now after which the next one is to be asked for.
    pub renew_after_seconds: u64,
}

/// What the identity service answers when it refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// One word of a fixed set, for metrics.
    pub cause: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// What a sidecar tells of its identity at `/identity` of its admin port. It holds no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// The identity in force; nothing while there is no certificate.
    pub id: Option<String>,
    /// When the certificate ends, in seconds since 1970.
    pub not_after: Option<u64>,
    /// SHA-256 of the certificate chain's DER, in hexadecimal.
    pub chain: Option<String>,
    /// SHA-256 of the DER of the root that the chain leads to, in hexadecimal.
    pub root: Option<String>,
    /// The trust bundle in force.
    pub bundle: Option<BundleReport>,
    /// Why the last attempt to get a certificate failed, if it did.
    pub last_failure: Option<String>,
}

/// Which trust bundle is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleReport {
    /// Later bundles have higher numbers.
    pub generation: u64,
    /// SHA-256 of its text, in hexadecimal.
    pub hash: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_its_text() {
        let text = "spiffe://cluster.local/ns/shop/sa/cart.v1";
        let id: SpiffeId = text.parse().expect("an identity");
        assert_eq!((id.namespace(), id.service_account()), ("shop", "cart.v1"));
        assert_eq!(id.trust_domain(), &TrustDomain::default());
        assert_eq!(id.to_string(), text);
    }

    #[test]
    fn what_is_not_exactly_an_identity_is_none() {
        for text in [
            "",
            "https://cluster.local/ns/shop/sa/cart",
            "spiffe://cluster.local/ns/shop/sa/",
            "spiffe://cluster.local/ns//sa/cart",
            "spiffe://cluster.local/ns/shop/sa/cart/",
            "spiffe://cluster.local/ns/shop/sa/cart/more",
            "spiffe://cluster.local/ns/shop/sa/cart?x",
            "spiffe://cluster.local/ns/shop/sa/..",
            "spiffe://cluster.local/ns/Shop/sa/cart",
            "spiffe://cluster.local:80/ns/shop/sa/cart",
            "spiffe://user@cluster.local/ns/shop/sa/cart",
            "spiffe:///ns/shop/sa/cart",
            "SPIFFE://cluster.local/ns/shop/sa/cart",
            "spiffe://cluster.local/sa/cart/ns/shop",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_trust_domain_has_a_grammar() {
        for text in ["", "A", "a b", "a/b", "a:1", &"a".repeat(256)] {
            assert!(text.parse::<TrustDomain>().is_err(), "{text}");
        }
        assert!("prod_eu-1.example.com".parse::<TrustDomain>().is_ok());
    }
}
