//! Builds snapshots from what was seen.

use std::{net::SocketAddr, sync::Arc};

use ferrule_config::{HeaderChange, Mesh, shard::ShardError};

use super::{
    objects::{EndpointSlice, Name, ServicePort},
    world::World,
};
use crate::{
    http1::body::is_token,
    snapshot::{Backend, Backends, Cluster, Protocol, Rule, Snapshot},
};

/// Checks what the format itself doesn't: indexes in range, and header changes that can't break a message.
///
/// # Errors
/// What is wrong, as [`ShardError::Json`].
pub(super) fn check(mesh: &Mesh) -> Result<(), ShardError> {
    for (name, service) in &mesh.services {
        let refuse = |what: String| Err(ShardError::Json(format!("service {name}: {what}")));
        if let Some(entry) = service.routes.iter().find(|entry| entry.rule >= service.rules.len()) {
            return refuse(format!("there is no rule {}", entry.rule));
        }
        for rule in &service.rules {
            for HeaderChange { set, add, .. } in [&rule.request_headers, &rule.response_headers] {
                let bad = set.iter().chain(add).find(|(name, value)| !is_field(name, value));
                if let Some((field, _)) = bad {
                    return refuse(format!(
                        "rule {}: header {field:?} has a malformed name or value",
                        rule.name
                    ));
                }
            }
        }
    }
    Ok(())
}

fn is_field(name: &str, value: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(is_token)
        && value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
}

/// The snapshot of a Service's port, or `None` when there is no such port.
pub(super) fn snapshot(world: &mut World, name: &Name, port: u16) -> Option<Snapshot> {
    let declared = service_port(world, name, port)?;
    let protocol = Protocol::of(declared.app_protocol.as_deref());
    let cluster = Arc::new(cluster(world, name, &declared));
    let service = world.meshes.get(&name.namespace).and_then(|mesh| mesh.services.get(&name.name)).cloned();
    let service = service.unwrap_or_default();
    let routes: Vec<_> =
        service.routes.into_iter().filter(|entry| entry.port.is_none_or(|only| only == port)).collect();
    let rules = service.rules.into_iter().map(|rule| {
        let backends: Vec<_> = rule
            .backends
            .iter()
            .map(|backend| {
                let target = Name { namespace: backend.namespace.clone(), name: backend.name.clone() };
                let target_port = backend.port.unwrap_or(port);
                let found = if target == *name && target_port == port {
                    Some(Arc::clone(&cluster))
                } else {
                    let declared = service_port(world, &target, target_port);
                    declared.map(|declared| Arc::new(self::cluster(world, &target, &declared)))
                };
                let missing = || Backend::Missing(format!("{target}:{target_port}").into());
                (backend.weight, found.map_or_else(missing, Backend::Cluster))
            })
            .collect();
        Rule {
            name: rule.name.into(),
            backends: Backends::new(backends),
            request_headers: rule.request_headers,
            response_headers: rule.response_headers,
            timeouts: rule.timeouts,
        }
    });
    let rules = rules.collect();
    Some(Snapshot { cluster, protocol, routes, rules })
}

fn service_port(world: &World, name: &Name, port: u16) -> Option<ServicePort> {
    let service = world.services.get(name)?.as_ref()?;
    service.spec.ports.iter().find(|each| each.port == port && is_tcp(each.protocol.as_deref())).cloned()
}

fn is_tcp(protocol: Option<&str>) -> bool {
    matches!(protocol, None | Some("TCP" | ""))
}

fn cluster(world: &mut World, name: &Name, port: &ServicePort) -> Cluster {
    let addresses = addresses(world.slices.get(name).into_iter().flat_map(|slices| slices.values()), port);
    let endpoints = addresses.into_iter().map(|address| world.endpoint(address)).collect();
    Cluster {
        service: name.to_string().into(),
        port: port.port,
        protocol: Protocol::of(port.app_protocol.as_deref()),
        endpoints,
    }
}

/// The addresses that take traffic for a port: those that are ready; if there are none, those that end but
/// still serve, as kube-proxy does (KEP-1669). A dual-stack pod stands in two slices; only one family is
/// taken, IPv4 if there is any, so that no endpoint counts twice.
fn addresses<'a>(slices: impl Iterator<Item = &'a EndpointSlice>, port: &ServicePort) -> Vec<SocketAddr> {
    let (mut ready, mut ending) = (Vec::new(), Vec::new());
    for slice in slices {
        let target = slice.ports.iter().find(|each| {
            each.name.as_deref().unwrap_or_default() == port.name && is_tcp(each.protocol.as_deref())
        });
        let Some(number) = target.and_then(|target| target.port) else { continue };
        for endpoint in &slice.endpoints {
            let Some(address) = endpoint.addresses.first().and_then(|address| address.parse().ok()) else {
                continue;
            };
            let address = SocketAddr::new(address, number);
            let conditions = endpoint.conditions;
            let is_ready = conditions.ready.unwrap_or(true);
            if is_ready && !conditions.terminating.unwrap_or(false) {
                ready.push(address);
            } else if conditions.serving.unwrap_or(is_ready) && conditions.terminating.unwrap_or(false) {
                ending.push(address);
            }
        }
    }
    let mut chosen = if ready.is_empty() { ending } else { ready };
    if chosen.iter().any(SocketAddr::is_ipv4) {
        chosen.retain(SocketAddr::is_ipv4);
    }
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(json: &str) -> EndpointSlice {
        serde_json::from_str(json).expect("a slice")
    }

    fn found(slices: &[&str]) -> Vec<String> {
        let slices: Vec<_> = slices.iter().map(|json| slice(json)).collect();
        let port = ServicePort { name: "http".into(), port: 80, ..ServicePort::default() };
        addresses(slices.iter(), &port).iter().map(ToString::to_string).collect()
    }

    const READY: &str = r#"{"ports":[{"name":"http","port":8080}],
        "endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true}},{"addresses":["10.0.0.2"],"conditions":{"ready":false}}]}"#;
    const ENDING: &str = r#"{"ports":[{"name":"http","port":8080}],
        "endpoints":[{"addresses":["10.0.0.3"],"conditions":{"ready":false,"serving":true,"terminating":true}}]}"#;
    const IPV6: &str = r#"{"ports":[{"name":"http","port":8080}],"endpoints":[{"addresses":["fd00::1"]}]}"#;

    #[test]
    fn only_ready_endpoints_take_traffic() {
        assert_eq!(found(&[READY, ENDING]), ["10.0.0.1:8080"]);
    }

    #[test]
    fn without_a_ready_one_those_that_end_are_used() {
        assert_eq!(found(&[ENDING]), ["10.0.0.3:8080"]);
    }

    #[test]
    fn a_dual_stack_endpoint_counts_once() {
        assert_eq!(found(&[READY, IPV6]), ["10.0.0.1:8080"]);
        assert_eq!(found(&[IPV6]), ["[fd00::1]:8080"]);
    }

    #[test]
    fn an_empty_slice_of_the_api_is_read() {
        assert!(found(&[r#"{"ports":null,"endpoints":null}"#]).is_empty());
    }
}
