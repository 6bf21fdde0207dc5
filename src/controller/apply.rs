//! Writes a plan to the API server; the only part of the controller that does.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ferrule_config::names;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::timeout};
use tracing::{debug, info, warn};

use super::{
    election::Tenure,
    metrics::{Metrics, Operation},
    observe::Kind,
    plan::{ConfigWrite, MANAGED_BY, MANAGER, Notice, Plan, StatusWrite, binding_key},
    refusal::Refusal,
    writes::{Key, Write},
};

/// Plans that are carried out at a time. One needs a few requests, one after the other.
const CONCURRENCY: usize = 16;
/// Longest a request may take. It must end before another replica could lead: that is 5 s after our tenure.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Why a plan could not be carried out to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// We no longer lead; the one who does takes over.
    #[error("this replica no longer leads")]
    NotLeading,
    /// No answer.
    #[error("the API server did not answer within {REQUEST_TIMEOUT:?}")]
    Timeout,
    /// It answered with an error.
    #[error("{0}")]
    Api(Refusal),
}

/// What came of a plan: what was written, and why not all was.
#[derive(Debug, Default)]
pub struct Applied {
    /// Writes that were made.
    pub writes: Vec<Write>,
    /// What ended it before its end.
    pub error: Option<Error>,
}

/// Carries out plans; clones share the bound on concurrency.
#[derive(Clone)]
pub struct Applier {
    client: Client,
    tenure: Tenure,
    recorder: Recorder,
    metrics: Metrics,
    permits: Arc<Semaphore>,
}

impl Applier {
    /// One that writes while the tenure lasts.
    #[must_use]
    pub fn new(client: Client, tenure: Tenure, identity: String, metrics: Metrics) -> Self {
        let reporter = Reporter { controller: names::FIELD_MANAGER.to_owned(), instance: Some(identity) };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, tenure, recorder, metrics, permits: Arc::new(Semaphore::new(CONCURRENCY)) }
    }

    /// Writes to a namespace what it lacks: configuration first, as traffic waits for it, then status.
    pub async fn namespace(&self, namespace: &str, plan: Plan) -> Applied {
        let mut applied = Applied::default();
        // The semaphore is never closed; without a permit it would only be less polite.
        let _permit = self.permits.acquire().await.ok();
        applied.error = self.carry_out(namespace, plan, &mut applied.writes).await.err();
        applied
    }

    async fn carry_out(&self, namespace: &str, plan: Plan, writes: &mut Vec<Write>) -> Result<(), Error> {
        let Plan { replace, apply, delete, status } = plan;
        let config_maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        for name in replace {
            warn!(namespace, config_map = name, "was made immutable; it is deleted and written anew");
            self.delete(&config_maps, &name).await?;
        }
        for write in apply {
            writes.push(self.apply_config(&config_maps, namespace, write).await?);
        }
        for name in delete {
            info!(namespace, config_map = name, "is no longer needed");
            self.delete(&config_maps, &name).await?;
        }
        for write in status {
            writes.extend(self.apply_status(namespace, write).await?);
        }
        Ok(())
    }

    /// Writes the ClusterRoleBinding for sidecars.
    pub async fn binding(&self, binding: Value, fingerprint: u64) -> Applied {
        let resource = Kind::ProxyBinding.api_resource();
        let bindings: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let patch = Patch::Apply(binding);
        let parameters = parameters();
        let request = bindings.patch(names::PROXY_ROLE, &parameters, &patch);
        match self.ask(Operation::ApplyBinding, request).await {
            Ok(written) => {
                let write = Write { key: binding_key(), version: written.resource_version(), fingerprint };
                Applied { writes: vec![write], error: None }
            }
            Err(error) => Applied { writes: Vec::new(), error: Some(error) },
        }
    }

    async fn apply_config(
        &self,
        config_maps: &Api<ConfigMap>,
        namespace: &str,
        write: ConfigWrite,
    ) -> Result<Write, Error> {
        let ConfigWrite { name, data, fingerprint } = write;
        let config_map = ConfigMap {
            metadata: kube::api::ObjectMeta {
                name: Some(name.clone()),
                labels: Some(BTreeMap::from([(MANAGED_BY.to_owned(), MANAGER.to_owned())])),
                ..kube::api::ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        };
        let patch = Patch::Apply(config_map);
        let parameters = parameters();
        let request = config_maps.patch(&name, &parameters, &patch);
        let written = self.ask(Operation::ApplyConfig, request).await?;
        debug!(namespace, config_map = name, "applied");
        let key = Key { kind: Kind::ConfigMap, namespace: namespace.to_owned(), name };
        Ok(Write { key, version: written.resource_version(), fingerprint })
    }

    async fn delete(&self, config_maps: &Api<ConfigMap>, name: &str) -> Result<(), Error> {
        let parameters = DeleteParams::default();
        let request = config_maps.delete(name, &parameters);
        match self.ask(Operation::DeleteConfig, request).await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some(404) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// `None` when the object is gone or has made room for another; the watch tells.
    async fn apply_status(&self, namespace: &str, write: StatusWrite) -> Result<Option<Write>, Error> {
        let StatusWrite { kind, name, uid, conditions, mesh_tls, fingerprint, notice } = write;
        let resource = kind.api_resource();
        let objects: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let mut patch = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": { "name": name },
            "status": mesh_tls.map(|status| json!(status)).unwrap_or_else(|| json!({})),
        });
        patch["status"]["conditions"] = json!(conditions);
        if let Some(uid) = &uid {
            patch["metadata"]["uid"] = json!(uid);
        }
        let patch = Patch::Apply(patch);
        let parameters = parameters();
        let request = objects.patch_status(&name, &parameters, &patch);
        let written = match self.ask(Operation::ApplyStatus, request).await {
            Ok(written) => written,
            Err(error) if matches!(code(&error), Some(404 | 409)) => return Ok(None),
            Err(error) => return Err(error),
        };
        if let Some(notice) = notice {
            let Notice { warning, reason, message } = &notice;
            if *warning {
                warn!(namespace, kind = kind.word(), name, reason, detail = message, "not as its user wants");
            } else {
                info!(namespace, kind = kind.word(), name, reason, detail = message);
            }
            let object = ObjectReference {
                api_version: Some(resource.api_version),
                kind: Some(resource.kind),
                namespace: Some(namespace.to_owned()),
                name: Some(name.clone()),
                uid,
                ..ObjectReference::default()
            };
            self.publish(object, notice);
        }
        let key = Key { kind, namespace: namespace.to_owned(), name };
        Ok(Some(Write { key, version: written.resource_version(), fingerprint }))
    }

    /// Tells the user by an Event, which nothing waits for.
    fn publish(&self, object: ObjectReference, notice: Notice) {
        let Self { recorder, metrics, .. } = self.clone();
        tokio::spawn(async move {
            let Notice { warning, reason, message } = notice;
            let event = Event {
                type_: if warning { EventType::Warning } else { EventType::Normal },
                reason,
                note: Some(message.chars().take(1000).collect()),
                action: "Compile".to_owned(),
                secondary: None,
            };
            if let Err(error) = recorder.publish(&event, &object).await {
                metrics.api_error(Operation::PublishEvent);
                debug!(%error, "cannot publish an Event");
            }
        });
    }

    /// Makes a request if we lead at its very beginning.
    async fn ask<T>(
        &self,
        operation: Operation,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        if !self.tenure.holds() {
            return Err(Error::NotLeading);
        }
        let result = timeout(REQUEST_TIMEOUT, request)
            .await
            .map_or(Err(Error::Timeout), |result| result.map_err(|error| Error::Api(error.into())));
        if result.as_ref().is_err_and(|error| !matches!(code(error), Some(404 | 409))) {
            self.metrics.api_error(operation);
        }
        result
    }
}

fn parameters() -> PatchParams {
    PatchParams::apply(names::FIELD_MANAGER).force()
}

fn code(error: &Error) -> Option<u16> {
    match error {
        Error::Api(refusal) => refusal.code(),
        Error::Timeout | Error::NotLeading => None,
    }
}
