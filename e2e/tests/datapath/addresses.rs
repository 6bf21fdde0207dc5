//! Whatever a name or an address leads to without a mesh, it leads to with it.

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpListener},
    thread,
};

use anyhow::{Context, Result, ensure};
use ferrule_e2e::{client::Client, namespace::Namespace, scene::Scene, suite::note};

use crate::dialled::{cluster_addresses, in_url, pod_addresses};

const SECRETS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The name of the machine in our own cluster's DNS.
const MACHINE: &str = "machine.ferrule.test";
const PODS: [&str; 2] = ["cart-0", "cart-1"];

pub fn names_and_addresses_lead_where_they_say(scene: &Scene) -> Result<()> {
    let namespace = scene.namespace("addresses", true)?;
    namespace.apply_file("addresses.yaml")?;
    namespace.wait_for_rollouts()?;
    for pod in ["client", "on-the-node"] {
        namespace.wait_for_ready(pod)?;
    }
    let client = Client::new(&namespace, "client");
    pods_of_a_stateful_set(&namespace, &client).context("pods of a StatefulSet")?;
    services(&namespace, &client).context("Services")?;
    the_pod_itself(&namespace).context("the pod itself")?;
    the_node(&namespace, &client).context("the node")?;
    the_api_server(&namespace, &client).context("the API server")?;
    datagrams(&namespace, &client).context("UDP and ICMP")?;
    if scene.cluster().is_own() {
        the_outside(&client).context("outside the cluster")
    } else {
        note("addresses outside the cluster: skipped, for they are known of our own cluster only");
        Ok(())
    }
}

/// By name and by address, the pod that is meant answers, in HTTP and in TCP.
fn pods_of_a_stateful_set(namespace: &Namespace, client: &Client) -> Result<()> {
    for pod in PODS {
        let long = format!("{pod}.cart.{}.svc.cluster.local", namespace.name());
        let mut addresses = pod_addresses(namespace, pod)?;
        let resolved: Vec<_> = client.resolve(&long)?.iter().map(IpAddr::to_string).collect();
        ensure!(sorted(resolved.clone()) == sorted(addresses.clone()), "{long}: {resolved:?}, {addresses:?}");
        addresses.extend([long, format!("{pod}.cart")]);
        for host in addresses {
            answers(client, &format!("http://{}:8080/", in_url(&host)), &[pod])?;
            let echo = client.tcp(&host, 9000, &["--send", "by address"])?;
            ensure!(echo.received == "by address" && echo.closed, "{host}: {echo:?}");
            let greeting = client.tcp(&host, 9001, &["--send", "!", "--wait-first"])?;
            ensure!(greeting.received.starts_with("220") && greeting.closed, "{host}: {greeting:?}");
        }
    }
    Ok(())
}

fn services(namespace: &Namespace, client: &Client) -> Result<()> {
    let mut hosts = cluster_addresses(namespace, "front")?;
    hosts.extend(["front", "inside"].map(str::to_owned));
    for host in hosts {
        answers(client, &format!("http://{}/", in_url(&host)), &PODS)?;
    }
    let mut of_both = Vec::new();
    for pod in PODS {
        of_both.extend(pod_addresses(namespace, pod)?);
    }
    let resolved: Vec<_> = client.resolve("cart")?.iter().map(IpAddr::to_string).collect();
    ensure!(sorted(resolved.clone()) == sorted(of_both.clone()), "cart: {resolved:?}, {of_both:?}");
    for address in of_both.iter().map(String::as_str).chain(["cart"]) {
        answers(client, &format!("http://{}:8080/", in_url(address)), &PODS)?;
    }
    Ok(())
}

/// By loopback, by its own addresses, and by a Service with no other endpoint.
fn the_pod_itself(namespace: &Namespace) -> Result<()> {
    let itself = Client::new(namespace, "cart-0");
    let own = pod_addresses(namespace, "cart-0")?;
    for host in own.iter().map(String::as_str).chain(["127.0.0.1", "::1"]) {
        answers(&itself, &format!("http://{}:8080/", in_url(host)), &["cart-0"])?;
        let echo = itself.tcp(host, 9000, &[])?;
        ensure!(echo.received == "hello" && echo.closed, "{host}: {echo:?}");
    }
    let mut hosts = cluster_addresses(namespace, "itself")?;
    hosts.push("itself".to_owned());
    for host in hosts {
        answers(&itself, &format!("http://{}/", in_url(&host)), &["cart-0"])?;
        let echo = itself.tcp(&host, 9000, &[])?;
        ensure!(echo.received == "hello" && echo.closed, "{host}: {echo:?}");
    }
    Ok(())
}

/// A program on it, and a Service's port on it.
fn the_node(namespace: &Namespace, client: &Client) -> Result<()> {
    let gate = namespace.get(&["service", "gate"])?;
    let port = gate["spec"]["ports"][0]["nodePort"].as_u64().context("a port on the node")?;
    for address in pod_addresses(namespace, "on-the-node")? {
        answers(client, &format!("http://{}:28080/", in_url(&address)), &["on-the-node"])?;
        answers(client, &format!("http://{}:{port}/", in_url(&address)), &PODS)?;
    }
    Ok(())
}

/// With the pod's own token, by name and by address: it knows who asks.
fn the_api_server(namespace: &Namespace, client: &Client) -> Result<()> {
    let (ca, token) = (format!("{SECRETS}/ca.crt"), format!("{SECRETS}/token"));
    let options = ["--ca", ca.as_str(), "--bearer-file", token.as_str()];
    let address = namespace.cluster().get(&["--namespace", "default", "service", "kubernetes"])?;
    let address = address["spec"]["clusterIP"].as_str().context("a cluster address")?.to_owned();
    for host in ["kubernetes.default.svc", &address] {
        let version = client.once(&format!("https://{host}/version"), &options)?;
        ensure!(version.status == 200 && version.body.contains("gitVersion"), "{host}: {version:?}");
        let url = format!("https://{host}/api/v1/namespaces/{}/secrets", namespace.name());
        let refused = client.once(&url, &options)?;
        let who = format!("system:serviceaccount:{}:default", namespace.name());
        ensure!(refused.status == 403 && refused.body.contains(&who), "{host}: {refused:?}");
    }
    Ok(())
}

/// They go on as if there were no mesh, to Services and pods. That names are resolved is UDP as well.
fn datagrams(namespace: &Namespace, client: &Client) -> Result<()> {
    let mut hosts = cluster_addresses(namespace, "front")?;
    for pod in PODS {
        hosts.extend(pod_addresses(namespace, pod)?);
    }
    for host in hosts {
        let echo = client.datagram(&host, Some(9002), "by UDP")?;
        ensure!(echo.received == "by UDP" && same(&echo.from, &host), "{host}: {echo:?}");
    }
    let mut hosts = pod_addresses(namespace, "on-the-node")?;
    for pod in PODS {
        hosts.extend(pod_addresses(namespace, pod)?);
    }
    for host in hosts {
        let reply = client.datagram(&host, None, "by ICMP").with_context(|| format!("ping {host}"))?;
        ensure!(reply.received == "by ICMP", "ping {host}: {reply:?}");
    }
    Ok(())
}

/// The machine that the cluster runs on is outside of it.
fn the_outside(client: &Client) -> Result<()> {
    let port = serve_outside()?;
    let addresses = client.resolve(MACHINE)?;
    ensure!(addresses.len() == 2, "{MACHINE}: {addresses:?}");
    let addresses = addresses.iter().map(IpAddr::to_string);
    for host in addresses.chain([MACHINE.to_owned(), "outside".to_owned()]) {
        let response = client.once(&format!("http://{}:{port}/", in_url(&host)), &[])?;
        ensure!(response.status == 200 && response.body == OUTSIDE, "{host}: {response:?}");
    }
    Ok(())
}

const OUTSIDE: &str = "from outside the cluster";

/// A server of HTTP on the machine, until the tests end; gives its port.
fn serve_outside() -> Result<u16> {
    let listener = TcpListener::bind("[::]:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut head = Vec::new();
                let mut part = [0; 1024];
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut part) {
                        Ok(0) | Err(_) => return,
                        Ok(length) => head.extend_from_slice(&part[..length]),
                    }
                }
                let length = OUTSIDE.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{OUTSIDE}"
                );
                // A client that has gone is told nothing; it sees that for itself.
                let _ = stream.write_all(answer.as_bytes());
            });
        }
    });
    Ok(port)
}

/// Every one of some requests, over connections of their own, is answered by one of these pods.
fn answers(client: &Client, url: &str, pods: &[&str]) -> Result<()> {
    let summary = client.load(url, &["--count", "10", "--no-keep-alive"]).with_context(|| url.to_owned())?;
    summary.expect_no_failure().with_context(|| url.to_owned())?;
    let others: Vec<_> = summary.pods.keys().filter(|pod| !pods.contains(&pod.as_str())).collect();
    ensure!(others.is_empty(), "{url}: answered by {others:?}, not {pods:?}");
    Ok(())
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort_unstable();
    list
}

/// Whether two texts are the same address.
fn same(a: &str, b: &str) -> bool {
    a.parse::<IpAddr>().ok() == b.parse().ok()
}
