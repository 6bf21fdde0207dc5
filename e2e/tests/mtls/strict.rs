//! Who comes in, and what the application hears of it.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use ferrule_e2e::{client::Client, namespace::Namespace, scene::Scene, suite::note, wait::eventually};

const FORGED: [&str; 4] = [
    "-H",
    "ferrule-client: spiffe://cluster.local/ns/x/sa/admin",
    "-H",
    "X-Forwarded-Client-Cert: URI=admin",
];
const SOON: Duration = Duration::from_secs(10);

pub fn applications_are_told_who_calls(scene: &Scene) -> Result<()> {
    let (namespace, client) = super::meshed(scene)?;
    let echo = client.echo("http://front/", &FORGED)?;
    let own = format!("spiffe://cluster.local/ns/{}/sa", namespace.name());
    let told = |name: &str| -> Vec<&str> {
        let fields = echo.headers.iter().filter(|(each, _)| each.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| value.as_str()).collect()
    };
    ensure!(told("ferrule-client") == [format!("{own}/web")], "{:?}", echo.headers);
    let forwarded = format!("By={own}/cart;URI={own}/web");
    ensure!(told("x-forwarded-client-cert") == [forwarded], "{:?}", echo.headers);
    let (_outside, stranger) = outside(scene)?;
    let echo = stranger.echo(&format!("http://front.{}/", namespace.name()), &FORGED)?;
    ensure!(!echo.headers.iter().any(|(name, _)| name.contains("client")), "{:?}", echo.headers);
    Ok(())
}

pub fn a_strict_pod_is_out_of_reach(scene: &Scene) -> Result<()> {
    let (namespace, client) = super::meshed(scene)?;
    let (_outside, stranger) = outside(scene)?;
    let url = format!("http://front.{}/", namespace.name());
    stranger.echo(&url, &[])?;
    set(&namespace, "Strict")?;
    eventually("the stranger is shut out", SOON, || {
        ensure!(stranger.once(&url, &[]).is_err(), "it still gets a response");
        Ok(())
    })?;
    let by_pod = format!("cart-0.cart.{}", namespace.name());
    ensure!(stranger.once(&format!("http://{by_pod}:8080/"), &[]).is_err(), "by the pod's name it does");
    let greeting = stranger.tcp(&format!("front.{}", namespace.name()), 9001, &["--wait-first"]);
    ensure!(greeting.is_err() || greeting.is_ok_and(|it| it.received.is_empty()), "it hears the greeting");
    // Whoever is in the mesh reaches all of it: by Service, by pod, in bytes.
    client.echo("http://front/", &[])?;
    for pod in ["cart-0", "cart-1"] {
        client.echo(&format!("http://{pod}.cart:8080/"), &[])?;
    }
    let greeting = client.tcp("front", 9001, &["--send", "!", "--wait-first"])?;
    ensure!(greeting.received.starts_with("220"), "{greeting:?}");
    let refused = namespace.metrics("cart-0")?.sum("ferrule_tls_refused_total", &[("reason", "plaintext")]);
    let report = namespace.admin("cart-0", "/tls")?;
    ensure!(refused > 0.0 && report.contains("secondsAgo"), "{refused} refused; {report}");
    // The kubelet's probes go on.
    thread::sleep(Duration::from_secs(5));
    namespace.wait_for_ready("cart-0")?;
    set(&namespace, "Permissive")?;
    eventually("the stranger is let in again", SOON, || stranger.echo(&url, &[]).map(drop))
}

pub fn switching_breaks_no_request(scene: &Scene) -> Result<()> {
    let (namespace, client) = super::meshed(scene)?;
    let load = client.start_load("http://front/", 200, &[])?;
    let by_pod = client.start_load("http://cart-1.cart:8080/", 50, &[])?;
    for mode in ["Strict", "Permissive", "Strict", "Permissive", "Disabled", "Permissive"] {
        set(&namespace, mode)?;
        thread::sleep(Duration::from_secs(3));
    }
    let (load, by_pod) = (load.stop()?, by_pod.stop()?);
    load.expect_no_failure()?;
    note(&format!(
        "{} requests through six changes, {} by the pod's name; {} of these failed",
        load.requests, by_pod.requests, by_pod.failed
    ));
    by_pod.expect_no_failure()
}

pub fn outside(scene: &Scene) -> Result<(Namespace, Client)> {
    let namespace = scene.namespace("mtls-outside", false)?;
    namespace.apply_file("mtls.yaml")?;
    namespace.wait_for_ready("client")?;
    let client = Client::new(&namespace, "client");
    Ok((namespace, client))
}

/// Strict at once: what it waits for otherwise is asked in [`super::ratchet`].
fn set(namespace: &Namespace, mode: &str) -> Result<()> {
    namespace.apply(&format!(
        "{{apiVersion: ferrule.dev/v1alpha1, kind: MeshTLS, metadata: {{name: cart}}, \
         spec: {{mode: {mode}, force: true, selector: {{matchLabels: {{app: cart}}}}}}}}"
    ))
}
