//! Strict waits for those whom it would shut out, takes hold by itself, and stays.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ferrule_e2e::{
    client::Client, identities, namespace::Namespace, scene::Scene, suite::note, wait::eventually,
};
use serde_json::Value;

use super::strict::outside;

/// How long nobody may have come plain.
const QUIET_FOR: Duration = Duration::from_secs(10);
/// Looking at the state, asking, deciding, and writing: with time to spare on a busy node.
const SOON: Duration = Duration::from_secs(30);

pub fn strict_waits_for_plaintext_clients(scene: &Scene) -> Result<()> {
    let namespace = scene.namespace("ratchet", true)?;
    namespace.apply_file("mtls.yaml")?;
    namespace.wait_for_rollouts()?;
    namespace.wait_for_ready("client")?;
    eventually("all sidecars have identities", identities::MOUNTED, || {
        identities::roots(&namespace).map(drop)
    })?;
    let client = Client::new(&namespace, "client");
    let (elsewhere, stranger) = outside(scene)?;
    let url = format!("http://front.{}/", namespace.name());
    eventually("the stranger is let in", SOON, || stranger.echo(&url, &[]).map(drop))?;

    let load = stranger.start_load(&url, 20, &[])?;
    namespace.apply(
        "{apiVersion: ferrule.dev/v1alpha1, kind: MeshTLS, metadata: {name: closed}, \
         spec: {mode: Strict, quietFor: 10s}}",
    )?;
    let pod = format!("{}/client", elsewhere.name());
    eventually("the stranger is named", SOON, || {
        let status = status(&namespace)?;
        ensure!(reason(&status) == Some("PlaintextClients"), "{status}");
        let listed = status["plaintextClients"].as_array().context("nobody is listed")?;
        let it = listed.iter().find(|each| each["pod"] == pod.as_str());
        let it = it.with_context(|| format!("{pod} is not listed: {status}"))?;
        ensure!(it["port"] == 8080 && it["workload"] == format!("{}/cart", namespace.name()), "{it}");
        Ok(())
    })?;
    // For longer than it would take if nobody came.
    thread::sleep(QUIET_FOR + Duration::from_secs(5));
    let while_waiting = status(&namespace)?;
    ensure!(while_waiting["mode"] == "Permissive", "{while_waiting}");
    let load = load.stop()?;
    load.expect_no_failure()?;
    note(&format!("{} plain requests while Strict waited, none refused", load.requests));

    eventually("Strict takes hold by itself", QUIET_FOR + SOON, || {
        let status = status(&namespace)?;
        ensure!(status["mode"] == "Strict" && reason(&status) == Some("Enforced"), "{status}");
        Ok(())
    })?;
    eventually("the stranger is refused", SOON, || {
        ensure!(stranger.once(&url, &[]).is_err(), "it still gets a response");
        Ok(())
    })?;
    client.echo("http://front/", &[])?;
    eventually("an Event tells", SOON, || {
        let events = namespace.kubectl(&[
            "get",
            "events",
            "--field-selector",
            "reason=StrictTookHold",
            "-o",
            "name",
        ])?;
        ensure!(!events.trim().is_empty(), "there is none");
        Ok(())
    })?;
    // Whoever knocks now opens nothing.
    for _ in 0..20 {
        ensure!(stranger.once(&url, &[]).is_err(), "it is let in again");
        thread::sleep(Duration::from_millis(250));
    }
    let after = status(&namespace)?;
    ensure!(after["mode"] == "Strict", "{after}");
    Ok(())
}

fn status(namespace: &Namespace) -> Result<Value> {
    Ok(namespace.get(&["meshtls", "closed"])?["status"].take())
}

fn reason(status: &Value) -> Option<&str> {
    let conditions = status["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Enforced")?["reason"].as_str()
}
