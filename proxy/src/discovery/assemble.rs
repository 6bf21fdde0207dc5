//! Builds snapshots from what was seen.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use ferrule_config::{HeaderChange, Mesh, Peers, PortBalancer, peers::Peer, shard::ShardError};

use super::{
    balancing, members,
    objects::{Name, ServicePort},
    world::World,
};
use crate::{
    balance::{Balancer, Endpoint},
    http1::body::is_token,
    route,
    snapshot::{Backend, Backends, Cluster, Protocol, Rule, Snapshot},
    tls::expected::{Expected, Source},
};

/// Checks what the format itself doesn't: indexes in range, header changes that can't break a message, balancers that
/// can be built.
///
/// # Errors
/// What is wrong, as [`ShardError::Json`].
pub(super) fn check(mesh: &Mesh) -> Result<(), ShardError> {
    for (name, service) in &mesh.services {
        let refuse = |what: String| Err(ShardError::Json(format!("service {name}: {what}")));
        if let Some(entry) = service.routes.iter().find(|entry| entry.rule >= service.rules.len()) {
            return refuse(format!("there is no rule {}", entry.rule));
        }
        if let Some(what) = service.routes.iter().find_map(|entry| route::fault(&entry.matches)) {
            return refuse(what);
        }
        for PortBalancer { port_name, balancer } in &service.balancers {
            if let Some(what) = balancing::fault(balancer) {
                let port = port_name.as_deref().map(|port| format!(" of port {port}")).unwrap_or_default();
                return refuse(format!("balancer{port}: {what}"));
            }
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
pub(super) fn snapshot(world: &mut World, name: &Name, port: u16, now: Instant) -> Option<Snapshot> {
    let declared = service_port(world, name, port)?;
    let protocol = Protocol::of(declared.app_protocol.as_deref());
    let cluster = Arc::new(cluster(world, name, &declared, now));
    let service = world.meshes.get(&name.namespace).and_then(|mesh| mesh.services.get(&name.name)).cloned();
    let service = service.unwrap_or_default();
    let routes = world.table(name, port, service.routes);
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
                    declared.map(|declared| Arc::new(self::cluster(world, &target, &declared, now)))
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

/// What stands for a pod that is dialled by its address. What was learnt of the endpoint is taken over from `before`. Its Service
/// in metrics is `NAMESPACE/-`, for which no other can be taken.
pub(super) fn pod(
    address: SocketAddr,
    peer: &Peer,
    source: Arc<dyn Source>,
    before: Option<&Snapshot>,
) -> Snapshot {
    let Peer { namespace, account, modes } = peer;
    let accounts = vec![account.clone()];
    let peers = Peers { accounts, plain: Vec::new(), modes: modes.clone() };
    let expected = Some(Arc::new(Expected::new(namespace, peers).asked_of(source)));
    let balancer = match before {
        Some(before) => Arc::clone(&before.cluster.balancer),
        None => Arc::new(Balancer::only(Arc::new(Endpoint::new(address)))),
    };
    let (service, port) = (format!("{namespace}/-").into(), address.port());
    let cluster = Cluster { service, port, protocol: Protocol::Detect, balancer, expected };
    Snapshot { cluster: Arc::new(cluster), protocol: Protocol::Detect, routes: Arc::default(), rules: Vec::new() }
}

fn service_port(world: &World, name: &Name, port: u16) -> Option<ServicePort> {
    let service = world.services.get(name)?.as_ref()?;
    service.spec.ports.iter().find(|each| each.port == port && is_tcp(each.protocol.as_deref())).cloned()
}

pub(super) fn is_tcp(protocol: Option<&str>) -> bool {
    matches!(protocol, None | Some("TCP" | ""))
}

fn cluster(world: &mut World, name: &Name, port: &ServicePort, now: Instant) -> Cluster {
    let members =
        members::of_port(world.slices.get(name).into_iter().flat_map(|slices| slices.values()), port);
    let members: Vec<_> =
        members.into_iter().map(|found| found.member(|address| world.endpoint(address))).collect();
    let peers =
        world.meshes.get(&name.namespace).and_then(|mesh| mesh.services.get(&name.name)?.peers.clone());
    let expected = peers.map(|peers| Arc::new(Expected::new(&name.namespace, peers)));
    let config = balancing::config(world, name, &port.name);
    let balancer = world.balancing.build((name.clone(), port.port), config, members, now);
    Cluster {
        service: name.to_string().into(),
        port: port.port,
        protocol: Protocol::of(port.app_protocol.as_deref()),
        balancer,
        expected,
    }
}
