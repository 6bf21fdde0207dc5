//! `testclient` in a pod, run through `kubectl exec`.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;

use crate::{
    exec::{Exec, parse},
    namespace::Namespace,
    wait::eventually,
    workload::report::{DatagramReport, Echo, LinesReport, Response, Summary, TcpReport, Transition},
};

const CONTAINER: &str = "client";

/// A pod with a container `client`.
#[derive(Clone, Debug)]
pub struct Client {
    namespace: Namespace,
    pod: String,
}

impl Client {
    /// The client in this pod.
    #[must_use]
    pub fn new(namespace: &Namespace, pod: &str) -> Self {
        Self { namespace: namespace.clone(), pod: pod.to_owned() }
    }

    /// Name of the pod.
    #[must_use]
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// Sends one request.
    ///
    /// # Errors
    /// When there is no response; its status does not matter.
    pub fn once(&self, url: &str, options: &[&str]) -> Result<Response> {
        self.run(&[&["once", url], options].concat())
    }

    /// Sends one request to a `testserver` and gives its echo.
    ///
    /// # Errors
    /// When there is no good response.
    pub fn echo(&self, url: &str, options: &[&str]) -> Result<Echo> {
        let response = self.once(url, options)?;
        ensure!(response.status == 200, "status {}: {response:?}", response.status);
        serde_json::from_str(&response.body).with_context(|| format!("no echo: {:?}", response.body))
    }

    /// Sends requests until the options' end and gives the summary.
    ///
    /// # Errors
    /// When the client fails; failed requests are in the summary.
    pub fn load(&self, url: &str, options: &[&str]) -> Result<Summary> {
        self.run(&[&["load", url], options].concat())
    }

    /// Talks TCP.
    ///
    /// # Errors
    /// When there is no connection.
    pub fn tcp(&self, host: &str, port: u16, options: &[&str]) -> Result<TcpReport> {
        self.run(&[&["tcp", host, &port.to_string()], options].concat())
    }

    /// Starts to send this many requests a second.
    ///
    /// # Errors
    /// When kubectl can't be started.
    pub fn start_load(&self, url: &str, rate: u32, options: &[&str]) -> Result<Load> {
        self.start("load", url, rate, options)
    }

    /// Starts to send this many requests a second and to note each change of the version that answers.
    ///
    /// # Errors
    /// When kubectl can't be started.
    pub fn watch_split(&self, url: &str, rate: u32, options: &[&str]) -> Result<Load> {
        self.start("watch-split", url, rate, options)
    }

    /// Keeps TCP connections that say lines until the options' end, and tells how they fared.
    ///
    /// # Errors
    /// When the client fails; lost connections are in the report.
    pub fn lines(&self, host: &str, port: u16, options: &[&str]) -> Result<LinesReport> {
        self.run(&[&["lines", host, &port.to_string()], options].concat())
    }

    /// Starts to keep TCP connections that say lines.
    ///
    /// # Errors
    /// When kubectl can't be started.
    pub fn start_lines(&self, host: &str, port: u16, options: &[&str]) -> Result<Exec> {
        let port = port.to_string();
        let fixed = ["/testclient", "lines", host, &port, "--until-stdin-ends"];
        Exec::start(&self.namespace, &self.pod, CONTAINER, &[&fixed, options].concat())
    }

    /// Sends a datagram, to a UDP port or as ICMP echo request, and gives what came back.
    ///
    /// # Errors
    /// When nothing does.
    pub fn datagram(&self, host: &str, port: Option<u16>, text: &str) -> Result<DatagramReport> {
        let port = port.map(|port| port.to_string());
        let port: Vec<&str> = port.iter().map(String::as_str).collect();
        self.run(&[&["datagram", "--send", text, host], port.as_slice()].concat())
    }

    /// All addresses of a name, as the pod sees them; IPv4 first.
    ///
    /// # Errors
    /// When there is none.
    pub fn resolve(&self, host: &str) -> Result<Vec<IpAddr>> {
        self.run(&["resolve", host])
    }

    fn run<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let exec = [&["exec", &self.pod, "-c", CONTAINER, "--", "/testclient"], arguments].concat();
        // Longer than the longest that a program is told to run.
        let output = self.namespace.kubectl_within(Duration::from_secs(120), &exec)?;
        parse(output.lines().last().unwrap_or_default())
    }

    fn start(&self, mode: &str, url: &str, rate: u32, options: &[&str]) -> Result<Load> {
        let rate_text = rate.to_string();
        let fixed = ["/testclient", mode, url, "--until-stdin-ends", "--rate", &rate_text];
        let exec = Exec::start(&self.namespace, &self.pod, CONTAINER, &[&fixed, options].concat())?;
        Ok(Load { exec, started: Instant::now(), rate })
    }
}

/// A load that runs until it is stopped.
pub struct Load {
    exec: Exec,
    started: Instant,
    rate: u32,
}

impl Load {
    /// Transitions seen so far, by `watch-split`.
    #[must_use]
    pub fn transitions(&self) -> Vec<Transition> {
        self.exec.printed()
    }

    /// Waits for the first response, as `watch-split` tells it.
    ///
    /// # Errors
    /// When there is none within 10 s.
    pub fn wait_for_first(&self) -> Result<()> {
        eventually("first response", Duration::from_secs(10), || {
            ensure!(!self.transitions().is_empty(), "none yet");
            Ok(())
        })
    }

    /// Ends the load and gives its summary.
    ///
    /// # Errors
    /// When the client fails, or sent less than half of what it was told to.
    pub fn stop(self) -> Result<Summary> {
        let elapsed = self.started.elapsed();
        let summary: Summary = self.exec.stop()?;
        let expected = elapsed.as_secs_f64() * f64::from(self.rate) / 2.0;
        #[allow(clippy::cast_precision_loss, reason = "requests of a test")]
        let sent = summary.requests as f64;
        ensure!(sent >= expected, "only {sent} requests were sent in {elapsed:?}: {summary:?}");
        Ok(summary)
    }
}

impl LinesReport {
    /// Refuses a report with lost connections, or with none at all.
    ///
    /// # Errors
    /// The failures.
    pub fn expect_no_failure(&self) -> Result<()> {
        ensure!(self.opened > 0 && self.lines > 0, "no connection was opened: {self:#?}");
        let first: Vec<_> = self.failures.iter().take(3).collect();
        ensure!(
            self.failed == 0,
            "{} of {} connections were lost, first {first:#?}",
            self.failed,
            self.opened
        );
        Ok(())
    }
}

impl Summary {
    /// Refuses a summary with failed requests, or with none at all.
    ///
    /// # Errors
    /// The failures.
    pub fn expect_no_failure(&self) -> Result<()> {
        ensure!(self.requests > 0, "no request was sent");
        let first: Vec<_> = self.failures.iter().take(3).collect();
        ensure!(self.failed == 0, "{} of {} requests failed, first {first:#?}", self.failed, self.requests);
        Ok(())
    }
}
