//! Connections that live long, and how they end.

use std::time::Duration;

use anyhow::{Result, ensure};
use ferrule_e2e::{client::Client, namespace::Namespace, scene::Scene, suite::note, wait::eventually};

use crate::dialled::{self, Carried};

const PORT: u16 = 9003;
const CONNECTIONS: u64 = 500;
/// At 0, 10, … 50 s, and at 60 s if the client comes to it.
const LINES_EACH: u64 = 6;

fn kept(scene: &Scene) -> Result<(Namespace, Client)> {
    let namespace = scene.namespace("kept", true)?;
    namespace.apply_file("kept.yaml")?;
    for pod in ["kept", "client"] {
        namespace.wait_for_ready(pod)?;
    }
    let client = Client::new(&namespace, "client");
    Ok((namespace, client))
}

pub fn five_hundred_connections_live_for_a_minute(scene: &Scene) -> Result<()> {
    let (namespace, client) = kept(scene)?;
    let before = memory(&namespace)?;
    let options = ["--connections", "500", "--interval-ms", "10000", "--seconds", "60"];
    let load = client.lines("kept", PORT, &options);
    let after = memory(&namespace)?;
    note(&format!("500 connections for a minute; memory of the sidecars before {before}, after {after}"));
    let report = load?;
    report.expect_no_failure()?;
    ensure!(report.opened == CONNECTIONS, "{} connections for {CONNECTIONS}: some began anew", report.opened);
    ensure!(report.goodbyes == 0, "{} were ended by the server", report.goodbyes);
    ensure!(report.lines >= CONNECTIONS * LINES_EACH, "only {} lines came back", report.lines);
    dialled::expect_passed(&namespace, "client", "kept", "kept", PORT, Carried::Tcp, 500.0)
}

/// Resident memory of both sidecars, as the kubelet tells it.
fn memory(namespace: &Namespace) -> Result<String> {
    let pods = ["client", "kept"].map(|pod| (pod, namespace.sidecar_memory(pod)));
    let shown = |(pod, memory): (&str, Result<Option<u64>>)| {
        let memory = memory?.map_or_else(|| "unknown".to_owned(), |bytes| format!("{} KiB", bytes / 1024));
        Ok(format!("{pod} {memory}"))
    };
    Ok(pods.into_iter().map(shown).collect::<Result<Vec<_>>>()?.join(", "))
}

pub fn each_side_may_end_its_half_of_a_connection(scene: &Scene) -> Result<()> {
    let (_, client) = kept(scene)?;
    // The client's half first.
    let echo = client.tcp("kept", 9000, &["--send", "the answer comes after this half has ended"])?;
    ensure!(echo.received.ends_with("has ended") && echo.closed, "{echo:?}");
    // The server's half first: what comes after its goodbye still arrives.
    let report = client.lines("kept", PORT, &["--goodbye", "--connections", "3"])?;
    report.expect_no_failure()?;
    ensure!(report.goodbyes == 3, "{report:?}");
    eventually("what was sent after 3 goodbyes, 2 lines each, has arrived", Duration::from_secs(5), || {
        let late = client.tcp("kept", PORT, &["--send", "late\n"])?;
        ensure!(late.received == "kept 6\n", "the server answers {:?}", late.received);
        Ok(())
    })
}
