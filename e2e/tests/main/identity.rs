//! Certificates of sidecars, and a change of the root under traffic.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use ferrule_config::{
    identity::Report,
    names::{SYSTEM_NAMESPACE, TRUST_BUNDLE_KEY, TRUST_CONFIG_MAP},
};
use ferrule_e2e::{
    client::Load,
    cluster::Cluster,
    install,
    namespace::{Namespace, name_of},
    scene::Scene,
    shop::{Shop, URL},
    wait::eventually,
};

const SECRET: &str = "ferrule-identity-ca";
/// The kubelet brings a ConfigMap that came after the pod within its sync period and a cache's.
const MOUNTED: Duration = Duration::from_secs(150);
/// Two graces of a minute each, the kubelet's time in between, and the renewals.
const ROTATED: Duration = Duration::from_secs(420);

fn reports(namespace: &Namespace) -> Result<Vec<(String, Report)>> {
    let mut reports = Vec::new();
    for pod in namespace.pods("")? {
        let name = name_of(&pod);
        let report = serde_json::from_str(&namespace.admin(&name, "/identity")?)
            .with_context(|| format!("report of {name}"))?;
        reports.push((name, report));
    }
    Ok(reports)
}

/// The roots that signed, of all pods; an error while one has no identity.
fn roots(namespace: &Namespace) -> Result<BTreeSet<String>> {
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

fn trusted(cluster: &Cluster, namespace: &str) -> Result<usize> {
    let config_map = cluster.get(&["--namespace", namespace, "configmap", TRUST_CONFIG_MAP])?;
    let bundle = config_map["data"][TRUST_BUNDLE_KEY].as_str().unwrap_or_default();
    Ok(bundle.matches("BEGIN CERTIFICATE").count())
}

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

pub fn the_root_changes_under_traffic(scene: &Scene) -> Result<()> {
    let cluster = scene.cluster();
    install::upgrade(cluster, &["--set", "identity.certificateLife=2m"])?;
    let outcome = rotate(scene);
    install::upgrade(cluster, &[])?;
    outcome
}

fn rotate(scene: &Scene) -> Result<()> {
    let cluster = scene.cluster();
    let shop = Shop::open(scene)?;
    let before = eventually("every sidecar has an identity", MOUNTED, || roots(&shop))?;
    let client = shop.client()?;
    let loads: Vec<Load> = [&[][..], &["--no-keep-alive"]]
        .into_iter()
        .map(|options| client.start_load(URL, 50, options))
        .collect::<Result<_>>()?;
    let annotate = |value: &str| {
        let value = format!("ferrule.dev/rotate={value}");
        cluster.kubectl(&[
            "--namespace",
            SYSTEM_NAMESPACE,
            "annotate",
            "--overwrite",
            "secret",
            SECRET,
            &value,
        ])
    };
    annotate(shop.name())?;
    eventually("two roots are trusted", Duration::from_secs(30), || {
        ensure!(trusted(cluster, shop.name())? == 2);
        Ok(())
    })?;
    // The leader dies in the middle of it.
    let lease = cluster.get(&["--namespace", SYSTEM_NAMESPACE, "lease", "ferrule-operator"])?;
    let leader = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    cluster.kubectl(&[
        "--namespace",
        SYSTEM_NAMESPACE,
        "delete",
        "pod",
        leader,
        "--grace-period=0",
        "--force",
    ])?;
    eventually("one root is trusted again", ROTATED, || {
        let after = roots(&shop)?;
        ensure!(trusted(cluster, shop.name())? == 1 && after.is_disjoint(&before), "{before:?}, {after:?}");
        Ok(())
    })?;
    for load in loads {
        load.stop()?.expect_no_failure()?;
    }
    let phase = cluster.get(&["--namespace", SYSTEM_NAMESPACE, "configmap", TRUST_CONFIG_MAP])?;
    let status = phase["data"]["status.json"].as_str().unwrap_or_default();
    ensure!(status.contains("\"Steady\""), "{status}");
    install::scale_operator(cluster, 2)
}
