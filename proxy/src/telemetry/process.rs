//! The process as the system sees it, read when it is asked for: the metrics that client libraries have in common
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>). What can't be read is left out.

use std::{fs, sync::LazyLock};

use super::exposition::{About, Family, Kind};

const fn counter(name: &'static str, help: &'static str) -> About {
    About { name, help, kind: Kind::Counter }
}

const fn gauge(name: &'static str, help: &'static str) -> About {
    About { name, help, kind: Kind::Gauge }
}

const CPU: About =
    counter("process_cpu_seconds_total", "CPU time of the process, in user space and in the kernel.");
const RESIDENT: About = gauge("process_resident_memory_bytes", "Memory that is in RAM.");
const VIRTUAL: About = gauge("process_virtual_memory_bytes", "Memory that is mapped.");
const START: About = gauge("process_start_time_seconds", "When the process began, in seconds since 1970.");
const OPEN: About = gauge("process_open_fds", "File descriptors that are open.");
const MOST_OPEN: About = gauge("process_max_fds", "File descriptors that may be open.");
const THREADS: About = gauge("process_threads", "Threads of the process.");

/// Clock ticks in a second, as `/proc` counts them on every architecture that Linux has today (`USER_HZ`).
const TICKS: f64 = 100.0;
/// When the machine began, in seconds since 1970.
static BOOT: LazyLock<Option<f64>> =
    LazyLock::new(|| fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time));

/// The process now.
pub(super) fn tell() -> Vec<Family> {
    let stat = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse);
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let boot = *BOOT;
    let of = |value: fn(&Stat) -> f64| stat.as_ref().map(value);
    let values = [
        (CPU, of(|stat| stat.cpu).map(|cpu| cpu / TICKS)),
        (RESIDENT, resident(&status)),
        (VIRTUAL, of(|stat| stat.size)),
        (START, of(|stat| stat.start).zip(boot).map(|(start, boot)| boot + start / TICKS)),
        // Reading the directory has opened one more.
        (OPEN, open.map(|open| open - 1.0)),
        (MOST_OPEN, most_open(&limits)),
        (THREADS, of(|stat| stat.threads)),
    ];
    let told = values.into_iter().map(|(about, value)| match value {
        Some(value) => Family::single(about, value),
        None => Family { about, samples: Vec::new() },
    });
    told.collect()
}

fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<f64>().ok().map(|kilobytes| kilobytes * 1024.0)
}

fn most_open(limits: &str) -> Option<f64> {
    let soft =
        limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?;
    if soft == "unlimited" { Some(f64::INFINITY) } else { soft.parse().ok() }
}

/// Of `/proc/self/stat`, in its own units.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu: f64,
    threads: f64,
    start: f64,
    size: f64,
}

impl Stat {
    /// Fields are numbered as in proc(5); the name, in parentheses, may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
        let number = |index: usize| fields.get(index - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu: number(14)? + number(15)?,
            threads: number(20)?,
            start: number(22)?,
            size: number(23)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_process_may_hold_anything() {
        let text =
            "42 (a) b (c) S 1 2 3 4 -1 5 6 7 8 9 700 50 12 13 20 0 5 0 9000 1048576 250 18446744073709551615";
        let expected = Stat { cpu: 750.0, threads: 5.0, start: 9000.0, size: 1_048_576.0 };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("42 (cut off) S 1"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn limits_and_boot_time_are_found() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(most_open(limits), Some(1024.0));
        assert_eq!(most_open("Max open files unlimited unlimited files"), Some(f64::INFINITY));
        assert_eq!(resident("VmPeak:\t 9 kB\nVmRSS:\t    1536 kB\n"), Some(1_572_864.0));
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_told_of_in_full() {
        use crate::telemetry::exposition::Value;
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_secs_f64();
        for family in tell() {
            let Value::Number(value) = family.samples[0].value else { panic!("no number") };
            assert!(value > 0.0 || family.about == CPU, "{family:?}");
            if family.about == START {
                assert!(value <= now + 2.0 && value > now - 86_400.0, "{value} {now}");
            }
        }
    }
}
