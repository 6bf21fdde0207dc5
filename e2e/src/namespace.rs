//! A namespace of one test.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use ferrule_config::names::{PROXY_CONTAINER, ports};
use serde_json::Value;

use crate::{cluster::Cluster, command::Finished, metrics::Metrics, wait::eventually};

const START_LIMIT: Duration = Duration::from_secs(60);

/// A namespace, and kubectl bound to it.
#[derive(Clone, Debug)]
pub struct Namespace {
    cluster: Arc<Cluster>,
    name: String,
}

impl Namespace {
    /// Creates the namespace, with the label that asks for injection if `meshed`.
    ///
    /// # Errors
    /// When it can't be created.
    pub fn create(cluster: &Arc<Cluster>, name: &str, meshed: bool) -> Result<Self> {
        let namespace = Self { cluster: Arc::clone(cluster), name: name.to_owned() };
        let label = if meshed { "enabled" } else { "none" };
        let manifest = serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"ferrule.dev/inject": label, "ferrule-e2e": "true"}},
        });
        let manifest = if meshed { manifest } else { without_label(manifest) };
        cluster.kubectl_call(&["create", "-f", "-"]).input(&manifest.to_string()).run()?;
        // A pod made before its namespace's default service account is refused.
        eventually("default service account", START_LIMIT, || {
            namespace.kubectl(&["get", "serviceaccount", "default"])
        })?;
        Ok(namespace)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster that it is in.
    #[must_use]
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Runs kubectl in the namespace.
    ///
    /// # Errors
    /// When it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(&self.with_namespace(arguments))
    }

    /// As [`Namespace::kubectl`], for a program in a pod that takes longer than a minute.
    ///
    /// # Errors
    /// When it fails, or takes longer than the limit.
    pub fn kubectl_within(&self, limit: Duration, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl_call(&self.with_namespace(arguments)).limit(limit).run()
    }

    /// Applies a manifest in which `${IMAGE}` stands for the image of the test programs, `${DATABASE_IMAGE}` and
    /// `${TALK_IMAGE}` for those of `e2e/images`, and `${NAMESPACE}` for the namespace.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let finished = self.try_apply(manifest)?;
        ensure!(finished.success, "kubectl apply failed: {}", finished.stderr);
        Ok(())
    }

    /// As [`Namespace::apply`], whatever comes out.
    ///
    /// # Errors
    /// When kubectl can't be started or hangs.
    pub fn try_apply(&self, manifest: &str) -> Result<Finished> {
        let mut manifest = manifest.replace("${NAMESPACE}", &self.name);
        for (variable, name) in
            [("${IMAGE}", "e2e"), ("${DATABASE_IMAGE}", "e2e-database"), ("${TALK_IMAGE}", "e2e-talk")]
        {
            let image = format!("{}:{}", self.cluster.image(name), env!("CARGO_PKG_VERSION"));
            manifest = manifest.replace(variable, &image);
        }
        self.cluster.try_kubectl(&self.with_namespace(&["apply", "-f", "-"]), &manifest)
    }

    /// Applies a file of `e2e/manifests`.
    ///
    /// # Errors
    /// As [`Namespace::apply`].
    pub fn apply_file(&self, name: &str) -> Result<()> {
        let path = self.cluster.file("e2e/manifests").join(name);
        self.apply(&std::fs::read_to_string(&path).with_context(|| path.display().to_string())?)
    }

    /// An object, or a list of them.
    ///
    /// # Errors
    /// When it isn't there.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        self.cluster.get(&self.with_namespace(arguments))
    }

    /// Waits until the roll-outs of all Deployments and StatefulSets are done and their old pods are gone.
    ///
    /// # Errors
    /// When they are not within a minute.
    pub fn wait_for_rollouts(&self) -> Result<()> {
        let deployments = self.kubectl(&["get", "deployments,statefulsets", "-o", "name"])?;
        for deployment in deployments.lines() {
            self.kubectl(&["rollout", "status", "--timeout=50s", deployment])?;
        }
        eventually("old pods are gone", START_LIMIT, || {
            for pod in self.pods("")? {
                ensure!(
                    pod.pointer("/metadata/deletionTimestamp").is_none(),
                    "{} is still there",
                    name_of(&pod)
                );
            }
            Ok(())
        })
    }

    /// Waits until a pod has this phase.
    ///
    /// # Errors
    /// When it hasn't within the limit.
    pub fn wait_for_phase(&self, pod: &str, phase: &str, limit: Duration) -> Result<()> {
        eventually(&format!("pod {pod} {phase}"), limit, || {
            let found = self.get(&["pod", pod])?["status"]["phase"].clone();
            ensure!(found == phase, "its phase is {found}");
            Ok(())
        })
    }

    /// Waits until a pod is ready.
    ///
    /// # Errors
    /// When it isn't within a minute.
    pub fn wait_for_ready(&self, pod: &str) -> Result<()> {
        self.kubectl(&["wait", "--for=condition=Ready", "--timeout=50s", "pod", pod]).map(drop)
    }

    /// The pods that a label selector finds.
    ///
    /// # Errors
    /// Those of kubectl.
    pub fn pods(&self, selector: &str) -> Result<Vec<Value>> {
        let list = self.get(&["pods", "-l", selector])?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Names of the pods that a label selector finds; those that are ending are left out.
    ///
    /// # Errors
    /// When there are none.
    pub fn pod_names(&self, selector: &str) -> Result<Vec<String>> {
        let pods = self.pods(selector)?;
        let running = pods.iter().filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none());
        let names: Vec<_> = running.map(name_of).collect();
        if names.is_empty() {
            bail!("no pod in {} has {selector}", self.name);
        }
        Ok(names)
    }

    /// Reads a path of a sidecar's admin port.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn admin(&self, pod: &str, path: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}:{}/proxy{path}", self.name, ports::ADMIN);
        self.cluster.kubectl(&["get", "--raw", &path])
    }

    /// Metrics of a sidecar.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self, pod: &str) -> Result<Metrics> {
        Metrics::parse(&self.admin(pod, "/metrics")?)
    }

    /// Resident memory of a sidecar in bytes, as its kubelet tells it; `None` where it does not.
    ///
    /// # Errors
    /// Those of kubectl.
    pub fn sidecar_memory(&self, pod: &str) -> Result<Option<u64>> {
        let found = self.get(&["pod", pod])?;
        let node = found["spec"]["nodeName"].as_str().context("a pod that runs has a node")?;
        let summary =
            self.cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/stats/summary")])?;
        let summary: Value = serde_json::from_str(&summary).context("the kubelet's summary is JSON")?;
        let pods = summary["pods"].as_array().map_or(&[][..], Vec::as_slice);
        let of_pod = pods
            .iter()
            .find(|each| each["podRef"]["name"] == pod && each["podRef"]["namespace"] == self.name.as_str());
        let containers = of_pod.and_then(|pod| pod["containers"].as_array()).map_or(&[][..], Vec::as_slice);
        let sidecar = containers.iter().find(|container| container["name"] == PROXY_CONTAINER);
        Ok(sidecar.and_then(|sidecar| sidecar["memory"]["rssBytes"].as_u64()))
    }

    /// Log of a sidecar.
    ///
    /// # Errors
    /// Those of kubectl.
    pub fn proxy_log(&self, pod: &str) -> Result<String> {
        self.kubectl(&["logs", pod, "-c", PROXY_CONTAINER])
    }

    fn with_namespace<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        [&["--namespace", self.name.as_str()], arguments].concat()
    }
}

/// Name of an object.
#[must_use]
pub fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn without_label(mut manifest: Value) -> Value {
    if let Some(labels) = manifest.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove("ferrule.dev/inject");
    }
    manifest
}
