//! Identities of sidecars, as they tell them at their admin ports.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use ferrule_config::identity::Report;

use crate::namespace::{Namespace, name_of};

/// The kubelet brings a ConfigMap that came after the pod within its sync period and a cache's.
pub const MOUNTED: Duration = Duration::from_secs(150);

/// What each running sidecar says of its identity, with its pod's name.
///
/// # Errors
/// When one gives no answer.
pub fn reports(namespace: &Namespace) -> Result<Vec<(String, Report)>> {
    let mut reports = Vec::new();
    for pod in namespace.pods("")? {
        // A Job's pod that has ended has no sidecar any more.
        if pod["status"]["phase"] != "Running" {
            continue;
        }
        let name = name_of(&pod);
        let report = serde_json::from_str(&namespace.admin(&name, "/identity")?)
            .with_context(|| format!("report of {name}"))?;
        reports.push((name, report));
    }
    Ok(reports)
}

/// The roots that signed, of all running pods.
///
/// # Errors
/// While one of them has no identity.
pub fn roots(namespace: &Namespace) -> Result<BTreeSet<String>> {
    let own = format!("spiffe://cluster.local/ns/{}/sa/", namespace.name());
    let mut roots = BTreeSet::new();
    for (pod, report) in reports(namespace)? {
        let id = report.id.as_deref().unwrap_or_default();
        ensure!(id.starts_with(&own), "{pod} is {id:?}: {:?}", report.last_failure);
        roots.extend(report.root);
    }
    ensure!(!roots.is_empty(), "no pod");
    Ok(roots)
}
