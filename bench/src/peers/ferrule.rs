//! Ferrule as it runs in a pod, with files for the API server: a Route of several rules of which the last but one
//! matches by a header field, two endpoints, metrics.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use ferrule_config::{
    Backend, FORMAT, HeaderMatch, Match, Mesh, Modes, PathMatch, Peers, RouteEntry, Rule, Service, TlsMode,
    ValueMatch, shard,
};
use serde_json::{Value, json};

use super::{Carry, Hop, Material};
use crate::{authority, content};

const NAMESPACE: &str = authority::NAMESPACE;
/// What clients call.
const FRONT: &str = "items";
/// Where the matching rule leads.
const ROUTED: &str = "items-blue";
/// The endpoint of `FRONT` itself for whatever can be routed. Nobody listens there, so a proxy that does not follow
/// the Route cannot answer.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// The objects of a directory, by the names of their files.
pub(super) fn objects(hop: &Hop) -> anyhow::Result<Vec<(String, Value)>> {
    let mut objects = Vec::new();
    if hop.inbound {
        return Ok(objects);
    }
    for way in &hop.ways {
        // Strict, so that nothing goes unencrypted if a certificate is not there yet.
        let modes = Modes { mode: TlsMode::Strict, ..Modes::default() };
        let accounts = vec![authority::ACCOUNT.to_owned()];
        let peers = hop.connects().map(|_| Peers { accounts, modes, ..Peers::default() });
        let mut services = BTreeMap::new();
        if hop.carry == Carry::Tcp {
            service(&mut objects, FRONT, hop.carry, &way.endpoints);
            services.insert(FRONT.to_owned(), Service { peers, ..Service::default() });
        } else {
            service(&mut objects, FRONT, hop.carry, &[NOBODY]);
            service(&mut objects, ROUTED, hop.carry, &way.endpoints);
            services.insert(FRONT.to_owned(), route());
            services.insert(ROUTED.to_owned(), Service { peers, ..Service::default() });
        }
        let mesh = Mesh { format: FORMAT, namespace: NAMESPACE.into(), services, ..Mesh::default() };
        for (index, data) in shard::split(&mesh)?.into_iter().enumerate() {
            let metadata = json!({"name": shard::name(index), "namespace": NAMESPACE});
            objects.push((
                format!("config-{index}"),
                json!({"kind": "ConfigMap", "metadata": metadata, "data": data}),
            ));
        }
    }
    Ok(objects)
}

fn route() -> Service {
    let header =
        |name: &str, value: &str| HeaderMatch { name: name.into(), value: ValueMatch::Exact(value.into()) };
    let to = |service: &str| Backend {
        namespace: NAMESPACE.into(),
        name: service.into(),
        port: Some(80),
        weight: 1,
        ..Backend::default()
    };
    let rule = |name: &str, service: &str| Rule {
        name: format!("{NAMESPACE}/{FRONT}/{name}"),
        backends: vec![to(service)],
        ..Rule::default()
    };
    let entry = |matches, rule| RouteEntry { port: None, matches, rule };
    let prefix = |path: &str| Some(PathMatch::Prefix(path.into()));
    Service {
        routes: vec![
            entry(Match { path: prefix("/admin"), ..Match::default() }, 0),
            entry(
                Match { path: prefix("/items"), headers: vec![header("x-user", "beta")], ..Match::default() },
                0,
            ),
            entry(
                Match { headers: vec![header(content::ROUTED.0, content::ROUTED.1)], ..Match::default() },
                1,
            ),
            entry(Match::default(), 0),
        ],
        rules: vec![rule("rest", FRONT), rule("blue", ROUTED)],
        ..Service::default()
    }
}

fn service(objects: &mut Vec<(String, Value)>, name: &str, carry: Carry, endpoints: &[SocketAddr]) {
    let protocol = match carry {
        Carry::Http1 => "http",
        Carry::Http2 => "kubernetes.io/h2c",
        Carry::Grpc => "grpc",
        Carry::Tcp => "tcp",
    };
    objects.push((
        name.to_owned(),
        json!({
            "kind": "Service",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"ports": [{"name": "main", "port": 80, "appProtocol": protocol}]},
        }),
    ));
    for (index, endpoint) in endpoints.iter().enumerate() {
        let labels = json!({"kubernetes.io/service-name": name});
        objects.push((
            format!("{name}-{index}"),
            json!({
                "kind": "EndpointSlice",
                "metadata": {"name": format!("{name}-{index}"), "namespace": NAMESPACE, "labels": labels},
                "endpoints": [{"addresses": [endpoint.ip()]}],
                "ports": [{"name": "main", "port": endpoint.port()}],
            }),
        ));
    }
}

/// The proxy's settings.
pub(super) fn environment(hop: &Hop, objects: &Path) -> Vec<(String, String)> {
    let listeners: Vec<_> = hop
        .ways
        .iter()
        .map(|way| match hop.inbound {
            true => format!("{}={}", way.listen, way.endpoints[0]),
            false => format!("{}={NAMESPACE}/{FRONT}:80", way.listen),
        })
        .collect();
    let side = if hop.inbound { "FERRULE_INBOUND_LISTENERS" } else { "FERRULE_OUTBOUND_LISTENERS" };
    [
        ("FERRULE_DISCOVERY", format!("dir:{}", objects.display())),
        ("FERRULE_REDIRECTED", "false".into()),
        (side, listeners.join(",")),
        ("FERRULE_ADMIN", hop.admin.to_string()),
        ("FERRULE_WORKERS", "1".into()),
        ("FERRULE_LOG", "warn".into()),
    ]
    .into_iter()
    .chain(hop.tls.iter().flat_map(identity))
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Who the proxy is, and who gives it its certificate.
fn identity(material: &Material) -> [(&'static str, String); 5] {
    [
        ("FERRULE_IDENTITY", format!("{}:{}", authority::NAME, material.service.port())),
        ("FERRULE_IDENTITY_FILES", material.mounted.display().to_string()),
        ("POD_NAMESPACE", NAMESPACE.into()),
        ("SERVICE_ACCOUNT", authority::ACCOUNT.into()),
        ("FERRULE_MESH_TLS", "strict".into()),
    ]
}
