//! Helm's road: lint, install, upgrade, uninstall.

use std::time::Duration;

use anyhow::{Result, ensure};
use ferrule_config::names::SYSTEM_NAMESPACE;
use ferrule_e2e::{
    install::{self, CHART, OPERATOR, RELEASE},
    namespace::Namespace,
    scene::Scene,
    shop::{Shop, URL, split},
    wait::eventually,
};
use serde_json::Value;

pub fn the_chart_lints_and_renders(scene: &Scene) -> Result<()> {
    let cluster = scene.cluster();
    let chart = cluster.file(CHART).to_string_lossy().into_owned();
    cluster.helm(&["lint", "--strict", &chart])?;
    let rendered = cluster.helm(&["template", RELEASE, &chart, "--namespace", SYSTEM_NAMESPACE])?;
    for kind in
        ["Deployment", "MutatingWebhookConfiguration", "PodDisruptionBudget", "ClusterRole", "ServiceAccount"]
    {
        ensure!(rendered.contains(&format!("kind: {kind}\n")), "`helm template` renders no {kind}");
    }
    let refused = cluster.helm(&["template", RELEASE, &chart, "--set", "noSuchValue=1"]);
    ensure!(refused.is_err(), "values that there are not are accepted");
    cluster.chart_tests().map(drop)
}

pub fn two_operators_run_and_one_leads(scene: &Scene) -> Result<()> {
    let cluster = scene.cluster();
    let system = ["--namespace", SYSTEM_NAMESPACE];
    let pods = cluster.get(&[&system[..], &["pods", "-l", OPERATOR]].concat())?;
    let names: Vec<_> = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pod| pod["metadata"]["name"].as_str())
        .collect();
    ensure!(names.len() == 2, "{names:?}");
    let leader = eventually("a leader", Duration::from_secs(10), || {
        let lease = cluster.get(&[&system[..], &["lease", "ferrule-operator"]].concat())?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        ensure!(names.contains(&holder.as_str()), "the holder is {holder:?}");
        Ok(holder)
    })?;
    // The other one takes over at once when the leader ends in order.
    cluster.kubectl(&[&system[..], &["delete", "pod", &leader, "--wait=false"]].concat())?;
    eventually("another leader", Duration::from_secs(20), || {
        let lease = cluster.get(&[&system[..], &["lease", "ferrule-operator"]].concat())?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        ensure!(!holder.is_empty() && holder != leader, "the holder is {holder:?}");
        Ok(())
    })?;
    install::scale_operator(cluster, 2)
}

pub fn an_upgrade_updates_the_resource_definitions(scene: &Scene) -> Result<()> {
    let cluster = scene.cluster();
    let columns = || -> Result<Value> {
        let definition = cluster.get(&["customresourcedefinition", "routes.ferrule.dev"])?;
        Ok(definition["spec"]["versions"][0]["additionalPrinterColumns"].clone())
    };
    let shop = Shop::open(scene)?;
    shop.route_and_wait(&split(0, 100), "v2")?;
    let load = shop.client()?.start_load(URL, 100, &[])?;
    let current = columns()?;
    // As an older version would have left it.
    let older = r#"[{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns/0"}]"#;
    cluster.kubectl(&[
        "patch",
        "customresourcedefinition",
        "routes.ferrule.dev",
        "--type=json",
        "-p",
        older,
    ])?;
    install::upgrade(cluster, &[])?;
    eventually("the definition is up to date", Duration::from_secs(20), || {
        let found = columns()?;
        ensure!(found == current, "{found}");
        Ok(())
    })?;
    load.stop()?.expect_no_failure()?;
    shop.route_and_wait(&split(100, 0), "v1")
}

pub fn uninstalling_leaves_pods_working(scene: &Scene) -> Result<()> {
    let cluster = scene.cluster();
    let shop = Shop::open(scene)?;
    shop.route_and_wait(&split(0, 100), "v2")?;
    let client = shop.client()?;
    let load = client.start_load(URL, 100, &[])?;
    install::uninstall(cluster)?;
    let outcome = after_uninstall(&shop);
    let summary = load.stop();
    let reinstalled = install::install(cluster);
    outcome?;
    let summary = summary?;
    summary.expect_no_failure()?;
    ensure!(
        summary.versions.keys().eq(["v2"]),
        "the Route was not obeyed throughout: {:?}",
        summary.versions
    );
    reinstalled?;
    shop.kubectl(&["rollout", "restart", "deployment/reviews-v2"])?;
    shop.wait_for_rollouts()?;
    let line = shop.kubectl(&["get", "pods", "-l", "version=v2", "--no-headers"])?;
    ensure!(line.contains("2/2"), "after the new installation: {line}");
    shop.route_and_wait(&split(100, 0), "v1")
}

fn after_uninstall(shop: &Shop) -> Result<()> {
    let webhooks = shop.cluster().kubectl(&["get", "mutatingwebhookconfigurations", "-o", "name"])?;
    ensure!(!webhooks.contains("ferrule"), "left behind: {webhooks}");
    shop.kubectl(&["get", "routes.ferrule.dev", "reviews"])?;

    // A new pod starts, without a sidecar, and the meshed clients find it.
    shop.kubectl(&["scale", "deployment/reviews-v2", "--replicas=2"])?;
    shop.wait_for_rollouts()?;
    let new = un_injected(shop)?;
    let client = shop.client()?;
    eventually("the new endpoint answers", Duration::from_secs(5), || {
        let summary = client.load(URL, &["--count", "50"])?;
        summary.expect_no_failure()?;
        ensure!(summary.pods.contains_key(&new), "{:?}", summary.pods);
        Ok(())
    })?;
    for pod in shop.pods("")? {
        let statuses = ["initContainerStatuses", "containerStatuses"].map(|key| pod["status"][key].clone());
        let all = statuses.iter().filter_map(Value::as_array).flatten();
        for status in all {
            ensure!(status["restartCount"] == 0, "a container was restarted: {status}");
        }
    }
    Ok(())
}

fn un_injected(namespace: &Namespace) -> Result<String> {
    let pods = namespace.pods("version=v2")?;
    let found = pods.iter().find(|pod| pod["spec"]["initContainers"].as_array().is_none_or(Vec::is_empty));
    found
        .map(ferrule_e2e::namespace::name_of)
        .ok_or_else(|| anyhow::anyhow!("all pods of v2 have a sidecar though there is no webhook"))
}
