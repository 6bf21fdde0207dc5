//! Whether the Services that an object names exist.

use std::collections::BTreeMap;

use crate::{
    api::{PortTarget, ServiceTarget},
    controller::observe::{Observation, Service},
};

use super::finding::Reason;

/// Why a target does not exist, in words; `None` if it does.
pub(super) fn missing(of: &Observation, target: &ServiceTarget) -> Option<String> {
    let ServiceTarget { group: _, kind: _, name, port } = target;
    match (of.services.get(name), port) {
        (None, _) => Some(no_service(name)),
        (Some(service), Some(port)) if !service.ports.contains(port) => Some(no_port(name, service, *port)),
        (Some(_), _) => None,
    }
}

/// What keeps requests to a Service, or to one of its ports, from being balanced; `None` if nothing does.
pub(super) fn unbalanceable(of: &Observation, target: &PortTarget) -> Option<(Reason, String)> {
    let PortTarget { group: _, kind: _, name, section_name } = target;
    let Some(service) = of.services.get(name) else {
        return Some((Reason::TargetNotFound, no_service(name)));
    };
    if service.external {
        let message =
            format!("Service {name} is of type ExternalName, which has no endpoints to choose from");
        return Some((Reason::UnsupportedBackend, message));
    }
    let section = section_name.as_ref().filter(|section| !service.port_names.contains(section))?;
    let names = service.port_names.join(", ");
    let message = if names.is_empty() {
        format!(
            "Service {name} has no port named {section}; none of its ports has a name, leave sectionName out"
        )
    } else {
        format!("Service {name} has no port named {section}; it has {names}")
    };
    Some((Reason::TargetNotFound, message))
}

/// What is wrong with a backend for requests to these ports; `None` if nothing is.
pub(super) fn unusable(
    of: &Observation,
    name: &str,
    port: Option<u16>,
    requested: &[u16],
) -> Option<(Reason, String)> {
    let Some(service) = of.services.get(name) else {
        return Some((Reason::BackendNotFound, no_service(name)));
    };
    if service.external {
        let message = format!("Service {name} is of type ExternalName, which has no endpoints to send to");
        return Some((Reason::UnsupportedBackend, message));
    }
    let found = match port {
        Some(port) => service.ports.contains(&port),
        // Without a port of its own it is asked for that of the request, so one of them must be there.
        None => requested.is_empty() || requested.iter().any(|port| service.ports.contains(port)),
    };
    if found {
        return None;
    }
    let message = match port.or(requested.first().copied()) {
        Some(port) => no_port(name, service, port),
        None => format!("Service {name} has no ports"),
    };
    Some((Reason::BackendNotFound, message))
}

/// Which pods are behind a Service, or why none are.
pub(super) fn selector<'a>(of: &'a Observation, name: &str) -> Result<&'a BTreeMap<String, String>, String> {
    let service = of.services.get(name).ok_or_else(|| no_service(name))?;
    if service.external || service.selector.is_empty() {
        return Err(format!("Service {name} has no selector, so there are no pods that it stands for"));
    }
    Ok(&service.selector)
}

fn no_service(name: &str) -> String {
    format!("Service {name} does not exist in this namespace")
}

fn no_port(name: &str, service: &Service, port: u16) -> String {
    let ports: Vec<_> = service.ports.iter().map(ToString::to_string).collect();
    if ports.is_empty() {
        return format!("Service {name} has no port {port}; it has none at all");
    }
    format!("Service {name} has no port {port}; it has {}", ports.join(", "))
}
