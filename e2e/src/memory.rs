//! Memory of a sidecar, as the machine sees it; for our own cluster, whose processes are this machine's.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use ferrule_config::names::PROXY_CONTAINER;

/// Resident memory of a process, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// All of it: `VmRSS`.
    pub all: u64,
    /// Its own, without the pages of the program's file: `RssAnon`.
    pub anonymous: u64,
}

/// Resident memory of a pod's sidecar.
///
/// # Errors
/// When there is no such process on this machine.
pub fn of_sidecar(pod: &str) -> Result<Resident> {
    let variable = format!("POD_NAME={pod}");
    for entry in fs::read_dir("/proc")? {
        let process = entry?.path();
        // Processes end while we look.
        let Ok(name) = fs::read_to_string(process.join("comm")) else { continue };
        let Ok(environment) = fs::read(process.join("environ")) else { continue };
        if name.trim() == PROXY_CONTAINER
            && environment.split(|&byte| byte == 0).any(|it| it == variable.as_bytes())
        {
            return read(&process);
        }
    }
    bail!("no process {PROXY_CONTAINER} of pod {pod} on this machine")
}

fn read(process: &Path) -> Result<Resident> {
    let status = fs::read_to_string(process.join("status"))?;
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
        value.and_then(|value| value.trim().parse().ok()).with_context(|| format!("{name} in {status}"))
    };
    Ok(Resident { all: field("VmRSS:")?, anonymous: field("RssAnon:")? })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        let resident = read(Path::new("/proc/self")).expect("it has a status");
        assert!(resident.all >= resident.anonymous && resident.anonymous > 0);
    }
}
