//! Envoy: one worker, no access log, no request ids, no admin port.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Carry, Hop, Material};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// The bootstrap.
pub(super) fn config(hop: &Hop) -> Value {
    let listeners: Vec<_> = hop
        .ways
        .iter()
        .enumerate()
        .map(|(index, way)| {
            let mut chain = json!({"filters": [filter(hop, &format!("out{index}"))]});
            if let Some(material) = hop.accepts() {
                chain["transport_socket"] = accepting(material, hop.carry);
            }
            json!({
                "name": format!("in{index}"),
                "address": address(way.listen),
                "tcp_backlog_size": 4096,
                "filter_chains": [chain],
            })
        })
        .collect();
    let clusters: Vec<_> = hop
        .ways
        .iter()
        .enumerate()
        .map(|(index, way)| cluster(hop, &format!("out{index}"), &way.endpoints))
        .collect();
    json!({"static_resources": {"listeners": listeners, "clusters": clusters}})
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip(), "port_value": address.port()}})
}

fn filter(hop: &Hop, cluster: &str) -> Value {
    if hop.carry == Carry::Tcp {
        return json!({
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": "in",
                "cluster": cluster,
            },
        });
    }
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "in",
            "codec_type": if hop.carry == Carry::Http1 && hop.accepts().is_none() { "HTTP1" } else { "HTTP2" },
            "generate_request_id": false,
            "route_config": {"virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}],
            }]},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": format!("{TYPES}.filters.http.router.v3.Router")},
            }],
        },
    })
}

fn cluster(hop: &Hop, name: &str, endpoints: &[SocketAddr]) -> Value {
    let endpoints: Vec<_> =
        endpoints.iter().map(|endpoint| json!({"endpoint": {"address": address(*endpoint)}})).collect();
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    });
    let between = hop.carry == Carry::Http1 && hop.connects().is_some();
    if between || matches!(hop.carry, Carry::Http2 | Carry::Grpc) {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        });
    }
    if let Some(material) = hop.connects() {
        cluster["transport_socket"] = connecting(material, hop.carry);
    }
    cluster
}

fn accepting(material: &Material, carry: Carry) -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
            "require_client_certificate": true,
            "common_tls_context": context(material, carry),
        },
    })
}

fn connecting(material: &Material, carry: Carry) -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": format!("{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext"),
            "common_tls_context": context(material, carry),
        },
    })
}

fn context(material: &Material, carry: Carry) -> Value {
    let Material { root, pair, .. } = material;
    let alpn: &[&str] = if carry == Carry::Tcp { &[] } else { &["h2"] };
    json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{"certificate_chain": {"filename": pair}, "private_key": {"filename": pair}}],
        "validation_context": {"trusted_ca": {"filename": root}},
        "alpn_protocols": alpn,
    })
}
