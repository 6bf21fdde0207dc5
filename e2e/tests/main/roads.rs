//! The road of a request, and that nobody on its ends notices it.

use anyhow::{Result, ensure};
use ferrule_config::names::PROXY_CONTAINER;
use ferrule_e2e::{
    client::Client,
    namespace::Namespace,
    scene::Scene,
    workload::{digest, report::Response},
};

const URL: &str = "http://plain:8080/";
const REQUESTS: u32 = 100;

fn plain(scene: &Scene) -> Result<(Namespace, Client)> {
    let namespace = scene.shared("plain", |namespace| {
        namespace.apply_file("plain.yaml")?;
        namespace.wait_for_ready("plain")?;
        namespace.wait_for_ready("client")
    })?;
    let client = Client::new(&namespace, "client");
    Ok((namespace, client))
}

pub fn requests_pass_both_sidecars_and_are_counted_once(scene: &Scene) -> Result<()> {
    let (namespace, client) = plain(scene)?;
    for pod in ["plain", "client"] {
        let ready = namespace.kubectl(&["get", "pod", pod, "--no-headers"])?;
        ensure!(ready.contains("2/2"), "pod {pod} is not 2/2: {ready}");
        let sidecar = namespace.get(&["pod", pod])?;
        let containers = sidecar["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
        let native = containers
            .iter()
            .any(|container| container["name"] == PROXY_CONTAINER && container["restartPolicy"] == "Always");
        ensure!(native, "pod {pod} has no native sidecar");
    }
    for options in [&["--count", "100"][..], &["--count", "100", "--no-keep-alive"]] {
        let before = counted(&namespace)?;
        client.load(URL, options)?.expect_no_failure()?;
        let after = counted(&namespace)?;
        let increase = (after.0 - before.0, after.1 - before.1);
        let expected = (f64::from(REQUESTS), f64::from(REQUESTS));
        ensure!(increase == expected, "{options:?}: (outbound, inbound) increased by {increase:?}");
    }
    Ok(())
}

fn counted(namespace: &Namespace) -> Result<(f64, f64)> {
    let outbound = namespace.metrics("client")?.sum("ferrule_requests_total", &[("direction", "outbound")]);
    let inbound = namespace.metrics("plain")?.sum("ferrule_requests_total", &[("direction", "inbound")]);
    Ok((outbound, inbound))
}

pub fn applications_see_what_the_other_sent(scene: &Scene) -> Result<()> {
    let (namespace, client) = plain(scene)?;
    let options = [
        "-H",
        "X-MiXeD-Case: 1",
        "-H",
        "accept: a",
        "-H",
        "Accept: b",
        "-H",
        "x-empty:",
        "--body-bytes",
        "3",
    ];
    let response = client.once("http://plain:8080/a%20b?c=d&e", &options)?;
    let echo: ferrule_e2e::workload::report::Echo = serde_json::from_str(&response.body)?;
    ensure!(echo.target == "/a%20b?c=d&e", "target became {:?}", echo.target);
    // Between sidecars requests go as HTTP/2, in which names are in lower case; and the application is told who calls.
    let identity = format!("spiffe://cluster.local/ns/{}/sa/default", namespace.name());
    let told = [
        ("x-forwarded-client-cert".to_owned(), format!("By={identity};URI={identity}")),
        ("ferrule-client".to_owned(), identity),
    ];
    let expected: Vec<_> = lower(&response.sent).into_iter().chain(told).collect();
    ensure!(echo.headers == expected, "sent {:#?}, arrived {:#?}", response.sent, echo.headers);

    // The same server asked from its own pod, where nothing is redirected, tells what it really answers.
    let direct = direct_response(&namespace)?;
    let names = |response: &Response| lower(&response.headers);
    let meshed = client.once("http://plain:8080/?bytes=10", &[])?;
    ensure!(
        names(&meshed) == names(&direct),
        "server sent {:#?}, arrived {:#?}",
        direct.headers,
        meshed.headers
    );
    Ok(())
}

fn lower(headers: &[(String, String)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}

fn direct_response(namespace: &Namespace) -> Result<Response> {
    let exec =
        ["exec", "plain", "-c", "server", "--", "/testclient", "once", "http://127.0.0.1:8080/?bytes=10"];
    Ok(serde_json::from_str(&namespace.kubectl(&exec)?)?)
}

pub fn bodies_of_all_framings_arrive_whole(scene: &Scene) -> Result<()> {
    let (_, client) = plain(scene)?;
    for length in [0, 1, 70_000, 3_000_000] {
        let text = length.to_string();
        let echo = client.echo(URL, &["-X", "POST", "--body-bytes", &text])?;
        let expected = digest::checksum(&digest::pattern(length));
        ensure!((echo.body_length, &echo.body_checksum) == (length, &expected), "of {length}: {echo:?}");
        for framing in ["", "&chunked=1"] {
            let response = client.once(&format!("{URL}?bytes={length}{framing}"), &[])?;
            let arrived = digest::checksum(response.body.as_bytes());
            ensure!(arrived == expected, "of {length} bytes{framing} arrived {}", response.body.len());
        }
    }
    for status in ["204", "304", "404", "503"] {
        let response = client.once(&format!("{URL}?status={status}"), &[])?;
        ensure!(response.status.to_string() == status, "{status} became {}", response.status);
        ensure!(response.header("x-version").is_some(), "{status} is not the server's own: {response:?}");
    }
    let head = client.once(URL, &["-X", "HEAD"])?;
    ensure!(head.body.is_empty() && head.header("content-length").is_some(), "{head:?}");
    Ok(())
}

pub fn a_pod_without_the_mesh_reaches_a_meshed_one(scene: &Scene) -> Result<()> {
    let (meshed, _) = plain(scene)?;
    let outside = scene.namespace("outside", false)?;
    outside.apply_file("plain.yaml")?;
    outside.wait_for_ready("client")?;
    let before = counted(&meshed)?.1;
    let client = Client::new(&outside, "client");
    let url = format!("http://plain.{}:8080/", meshed.name());
    client.load(&url, &["--count", "20"])?.expect_no_failure()?;
    let increase = counted(&meshed)?.1 - before;
    ensure!(increase == 20.0, "inbound increased by {increase}");
    Ok(())
}
