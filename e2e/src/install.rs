//! Ferrule in the cluster: CRDs, the chart, and the operator's pods.

use std::{sync::OnceLock, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use ferrule_config::names::SYSTEM_NAMESPACE;

use crate::{cluster::Cluster, wait::eventually};

/// Name of the Helm release.
pub const RELEASE: &str = "ferrule";
/// The chart, from the repository's root.
pub const CHART: &str = "charts/ferrule";

/// Selects the operator's pods.
pub const OPERATOR: &str = "app.kubernetes.io/name=ferrule-operator";

const LIMIT: Duration = Duration::from_secs(60);

static INSTALLED: OnceLock<bool> = OnceLock::new();

/// Installs Ferrule from scratch, once a process, as the README tells a user to.
///
/// # Errors
/// When it does not install; to the tests after the first, that it did not.
pub fn ensure(cluster: &Cluster) -> Result<()> {
    let mut outcome = None;
    let installed = INSTALLED.get_or_init(|| outcome.insert(from_scratch(cluster)).is_ok());
    match outcome {
        Some(first) => first.context("Ferrule does not install"),
        None if *installed => Ok(()),
        None => bail!("Ferrule is not installed; the first test tells why"),
    }
}

fn from_scratch(cluster: &Cluster) -> Result<()> {
    remove_leftovers(cluster)?;
    cluster.kubectl(&["apply", "-f", &cluster.file("crds").to_string_lossy()])?;
    install(cluster)
}

/// A run that was broken off leaves a release, and meshed namespaces in which nothing starts without it.
fn remove_leftovers(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["delete", "namespaces", "-l", "ferrule-e2e=true", "--wait=false"])?;
    cluster.helm(&["uninstall", RELEASE, "--namespace", SYSTEM_NAMESPACE, "--ignore-not-found", "--wait"])?;
    // Still naming a pod that is gone, it would keep the new operators waiting until it runs out.
    let lease = ["delete", "lease", "ferrule-operator", "--ignore-not-found"];
    cluster.kubectl(&[&["--namespace", SYSTEM_NAMESPACE], &lease[..]].concat())?;
    Ok(())
}

/// `helm install --wait`.
///
/// # Errors
/// When it fails.
pub fn install(cluster: &Cluster) -> Result<()> {
    helm(cluster, "install", &["--create-namespace"])
}

/// `helm upgrade --wait`.
///
/// # Errors
/// When it fails.
pub fn upgrade(cluster: &Cluster, options: &[&str]) -> Result<()> {
    helm(cluster, "upgrade", options)
}

/// `helm uninstall --wait`.
///
/// # Errors
/// When it fails.
pub fn uninstall(cluster: &Cluster) -> Result<()> {
    cluster.helm(&["uninstall", RELEASE, "--namespace", SYSTEM_NAMESPACE, "--wait"]).map(drop)
}

/// Arguments that make the chart take the images from where they were brought to.
fn values(cluster: &Cluster) -> Vec<String> {
    let images = [("image", "ferrule"), ("proxy.image", "ferrule-proxy")];
    let setting = |(key, name)| ["--set".to_owned(), format!("{key}.repository={}", cluster.image(name))];
    images.into_iter().flat_map(setting).collect()
}

fn helm(cluster: &Cluster, action: &str, options: &[&str]) -> Result<()> {
    let chart = cluster.file(CHART);
    let fixed = [
        action,
        RELEASE,
        &chart.to_string_lossy(),
        "--namespace",
        SYSTEM_NAMESPACE,
        "--wait",
        "--timeout",
        "90s",
    ];
    let values = values(cluster);
    let values: Vec<_> = values.iter().map(String::as_str).collect();
    cluster.helm(&[&fixed, values.as_slice(), options].concat()).map(drop)
}

/// Scales the operator and waits until as many of its pods are ready, and no other is there.
///
/// # Errors
/// When it isn't so within a minute.
pub fn scale_operator(cluster: &Cluster, replicas: usize) -> Result<()> {
    let scale = format!("--replicas={replicas}");
    cluster.kubectl(&["--namespace", SYSTEM_NAMESPACE, "scale", "deployment", "-l", OPERATOR, &scale])?;
    eventually(&format!("{replicas} pods of the operator"), LIMIT, || {
        let list = cluster.get(&["--namespace", SYSTEM_NAMESPACE, "pods", "-l", OPERATOR])?;
        let pods = list["items"].as_array().map_or(&[][..], Vec::as_slice);
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        ensure!(pods.len() == replicas && ready == replicas, "{ready} ready of {}", pods.len());
        Ok(())
    })
}

fn is_ready(pod: &serde_json::Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
