//! Group `scale`: a sidecar's memory and watches follow what its pod uses, whatever else there is in the cluster.
//!
//! It runs only when asked for (`ONLY=scale`), for thousands of Services keep a node busy for a while.

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use ferrule_e2e::{
    api::Server,
    client::Client,
    memory::{self, Resident},
    namespace::Namespace,
    scene::Scene,
    suite::{self, Test, note},
    wait::eventually,
};
use serde_json::{Value, json};

fn main() -> ExitCode {
    suite::run("scale", TESTS)
}

const TESTS: &[Test] =
    &[("a_sidecar_is_as_large_as_what_its_pod_uses", a_sidecar_is_as_large_as_what_its_pod_uses)];

/// Services that nobody uses, and the endpoints of each.
const IDLE: (usize, usize) = (2000, 5);
/// Services that the pods use.
const USED: usize = 5;
/// One of the namespace's Services, one of the slices of those used, one of its configuration.
const MOST_WATCHES: f64 = 3.0;
/// How much larger a sidecar may be in the large cluster, in KiB: noise of the allocator, mostly.
const MOST_GROWTH: u64 = 1024;

/// A sidecar once its pod uses all that it uses.
#[derive(Clone, Copy, Debug)]
struct Size {
    resident: Resident,
    watches: f64,
}

fn a_sidecar_is_as_large_as_what_its_pod_uses(scene: &Scene) -> Result<()> {
    if !scene.cluster().is_own() {
        note("skipped: the memory of a sidecar elsewhere is not seen from here");
        return Ok(());
    }
    let namespace = scene.namespace("scale", true)?;
    namespace.apply(&server().to_string())?;
    namespace.apply(&pod("small", &["/testclient", "serve"]).to_string())?;
    for pod in ["server", "small"] {
        namespace.wait_for_ready(pod)?;
    }
    let small = use_services(&namespace, "small")?;
    tell("a sidecar that uses 5 Services, of 5", small);

    fill(&namespace)?;
    let stayed = size(&namespace, "small")?;
    tell("the same one, after 2,000 more with 10,000 endpoints came", stayed);

    namespace.apply(&pod("large", &["/testclient", "serve"]).to_string())?;
    namespace.wait_for_ready("large")?;
    let large = use_services(&namespace, "large")?;
    tell("a new one that uses 5 Services, of 2,005", large);

    for (size, which) in [(stayed, "the one that was there"), (large, "the new one")] {
        ensure!(size.watches <= MOST_WATCHES, "{which} has {} watches", size.watches);
        let grown = size.resident.anonymous.saturating_sub(small.resident.anonymous);
        ensure!(grown < MOST_GROWTH, "{which} is {grown} KiB larger: {size:?} instead of {small:?}");
    }
    Ok(())
}

fn tell(which: &str, Size { resident, watches }: Size) {
    note(&format!(
        "{which}: {watches} watches, {} KiB resident, {} KiB of it its own",
        resident.all, resident.anonymous
    ));
}

/// Sends requests to each of the Services that are used, and waits until the watches for them are joined.
fn use_services(namespace: &Namespace, pod: &str) -> Result<Size> {
    let client = Client::new(namespace, pod);
    for number in 0..USED {
        let url = format!("http://used-{number}:8080/");
        eventually(&format!("{url} answers"), Duration::from_secs(20), || {
            client.load(&url, &["--count", "20"])?.expect_no_failure()
        })?;
    }
    let metrics = namespace.metrics(pod)?;
    let held = metrics.sum("ferrule_destinations", &[]);
    #[allow(clippy::cast_precision_loss, reason = "a handful")]
    let used = USED as f64;
    ensure!(held >= used, "the sidecar of {pod} holds {held} destinations");
    // Not a test of its own: how soon they are joined is a matter of seconds.
    let _ = eventually("watches are joined", Duration::from_secs(15), || {
        let watches = namespace.metrics(pod)?.sum("ferrule_watches", &[]);
        ensure!(watches <= MOST_WATCHES, "{watches}");
        Ok(())
    });
    size(namespace, pod)
}

fn size(namespace: &Namespace, pod: &str) -> Result<Size> {
    let watches = namespace.metrics(pod)?.sum("ferrule_watches", &[]);
    Ok(Size { resident: memory::of_sidecar(pod)?, watches })
}

/// Creates the Services that nobody uses. No pods are behind them: their slices are written here.
fn fill(namespace: &Namespace) -> Result<()> {
    let (services, endpoints) = IDLE;
    let server = Server::connect(namespace.cluster().kubeconfig())?;
    let service = |number: usize| {
        json!({
            "metadata": {"name": format!("idle-{number}")},
            "spec": {"ports": [{"name": "http", "port": 8080}]},
        })
    };
    server.create_all(namespace.name(), ("", "v1", "Service"), (0..services).map(service))?;
    let slice = |number: usize| {
        let address = |index: usize| {
            let place = number * endpoints + index;
            json!({
                "addresses": [format!("10.250.{}.{}", place / 250, place % 250 + 1)],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": "elsewhere",
                "targetRef": {"kind": "Pod", "name": format!("idle-{number}-{index}"), "namespace": namespace.name()},
            })
        };
        let labels = json!({
            "kubernetes.io/service-name": format!("idle-{number}"),
            "endpointslice.kubernetes.io/managed-by": "ferrule-e2e",
        });
        json!({
            "metadata": {"name": format!("idle-{number}"), "labels": labels},
            "addressType": "IPv4",
            "endpoints": (0..endpoints).map(address).collect::<Vec<_>>(),
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        })
    };
    server.create_all(namespace.name(), ("discovery.k8s.io", "v1", "EndpointSlice"), (0..services).map(slice))
}

/// A server, and the Services that are used; all of them lead to it.
fn server() -> Value {
    let service = |number: usize| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("used-{number}")},
            "spec": {"selector": {"app": "server"}, "ports": [{"name": "http", "port": 8080}]},
        })
    };
    let mut pod = pod("server", &["/testserver"]);
    pod["metadata"]["labels"] = json!({"app": "server"});
    let items: Vec<Value> = (0..USED).map(service).chain([pod]).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn pod(name: &str, command: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        // Otherwise Kubernetes gives every container variables for each Service of its namespace: 600 KiB of them.
        "spec": {"enableServiceLinks": false, "containers": [{
            "name": "client", "image": "${IMAGE}", "imagePullPolicy": "IfNotPresent", "command": command,
        }]},
    })
}
