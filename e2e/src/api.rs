//! The API server without kubectl, for tests that measure time: kubectl takes longer to start than a change
//! takes to reach the proxies.

use std::path::Path;

use anyhow::{Context, Result};
use kube::{
    Client, Config,
    api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;
use tokio::{runtime::Runtime, task::JoinSet};

/// Objects that are created at a time.
const AT_ONCE: usize = 16;

/// A connection to the API server.
pub struct Server {
    runtime: Runtime,
    client: Client,
}

impl Server {
    /// Connects to the cluster of a kubeconfig.
    ///
    /// # Errors
    /// When the kubeconfig is unusable.
    pub fn connect(kubeconfig: &Path) -> Result<Self> {
        // An error means that one is installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        Ok(Self { runtime, client })
    }

    /// Applies a Route (server-side) and returns once the API server has answered.
    ///
    /// # Errors
    /// When it refuses it.
    pub fn apply_route(&self, namespace: &str, route: &Value) -> Result<()> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("ferrule.dev", "v1alpha1", "Route"));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind);
        let name = route["metadata"]["name"].as_str().context("a Route has a name")?;
        let parameters = PatchParams::apply("ferrule-e2e").force();
        let patch = Patch::Apply(route);
        self.runtime.block_on(api.patch(name, &parameters, &patch)).map(drop).context("applying the Route")
    }

    /// Creates objects of a kind, many at a time.
    ///
    /// # Errors
    /// When one of them is refused.
    pub fn create_all(
        &self,
        namespace: &str,
        (group, version, kind): (&str, &str, &str),
        objects: impl IntoIterator<Item = Value>,
    ) -> Result<()> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        self.runtime.block_on(async {
            let mut running = JoinSet::new();
            for mut object in objects {
                object["apiVersion"] = resource.api_version.clone().into();
                object["kind"] = kind.into();
                let object: DynamicObject = serde_json::from_value(object)?;
                let api = api.clone();
                running.spawn(async move { api.create(&PostParams::default(), &object).await.map(drop) });
                if running.len() >= AT_ONCE
                    && let Some(created) = running.join_next().await
                {
                    created??;
                }
            }
            while let Some(created) = running.join_next().await {
                created??;
            }
            anyhow::Ok(())
        })
    }
}
