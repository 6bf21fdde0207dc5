//! Programs run to their end, within a limit.

use std::{
    ffi::OsString,
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

const POLL: Duration = Duration::from_millis(5);

/// A program with arguments.
pub struct Call {
    command: Command,
    shown: String,
    input: Option<String>,
    limit: Duration,
}

/// What a program left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Whether its exit code was 0.
    pub success: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Call {
    /// A call that may take a minute.
    #[must_use]
    pub fn new(program: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        let name = program.file_name().map(OsString::from).unwrap_or_default();
        let shown = format!("{} {}", name.to_string_lossy(), arguments.join(" "));
        Self { command, shown, input: None, limit: Duration::from_secs(60) }
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &Path) -> Self {
        self.command.env(name, value);
        self
    }

    /// Gives the program this text on its standard input.
    #[must_use]
    pub fn input(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self
    }

    /// Sets how long it may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs the program and gives its standard output.
    ///
    /// # Errors
    /// When it can't be started, ends with another exit code than 0, or takes too long.
    pub fn run(self) -> Result<String> {
        let shown = self.shown.clone();
        let finished = self.finish()?;
        if !finished.success {
            bail!("`{shown}` failed: {}{}", finished.stderr.trim(), last_lines(&finished.stdout));
        }
        Ok(finished.stdout)
    }

    /// Runs the program, whatever its exit code.
    ///
    /// # Errors
    /// When it can't be started or takes too long.
    pub fn finish(mut self) -> Result<Finished> {
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().with_context(|| format!("starting `{}`", self.shown))?;
        let stdout = child.stdout.take().map(collect).context("standard output is piped")?;
        let stderr = child.stderr.take().map(collect).context("standard error is piped")?;
        if let (Some(input), Some(mut pipe)) = (self.input, child.stdin.take()) {
            pipe.write_all(input.as_bytes()).with_context(|| format!("writing to `{}`", self.shown))?;
        }
        let deadline = Instant::now() + self.limit;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() >= deadline {
                child.kill()?;
                child.wait()?;
                bail!(
                    "`{}` took longer than {:?}: {}",
                    self.shown,
                    self.limit,
                    stderr.join().unwrap_or_default()
                );
            }
            thread::sleep(POLL);
        };
        Ok(Finished {
            success: status.success(),
            stdout: stdout.join().unwrap_or_default(),
            stderr: stderr.join().unwrap_or_default(),
        })
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came in before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].iter().map(|line| format!("\n{line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_exit_code_are_told_apart() {
        let shell = Path::new("/bin/sh");
        assert_eq!(Call::new(shell, &["-c", "cat"]).input("x").run().expect("runs"), "x");
        let error = Call::new(shell, &["-c", "echo why >&2; exit 3"]).run().expect_err("exit code 3");
        assert!(error.to_string().contains("why"), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let call = Call::new(Path::new("/bin/sleep"), &["60"]).limit(Duration::from_millis(50));
        assert!(call.run().expect_err("too long").to_string().contains("took longer"));
    }
}
