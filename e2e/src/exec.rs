//! A program in a pod that runs until its standard input ends, through `kubectl exec`.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdin, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;

use crate::{namespace::Namespace, wait::eventually};

const STOP_LIMIT: Duration = Duration::from_secs(40);

/// The program; killed when this is dropped before [`Exec::stop`].
pub struct Exec {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    complaints: Option<JoinHandle<String>>,
}

impl Exec {
    /// Starts a command in a pod's container.
    ///
    /// # Errors
    /// When kubectl can't be started.
    pub fn start(namespace: &Namespace, pod: &str, container: &str, program: &[&str]) -> Result<Self> {
        let fixed = ["--namespace", namespace.name(), "exec", "-i", pod, "-c", container, "--"];
        let mut command = namespace.cluster().kubectl_command(&[&fixed, program].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting kubectl exec")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stdout = child.stdout.take().context("standard output is piped")?;
        let mut stderr = child.stderr.take().context("standard error is piped")?;
        let sink = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                lock(&sink).push(line);
            }
        });
        let complaints = thread::spawn(move || {
            let mut text = String::new();
            // What came in before an error is still worth showing.
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            lines,
            reader: Some(reader),
            complaints: Some(complaints),
        })
    }

    /// Lines that it has printed so far and that can be read as this.
    #[must_use]
    pub fn printed<T: DeserializeOwned>(&self) -> Vec<T> {
        lock(&self.lines).iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Ends its input and gives the last line that it prints.
    ///
    /// # Errors
    /// When it fails, or does not end within 40 s.
    pub fn stop<T: DeserializeOwned>(mut self) -> Result<T> {
        drop(self.stdin.take());
        let ended = eventually("end of the program", STOP_LIMIT, || match self.child.try_wait()? {
            Some(status) => Ok(status),
            None => bail!("kubectl exec still runs"),
        })?;
        if let Some(reader) = self.reader.take() {
            // A reader does not panic.
            let _ = reader.join();
        }
        let complaints = self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        ensure!(ended.success(), "the program in the pod failed: {complaints}");
        parse(lock(&self.lines).last().map_or("", String::as_str))
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        // Already ended unless the test failed on its way to `stop`; then there is nothing more to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a line that a test program printed.
///
/// # Errors
/// When it is something else.
pub fn parse<T: DeserializeOwned>(line: &str) -> Result<T> {
    serde_json::from_str(line).with_context(|| format!("the test program printed {line:?}"))
}

fn lock(lines: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}
