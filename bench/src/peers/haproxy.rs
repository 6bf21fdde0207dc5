//! HAProxy: one thread, connections to servers shared by all clients, no logs; TCP by `splice`, which takes it a third
//! less time than copying (`splice-auto` never chose it here). With TLS between two it speaks HTTP/2 there, which costs it half
//! of what HTTP/1.1 does.

use super::{Carry, Hop, Material};

/// `haproxy.cfg`.
pub(super) fn config(hop: &Hop) -> String {
    let mode = if hop.carry == Carry::Tcp { "tcp" } else { "http" };
    let reuse = if hop.carry == Carry::Tcp { "  option splice-response\n" } else { "  http-reuse always\n" };
    let protocol = if matches!(hop.carry, Carry::Http2 | Carry::Grpc) { " proto h2" } else { "" };
    let mut config = format!(
        "global\n  nbthread 1\n  maxconn {MAX_CONNECTIONS}\n  no strict-limits\n\
         defaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n{reuse}"
    );
    let between = if hop.carry == Carry::Tcp { "" } else { " alpn h2" };
    let tls = |material: &Material| {
        let Material { root, pair, .. } = material;
        let (root, pair) = (root.display(), pair.display());
        format!(" ssl crt {pair} ca-file {root} verify required ssl-min-ver TLSv1.3{between}")
    };
    let accept = hop.accepts().map_or_else(|| protocol.to_owned(), tls);
    let connect = hop.connects().map_or_else(|| protocol.to_owned(), tls);
    for (index, way) in hop.ways.iter().enumerate() {
        config.push_str(&format!(
            "frontend in{index}\n  bind {} backlog 4096{accept}\n  default_backend out{index}\n\
             backend out{index}\n  balance roundrobin\n",
            way.listen
        ));
        for (server, endpoint) in way.endpoints.iter().enumerate() {
            config.push_str(&format!("  server s{server} {endpoint}{connect}\n"));
        }
    }
    config
}

/// A few more than are held for memory. HAProxy asks for two files for each, which a machine may not allow; here
/// clients share the connections to servers, so that half is enough (`no strict-limits`).
const MAX_CONNECTIONS: u32 = 10_100;
