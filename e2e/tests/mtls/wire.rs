//! What somebody sees who listens on the way.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ferrule_e2e::{scene::Scene, suite::note};

const SECONDS: u64 = 4;
/// Nothing else on the node says it.
const MARKER: &str = "a-marker-that-nobody-else-says";

/// All that passes the node's network is kept while a marker goes from one pod to another, in both directions, by the
/// Service's address and by the pod's.
pub fn nothing_that_pods_say_can_be_read_on_the_wire(scene: &Scene) -> Result<()> {
    let (namespace, client) = super::meshed(scene)?;
    if !scene.cluster().is_own() {
        note("skipped: packets are caught on our own cluster's node only");
        return Ok(());
    }
    let outside = scene.namespace("mtls-plain", false)?;
    outside.apply_file("mtls.yaml")?;
    outside.wait_for_rollouts()?;
    outside.wait_for_ready("client")?;
    let meshed = |url: &str| client.echo(url, &["-H", &format!("x-marker: {MARKER}")]).map(drop);
    let caught = caught(scene, || {
        for _ in 0..20 {
            meshed(&format!("http://front/?marker={MARKER}"))?;
            meshed(&format!("http://cart-0.cart:8080/?marker={MARKER}"))?;
        }
        Ok(())
    })?;
    ensure!(caught.bytes > 20_000, "only {} bytes were caught", caught.bytes);
    ensure!(caught.markers == 0, "the marker was seen {} times in {} bytes", caught.markers, caught.bytes);
    // The same without a mesh is seen: whoever catches nothing proves nothing.
    let plain = self::caught(scene, || {
        let client = ferrule_e2e::client::Client::new(&outside, "client");
        client.echo(&format!("http://front/?marker={MARKER}"), &[]).map(drop)
    })?;
    ensure!(plain.markers > 0, "the control was not seen in {} bytes", plain.bytes);
    let metrics = namespace.metrics("client")?;
    let shakes = metrics.sum("ferrule_tls_handshakes_total", &[("direction", "outbound")]);
    note(&format!(
        "{} bytes caught, the marker in none; without the mesh {} times in {}; {shakes} handshakes",
        caught.bytes, plain.markers, plain.bytes
    ));
    Ok(())
}

struct Caught {
    bytes: u64,
    markers: u64,
}

fn caught(scene: &Scene, talk: impl FnOnce() -> Result<()>) -> Result<Caught> {
    let script = scene.cluster().file("e2e/cluster/in-node.sh");
    let mut capture = Command::new(script);
    capture.args(["1", env!("CARGO_BIN_EXE_capture"), &SECONDS.to_string(), MARKER]);
    let capture = capture.stdout(Stdio::piped()).spawn().context("starting the capture")?;
    std::thread::sleep(Duration::from_millis(500));
    let talked = talk();
    let output = capture.wait_with_output()?;
    talked?;
    let text = String::from_utf8(output.stdout)?;
    let (bytes, markers) =
        text.trim().split_once(' ').with_context(|| format!("capture printed {text:?}"))?;
    Ok(Caught { bytes: bytes.parse()?, markers: markers.parse()? })
}
