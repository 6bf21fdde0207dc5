//! What the figures were measured on.

use std::fs;

/// Lines that describe the machine; what is not known is left out.
#[must_use]
pub fn describe() -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let cpu = value(&read("/proc/cpuinfo"), "model name", ':').map(|model| {
        let family = value(&read("/proc/cpuinfo"), "cpu family", ':').unwrap_or_default();
        let number = value(&read("/proc/cpuinfo"), "model", ':').unwrap_or_default();
        let guest = if read("/proc/cpuinfo").contains(" hypervisor") { ", virtual" } else { "" };
        format!("{cpus} × {model} (family {family}, model {number}{guest})")
    });
    let memory = value(&read("/proc/meminfo"), "MemTotal", ':')
        .and_then(|total| total.trim_end_matches(" kB").parse::<u64>().ok())
        .map(|kib| format!("{} GiB", kib >> 20));
    let system =
        value(&read("/etc/os-release"), "PRETTY_NAME", '=').map(|name| name.trim_matches('"').to_owned());
    let kernel = Some(read("/proc/sys/kernel/osrelease").trim().to_owned());
    let load = read("/proc/loadavg").split(' ').next().map(str::to_owned);
    [
        ("processors", cpu),
        ("memory", memory),
        ("system", system),
        ("kernel", kernel),
        ("load average at the start", load),
    ]
    .into_iter()
    .filter_map(|(what, value)| Some((what, value.filter(|value| !value.is_empty())?)))
    .collect()
}

/// The value of the first line whose key is exactly this.
fn value(text: &str, key: &str, separator: char) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(separator)?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn a_key_is_not_taken_for_a_longer_one() {
        let text = "model name\t: AMD EPYC\nmodel\t\t: 17\n";
        assert_eq!(value(text, "model", ':').as_deref(), Some("17"));
        assert_eq!(value(text, "mod", ':'), None);
    }
}
