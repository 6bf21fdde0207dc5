//! Programs that the benchmark starts: pinned to a processor, ended when they are dropped, and by the kernel when the
//! benchmark itself is killed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;

/// The processor of the proxy under test.
pub const PROXY_CPU: usize = 0;
/// The processor of load and backend.
pub const LOAD_CPU: usize = 1;

/// How to start a program.
#[derive(Debug, Default)]
pub struct Program {
    /// Its binary.
    pub binary: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables on top of those of the benchmark.
    pub environment: Vec<(String, String)>,
}

impl Program {
    /// A command that becomes this program, with its process id, on this processor.
    ///
    /// `taskset` and `setpriv` are in util-linux and replace themselves by the program.
    #[must_use]
    pub fn command(&self, processor: usize) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "taskset", "--cpu-list", &processor.to_string()]);
        command.arg(&self.binary).args(&self.arguments).envs(self.environment.iter().cloned());
        command
    }
}

/// A program that runs; dropping it ends it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a program; what it prints goes to the file `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Program, processor: usize, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let child = program
            .command(processor)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("starting setpriv; it is in Debian's util-linux")?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When it has ended, with what it printed last.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("it ended ({status}): {}", self.last_words()),
        }
    }

    /// The end of what it printed.
    #[must_use]
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
