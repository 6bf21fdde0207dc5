//! `testclient` in a pod, run through `kubectl exec`.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdin, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;

use crate::{
    namespace::Namespace,
    wait::eventually,
    workload::report::{Echo, Response, Summary, TcpReport, Transition},
};

const STOP_LIMIT: Duration = Duration::from_secs(30);

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

    fn run<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let exec = [&["exec", &self.pod, "-c", "client", "--", "/testclient"], arguments].concat();
        let output = self.namespace.kubectl(&exec)?;
        parse(output.lines().last().unwrap_or_default())
    }

    fn start(&self, mode: &str, url: &str, rate: u32, options: &[&str]) -> Result<Load> {
        let rate_text = rate.to_string();
        let fixed = [
            "--namespace",
            self.namespace.name(),
            "exec",
            "-i",
            &self.pod,
            "-c",
            "client",
            "--",
            "/testclient",
            mode,
            url,
            "--until-stdin-ends",
            "--rate",
            &rate_text,
        ];
        let mut command = self.namespace.cluster().kubectl_command(&[&fixed, options].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting kubectl exec")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stdout = child.stdout.take().context("standard output is piped")?;
        let mut stderr = child.stderr.take().context("standard error is piped")?;
        let sink = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                sink.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line);
            }
        });
        let complaints = thread::spawn(move || {
            let mut text = String::new();
            // What came in before an error is still worth showing.
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Ok(Load {
            stdin: child.stdin.take(),
            child,
            lines,
            reader: Some(reader),
            complaints: Some(complaints),
            started: Instant::now(),
            rate,
        })
    }
}

/// A load that runs until it is stopped.
pub struct Load {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    complaints: Option<JoinHandle<String>>,
    started: Instant,
    rate: u32,
}

impl Load {
    /// Transitions seen so far, by `watch-split`.
    #[must_use]
    pub fn transitions(&self) -> Vec<Transition> {
        let lines = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
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
    pub fn stop(mut self) -> Result<Summary> {
        let elapsed = self.started.elapsed();
        drop(self.stdin.take());
        let ended = eventually("end of the load", STOP_LIMIT, || match self.child.try_wait()? {
            Some(status) => Ok(status),
            None => bail!("kubectl exec still runs"),
        })?;
        join(self.reader.take());
        let complaints = self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        ensure!(ended.success(), "testclient failed: {complaints}");
        let lines = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let summary: Summary = parse(lines.last().map_or("", String::as_str))?;
        let expected = elapsed.as_secs_f64() * f64::from(self.rate) / 2.0;
        #[allow(clippy::cast_precision_loss, reason = "requests of a test")]
        let sent = summary.requests as f64;
        ensure!(sent >= expected, "only {sent} requests were sent in {elapsed:?}: {summary:?}");
        Ok(summary)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Already ended unless the test failed on its way to `stop`; then there is nothing more to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread {
        // A reader does not panic.
        let _ = thread.join();
    }
}

fn parse<T: DeserializeOwned>(line: &str) -> Result<T> {
    serde_json::from_str(line).with_context(|| format!("testclient printed {line:?}"))
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
