//! Builds snapshots from what was seen.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use ferrule_config::{
    Abort, FaultStatus, HeaderChange, Mesh, PathRewrite, Peers, PortBalancer, peers::Peer, shard::ShardError,
};

use super::{
    balancing, members,
    objects::{Name, ServicePort},
    world::World,
};
use crate::{
    act::Actions,
    balance::{Balancer, Endpoint},
    http1::{body::is_token, head::is_authority},
    retry::Policy,
    route,
    snapshot::{Backend, Backends, Changes, Cluster, Protocol, Rule, Snapshot},
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
            if let Some(what) = rule_fault(rule) {
                return refuse(format!("rule {}: {what}", rule.name));
            }
            let of_backends = rule
                .backends
                .iter()
                .flat_map(|backend| [&backend.request_headers, &backend.response_headers]);
            let changes = [&rule.request_headers, &rule.response_headers].into_iter().chain(of_backends);
            for HeaderChange { set, add, .. } in changes {
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

/// What would break a message that a rule makes or rewrites.
fn rule_fault(rule: &ferrule_config::Rule) -> Option<&'static str> {
    let ferrule_config::Rule { rewrite, redirect, direct_response, fault, cors, .. } = rule;
    let paths =
        [rewrite.as_ref().and_then(|it| it.path.as_ref()), redirect.as_ref().and_then(|it| it.path.as_ref())];
    for path in paths.into_iter().flatten() {
        let (PathRewrite::Full(path) | PathRewrite::Prefix(path)) = path;
        let inner = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
        if !path.starts_with('/') || path.starts_with("//") || !path.bytes().all(inner) {
            return Some("a path that none must have");
        }
    }
    let hosts =
        [rewrite.as_ref().and_then(|it| it.host.as_ref()), redirect.as_ref().and_then(|it| it.host.as_ref())];
    if hosts.into_iter().flatten().any(|host| !is_authority(host.as_bytes())) {
        return Some("a host that is none");
    }
    let scheme = redirect.as_ref().and_then(|redirect| redirect.scheme.as_deref());
    if !matches!(scheme, None | Some("http" | "https")) {
        return Some("a scheme that is not known");
    }
    let statuses = [redirect.as_ref().map(|it| it.status), direct_response.as_ref().map(|it| it.status)];
    if statuses.into_iter().flatten().any(|status| !(200..=599).contains(&status)) {
        return Some("a status that no response must have");
    }
    if let Some(Abort { status: FaultStatus::Http(status), .. }) =
        fault.as_ref().and_then(|it| it.abort.as_ref())
        && !(200..=599).contains(status)
    {
        return Some("a status that no response must have");
    }
    let names = cors.iter().flat_map(|cors| [&cors.methods, &cors.headers, &cors.exposed]).flatten();
    if names.into_iter().any(|name| !name.bytes().all(is_token)) {
        return Some("a name of CORS that is none");
    }
    let media = direct_response.as_ref().and_then(|response| response.content_type.as_deref());
    media.is_some_and(|media| !is_field("content-type", media)).then_some("a malformed media type")
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
        let budget = rule.retry.as_ref().and_then(|retry| retry.budget.as_ref());
        let budget = budget.map(|budget| world.budget((name, port, &rule.name), budget, now));
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
                let to = match found {
                    None => Backend::Missing(format!("{target}:{target_port}").into()),
                    Some(cluster) => match changes(&rule, backend) {
                        None => Backend::Cluster(cluster),
                        Some(changes) => Backend::Changed(cluster, Arc::new(changes)),
                    },
                };
                (backend.weight, to)
            })
            .collect();
        Rule {
            actions: Actions::new(&rule).map(Box::new),
            name: rule.name.into(),
            backends: Backends::new(backends),
            request_headers: rule.request_headers,
            response_headers: rule.response_headers,
            timeouts: rule.timeouts,
            retry: rule.retry.as_ref().map(|retry| Box::new(Policy::new(retry))),
            budget,
        }
    });
    let rules = rules.collect();
    Some(Snapshot { cluster, protocol, routes, rules })
}

/// Changes of the heads of what goes to this backend, if it has some of its own.
fn changes(rule: &ferrule_config::Rule, backend: &ferrule_config::Backend) -> Option<Changes> {
    if backend.request_headers.is_empty() && backend.response_headers.is_empty() {
        return None;
    }
    Some(Changes {
        request_headers: rule.request_headers.then(&backend.request_headers),
        response_headers: rule.response_headers.then(&backend.response_headers),
    })
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
    Snapshot {
        cluster: Arc::new(cluster),
        protocol: Protocol::Detect,
        routes: Arc::default(),
        rules: Vec::new(),
    }
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
