//! What the kernel knows of a process: time on a CPU, and resident memory.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context as _;

/// Time that all threads of these processes have been on a CPU (`/proc/PID/task/*/schedstat`): user and kernel,
/// in nanoseconds, from the scheduler's own accounting. Work of the network stack that the kernel does on a
/// thread's back while it sends is in it.
///
/// # Errors
/// When a process is gone.
pub fn time(processes: &[u32]) -> anyhow::Result<Duration> {
    let mut sum = Duration::ZERO;
    for process in processes {
        let tasks = PathBuf::from(format!("/proc/{process}/task"));
        let entries = fs::read_dir(&tasks)
            .with_context(|| format!("process {process} is gone: the proxy ended while it was measured"))?;
        for entry in entries {
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(entry?.path().join("schedstat")) else { continue };
            sum += on_cpu(&text).with_context(|| format!("{}: {text:?}", tasks.display()))?;
        }
    }
    Ok(sum)
}

fn on_cpu(schedstat: &str) -> Option<Duration> {
    Some(Duration::from_nanos(schedstat.split_whitespace().next()?.parse().ok()?))
}

/// Resident memory of these processes in KiB (`VmRSS`).
///
/// # Errors
/// When a process is gone.
pub fn resident(processes: &[u32]) -> anyhow::Result<u64> {
    let mut sum = 0;
    for process in processes {
        let path = format!("/proc/{process}/status");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("process {process} is gone: the proxy ended while it was measured"))?;
        sum += vm_rss(&text).with_context(|| format!("{path} has no VmRSS"))?;
    }
    Ok(sum)
}

fn vm_rss(status: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    rest.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_of_schedstat_is_the_time_on_a_cpu() {
        assert_eq!(on_cpu("871941 71816 1\n"), Some(Duration::from_nanos(871_941)));
        assert_eq!(on_cpu(""), None);
    }

    #[test]
    fn resident_memory_is_read_in_kib() {
        assert_eq!(vm_rss("Name:\tx\nVmRSS:\t    5120 kB\nThreads:\t1\n"), Some(5120));
        assert_eq!(vm_rss("Name:\tx\n"), None);
    }

    #[test]
    fn work_adds_to_the_time_of_this_process() {
        let own = [std::process::id()];
        let before = time(&own).expect("this process is there");
        let mut sum = 0u64;
        while time(&own).expect("this process is there") < before + Duration::from_millis(5) {
            sum = std::hint::black_box(sum + 1);
        }
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        assert!(time(&[u32::MAX]).is_err());
        assert!(resident(&[u32::MAX]).is_err());
    }
}
