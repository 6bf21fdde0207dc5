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
    // It stays open: kubectl writes of each connection there, and ends if nobody would read it.
    let mut output = BufReader::new(output);
    let mut line = String::new();
    output.read_line(&mut line)?;
    // Forwarding from 127.0.0.1:43210 -> 15110
    let address =
        line.split_whitespace().nth(2).with_context(|| format!("kubectl port-forward: {line:?}"))?;
    let mut stream = TcpStream::connect(address).with_context(|| address.to_owned())?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {pod}\r\n\r\n").as_bytes())?;
    // Not to the end: the connection is kept alive.
    let mut response = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let line = head.len();
        ensure!(response.read_line(&mut head)? > 0, "the response breaks off: {head:?}");
        if let Some(value) = head[line..].to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().with_context(|| head.clone())?;
        }
    }
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut body = vec![0; length];
    response.read_exact(&mut body)?;
    Ok(String::from_utf8(body)?)
}

/// Ends with the request.
struct Forward(Child);

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
