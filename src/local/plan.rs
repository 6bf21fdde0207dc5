//! Where the proxies listen: one for each process, on free ports of the loopback interface.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
};

use super::processes::Process;

/// A process and the addresses of its proxy.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The process.
    pub process: Process,
    /// Where its proxy takes connections for each of [`Process::ports`].
    pub inbound: Vec<SocketAddr>,
    /// Where its proxy answers `/ready`, `/metrics` and `/config`.
    pub admin: SocketAddr,
}

impl Placement {
    /// Address of the endpoint that stands for the process.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.admin.ip()
    }

    /// The environment of its proxy, without what is the same for all.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let Self { process, inbound, admin } = self;
        let outbound = process.uses.iter().map(|used| {
            let (namespace, service) = used.service(&process.namespace);
            format!("{}={namespace}/{service}:{}", used.listen, used.port)
        });
        let inbound =
            inbound.iter().zip(&process.ports).map(|(listen, port)| format!("{listen}={}", port.address));
        vec![
            ("FERRULE_OUTBOUND_LISTENERS", outbound.collect::<Vec<_>>().join(",")),
            ("FERRULE_INBOUND_LISTENERS", inbound.collect::<Vec<_>>().join(",")),
            ("FERRULE_ADMIN", admin.to_string()),
            ("POD_NAME", process.name.clone()),
            ("POD_NAMESPACE", process.namespace.clone()),
        ]
    }
}

/// Finds a place for every process. Nothing holds the ports until the proxies listen on them; that another
/// program takes one in between shows as a proxy that does not start.
///
/// # Errors
/// When the machine has no free ports.
pub fn place(processes: Vec<Process>) -> io::Result<Vec<Placement>> {
    // Held together until the last is found, so that none is found twice.
    let mut held = Vec::new();
    let mut free = || -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        held.push(listener);
        Ok(address)
    };
    let mut placements = Vec::new();
    for process in processes {
        let inbound = process.ports.iter().map(|_| free()).collect::<io::Result<_>>()?;
        placements.push(Placement { inbound, admin: free()?, process });
    }
    Ok(placements)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::local::processes;

    const TEXT: &str = "\
processes:
- name: web
  namespace: shop
  command: [web]
  ports: [{port: 80, address: '127.0.0.1:18080'}, {port: 81, address: '127.0.0.1:18081'}]
  uses: [{listen: '127.0.0.1:9001', service: cart, port: 80}, {listen: '127.0.0.1:9002', service: bank/pay, port: 81}]
";

    #[test]
    fn no_port_is_given_out_twice() {
        let placements = place(processes::parse(TEXT).expect("valid")).expect("free ports");
        let [placement] = &placements[..] else { panic!("one process") };
        let addresses: BTreeSet<_> = placement.inbound.iter().chain([&placement.admin]).collect();
        assert_eq!(addresses.len(), 3);
    }

    #[test]
    fn the_environment_has_the_form_that_the_proxy_reads() {
        let process = processes::parse(TEXT).expect("valid").remove(0);
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let placement = Placement { process, inbound: vec![at(9101), at(9102)], admin: at(9201) };
        assert_eq!(
            placement.environment()[..3],
            [
                (
                    "FERRULE_OUTBOUND_LISTENERS",
                    "127.0.0.1:9001=shop/cart:80,127.0.0.1:9002=bank/pay:81".to_owned()
                ),
                (
                    "FERRULE_INBOUND_LISTENERS",
                    "127.0.0.1:9101=127.0.0.1:18080,127.0.0.1:9102=127.0.0.1:18081".to_owned()
                ),
                ("FERRULE_ADMIN", "127.0.0.1:9201".to_owned()),
            ]
        );
    }
}
