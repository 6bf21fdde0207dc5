//! Which pods get a sidecar, and that it stands in nobody's way.

use std::time::Duration;

use anyhow::{Result, ensure};
use ferrule_config::names::PROXY_CONTAINER;
use ferrule_e2e::{
    metrics::Metrics,
    namespace::{Namespace, name_of},
    scene::Scene,
    shop::Shop,
    suite::note,
    wait::eventually,
};
use serde_json::{Value, json};

pub fn a_job_ends(scene: &Scene) -> Result<()> {
    let shop = Shop::shared(scene)?;
    let mut template = pod("job", &json!({}), &json!({}), &["/testclient", "once", "http://reviews:8080/"]);
    template["spec"]["restartPolicy"] = "Never".into();
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": {"app": "job"}}, "spec": template["spec"]}},
    });
    shop.apply(&job.to_string())?;
    shop.kubectl(&["wait", "--for=condition=Complete", "--timeout=40s", "job/job"])?;
    let pods = shop.pods("app=job")?;
    ensure!(pods.len() == 1, "{} pods", pods.len());
    ensure!(has_sidecar(&pods[0]), "the job's pod was not in the mesh");
    let ended = |pod: &Value| {
        let statuses = pod["status"]["initContainerStatuses"].as_array().cloned().unwrap_or_default();
        statuses
            .iter()
            .any(|status| status["name"] == PROXY_CONTAINER && status["state"]["terminated"].is_object())
    };
    let name = name_of(&pods[0]);
    shop.wait_for_phase(&name, "Succeeded", Duration::from_secs(10))?;
    let pod = shop.get(&["pod", &name])?;
    ensure!(ended(&pod), "the sidecar did not end: {}", pod["status"]["initContainerStatuses"]);
    let log = shop.kubectl(&["logs", &name, "-c", "client"])?;
    ensure!(log.contains("\"status\":200"), "the job's request failed: {log}");
    Ok(())
}

pub fn pods_are_injected_only_where_asked(scene: &Scene) -> Result<()> {
    let serve = ["/testclient", "serve"];
    let meshed = scene.namespace("meshed", true)?;
    meshed.apply(&pod("in", &json!({}), &json!({}), &serve).to_string())?;
    meshed.apply(&pod("out", &json!({"ferrule.dev/inject": "disabled"}), &json!({}), &serve).to_string())?;
    let plain = scene.namespace("unlabelled", false)?;
    plain.apply(&pod("plain", &json!({}), &json!({}), &serve).to_string())?;
    for (namespace, name, ready, expected) in
        [(&meshed, "in", "2/2", true), (&meshed, "out", "1/1", false), (&plain, "plain", "1/1", false)]
    {
        namespace.wait_for_ready(name)?;
        let line = namespace.kubectl(&["get", "pod", name, "--no-headers"])?;
        ensure!(line.contains(ready), "pod {name} is not {ready}: {line}");
        let found = has_sidecar(&namespace.get(&["pod", name])?);
        ensure!(found == expected, "pod {name}: sidecar {found}, expected {expected}");
    }
    webhook_latency(scene)?;
    // Nothing of the mesh lies in a namespace that did not ask for it.
    let found = plain.kubectl(&["get", "configmaps", "-o", "name"])?;
    ensure!(!found.contains("configmap/ferrule"), "{found}");
    Ok(())
}

/// What injection adds to the creation of a pod, as the API server counts it since it started.
fn webhook_latency(scene: &Scene) -> Result<()> {
    let metrics = Metrics::parse(&scene.cluster().kubectl(&["get", "--raw", "/metrics"])?)?;
    let histogram = "apiserver_admission_webhook_admission_duration_seconds";
    let labels = [("type", "admit"), ("operation", "CREATE")];
    let count = metrics.sum(&format!("{histogram}_count"), &labels);
    let at_most = |share| metrics.quantile(histogram, &labels, share).unwrap_or(f64::NAN);
    let (median, p99) = (at_most(0.5), at_most(0.99));
    note(&format!(
        "the webhook took at most {median} s in half of {count} creations of pods, {p99} s in 99 %"
    ));
    ensure!(count > 0.0, "the API server counted no call of the webhook");
    Ok(())
}

pub fn a_bad_annotation_is_refused(scene: &Scene) -> Result<()> {
    let namespace = scene.namespace("annotated", true)?;
    for (name, value, hint) in [
        ("ferrule.dev/drain-seconds", "soon", "seconds"),
        ("ferrule.dev/exclude-inbound-ports", "80,http", "port"),
        ("ferrule.dev/log-levle", "debug", "ferrule.dev/log-level"),
    ] {
        let pod = pod("annotated", &json!({}), &json!({name: value}), &["/testclient", "serve"]);
        let finished = namespace.try_apply(&pod.to_string())?;
        ensure!(!finished.success, "a pod with {name}: {value} was accepted");
        for word in [name, hint] {
            ensure!(finished.stderr.contains(word), "the refusal does not say {word}: {}", finished.stderr);
        }
    }
    refusal_shows_in_the_events(&namespace)
}

fn refusal_shows_in_the_events(namespace: &Namespace) -> Result<()> {
    let mut template =
        pod("x", &json!({"app": "x"}), &json!({"ferrule.dev/drain-seconds": "soon"}), &["/testclient"]);
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "refused"},
        "spec": {
            "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": template["metadata"].take(), "spec": template["spec"].take()},
        },
    });
    namespace.apply(&deployment.to_string())?;
    eventually("the ReplicaSet's event tells why", Duration::from_secs(15), || {
        let events = namespace.kubectl(&["get", "events", "--field-selector=reason=FailedCreate"])?;
        ensure!(events.contains("ferrule.dev/drain-seconds"), "{events}");
        Ok(())
    })
}

fn pod(name: &str, labels: &Value, annotations: &Value, command: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": {"containers": [
            {"name": "client", "image": "${IMAGE}", "imagePullPolicy": "IfNotPresent", "command": command},
        ]},
    })
}

fn has_sidecar(pod: &Value) -> bool {
    let containers = pod["spec"]["initContainers"].as_array();
    containers.is_some_and(|all| all.iter().any(|container| container["name"] == PROXY_CONTAINER))
}
