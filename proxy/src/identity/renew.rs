//! Gets the certificate and keeps it current.

use std::time::{Duration, SystemTime};

use ferrule_config::identity::Issued;
use thiserror::Error;
use tokio::time::{Instant, sleep_until};

use super::{
    Identity, Settings,
    bundle::{Bundle, BundleError},
    client::{self, ClientError},
    current::{CertificateError, Current},
    files::{Files, Mounted},
    request::{Request, RequestError},
    schedule,
};

/// How often the mounted files are looked at: the kubelet needs longer than that.
const LOOK: Duration = Duration::from_secs(5);
/// While the trust bundle is missing.
const LOOK_FOR_BUNDLE: Duration = Duration::from_secs(1);
/// Failures that are told of at a higher level than the others: the first, and each time after so many.
const TELL_EVERY: u32 = 20;

#[derive(Debug, Error)]
enum RenewError {
    #[error("cannot read the token: {0}")]
    Token(std::io::Error),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("identity service: {0}")]
    Client(#[from] ClientError),
    #[error("identity service: {0}")]
    Bundle(#[from] BundleError),
    #[error("identity service: {0}")]
    Certificate(#[from] CertificateError),
}

impl RenewError {
    fn cause(&self) -> &'static str {
        match self {
            Self::Token(_) => "no-token",
            Self::Request(_) => "key",
            Self::Client(error) => error.cause(),
            Self::Bundle(_) => "bundle",
            Self::Certificate(CertificateError::Malformed) => "certificate-malformed",
            Self::Certificate(CertificateError::OtherKey) => "certificate-key",
            Self::Certificate(CertificateError::OtherIdentity { .. }) => "certificate-identity",
            Self::Certificate(CertificateError::Untrusted(_)) => "certificate-untrusted",
        }
    }
}

/// Runs until the process ends.
pub(super) async fn run(settings: Settings, identity: Identity) {
    let mut renewal = Renewal::new(settings, identity);
    loop {
        renewal.look();
        renewal.expire(SystemTime::now());
        if renewal.identity.bundle().is_some() && Instant::now() >= renewal.next {
            renewal.renew().await;
        }
        let look = if renewal.identity.bundle().is_some() { LOOK } else { LOOK_FOR_BUNDLE };
        let wake = match renewal.identity.bundle() {
            Some(_) => renewal.next.min(Instant::now() + look),
            None => Instant::now() + look,
        };
        sleep_until(wake).await;
    }
}

struct Renewal {
    settings: Settings,
    identity: Identity,
    files: Files,
    mounted: Mounted,
    /// When to ask next.
    next: Instant,
    failures: u32,
    /// The signing root that the time of the next request was set for.
    root: Option<String>,
}

impl Renewal {
    fn new(settings: Settings, identity: Identity) -> Self {
        Self {
            files: Files::new(&settings.files),
            settings,
            identity,
            mounted: Mounted::default(),
            next: Instant::now(),
            failures: 0,
            root: None,
        }
    }

    /// Takes in what is mounted, if it changed.
    fn look(&mut self) {
        let mounted = self.files.mounted();
        if mounted == self.mounted {
            return;
        }
        if let Some(text) = mounted.bundle.as_ref().filter(|text| Some(*text) != self.mounted.bundle.as_ref())
        {
            match Bundle::parse(text) {
                Ok(bundle) => self.trust(bundle),
                Err(error) => {
                    self.identity.metrics().failed("bundle");
                    tracing::warn!(%error, "mounted trust bundle is not usable; the one before stays");
                }
            }
        }
        self.mounted = mounted;
    }

    fn trust(&mut self, bundle: Bundle) {
        let (generation, root) = (bundle.generation(), bundle.signing_root());
        if !self.identity.trust(bundle) {
            return;
        }
        tracing::info!(generation, "trust bundle in force");
        self.hasten(root);
    }

    /// When another root signs than the one of our certificate, the certificate is renewed soon: the old root can be
    /// dropped when everybody has done so.
    fn hasten(&mut self, root: String) {
        let Some(current) = self.identity.current() else { return };
        if current.root == root || self.root.as_ref() == Some(&root) {
            return;
        }
        self.root = Some(root);
        let rest = rest(&current, SystemTime::now());
        let soon = Instant::now() + schedule::early(rest, fastrand::f64());
        self.next = self.next.min(soon);
    }

    fn expire(&self, now: SystemTime) {
        if let Some(current) = self.identity.current()
            && !current.is_valid(now)
        {
            tracing::error!(id = %current.id, "certificate has expired; there is no identity until the next one");
            self.identity.set(None);
        }
    }

    async fn renew(&mut self) {
        match self.attempt().await {
            Ok((current, asked)) => {
                let rest = rest(&current, SystemTime::now());
                let wait = schedule::renewal(asked, rest);
                tracing::info!(
                    id = %current.id,
                    seconds = rest.as_secs(),
                    renewal = wait.as_secs(),
                    "certificate in force"
                );
                self.failures = 0;
                self.next = Instant::now() + wait;
                self.root = None;
                self.identity.metrics().renewed();
                self.identity.set_failure(None);
                self.identity.set(Some(current));
                // A replica that did not know yet may have signed with the root before.
                if let Some(bundle) = self.identity.bundle() {
                    self.hasten(bundle.signing_root());
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &RenewError) {
        self.failures = self.failures.saturating_add(1);
        let asked = match error {
            RenewError::Client(error) => error.retry_after(),
            _ => None,
        };
        let rest = self.identity.current().map(|current| rest(&current, SystemTime::now()));
        let wait = schedule::retry(self.failures, asked, rest, fastrand::f64());
        self.next = Instant::now() + wait;
        self.identity.metrics().failed(error.cause());
        self.identity.set_failure(Some(error.to_string()));
        let (failures, seconds) = (self.failures, wait.as_secs_f64());
        if failures % TELL_EVERY == 1 {
            tracing::warn!(%error, failures, seconds, "no certificate; will try again");
        } else {
            tracing::debug!(%error, failures, seconds, "no certificate; will try again");
        }
    }

    async fn attempt(&mut self) -> Result<(Current, Duration), RenewError> {
        let bundle = self.identity.bundle().ok_or(BundleError::NoRoot)?;
        let request = Request::new(&self.settings.id)?;
        let token = self.files.token().map_err(RenewError::Token)?;
        let Settings { service, id, files: _ } = &self.settings;
        let Issued { certificate, bundle: text, renew_after_seconds } =
            client::ask(service, self.mounted.address, &bundle, &token, request.csr).await?;
        let id = id.clone();
        // First, for the certificate may be of a root that is in this bundle alone.
        self.trust(Bundle::parse(&text)?);
        let bundle = self.identity.bundle().ok_or(BundleError::NoRoot)?;
        let current = Current::new(&id, &certificate, request.key, &bundle, SystemTime::now())?;
        Ok((current, Duration::from_secs(renew_after_seconds)))
    }
}

fn rest(current: &Current, now: SystemTime) -> Duration {
    current.not_after.duration_since(now).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ferrule_config::trust;

    use super::*;
    use crate::identity::{
        Service,
        testing::{Authority, HOST, issued, service},
    };

    #[tokio::test]
    async fn a_certificate_of_a_root_that_signs_no_more_is_renewed_soon() {
        let (signer, next) = (Authority::new(), Authority::new());
        let files = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| std::fs::write(files.path().join(name), text).expect("written");
        write("token", "token");
        write("ca.crt", &trust::write(1, [signer.pem()]));
        let id: ferrule_config::identity::SpiffeId =
            "spiffe://cluster.local/ns/shop/sa/cart".parse().expect("an identity");
        let own = id.to_string();
        let signer = Arc::new(signer);
        let signs = Arc::clone(&signer);
        let address = service(&signer, HOST, move |_, csr| issued(&signs, csr, &[&own], 1)).await;
        write("address", &address.to_string());
        let service = Service { host: HOST.to_owned(), port: 1 };
        let settings = Settings { service, id, files: files.path().to_owned() };
        let identity = Identity::none(Arc::default());
        let mut renewal = Renewal::new(settings, identity.clone());
        renewal.look();
        renewal.renew().await;
        assert!(identity.current().is_some(), "{:?}", identity.report());
        let wait = |renewal: &Renewal| renewal.next - Instant::now();
        assert!(wait(&renewal) > Duration::from_secs(1700));

        write("ca.crt", &trust::write(2, [signer.pem(), next.pem()]));
        renewal.look();
        assert!(wait(&renewal) > Duration::from_secs(1700), "another root is trusted and does not sign yet");
        write("ca.crt", &trust::write(3, [next.pem(), signer.pem()]));
        renewal.look();
        assert!(wait(&renewal) <= Duration::from_secs(300));
        let before = renewal.next;
        renewal.look();
        assert_eq!(renewal.next, before, "once for each root");
    }
}
