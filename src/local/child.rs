//! Programs that `ferrule local` starts, and that must not outlive it.
//!
//! Each gets a process group of its own, so that Ctrl-C reaches `ferrule local` alone, which then stops them in
//! order: applications first, their proxies after them. Should `ferrule local` be killed without a chance to do
//! so, Linux ends them: each is started by way of [`exec`], which asks the kernel for a signal on the parent's
//! death before it turns into the program.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::Stdio,
    time::Duration,
};

use futures::future::{join_all, select_all};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child as TokioChild, Command},
    time::timeout,
};

/// How long a program may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(3);

/// A running program. Dropping it kills its process group.
#[derive(Debug)]
pub struct Child {
    name: String,
    child: TokioChild,
}

impl Child {
    /// Starts a program whose output appears on ours, each line after `[name]`.
    ///
    /// # Errors
    /// When it can't be started; the cause names the program.
    pub fn start(
        name: &str,
        command: &[OsString],
        directory: &Path,
        environment: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> io::Result<Self> {
        let mut wrapped = wrapped(command)?;
        wrapped.current_dir(directory).envs(environment).process_group(0);
        wrapped.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Command::from(wrapped).kill_on_drop(true).spawn()?;
        if let Some(output) = child.stdout.take() {
            tokio::spawn(forward(name.to_owned(), output));
        }
        if let Some(output) = child.stderr.take() {
            tokio::spawn(forward(name.to_owned(), output));
        }
        Ok(Self { name: name.to_owned(), child })
    }

    /// Asks it to end, waits, and kills it if it does not.
    async fn stop(mut self) {
        self.signal(Signal::TERM);
        if timeout(GRACE, self.child.wait()).await.is_err() {
            super::say(&format!("killed    {}: it did not end within {GRACE:?}", self.name));
        }
    }

    fn signal(&self, signal: Signal) {
        // Once its end was noticed, the system may give its number to another program.
        let running = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(group) = running {
            // It may have ended a moment ago: then there is nobody to tell.
            kill_process_group(group, signal).ok();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Programs that belong together.
#[derive(Debug, Default)]
pub struct Group(Vec<Child>);

impl Group {
    /// Takes in a program.
    pub fn push(&mut self, child: Child) {
        self.0.push(child);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none, or none any more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits until one ends, and says which and how. Never, when there is none. A call that is dropped loses
    /// nothing.
    pub async fn exited(&mut self) -> (String, String) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let waits = self.0.iter_mut().map(|child| Box::pin(child.child.wait()));
        let (status, index, _) = select_all(waits).await;
        let child = self.0.swap_remove(index);
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        (child.name.clone(), how)
    }

    /// Asks all of them to end, waits, and kills those that do not.
    pub async fn stop(self) {
        join_all(self.0.into_iter().map(Child::stop)).await;
    }
}

/// Prints each line after `[name]`.
async fn forward(name: String, output: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        super::say(&format!("[{name}] {line}"));
    }
}

/// First argument that turns `ferrule local` into the program that follows; see [`exec`].
pub const EXEC: &str = "--exec";

#[cfg(target_os = "linux")]
fn wrapped(command: &[OsString]) -> io::Result<std::process::Command> {
    let mut wrapped = std::process::Command::new(std::env::current_exe()?);
    wrapped.args(["local", EXEC, "--"]).args(command);
    Ok(wrapped)
}

#[cfg(not(target_os = "linux"))]
fn wrapped(command: &[OsString]) -> io::Result<std::process::Command> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut plain = std::process::Command::new(program);
    plain.args(arguments);
    Ok(plain)
}

/// Turns this process into `command`, to be killed when the thread that started it ends. That thread is the
/// main one: `ferrule local` has only this one.
///
/// # Errors
/// When the program can't be run; otherwise this does not return.
pub fn exec(command: &[OsString]) -> io::Result<()> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(io::Error::new(error.kind(), format!("cannot run {}: {error}", program.display())))
}
