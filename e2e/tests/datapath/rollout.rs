//! A rollout while everything is under way: HTTP/1, gRPC and TCP.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Result, ensure};
use ferrule_e2e::{
    client::Client, exec::Exec, namespace::Namespace, scene::Scene, suite::note,
    workload::report::LinesReport,
};
use serde::Deserialize;

const RATE: u32 = 100;
const MOMENT: Duration = Duration::from_secs(1);
/// Connections that are kept, and that are opened and ended, over TCP.
const KEPT: u64 = 20;
const SHORT: u64 = 4;

/// What `talk streams` prints.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Streams {
    unary: u64,
    short_streams: u64,
    endless_opened: u64,
    endless_ended: u64,
    messages: u64,
    pods: BTreeMap<String, u64>,
    failures: Vec<String>,
    failed: u64,
}

pub fn a_rollout_under_load_loses_nothing(scene: &Scene) -> Result<()> {
    let namespace = scene.namespace("rolling", true)?;
    namespace.apply_file("rolling.yaml")?;
    namespace.wait_for_rollouts()?;
    namespace.wait_for_ready("client")?;
    let client = Client::new(&namespace, "client");

    let url = "http://rolling:8080/?delay=20ms";
    let kept_alive = client.start_load(url, RATE, &["--concurrency", "8"])?;
    let one_each = client.start_load(url, RATE, &["--concurrency", "8", "--no-keep-alive"])?;
    let streams = Exec::start(&namespace, "client", "talk", &["/talk", "streams", "rolling:7003"])?;
    let (kept, short) = (KEPT.to_string(), SHORT.to_string());
    let options = ["--connections", &kept, "--interval-ms", "50", "--short", &short];
    let lines = client.start_lines("rolling", 9003, &options)?;
    thread::sleep(MOMENT * 2);

    let old = namespace.pod_names("app=rolling")?;
    namespace.kubectl(&["rollout", "restart", "deployment/rolling"])?;
    namespace.wait_for_rollouts()?;
    let new = namespace.pod_names("app=rolling")?;
    thread::sleep(MOMENT * 2);

    // All are stopped before one is judged: what failed in another is worth knowing.
    let (kept_alive, one_each) = (kept_alive.stop(), one_each.stop());
    let (streams, lines) = (streams.stop::<Streams>(), lines.stop::<LinesReport>());
    let (kept_alive, one_each, streams, lines) = (kept_alive?, one_each?, streams?, lines?);
    ensure!(new.iter().all(|pod| !old.contains(pod)), "not restarted: {old:?}, {new:?}");
    note(&format!(
        "rollout of 3 pods: {} and {} requests of HTTP/1 ({} and {} failed); \
         gRPC: {} calls, {} short streams, {} endless ones of which {} were ended by their server, {} messages, {} failed; \
         TCP: {} connections, {} lines, {} goodbyes, {} lost",
        kept_alive.requests,
        one_each.requests,
        kept_alive.failed,
        one_each.failed,
        streams.unary,
        streams.short_streams,
        streams.endless_opened,
        streams.endless_ended,
        streams.messages,
        streams.failed,
        lines.opened,
        lines.lines,
        lines.goodbyes,
        lines.failed,
    ));
    kept_alive.expect_no_failure()?;
    one_each.expect_no_failure()?;
    judge_streams(&streams)?;
    judge_lines(&lines)?;
    for pod in old.iter().chain(&new) {
        let answered = kept_alive.pods.contains_key(pod) && streams.pods.contains_key(pod);
        ensure!(answered && lines.pods.contains_key(pod), "pod {pod} was not asked in all protocols");
    }
    the_mesh_carried_it(&namespace)
}

/// An application saw nothing but what the server's application said.
fn judge_streams(streams: &Streams) -> Result<()> {
    ensure!(streams.failed == 0, "{} of gRPC failed: {:#?}", streams.failed, streams.failures);
    ensure!(streams.unary > 100 && streams.short_streams > 10, "hardly a load: {streams:?}");
    // At least each of the four that ran at first, for all servers went away.
    ensure!(streams.endless_ended >= 4, "endless streams outlived their servers: {streams:?}");
    Ok(())
}

fn judge_lines(lines: &LinesReport) -> Result<()> {
    lines.expect_no_failure()?;
    ensure!(lines.goodbyes >= KEPT, "connections outlived their servers: {lines:?}");
    Ok(())
}

fn the_mesh_carried_it(namespace: &Namespace) -> Result<()> {
    let metrics = namespace.metrics("client")?;
    let service = format!("{}/rolling", namespace.name());
    for protocol in ["http1", "http2", "tcp"] {
        let labels = [("direction", "outbound"), ("service", service.as_str()), ("protocol", protocol)];
        let count = metrics.sum("ferrule_connections_total", &labels);
        ensure!(count > 0.0, "no connection was carried as {protocol}");
    }
    Ok(())
}
