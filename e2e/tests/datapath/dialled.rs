//! What both sidecars say of the connections between them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferrule_e2e::{namespace::Namespace, wait::eventually};

/// As what connections were carried.
#[derive(Clone, Copy)]
pub enum Carried {
    Tcp,
    Http1,
    Http2,
}

impl Carried {
    fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }
}

/// Connections that a sidecar has carried as this.
pub fn connections(
    namespace: &Namespace,
    pod: &str,
    direction: &str,
    service: &str,
    carried: Carried,
) -> Result<f64> {
    let labels = [("direction", direction), ("service", service), ("protocol", carried.label())];
    Ok(namespace.metrics(pod)?.sum("ferrule_connections_total", &labels))
}

/// Refuses traffic that one of the two sidecars did not see, or took for something else.
pub fn expect_passed(
    namespace: &Namespace,
    client: &str,
    service: &str,
    server: &str,
    port: u16,
    carried: Carried,
    at_least: f64,
) -> Result<()> {
    let service = format!("{}/{service}", namespace.name());
    // A connection is counted when it is known what it carries, which may be after its client has gone.
    eventually("both sidecars counted the connections", Duration::from_secs(5), || {
        let there = connections(namespace, client, "outbound", &service, carried)?;
        ensure!(there >= at_least, "the client's sidecar counted {there} connections to {service}");
        let here = connections(namespace, server, "inbound", &format!("port-{port}"), carried)?;
        ensure!(here >= 1.0, "the server's sidecar counted {here} connections to port {port}");
        Ok(())
    })
}

/// A Service's own addresses, of both families where the cluster has both.
pub fn cluster_addresses(namespace: &Namespace, service: &str) -> Result<Vec<String>> {
    strings(&namespace.get(&["service", service])?["spec"]["clusterIPs"])
}

/// A pod's addresses.
pub fn pod_addresses(namespace: &Namespace, pod: &str) -> Result<Vec<String>> {
    let pod = namespace.get(&["pod", pod])?;
    let addresses = pod["status"]["podIPs"].as_array().context("a pod has addresses")?;
    strings(&addresses.iter().map(|address| address["ip"].clone()).collect())
}

fn strings(list: &serde_json::Value) -> Result<Vec<String>> {
    let list = list.as_array().context("a list")?;
    list.iter().map(|value| Ok(value.as_str().context("a text")?.to_owned())).collect()
}

/// An address as it stands in a URL.
pub fn in_url(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}
