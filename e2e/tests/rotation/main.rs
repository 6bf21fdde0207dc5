//! Group `rotation`: the root of all identities changes under traffic.
//!
//! It runs only when asked for (`ONLY=rotation`), for the graces that keep everybody connected take minutes.

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use ferrule_config::names::{SYSTEM_NAMESPACE, TRUST_BUNDLE_KEY, TRUST_CONFIG_MAP};
use ferrule_e2e::{
    client::Load,
    cluster::Cluster,
    identities::{MOUNTED, roots},
    install,
    scene::Scene,
    shop::{Shop, URL},
    suite::{self, Test},
    wait::eventually,
};

fn main() -> ExitCode {
    suite::run("rotation", TESTS)
}

const TESTS: &[Test] = &[("the_root_changes_under_traffic", the_root_changes_under_traffic)];

const SECRET: &str = "ferrule-identity-ca";
/// Two graces of a minute each, the kubelet's time in between, and the renewals.
const ROTATED: Duration = Duration::from_secs(420);

fn trusted(cluster: &Cluster, namespace: &str) -> Result<usize> {
    let config_map = cluster.get(&["--namespace", namespace, "configmap", TRUST_CONFIG_MAP])?;
    let bundle = config_map["data"][TRUST_BUNDLE_KEY].as_str().unwrap_or_default();
    Ok(bundle.matches("BEGIN CERTIFICATE").count())
}

fn the_root_changes_under_traffic(scene: &Scene) -> Result<()> {
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
