//! nginx: one process, connections to upstreams kept, no logs. `proxy_pass` speaks HTTP/1.1 only, so HTTP/2 goes
//! upstream by `grpc_pass`, which puts one request at a time on a connection. Between two there is HTTP/1.1 over TLS.

use std::path::Path;

use super::{Carry, Hop, Material};
use crate::authority::NAME;

/// `nginx.conf`.
pub(super) fn config(hop: &Hop, directory: &Path, modules: &Path) -> String {
    let mut servers = String::new();
    let (ssl, accept) = match hop.accepts() {
        Some(material) => (" ssl", accepting(material)),
        None => ("", String::new()),
    };
    let connect = hop.connects().map(|material| connecting(material, hop.carry)).unwrap_or_default();
    let secure = if hop.connects().is_some() { "s" } else { "" };
    for (index, way) in hop.ways.iter().enumerate() {
        let endpoints: String = way.endpoints.iter().map(|endpoint| format!("server {endpoint}; ")).collect();
        servers.push_str(&match hop.carry {
            Carry::Tcp => format!(
                "  upstream out{index} {{ {endpoints}}}\n  server {{ listen {}{ssl} backlog=4096; {accept}{connect}proxy_pass out{index}; }}\n",
                way.listen
            ),
            carry => {
                let (protocol, pass) = if carry == Carry::Http1 { ("", "proxy_pass http") } else { (" http2", "grpc_pass grpc") };
                format!(
                    "  upstream out{index} {{ {endpoints}keepalive 256; keepalive_requests {FOREVER}; }}\n  \
                     server {{ listen {}{ssl} backlog=4096{protocol}; {accept}{connect}location / {{ {pass}{secure}://out{index}; }} }}\n",
                    way.listen
                )
            }
        });
    }
    let directory = directory.display();
    let (load, context, settings) = if hop.carry == Carry::Tcp {
        let module = modules.join("ngx_stream_module.so");
        (format!("load_module {};\n", module.display()), "stream", "  proxy_buffer_size 64k;\n".to_owned())
    } else {
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|what| format!("  {what}_temp_path {directory}/{what};\n"))
            .collect();
        (
            String::new(),
            "http",
            format!(
                "  access_log off;\n  keepalive_timeout 1h;\n  keepalive_requests {FOREVER};\n  \
                 proxy_http_version 1.1;\n  proxy_set_header Connection \"\";\n  proxy_set_header Host $http_host;\n  \
                 proxy_buffers 8 16k;\n  proxy_max_temp_file_size 0;\n{temporary}"
            ),
        )
    };
    format!(
        "{load}daemon off;\nmaster_process off;\npid {directory}/nginx.pid;\nerror_log stderr error;\n\
         events {{ worker_connections 32768; }}\n{context} {{\n{settings}{servers}}}\n"
    )
}

/// Takes TLS 1.3 alone, from clients with a certificate; resumption as most do it.
fn accepting(material: &Material) -> String {
    let Material { root, pair, .. } = material;
    let (root, pair) = (root.display(), pair.display());
    format!(
        "ssl_protocols TLSv1.3; ssl_certificate {pair}; ssl_certificate_key {pair}; ssl_client_certificate {root}; \
         ssl_verify_client on; ssl_session_cache shared:tls:10m; "
    )
}

/// The same from the other side.
fn connecting(material: &Material, carry: Carry) -> String {
    let Material { root, pair, .. } = material;
    let (root, pair) = (root.display(), pair.display());
    let on = if carry == Carry::Tcp { "proxy_ssl on; " } else { "" };
    format!(
        "{on}proxy_ssl_protocols TLSv1.3; proxy_ssl_certificate {pair}; proxy_ssl_certificate_key {pair}; \
         proxy_ssl_trusted_certificate {root}; proxy_ssl_verify on; proxy_ssl_name {NAME}; proxy_ssl_session_reuse on; "
    )
}

/// Requests after which a connection would be closed.
const FOREVER: u32 = 1_000_000_000;
