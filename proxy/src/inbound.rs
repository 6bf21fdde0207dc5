//! Connections of others to the pod's application.

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use tokio::net::TcpStream;

use crate::{
    balance::{Balancer, Endpoint},
    buffer::Buffer,
    net, serve,
    snapshot::{Cluster, Destination, Protocol, Snapshot},
    sniff::{self, Found},
    tcp,
    telemetry::Carried,
    worker::{Direction, Worker},
};

const IN: Direction = Direction::Inbound;
/// Ports of the application that a thread remembers. A pod has few; a scanner of ports must not fill the memory.
const MOST_PORTS: usize = 256;

/// What a thread has learnt of the application's ports.
#[derive(Debug, Default)]
pub struct Applications {
    ports: RefCell<HashMap<SocketAddr, Arc<Destination>>>,
}

impl Applications {
    /// The destination that stands for the application at this address.
    pub fn at(&self, address: SocketAddr) -> Arc<Destination> {
        let mut ports = self.ports.borrow_mut();
        if ports.len() >= MOST_PORTS && !ports.contains_key(&address) {
            ports.clear();
        }
        Arc::clone(ports.entry(address).or_insert_with(|| Arc::new(application(address))))
    }
}

fn application(address: SocketAddr) -> Destination {
    let cluster = Cluster {
        service: format!("port-{}", address.port()).into(),
        port: address.port(),
        protocol: Protocol::Detect,
        balancer: Arc::new(Balancer::only(Arc::new(Endpoint::new(address)))),
    };
    let destination = Destination::new(Snapshot {
        cluster: Arc::new(cluster),
        protocol: Protocol::Detect,
        routes: Vec::new(),
        rules: Vec::new(),
    });
    // Until a client is seen to speak first the application is connected at once: the sidecar on the other side may
    // have waited for the client already, and two waits would add up.
    destination.set_server_first(true);
    destination
}

/// Serves a connection for the application at `address`. Boxed by its steps as in [`crate::outbound::serve`].
pub async fn serve(
    mut client: TcpStream,
    address: SocketAddr,
    worker: &Rc<Worker>,
    applications: &Applications,
) {
    let destination = applications.at(address);
    let service = Arc::clone(&destination.now().cluster.service);
    let connect = async || Ok((address, net::connect(address, worker.limits.connect_last).await?));
    let sniffed = Box::pin(sniff::sniff(&mut client, &destination, &worker.limits, connect)).await;
    let (found, told) = match sniffed {
        Ok(sniffed) => sniffed,
        Err(error) => return fail(client, &service, &error, worker),
    };
    let decided = |carried| worker.telemetry.decided(IN, &service, told, carried);
    match found {
        Found::Http1(read, early) => {
            let _open = decided(Carried::Http1);
            if let Some((address, upstream)) = early {
                worker.inbound.put(address, upstream, Instant::now());
            }
            Box::pin(serve::http1::serve(client, read, &destination, worker, IN)).await;
        }
        Found::Http2(read) => {
            let _open = decided(Carried::Http2);
            Box::pin(serve::http2::serve(client, read, &destination, worker, IN)).await;
        }
        Found::Opaque(read, early) => {
            let _open = decided(Carried::Tcp);
            let upstream = match early {
                Some((_, upstream)) => Ok(upstream),
                None => net::connect(address, worker.limits.connect_last).await,
            };
            match upstream {
                Ok(upstream) => {
                    let flows = worker.recorder.flows(IN, &service, &client, address);
                    Box::pin(tcp::relay(client, read, upstream, Buffer::default(), &flows)).await;
                }
                Err(error) => fail(client, &service, &error, worker),
            }
        }
        Found::Nothing => {}
    }
}

fn fail(client: TcpStream, service: &Arc<str>, error: &std::io::Error, worker: &Worker) {
    tracing::debug!(%service, %error, "inbound connection failed");
    worker.recorder.not_carried(IN, service, &client, error);
    net::reset(client);
}
