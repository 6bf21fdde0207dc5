//! Parts that come and go while traffic flows.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use ferrule_e2e::{
    client::{Client, Load},
    install::scale_operator,
    namespace::Namespace,
    scene::Scene,
    shop::{Shop, URL, split},
    suite::note,
    wait::eventually,
    workload::report::Summary,
};
use serde_json::json;

const RATE: u32 = 100;
/// Keeps some requests under way at any time.
const SLOW_URL: &str = "http://reviews:8080/?delay=20ms";
const MOMENT: Duration = Duration::from_secs(1);

/// Three habits of clients at once: connections kept, one connection a request, bodies.
struct Pressure(Vec<Load>);

impl Pressure {
    fn start(client: &Client) -> Result<Self> {
        let habits: [&[&str]; 3] =
            [&["--concurrency", "8"], &["--concurrency", "8", "--no-keep-alive"], &["--body-bytes", "2000"]];
        let loads =
            habits.iter().map(|options| client.start_load(SLOW_URL, RATE, options)).collect::<Result<_>>()?;
        thread::sleep(MOMENT);
        Ok(Self(loads))
    }

    /// Ends all and refuses a single failure.
    fn stop(self) -> Result<Vec<Summary>> {
        thread::sleep(MOMENT);
        let summaries: Vec<_> = self.0.into_iter().map(Load::stop).collect::<Result<_>>()?;
        for summary in &summaries {
            summary.expect_no_failure()?;
        }
        Ok(summaries)
    }
}

fn pods_that_answered(summaries: &[Summary]) -> Vec<&String> {
    summaries.iter().flat_map(|summary| summary.pods.keys()).collect()
}

pub fn scaling_loses_no_request(scene: &Scene) -> Result<()> {
    let shop = Shop::open(scene)?;
    shop.route_and_wait(&split(100, 0), "v1")?;
    let pressure = Pressure::start(&shop.client()?)?;
    shop.kubectl(&["scale", "deployment/reviews-v1", "--replicas=3"])?;
    shop.wait_for_rollouts()?;
    let pods = shop.pod_names("app=reviews,version=v1")?;
    thread::sleep(MOMENT * 2);
    shop.kubectl(&["scale", "deployment/reviews-v1", "--replicas=1"])?;
    shop.wait_for_rollouts()?;
    let summaries = pressure.stop()?;
    let answered = pods_that_answered(&summaries);
    for pod in &pods {
        ensure!(answered.contains(&pod), "pod {pod} got no request of {:?}", summaries[0].pods);
    }
    Ok(())
}

pub fn a_rolling_restart_loses_no_request(scene: &Scene) -> Result<()> {
    let shop = Shop::open(scene)?;
    shop.kubectl(&["scale", "deployment/reviews-v1", "--replicas=2"])?;
    shop.route_and_wait(&split(50, 50), "v2").or_else(|_| shop.wait_for_rollouts())?;
    shop.wait_for_rollouts()?;
    let old = shop.pod_names("app=reviews")?;
    let pressure = Pressure::start(&shop.client()?)?;
    shop.kubectl(&["rollout", "restart", "deployment/reviews-v1", "deployment/reviews-v2"])?;
    shop.wait_for_rollouts()?;
    let new = shop.pod_names("app=reviews")?;
    ensure!(new.iter().all(|pod| !old.contains(pod)), "not restarted: {old:?}, {new:?}");
    let summaries = pressure.stop()?;
    let answered = pods_that_answered(&summaries);
    for pod in old.iter().chain(&new) {
        ensure!(answered.contains(&pod), "pod {pod} got no request");
    }
    Ok(())
}

pub fn without_the_operator_traffic_and_discovery_go_on(scene: &Scene) -> Result<()> {
    let shop = Shop::open(scene)?;
    shop.route_and_wait(&split(100, 0), "v1")?;
    let pressure = Pressure::start(&shop.client()?)?;
    scale_operator(scene.cluster(), 0)?;
    let outcome = discover_without_operator(&shop);
    scale_operator(scene.cluster(), 2)?;
    outcome?;
    let summaries = pressure.stop()?;
    ensure!(pods_that_answered(&summaries).contains(&&"late".to_owned()), "{:?}", summaries[0].pods);
    // And the operator takes up its work again.
    shop.route_and_wait(&split(0, 100), "v2")
}

/// A pod that declines injection: with the webhook away, one that wants it is refused.
fn discover_without_operator(shop: &Shop) -> Result<()> {
    let late = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "late", "labels": {"app": "reviews", "version": "v1", "ferrule.dev/inject": "disabled"}},
        "spec": {"containers": [{
            "name": "server", "image": "${IMAGE}", "imagePullPolicy": "IfNotPresent", "command": ["/testserver"],
        }]},
    });
    shop.apply(&late.to_string())?;
    shop.wait_for_ready("late")?;
    let client = shop.client()?;
    eventually("the new endpoint answers", Duration::from_secs(5), || {
        let summary = client.load(URL, &["--count", "50"])?;
        ensure!(summary.pods.contains_key("late"), "{:?}", summary.pods);
        Ok(())
    })
}

pub fn a_corrupted_config_map_is_mended(scene: &Scene) -> Result<()> {
    let shop = Shop::open(scene)?;
    shop.route_and_wait(&split(0, 100), "v2")?;
    let good = shop.get(&["configmap", "ferrule"])?["data"].clone();
    let client = shop.client()?;
    let while_mended = |what: &str, damage: &dyn Fn() -> Result<()>| {
        let load = client.start_load(URL, RATE, &[])?;
        thread::sleep(MOMENT);
        damage()?;
        eventually(&format!("ConfigMap is mended after {what}"), Duration::from_secs(10), || {
            let found = shop.get(&["configmap", "ferrule"])?["data"].clone();
            ensure!(found == good, "{found}");
            Ok(())
        })?;
        thread::sleep(MOMENT);
        let summary = load.stop()?;
        summary.expect_no_failure()?;
        ensure!(
            summary.versions.keys().eq(["v2"]),
            "the Route was not obeyed at {what}: {:?}",
            summary.versions
        );
        Ok(())
    };
    while_mended("garbage", &|| corrupt(&shop))?;
    while_mended("its deletion", &|| shop.kubectl(&["delete", "configmap", "ferrule"]).map(drop))
}

pub fn a_proxy_keeps_its_last_good_configuration(scene: &Scene) -> Result<()> {
    let shop = Shop::open(scene)?;
    shop.route_and_wait(&split(0, 100), "v2")?;
    let client = shop.client()?;
    let refused =
        || Ok::<_, anyhow::Error>(shop.metrics(client.pod())?.sum("ferrule_config_refused_total", &[]));
    let before = refused()?;
    scale_operator(scene.cluster(), 0)?;
    let outcome = corrupt(&shop).and_then(|()| {
        eventually("the sidecar counts a refused configuration", Duration::from_secs(5), || {
            let after = refused()?;
            ensure!(after > before, "{before} before, {after} after");
            Ok(())
        })?;
        let summary = client.load(URL, &["--count", "100"])?;
        summary.expect_no_failure()?;
        ensure!(summary.versions.get("v2") == Some(&100), "{:?}", summary.versions);
        let log = shop.proxy_log(client.pod())?;
        ensure!(log.contains("WARN") || log.contains("ERROR"), "the log says nothing: {log}");
        Ok(())
    });
    scale_operator(scene.cluster(), 2)?;
    outcome?;
    shop.route_and_wait(&split(100, 0), "v1").context("once the operator is back")
}

fn corrupt(namespace: &Namespace) -> Result<()> {
    let found = namespace.get(&["configmap", "ferrule"])?;
    let keys = found["data"].as_object().cloned().unwrap_or_default();
    let garbage: serde_json::Map<_, _> =
        keys.into_iter().map(|(key, _)| (key, "\u{0}garbage".into())).collect();
    let patch = json!({ "data": garbage }).to_string();
    namespace.kubectl(&["patch", "configmap", "ferrule", "--type=merge", "-p", &patch]).map(drop)
}

pub fn without_the_api_server_traffic_goes_on(scene: &Scene) -> Result<()> {
    if !scene.cluster().is_own() {
        note("skipped: the API server of a cluster that is not ours is not stopped");
        return Ok(());
    }
    let shop = Shop::open(scene)?;
    shop.route_and_wait(&split(0, 100), "v2")?;
    // `kubectl exec` would end with the API server, so these pods run on their own.
    let habits: [(&str, &[&str]); 2] = [("keep-alive", &[]), ("no-keep-alive", &["--no-keep-alive"])];
    for (name, options) in habits {
        let fixed = ["/testclient", "load", URL, "--rate", "100", "--seconds", "40"];
        let command = [&fixed, options].concat();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "containers": [{
                "name": "client", "image": "${IMAGE}", "imagePullPolicy": "IfNotPresent",
                "command": command,
            }]},
        });
        shop.apply(&pod.to_string())?;
    }
    for (name, _) in habits {
        shop.wait_for_phase(name, "Running", Duration::from_secs(20))?;
    }
    thread::sleep(MOMENT * 2);
    scene.cluster().component("stop", "kube-apiserver")?;
    ensure!(shop.kubectl(&["version", "--request-timeout=1s"]).is_err(), "the API server still answers");
    thread::sleep(Duration::from_secs(30));
    scene.cluster().component("start", "kube-apiserver")?;
    for (name, _) in habits {
        shop.wait_for_phase(name, "Succeeded", Duration::from_secs(40))?;
        let log = shop.kubectl(&["logs", name, "-c", "client"])?;
        let summary: Summary = serde_json::from_str(log.lines().last().unwrap_or_default())?;
        summary.expect_no_failure().with_context(|| format!("pod {name}"))?;
        ensure!(summary.requests > 3500, "pod {name} sent only {} requests", summary.requests);
        ensure!(
            summary.versions.keys().eq(["v2"]),
            "pod {name}: the Route was not obeyed: {:?}",
            summary.versions
        );
    }
    // The operators come by the API server's own Service, which Kubernetes serves again only after a while:
    // kube-proxy waits up to half a minute between its attempts.
    eventually("the API server answers behind its Service", Duration::from_secs(60), || {
        scene.cluster().service_answers_on_nodes("default", "kubernetes")
    })?;
    // After such an outage Kubernetes may take the node for lost, and with it all endpoints, until its kubelet has
    // reported again.
    scene.cluster().kubectl(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s"])?;
    shop.wait_for_rollouts()?;
    let client = shop.client()?;
    // So may its DNS servers, of which there may be several.
    eventually("names are resolved again", Duration::from_secs(90), || {
        (0..5).try_for_each(|_| client.resolve("reviews").map(drop))
    })?;
    // A change made after that is obeyed: the watches were taken up again.
    shop.apply(&split(100, 0).to_string())?;
    eventually("a change after the outage is in force", Duration::from_secs(10), || {
        let summary = client.load(URL, &["--count", "20"])?;
        summary.expect_no_failure()?;
        ensure!(summary.versions.get("v1") == Some(&20), "{:?}", summary.versions);
        Ok(())
    })?;
    // CoreDNS takes its time as well, and what comes after this asks for names of new Services.
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "after-outage"},
        "spec": {"selector": {"app": "reviews"}, "ports": [{"port": 8080}]},
    });
    shop.apply(&service.to_string())?;
    eventually("a new Service has a name and endpoints", Duration::from_secs(90), || {
        client.once("http://after-outage:8080/", &[]).map(drop)
    })
}
