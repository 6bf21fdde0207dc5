//! `tcpSocket` probes of the application, sent to the sidecar instead.
//!
//! Inbound connections are redirected to the sidecar, which accepts them whatever the application does, so
//! a `tcpSocket` probe would always succeed. The sidecar's admin port is not redirected; it tries the
//! application's port for whoever asks for `/probe/tcp/PORT`. HTTP, gRPC and exec probes stay: they get the
//! application's own answer.

use std::collections::BTreeSet;

use ferrule_config::names::ports;
use serde_json::{Value, json};

const KINDS: [&str; 3] = ["startupProbe", "readinessProbe", "livenessProbe"];
const PATH: &str = "/probe/tcp/";

/// What has to be done about the probes of all containers.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    /// Ports that the sidecar has to try, those of probes rewritten earlier among them.
    pub(super) ports: BTreeSet<u16>,
    /// JSON pointers of probes and what replaces them.
    pub(super) probes: Vec<(String, Value)>,
    /// Probes that stay although they should not, for the user.
    pub(super) warnings: Vec<String>,
}

impl Rewritten {
    /// Looks at the probes of a container found at this JSON pointer. Ports in `excluded` are not
    /// redirected, so their probes are as good as ever.
    pub(super) fn add(&mut self, container: &Value, pointer: &str, excluded: &[u16]) {
        for kind in KINDS {
            let Some(probe) = container.get(kind) else { continue };
            if let Some(port) = rewritten_port(probe) {
                self.ports.insert(port);
                continue;
            }
            let Some(socket) = probe.get("tcpSocket") else { continue };
            // With a host the kubelet calls something else than this pod.
            if socket.get("host").and_then(Value::as_str).is_some_and(|host| !host.is_empty()) {
                continue;
            }
            match resolve(&socket["port"], container) {
                Some(port) if excluded.contains(&port) => {}
                Some(port) => {
                    self.ports.insert(port);
                    self.probes.push((format!("{pointer}/{kind}"), over_admin_port(probe, port)));
                }
                None => self.warnings.push(format!(
                    "container {}: the port {} of its {kind} is none of its ports, so the probe was left as it is",
                    container["name"], socket["port"]
                )),
            }
        }
    }
}

/// The port of a number, or of the name of one of the container's ports.
fn resolve(port: &Value, container: &Value) -> Option<u16> {
    let number = match port {
        Value::String(name) => container
            .get("ports")
            .and_then(Value::as_array)
            .and_then(|ports| ports.iter().find(|port| port["name"] == name.as_str()))
            .map_or_else(|| name.parse().ok(), |port| port["containerPort"].as_u64()),
        port => port.as_u64(),
    };
    number.and_then(|number| u16::try_from(number).ok()).filter(|&port| port > 0)
}

/// The same probe with all its times and thresholds, over the sidecar's admin port.
fn over_admin_port(probe: &Value, port: u16) -> Value {
    let mut probe = probe.clone();
    if let Value::Object(fields) = &mut probe {
        fields.remove("tcpSocket");
        fields.insert("httpGet".into(), json!({"path": format!("{PATH}{port}"), "port": ports::ADMIN}));
    }
    probe
}

fn rewritten_port(probe: &Value) -> Option<u16> {
    let http = probe.get("httpGet").filter(|http| http["port"] == ports::ADMIN)?;
    http.get("path")?.as_str()?.strip_prefix(PATH)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(container: &Value, excluded: &[u16]) -> Rewritten {
        let mut rewritten = Rewritten::default();
        rewritten.add(container, "/spec/containers/0", excluded);
        rewritten
    }

    #[test]
    fn a_named_port_is_resolved_and_times_are_kept() {
        let found = rewritten(
            &json!({
                "name": "app",
                "ports": [{"name": "web", "containerPort": 8080}],
                "readinessProbe": {"tcpSocket": {"port": "web"}, "periodSeconds": 3, "newField": {"x": 1}},
                "livenessProbe": {"tcpSocket": {"port": 9090}},
            }),
            &[],
        );
        assert_eq!(found.ports.iter().copied().collect::<Vec<_>>(), [8080, 9090]);
        let expected = json!({
            "httpGet": {"path": "/probe/tcp/8080", "port": 15110}, "periodSeconds": 3, "newField": {"x": 1},
        });
        assert_eq!(found.probes[0], ("/spec/containers/0/readinessProbe".to_owned(), expected));
    }

    #[test]
    fn other_kinds_of_probe_stay() {
        let found = rewritten(
            &json!({
                "name": "app",
                "startupProbe": {"exec": {"command": ["true"]}},
                "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
                "livenessProbe": {"grpc": {"port": 80}},
            }),
            &[],
        );
        assert!(found.probes.is_empty() && found.ports.is_empty() && found.warnings.is_empty());
    }

    #[test]
    fn a_probe_of_an_excluded_port_or_another_host_stays() {
        let container = json!({
            "name": "app",
            "readinessProbe": {"tcpSocket": {"port": 80}},
            "livenessProbe": {"tcpSocket": {"port": 81, "host": "127.0.0.1"}},
        });
        assert!(rewritten(&container, &[80]).probes.is_empty());
    }

    #[test]
    fn an_unknown_port_name_is_reported() {
        let found = rewritten(&json!({"name": "app", "livenessProbe": {"tcpSocket": {"port": "web"}}}), &[]);
        assert!(found.probes.is_empty());
        assert_eq!(
            found.warnings,
            [
                r#"container "app": the port "web" of its livenessProbe is none of its ports, so the probe was left as it is"#
            ]
        );
    }
}
