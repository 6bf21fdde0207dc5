//! The mesh that the demo runs: its files, and `ferrule local`.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

const SERVICES: &str = include_str!("../mesh/services.yaml");
const PROCESSES: &str = include_str!("../mesh/processes.yaml");
const ROUTE: &str = include_str!("../mesh/route.yaml");
/// Addresses in [`PROCESSES`]; the frontend's first.
const ADDRESSES: [&str; 4] = ["127.0.0.1:18080", "127.0.0.1:18081", "127.0.0.1:18082", "127.0.0.1:18090"];
/// How long everything may take to start, and to end.
const START: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(10);

/// A running mesh. Dropping it kills `ferrule local`, and that what it started.
#[derive(Debug)]
pub struct Mesh {
    /// Where the frontend listens.
    pub frontend: SocketAddr,
    folder: TempDir,
    local: Child,
}

impl Mesh {
    /// Writes the files and starts `ferrule local`; returns when it says that everything runs.
    ///
    /// # Errors
    /// When it does not.
    pub async fn start() -> anyhow::Result<Self> {
        let programs = programs()?;
        let folder =
            tempfile::Builder::new().prefix("ferrule-demo-").tempdir().context("no temporary directory")?;
        let free = free_addresses()?;
        let processes = ADDRESSES
            .iter()
            .zip(&free)
            .fold(PROCESSES.to_owned(), |text, (fixed, free)| text.replace(fixed, &free.to_string()));
        for (name, text) in
            [("services.yaml", SERVICES), ("processes.yaml", &processes), ("route.yaml", ROUTE)]
        {
            fs::write(folder.path().join(name), text).with_context(|| format!("cannot write {name}"))?;
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([programs.clone()].into_iter().chain(env::split_paths(&path)))?;
        let mut local = Command::new(programs.join("ferrule"))
            .arg("local")
            .arg(folder.path())
            .env("PATH", path)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start ferrule")?;
        let output = local.stdout.take().context("no output of ferrule")?;
        let mut lines = BufReader::new(output).lines();
        let ready = timeout(START, await_ready(&mut lines)).await;
        ready.with_context(|| format!("ferrule local was not ready within {START:?}"))??;
        tokio::spawn(show(lines));
        Ok(Self { frontend: free[0], folder, local })
    }

    /// Edits the Route as an editor does, by a new file in the place of the old one.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn split_in_half(&self) -> anyhow::Result<()> {
        let half = ROUTE.replace("weight: 90", "weight: 50").replace("weight: 10", "weight: 50");
        let half = half.replace("90/10", "50/50");
        let (new, route) =
            (self.folder.path().join(".route.yaml.new"), self.folder.path().join("route.yaml"));
        fs::write(&new, half)?;
        fs::rename(&new, &route).context("cannot replace route.yaml")
    }

    /// Ends everything.
    ///
    /// # Errors
    /// When `ferrule local` does not end well.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(id) = self.local.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            kill_process(id, Signal::TERM).context("cannot stop ferrule local")?;
        }
        let status = timeout(END, self.local.wait()).await.context("ferrule local does not end")??;
        if !status.success() {
            bail!("ferrule local ended with {status}");
        }
        Ok(())
    }
}

async fn await_ready(lines: &mut Lines<BufReader<ChildStdout>>) -> anyhow::Result<()> {
    while let Some(line) = lines.next_line().await? {
        println!("  | {line}");
        if line.starts_with("ready ") {
            return Ok(());
        }
    }
    bail!("ferrule local has ended; what it said is above");
}

async fn show(mut lines: Lines<BufReader<ChildStdout>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        println!("  | {line}");
    }
}

/// The directory of all programs, which Cargo builds into one.
fn programs() -> anyhow::Result<PathBuf> {
    let own = env::current_exe().context("cannot tell where this program is")?;
    let programs = own.parent().map(Path::to_owned).unwrap_or_default();
    for name in ["ferrule", "ferrule-proxy", "demo-frontend", "demo-backend"] {
        if !programs.join(name).is_file() {
            bail!("there is no {name} in {}; `make demo` builds it", programs.display());
        }
    }
    Ok(programs)
}

/// As many free addresses as are needed, held together until the last is found so that none is found twice.
fn free_addresses() -> anyhow::Result<Vec<SocketAddr>> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let held = ADDRESSES.iter().map(|_| bind()).collect::<Result<Vec<_>, _>>().context("no free port")?;
    Ok(held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_have_what_is_replaced_in_them() {
        for address in ADDRESSES {
            assert!(PROCESSES.contains(address), "{address}");
        }
        for part in ["weight: 90", "weight: 10", "90/10"] {
            assert_eq!(ROUTE.matches(part).count(), 1, "{part}");
        }
    }
}
