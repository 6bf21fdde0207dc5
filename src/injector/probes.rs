//! Probes and hooks of the application that the kubelet would send to its ports, sent to the sidecar instead.
//!
//! The kubelet is in no mesh. A `tcpSocket` probe would always succeed, for inbound connections are redirected to the sidecar,
//! which accepts them whatever the application does; HTTP and gRPC probes would be refused as soon as the pod accepts none but
//! the mesh, and counted as plaintext clients until then. The sidecar's admin port is not redirected; it asks the application
//! for whoever asks for the probe's path ([`Probe`]). `exec` probes stay.

use std::{collections::BTreeSet, num::NonZeroU16};

use ferrule_config::{names::ports, probe::Probe};
use serde_json::{Map, Value, json};

/// Where a container has what the kubelet sends.
const POINTERS: [&str; 5] =
    ["/startupProbe", "/readinessProbe", "/livenessProbe", "/lifecycle/postStart", "/lifecycle/preStop"];

/// What has to be done about the probes and hooks of all containers.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    /// What the sidecar has to ask, those rewritten earlier among them.
    pub(super) asked: BTreeSet<Probe>,
    /// JSON pointers of probes and hooks and what replaces them.
    pub(super) probes: Vec<(String, Value)>,
    /// What stays although it should not, for the user.
    pub(super) warnings: Vec<String>,
}

impl Rewritten {
    /// Looks at the probes of a container found at this JSON pointer. Ports in `excluded` are not
    /// redirected, so their probes are as good as ever.
    pub(super) fn add(&mut self, container: &Value, pointer: &str, excluded: &[u16]) {
        for what in POINTERS {
            let Some(probe) = container.pointer(what).and_then(Value::as_object) else { continue };
            if let Some(earlier) = rewritten(probe) {
                self.asked.insert(earlier);
                continue;
            }
            let Some((kind, action)) =
                KINDS.iter().find_map(|kind| Some((*kind, probe.get(*kind)?.as_object()?)))
            else {
                continue;
            };
            // A deprecated form of hook that does nothing.
            if kind == "tcpSocket" && what.starts_with("/lifecycle") {
                continue;
            }
            // With a host the kubelet calls something else than this pod.
            if action.get("host").and_then(Value::as_str).is_some_and(|host| !host.is_empty()) {
                continue;
            }
            match resolve(action.get("port").unwrap_or(&Value::Null), container) {
                Some(port) if excluded.contains(&port.get()) => {}
                Some(port) => {
                    let (asked, instead) = over_admin_port(probe, kind, action, port);
                    self.asked.insert(asked);
                    self.probes.push((format!("{pointer}{what}"), instead));
                }
                None => self.warnings.push(format!(
                    "container {}: the port {} of its {} is none of its ports, so it was left as it is",
                    container["name"],
                    action.get("port").unwrap_or(&Value::Null),
                    what.trim_start_matches('/').replace('/', "."),
                )),
            }
        }
    }
}

const KINDS: [&str; 3] = ["tcpSocket", "httpGet", "grpc"];

/// The port of a number, or of the name of one of the container's ports.
fn resolve(port: &Value, container: &Value) -> Option<NonZeroU16> {
    let number = match port {
        Value::String(name) => container
            .get("ports")
            .and_then(Value::as_array)
            .and_then(|ports| ports.iter().find(|port| port["name"] == name.as_str()))
            .map_or_else(|| name.parse().ok(), |port| port["containerPort"].as_u64()),
        port => port.as_u64(),
    };
    NonZeroU16::new(u16::try_from(number?).ok()?)
}

/// The same probe with all its times, thresholds and header fields, over the sidecar's admin port.
fn over_admin_port(
    probe: &Map<String, Value>,
    kind: &str,
    action: &Map<String, Value>,
    port: NonZeroU16,
) -> (Probe, Value) {
    let text = |name: &str| action.get(name).and_then(Value::as_str).unwrap_or_default();
    let asked = match kind {
        "httpGet" => Probe::http(port, text("path"), text("scheme") == "HTTPS"),
        "grpc" => Probe::grpc(port, text("service")),
        _ => Probe::tcp(port),
    };
    let mut get = json!({"path": asked.to_string(), "port": ports::ADMIN});
    if let Some(fields) = action.get("httpHeaders").filter(|fields| !fields.is_null()) {
        get["httpHeaders"] = fields.clone();
    }
    let mut probe = probe.clone();
    probe.remove(kind);
    probe.insert("httpGet".into(), get);
    (asked, Value::Object(probe))
}

fn rewritten(probe: &Map<String, Value>) -> Option<Probe> {
    let http = probe.get("httpGet").filter(|http| http["port"] == ports::ADMIN)?;
    http.get("path")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(container: &Value, excluded: &[u16]) -> Rewritten {
        let mut rewritten = Rewritten::default();
        rewritten.add(container, "/spec/containers/0", excluded);
        rewritten
    }

    fn asked(found: &Rewritten) -> Vec<String> {
        found.asked.iter().map(ToString::to_string).collect()
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
        assert_eq!(asked(&found), ["/probe/tcp/8080", "/probe/tcp/9090"]);
        let expected = json!({
            "httpGet": {"path": "/probe/tcp/8080", "port": 15110}, "periodSeconds": 3, "newField": {"x": 1},
        });
        assert_eq!(found.probes[0], ("/spec/containers/0/readinessProbe".to_owned(), expected));
    }

    #[test]
    fn http_and_grpc_probes_and_http_hooks_keep_what_they_say() {
        let fields = json!([{"name": "Host", "value": "shop"}]);
        let found = rewritten(
            &json!({
                "name": "app",
                "startupProbe": {"httpGet": {"path": "/a?b", "port": 80, "scheme": "HTTPS"}},
                "readinessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP", "httpHeaders": fields}},
                "livenessProbe": {"grpc": {"port": 81, "service": "shop.Cart"}, "timeoutSeconds": 2},
                "lifecycle": {"preStop": {"httpGet": {"port": 80}}},
            }),
            &[],
        );
        let expected = [
            ("startupProbe", json!({"httpGet": {"path": "/probe/https/80/a?b", "port": 15110}})),
            (
                "readinessProbe",
                json!({"httpGet": {"path": "/probe/http/80/", "port": 15110, "httpHeaders": fields}}),
            ),
            (
                "livenessProbe",
                json!({"httpGet": {"path": "/probe/grpc/81/shop.Cart", "port": 15110}, "timeoutSeconds": 2}),
            ),
            ("lifecycle/preStop", json!({"httpGet": {"path": "/probe/http/80/", "port": 15110}})),
        ];
        let expected = expected.map(|(what, probe)| (format!("/spec/containers/0/{what}"), probe));
        assert_eq!(found.probes, expected);
        assert_eq!(found.asked.len(), 3);
    }

    #[test]
    fn exec_stays() {
        let command = json!({"exec": {"command": ["true"]}});
        let found = rewritten(
            &json!({"name": "app", "startupProbe": command, "lifecycle": {"preStop": command}}),
            &[],
        );
        assert!(found.probes.is_empty() && found.asked.is_empty() && found.warnings.is_empty());
    }

    #[test]
    fn a_probe_of_an_excluded_port_or_another_host_stays() {
        let container = json!({
            "name": "app",
            "readinessProbe": {"tcpSocket": {"port": 80}},
            "livenessProbe": {"tcpSocket": {"port": 81, "host": "127.0.0.1"}},
            "startupProbe": {"httpGet": {"port": 80}},
        });
        assert!(rewritten(&container, &[80]).probes.is_empty());
    }

    #[test]
    fn what_was_rewritten_before_is_asked_still() {
        let container = json!({
            "name": "app",
            "readinessProbe": {"httpGet": {"path": "/probe/http/80/ready", "port": 15110}},
        });
        let found = rewritten(&container, &[]);
        assert!(found.probes.is_empty());
        assert_eq!(asked(&found), ["/probe/http/80/ready"]);
    }

    #[test]
    fn an_unknown_port_name_is_reported() {
        let found = rewritten(&json!({"name": "app", "livenessProbe": {"tcpSocket": {"port": "web"}}}), &[]);
        assert!(found.probes.is_empty());
        assert_eq!(
            found.warnings,
            [
                r#"container "app": the port "web" of its livenessProbe is none of its ports, so it was left as it is"#
            ]
        );
    }
}
