//! What one wants to see when a test has failed: in full in `target/e2e`, the essence on the terminal.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write as _},
};

use ferrule_config::names::{PROXY_CONTAINER, SYSTEM_NAMESPACE, ports};

use crate::{
    cluster::Cluster,
    forward,
    install::OPERATOR,
    namespace::{Namespace, name_of},
};

const LINES_SHOWN: usize = 12;
const LINES_KEPT: &str = "--tail=500";
/// Characters of a failure that are repeated at the end of all groups.
const REMEMBERED: usize = 2000;

/// Takes note of a failure for the end of all groups, where `run.sh` repeats it: between it and the end lie thousands of
/// lines.
pub fn remember(cluster: &Cluster, failure: &str) {
    let path = cluster.file("target/e2e/failures.txt");
    let essence: String = failure.chars().take(REMEMBERED).collect();
    let append = || -> io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        writeln!(File::options().append(true).create(true).open(&path)?, "---- {essence}\n")
    };
    if let Err(error) = append() {
        println!("{}: {error}", path.display());
    }
}

/// Collects the state of these namespaces and of the operator.
pub fn print(cluster: &Cluster, namespaces: &[Namespace], test: &str) {
    let mut report = Report::default();
    for namespace in namespaces {
        of_namespace(&mut report, namespace);
    }
    let system = ["--namespace", SYSTEM_NAMESPACE];
    let ask = |arguments: &[&str]| cluster.kubectl(&[&system, arguments].concat());
    report.section("operator pods", ask(&["get", "pods", "-o", "wide"]));
    let logs = ["logs", "-l", OPERATOR, "--prefix", "--all-containers", LINES_KEPT];
    report.section("operator logs", ask(&logs));
    report.write(cluster, test);
}

fn of_namespace(report: &mut Report, namespace: &Namespace) {
    let name = namespace.name();
    report.section(&format!("{name}: pods"), namespace.kubectl(&["get", "pods", "-o", "wide"]));
    let events = ["get", "events", "--sort-by=.metadata.creationTimestamp"];
    report.section(&format!("{name}: events"), namespace.kubectl(&events));
    report
        .section(&format!("{name}: routes"), namespace.kubectl(&["get", "routes.ferrule.dev", "-o", "yaml"]));
    report.section(
        &format!("{name}: ConfigMap"),
        namespace.kubectl(&["get", "configmap", "ferrule", "-o", "yaml"]),
    );
    for pod in namespace.pods("").unwrap_or_default() {
        let pod_name = name_of(&pod);
        let ready = pod["status"]["containerStatuses"]
            .as_array()
            .is_some_and(|all| !all.is_empty() && all.iter().all(|container| container["ready"] == true));
        if !ready {
            report.section(
                &format!("{pod_name}: description"),
                namespace.kubectl(&["describe", "pod", &pod_name]),
            );
            report.section(
                &format!("{pod_name}: logs"),
                namespace.kubectl(&["logs", &pod_name, "--all-containers", LINES_KEPT]),
            );
        }
        let logs = ["logs", &pod_name, "-c", PROXY_CONTAINER, LINES_KEPT];
        report.section(&format!("{pod_name}: sidecar log"), namespace.kubectl(&logs));
        // Asking a pod that has ended takes until the API server gives up.
        if pod["status"]["phase"] != "Running" {
            continue;
        }
        report.section(
            &format!("{pod_name}: /config"),
            forward::get(namespace, &pod_name, ports::ADMIN, "/config"),
        );
        report.section(&format!("{pod_name}: /metrics"), namespace.admin(&pod_name, "/metrics"));
    }
}

#[derive(Default)]
struct Report {
    full: String,
}

impl Report {
    fn section(&mut self, title: &str, content: anyhow::Result<String>) {
        let content = content.unwrap_or_else(|error| format!("{error:#}"));
        let _ = writeln!(self.full, "\n==== {title}\n{content}");
        let lines: Vec<_> = content.lines().collect();
        // The end of a log or of the events says most; metrics say little at a glance.
        if title.ends_with("/metrics") || title.ends_with("/config") {
            return;
        }
        println!("==== {title}");
        for line in &lines[lines.len().saturating_sub(LINES_SHOWN)..] {
            println!("{line}");
        }
    }

    fn write(&self, cluster: &Cluster, test: &str) {
        let path = cluster.file("target/e2e").join(format!("{test}.txt"));
        let written =
            path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, &self.full));
        match written {
            Ok(()) => println!("==== in full: {}", path.display()),
            Err(error) => println!("==== {}: {error}", path.display()),
        }
    }
}
