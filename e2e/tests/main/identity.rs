//! Certificates of sidecars.

use std::time::Duration;

use anyhow::{Result, ensure};
use ferrule_config::identity::Report;
use ferrule_e2e::{
    identities::{MOUNTED, reports, roots},
    scene::Scene,
    shop::Shop,
    wait::eventually,
};

pub fn injected_pods_get_certificates(scene: &Scene) -> Result<()> {
    let shop = Shop::shared(scene)?;
    eventually("every sidecar has an identity", MOUNTED, || roots(&shop)).map(|roots| {
        ensure!(roots.len() == 1, "{roots:?}");
        Ok(())
    })??;
    for (pod, report) in reports(&shop)? {
        let metrics = shop.metrics(&pod)?;
        let expiry = metrics.sum("ferrule_identity_certificate_expiry_timestamp_seconds", &[]);
        ensure!(report.not_after.is_some_and(|end| (end as f64 - expiry).abs() < 1.0), "{pod}: {expiry}");
        ensure!(metrics.sum("ferrule_identity_renewals_total", &[]) >= 1.0, "{pod}");
        let log = shop.proxy_log(&pod)?;
        ensure!(!log.contains("eyJ"), "{pod} logs what looks like a token");
    }
    // A pod of another service account has another identity.
    shop.kubectl(&["create", "serviceaccount", "other"]).ok();
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other"},
        "spec": {"serviceAccountName": "other", "containers": [{
            "name": "server", "image": "${IMAGE}", "imagePullPolicy": "IfNotPresent", "command": ["/testserver"],
        }]},
    });
    shop.apply(&pod.to_string())?;
    shop.wait_for_ready("other")?;
    eventually("its identity", Duration::from_secs(30), || {
        let report: Report = serde_json::from_str(&shop.admin("other", "/identity")?)?;
        let wanted = format!("spiffe://cluster.local/ns/{}/sa/other", shop.name());
        ensure!(report.id.as_ref() == Some(&wanted), "{report:?}");
        Ok(())
    })?;
    shop.kubectl(&["delete", "pod", "other", "--wait=false"]).map(drop)
}
