//! Keeps Secret, served certificate and caBundle in agreement.

use std::{
    pin::pin,
    time::{Duration, SystemTime},
};

use ferrule_config::names::FIELD_MANAGER;
use futures::StreamExt;
use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher::watch_object},
};
use thiserror::Error;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    bundle,
    issue::{IssueError, carry_out},
    material::Material,
    plan::{Plan, plan},
};
use crate::{
    backoff::watch_backoff,
    https::{CertificateError, Certificates},
    injector::Settings,
};

/// Name of the Secret in the operator's namespace.
const SECRET: &str = "ferrule-webhook-tls";
/// Certificates age without any event.
const PERIOD: Duration = Duration::from_secs(600);
const RETRY: Duration = Duration::from_secs(2);

#[derive(Debug, Error)]
enum KeeperError {
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("cannot write Secret {SECRET}: {0}")]
    Secret(#[source] kube::Error),
    #[error("cannot write the caBundle: {0}")]
    Bundle(#[source] kube::Error),
}

/// Runs in every replica.
pub(in crate::injector) struct Keeper {
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
    settings: Settings,
    certificates: Certificates,
}

/// What the API server holds, as far as it was heard.
enum Seen<T> {
    NotYet,
    Absent,
    Present(Box<T>),
}

struct State {
    secret: Seen<Secret>,
    configuration: Seen<MutatingWebhookConfiguration>,
    /// What is being served.
    material: Option<Material>,
    missing_reported: bool,
}

impl Keeper {
    pub(in crate::injector) fn new(client: Client, settings: Settings, certificates: Certificates) -> Self {
        let secrets = Api::namespaced(client.clone(), &settings.namespace);
        Self { secrets, configurations: Api::all(client), settings, certificates }
    }

    /// Watches and acts for as long as it is polled.
    pub(in crate::injector) async fn run(self) {
        let name = &self.settings.webhook_configuration;
        let mut secrets = pin!(watch_object(self.secrets.clone(), SECRET).backoff(watch_backoff()));
        let mut configurations =
            pin!(watch_object(self.configurations.clone(), name).backoff(watch_backoff()));
        let mut state = State {
            secret: Seen::NotYet,
            configuration: Seen::NotYet,
            material: None,
            missing_reported: false,
        };
        let mut pause = PERIOD;
        loop {
            tokio::select! {
                Some(event) = secrets.next() => hear(&mut state.secret, event, "the webhook's Secret"),
                Some(event) = configurations.next() => {
                    hear(&mut state.configuration, event, "the webhook's configuration");
                }
                () = sleep(pause) => {}
            }
            pause = match self.reconcile(&mut state, SystemTime::now()).await {
                Ok(()) => PERIOD,
                Err(error) => {
                    warn!(%error, "webhook certificate; will try again");
                    RETRY
                }
            };
        }
    }

    async fn reconcile(&self, state: &mut State, now: SystemTime) -> Result<(), KeeperError> {
        self.update_secret(state, now).await?;
        let Some(material) = &state.material else { return Ok(()) };
        self.update_bundle(&mut state.configuration, material, &mut state.missing_reported).await?;
        if !matches!(state.configuration, Seen::NotYet) {
            self.settings.readiness.set(true);
        }
        Ok(())
    }

    async fn update_secret(&self, state: &mut State, now: SystemTime) -> Result<(), KeeperError> {
        let existing = match &state.secret {
            Seen::NotYet => return Ok(()),
            Seen::Absent => None,
            Seen::Present(secret) => Some(secret.as_ref()),
        };
        let parsed = existing.map(|secret| Material::parse(&secret.data.clone().unwrap_or_default()));
        let name = self.settings.server_name();
        let plan = plan(now, parsed.as_ref(), &name);
        let current = parsed.and_then(Result::ok);
        let Some(changed) = carry_out(&plan, current.as_ref(), now, &name)? else {
            return current.map_or(Ok(()), |current| self.serve(&mut state.material, current));
        };
        let Some(written) = self.write(existing, &changed).await? else {
            // Another replica was faster. Its Secret comes by the watch; until then what we have is served.
            return Ok(());
        };
        log(&plan, &name);
        state.secret = Seen::Present(Box::new(written));
        self.serve(&mut state.material, changed)
    }

    /// `None` when somebody else has created or changed the Secret since it was read.
    async fn write(
        &self,
        existing: Option<&Secret>,
        material: &Material,
    ) -> Result<Option<Secret>, KeeperError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let data = Some(material.to_data());
        let result = match existing {
            Some(existing) => {
                // Its metadata carries the resourceVersion that must not have changed.
                let secret = Secret { data, ..existing.clone() };
                self.secrets.replace(SECRET, &params, &secret).await
            }
            None => self.secrets.create(&params, &new_secret(data)).await,
        };
        match result {
            Ok(secret) => Ok(Some(secret)),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(KeeperError::Secret(error)),
        }
    }

    fn serve(&self, served: &mut Option<Material>, material: Material) -> Result<(), KeeperError> {
        if served.as_ref().is_none_or(|served| served.serving != material.serving) {
            self.certificates.set(&material.serving.certificate, &material.serving.key)?;
            let expiry = material.serving.validity.not_after;
            let expiry = expiry.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            self.settings.metrics.set_certificate_expiry(i64::try_from(expiry).unwrap_or(i64::MAX));
            info!(expires = expiry, "serving the webhook's certificate");
        }
        *served = Some(material);
        Ok(())
    }

    async fn update_bundle(
        &self,
        seen: &mut Seen<MutatingWebhookConfiguration>,
        material: &Material,
        missing_reported: &mut bool,
    ) -> Result<(), KeeperError> {
        let name = &self.settings.webhook_configuration;
        let configuration = match seen {
            Seen::NotYet => return Ok(()),
            Seen::Absent => {
                if !std::mem::replace(missing_reported, true) {
                    warn!(name, "there is no such MutatingWebhookConfiguration, so no pod is injected");
                }
                return Ok(());
            }
            Seen::Present(configuration) => configuration,
        };
        *missing_reported = false;
        let service = (self.settings.namespace.as_str(), self.settings.webhook_service.as_str());
        let Some(patch) = bundle::patch(configuration, service, &material.bundle()) else { return Ok(()) };
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::<MutatingWebhookConfiguration>::Json(patch);
        match self.configurations.patch(name, &params, &patch).await {
            Ok(patched) => {
                info!(name, "caBundle written");
                **configuration = patched;
                Ok(())
            }
            // Changed or deleted since it was read; the watch tells how.
            Err(kube::Error::Api(status)) if [404, 409, 422].contains(&status.code) => Ok(()),
            Err(error) => Err(KeeperError::Bundle(error)),
        }
    }
}

fn hear<T>(seen: &mut Seen<T>, event: kube::runtime::watcher::Result<Option<T>>, what: &'static str) {
    match event {
        Ok(Some(object)) => *seen = Seen::Present(Box::new(object)),
        Ok(None) => *seen = Seen::Absent,
        Err(error) => warn!(%error, "cannot watch {what}; will try again"),
    }
}

fn new_secret(data: Option<super::material::Data>) -> Secret {
    let labels = [("app.kubernetes.io/managed-by", "ferrule"), ("app.kubernetes.io/part-of", "ferrule")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let metadata =
        ObjectMeta { name: Some(SECRET.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
    Secret { metadata, data, type_: Some("kubernetes.io/tls".to_owned()), ..Secret::default() }
}

fn log(plan: &Plan, name: &str) {
    match plan {
        Plan::Keep => {}
        Plan::Create(cause) => info!(name, cause, "made a webhook authority and a certificate"),
        Plan::RenewServing(cause) => info!(name, cause, "renewed the webhook's certificate"),
        Plan::PrepareAuthority => info!("made the next webhook authority, to take over in a day"),
        Plan::PromoteAuthority => info!(name, "the next webhook authority has taken over"),
    }
}
