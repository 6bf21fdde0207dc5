//! Traffic that is no HTTP request to a Service's first address.

use anyhow::{Context, Result, ensure};
use ferrule_e2e::{
    scene::Scene,
    shop::{Shop, split},
    suite::note,
    workload::tcp::GREETING,
};

const CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

pub fn tcp_passes_whoever_speaks_first(scene: &Scene) -> Result<()> {
    let shop = Shop::shared(scene)?;
    let client = shop.client()?;
    for text in ["hello\n", "\u{1}\u{2} binary", "GET is how this line begins, but it is no HTTP\r\n"] {
        let echo = client.tcp("reviews", 9000, &["--send", text])?;
        ensure!(echo.received == text && echo.closed, "sent {text:?}, got {echo:?}");
    }
    let greeting = client.tcp("reviews", 9001, &["--send", "bye", "--wait-first"])?;
    ensure!(greeting.received == format!("{GREETING}bye") && greeting.closed, "{greeting:?}");
    let first_byte = greeting.first_byte_ms.context("no first byte")?;
    ensure!(first_byte < 500, "a server that speaks first was held up for {first_byte} ms");
    note(&format!("first byte of a server that speaks first after {first_byte} ms"));

    let metrics = shop.metrics(client.pod())?;
    let service = format!("{}/reviews", shop.name());
    let counted =
        metrics.sum("ferrule_connections_total", &[("direction", "outbound"), ("service", &service)]);
    ensure!(counted >= 4.0, "the client's sidecar counted {counted} connections to {service}");
    Ok(())
}

pub fn an_ipv6_service_address_is_meshed(scene: &Scene) -> Result<()> {
    let shop = Shop::shared(scene)?;
    let service = shop.get(&["service", "reviews"])?;
    let addresses = service["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
    let address =
        addresses.iter().filter_map(|address| address.as_str()).find(|address| address.contains(':'));
    let Some(address) = address else {
        note("skipped: this cluster's Services have no IPv6 address");
        return Ok(());
    };
    shop.route_and_wait(&split(0, 100), "v2")?;
    let client = shop.client()?;
    let summary = client.load(&format!("http://[{address}]:8080/"), &["--count", "50"])?;
    summary.expect_no_failure()?;
    ensure!(
        summary.versions.get("v2") == Some(&50),
        "the Route is not obeyed at {address}: {:?}",
        summary.versions
    );
    let echo = client.tcp(address, 9000, &[])?;
    ensure!(echo.received == "hello", "{echo:?}");
    Ok(())
}

pub fn pod_addresses_and_the_api_server_are_reachable(scene: &Scene) -> Result<()> {
    let shop = Shop::shared(scene)?;
    let client = shop.client()?;
    let pods = shop.pods("app=reviews,version=v1")?;
    let pod = pods.first().context("no pod of v1")?;
    for address in pod["status"]["podIPs"].as_array().cloned().unwrap_or_default() {
        let address = address["ip"].as_str().context("an address")?;
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let summary = client.load(&format!("http://{host}:8080/"), &["--count", "20"])?;
        summary.expect_no_failure()?;
        ensure!(summary.versions.get("v1") == Some(&20), "{address}: {:?}", summary.versions);
    }
    let version = client.once("https://kubernetes.default.svc/version", &["--ca", CA])?;
    ensure!(
        version.body.contains("gitVersion") || version.status == 401 || version.status == 403,
        "{version:?}"
    );
    Ok(())
}
