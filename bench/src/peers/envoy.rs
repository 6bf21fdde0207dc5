//! Envoy: one worker, no access log, no request ids, no admin port.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Carry, Hop};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// The bootstrap.
pub(super) fn config(hop: &Hop) -> Value {
    let listeners: Vec<_> = hop
        .ways
        .iter()
        .enumerate()
        .map(|(index, way)| {
            json!({
                "name": format!("in{index}"),
                "address": address(way.listen),
                "tcp_backlog_size": 4096,
                "filter_chains": [{"filters": [filter(hop.carry, &format!("out{index}"))]}],
            })
        })
        .collect();
    let clusters: Vec<_> = hop
        .ways
        .iter()
        .enumerate()
        .map(|(index, way)| cluster(hop.carry, &format!("out{index}"), &way.endpoints))
        .collect();
    json!({"static_resources": {"listeners": listeners, "clusters": clusters}})
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip(), "port_value": address.port()}})
}

fn filter(carry: Carry, cluster: &str) -> Value {
    if carry == Carry::Tcp {
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
            "codec_type": if carry == Carry::Http1 { "HTTP1" } else { "HTTP2" },
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

fn cluster(carry: Carry, name: &str, endpoints: &[SocketAddr]) -> Value {
    let endpoints: Vec<_> =
        endpoints.iter().map(|endpoint| json!({"endpoint": {"address": address(*endpoint)}})).collect();
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    });
    if matches!(carry, Carry::Http2 | Carry::Grpc) {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        });
    }
    cluster
}
