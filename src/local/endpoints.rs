//! What the endpoint controller does in a cluster: EndpointSlices for Services that have a selector. Pure.

use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Service, ServicePort},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::ResourceExt;

use super::{plan::Placement, processes::Process};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The EndpointSlices of a Service: one for each process that its selector matches, because each has ports of
/// its own on the one address that they share. None for a Service without a selector, whose EndpointSlices
/// are written by hand.
#[must_use]
pub fn slices(service: &Service, placements: &[Placement]) -> Vec<EndpointSlice> {
    placements
        .iter()
        .filter(|placement| selects(service, &placement.process))
        .map(|placement| slice(service, placement))
        .filter(|slice| slice.ports.as_ref().is_some_and(|ports| !ports.is_empty()))
        .collect()
}

fn selects(service: &Service, process: &Process) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else { return false };
    service.namespace().as_ref() == Some(&process.namespace)
        && selector.iter().all(|(key, value)| process.labels.get(key) == Some(value))
}

fn slice(service: &Service, placement: &Placement) -> EndpointSlice {
    let Placement { process, .. } = placement;
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let ports = ports.iter().filter_map(|port| {
        let index = process.ports.iter().position(|candidate| is_target(port, candidate))?;
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(i32::from(placement.inbound[index].port())),
            protocol: Some("TCP".into()),
            app_protocol: port.app_protocol.clone(),
        })
    });
    let address = placement.address();
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", service.name_any(), process.name)),
            namespace: Some(process.namespace.clone()),
            labels: Some([(SERVICE_NAME.into(), service.name_any())].into()),
            ..ObjectMeta::default()
        },
        address_type: if address.is_ipv4() { "IPv4".into() } else { "IPv6".into() },
        endpoints: vec![Endpoint {
            addresses: vec![address.to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                serving: Some(true),
                terminating: Some(false),
            }),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".into()),
                name: Some(process.name.clone()),
                namespace: Some(process.namespace.clone()),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        }],
        ports: Some(ports.collect()),
    }
}

/// Whether a port of a process is the target of a port of a Service: by name, by number, or by the same number
/// when the Service does not say.
fn is_target(port: &ServicePort, candidate: &super::processes::Port) -> bool {
    if port.protocol.as_deref().is_some_and(|protocol| protocol != "TCP") {
        return false;
    }
    match &port.target_port {
        Some(IntOrString::String(name)) => candidate.name.as_ref() == Some(name),
        Some(IntOrString::Int(number)) => i32::from(candidate.port) == *number,
        None => i32::from(candidate.port) == port.port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::processes;

    fn placements() -> Vec<Placement> {
        let text = "\
processes:
- {name: v1, labels: {app: cart, version: v1}, command: [cart], ports: [{port: 8080, name: http, address: '127.0.0.1:18081'}]}
- {name: v2, labels: {app: cart, version: v2}, command: [cart], ports: [{port: 8080, name: http, address: '127.0.0.1:18082'}]}
- {name: other, namespace: bank, labels: {app: cart}, command: [cart], ports: [{port: 8080, address: '127.0.0.1:18083'}]}
";
        let processes = processes::parse(text).expect("valid");
        let placed = processes.into_iter().zip(9001..).map(|(process, port)| Placement {
            process,
            inbound: vec![([127, 0, 0, 1], port).into()],
            admin: ([127, 0, 0, 1], port + 100).into(),
        });
        placed.collect()
    }

    fn service(spec: &str) -> Service {
        serde_saphyr::from_str(&format!("metadata: {{name: cart, namespace: default}}\nspec: {spec}"))
            .expect("valid")
    }

    fn ports(spec: &str) -> Vec<(String, i32)> {
        let slices = slices(&service(spec), &placements());
        let port = |slice: EndpointSlice| {
            let port = slice.ports.expect("ports").remove(0);
            (slice.metadata.name.expect("a name"), port.port.expect("a number"))
        };
        slices.into_iter().map(port).collect()
    }

    #[test]
    fn a_selector_takes_all_processes_of_the_namespace_with_its_labels() {
        let both = [("cart-v1".to_owned(), 9001), ("cart-v2".to_owned(), 9002)];
        assert_eq!(ports("{selector: {app: cart}, ports: [{port: 80, targetPort: 8080}]}"), both);
        assert_eq!(
            ports("{selector: {app: cart, version: v2}, ports: [{port: 80, targetPort: http}]}"),
            both[1..]
        );
        assert_eq!(ports("{selector: {app: cart}, ports: [{port: 8080}]}"), both);
    }

    #[test]
    fn no_selector_or_another_port_means_no_endpoints() {
        assert_eq!(ports("{ports: [{port: 80, targetPort: 8080}]}"), []);
        assert_eq!(ports("{selector: {}, ports: [{port: 80, targetPort: 8080}]}"), []);
        assert_eq!(ports("{selector: {app: cart}, ports: [{port: 80}]}"), []);
        assert_eq!(ports("{selector: {app: cart}, ports: [{port: 8080, protocol: UDP}]}"), []);
    }
}
