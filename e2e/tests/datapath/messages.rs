//! gRPC and WebSocket, by the libraries that most applications use: see `proxy/conformance/cmd/talk`.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use ferrule_e2e::{exec::parse, namespace::Namespace, scene::Scene, suite::note};
use serde::Deserialize;

use crate::dialled::{self, Carried};

/// Soaks of a hundred rounds and 128 MiB, on a busy machine.
const LIMIT: Duration = Duration::from_secs(150);

#[derive(Debug, Deserialize)]
struct Findings {
    passed: Vec<String>,
    failed: BTreeMap<String, String>,
}

fn talk(scene: &Scene) -> Result<Namespace> {
    let namespace = scene.namespace("talk", true)?;
    namespace.apply_file("talk.yaml")?;
    for pod in ["talk", "client"] {
        namespace.wait_for_ready(pod)?;
    }
    Ok(namespace)
}

fn ask(namespace: &Namespace, arguments: &[&str]) -> Result<Findings> {
    let exec = [&["exec", "client", "-c", "talk", "--", "/talk"], arguments].concat();
    let output = namespace.kubectl_within(LIMIT, &exec)?;
    parse(output.lines().last().unwrap_or_default())
}

impl Findings {
    fn expect(&self, what: &str, at_least: usize) -> Result<()> {
        ensure!(self.failed.is_empty(), "{what}: {:#?}", self.failed);
        ensure!(self.passed.len() >= at_least, "{what}: only {:?} were asked", self.passed);
        note(&format!("{what}: {} cases passed: {}", self.passed.len(), self.passed.join(", ")));
        Ok(())
    }
}

pub fn grpc_calls_of_every_kind_pass(scene: &Scene) -> Result<()> {
    let namespace = talk(scene)?;
    ask(&namespace, &["grpc", "talk:7000", "talk:7001"])?.expect("gRPC", 27)?;
    for port in [7000, 7001] {
        dialled::expect_passed(&namespace, "client", "talk", "talk", port, Carried::Http2, 2.0)?;
    }
    Ok(())
}

pub fn websocket_messages_pass_both_ways(scene: &Scene) -> Result<()> {
    let namespace = talk(scene)?;
    ask(&namespace, &["websocket", "talk:7002"])?.expect("WebSocket", 14)?;
    dialled::expect_passed(&namespace, "client", "talk", "talk", 7002, Carried::Http1, 14.0)
}
