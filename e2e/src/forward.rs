//! A request that comes from inside of a pod, by `kubectl port-forward`: its sidecar tells it more than others.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::namespace::Namespace;

const LIMIT: Duration = Duration::from_secs(10);

/// Gets what a port of a pod answers at a path.
///
/// # Errors
/// When it does not answer with status 200.
pub fn get(namespace: &Namespace, pod: &str, port: u16, path: &str) -> Result<String> {
    let remote = format!(":{port}");
    let arguments = ["--namespace", namespace.name(), "port-forward", pod, &remote];
    let mut command = namespace.cluster().kubectl_command(&arguments);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut forward = Forward(child.context("kubectl port-forward does not start")?);
    let output = forward.0.stdout.take().context("its output is piped")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    // Forwarding from 127.0.0.1:43210 -> 15110
    let address =
        line.split_whitespace().nth(2).with_context(|| format!("kubectl port-forward: {line:?}"))?;
    let mut stream = TcpStream::connect(address).with_context(|| address.to_owned())?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {pod}\r\nconnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").context("no response")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Ok(body.to_owned())
}

/// Ends with the request.
struct Forward(Child);

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
