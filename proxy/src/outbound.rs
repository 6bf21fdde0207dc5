//! Connections of the pod's application: to a Service, balanced and routed; to anything else, straight on.

use std::{
    future::pending,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use tokio::net::TcpStream;

use crate::{
    balance::{Affinity, Load, Pick},
    buffer::Buffer,
    discovery::{Discovery, Resolved},
    net, serve,
    snapshot::Destination,
    sniff::{self, Early, Found},
    stream::Stream,
    tcp,
    telemetry::Carried,
    tls::alpn::Alpn,
    worker::{Direction, Worker},
};

const OUT: Direction = Direction::Outbound;

/// Serves a connection that was redirected on its way to `original`.
pub async fn redirected(client: TcpStream, original: SocketAddr, worker: &Rc<Worker>, discovery: &Discovery) {
    match discovery.resolve(original).await {
        Resolved::Service(destination) => serve(client, &destination, worker).await,
        Resolved::Outside => Box::pin(pass_through(client, original, worker)).await,
    }
}

/// Serves a connection to a destination. What each step needs lies on the heap by itself: a connection would else have room
/// for the largest of them, all the time.
pub async fn serve(mut client: TcpStream, destination: &Arc<Destination>, worker: &Rc<Worker>) {
    let service = Arc::clone(&destination.now().cluster.service);
    let source = client.peer_addr().ok().map(|address| address.ip());
    worker.telemetry.uses(destination);
    let connect = async || connect_any(destination, source, worker).await;
    let sniffed = Box::pin(sniff::sniff(&mut client, destination, &worker.limits, None, connect)).await;
    let (found, told) = match sniffed {
        Ok(sniffed) => sniffed,
        Err(error) => return fail(Stream::Plain(client), &service, &error, worker),
    };
    let decided = |carried| worker.telemetry.decided(OUT, &service, told, carried);
    match found {
        Found::Http1(read, early) => {
            let _open = decided(Carried::Http1);
            if let Some(Early { address, stream: Stream::Plain(upstream), .. }) = early {
                worker.outbound.put(address, upstream, Instant::now());
            }
            let client = Stream::Plain(client);
            Box::pin(serve::http1::serve(client, read, destination, worker, OUT, None)).await;
        }
        Found::Http2(read) => {
            let _open = decided(Carried::Http2);
            let client = Stream::Plain(client);
            Box::pin(serve::http2::serve(client, read, destination, worker, OUT, None)).await;
        }
        Found::Opaque(read, early) => {
            let _open = decided(Carried::Tcp);
            let client = Stream::Plain(client);
            Box::pin(relay(client, read, early, destination, source, worker)).await;
        }
        Found::Nothing => {}
    }
}

async fn relay(
    client: Stream,
    read: Buffer,
    early: Option<Early>,
    destination: &Destination,
    source: Option<IpAddr>,
    worker: &Rc<Worker>,
) {
    let connected = match early {
        Some(connected) => Ok(connected),
        None => connect_any(destination, source, worker).await,
    };
    match connected {
        Err(error) => fail(client, &destination.now().cluster.service, &error, worker),
        Ok(Early { address, stream, said }) => {
            let snapshot = destination.now();
            let _load = snapshot.cluster.balancer.find(address).map(Load::begin);
            let flows = worker.recorder.flows(OUT, &snapshot.cluster.service, &client, address);
            drop(snapshot);
            tcp::relay(client, read, stream, said, &flows, pending()).await;
        }
    }
}

/// Connects one endpoint after another until one takes the connection. Nothing was sent yet, so each may be tried.
async fn connect_any(
    destination: &Destination,
    source: Option<IpAddr>,
    worker: &Rc<Worker>,
) -> io::Result<Early> {
    let snapshot = destination.now();
    let balancer = &snapshot.cluster.balancer;
    let Affinity { hash, session } = Affinity::of_connection(balancer, || source);
    let mut tried = Vec::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no endpoint is ready");
    let most = balancer.members().len().min(crate::retry::MAX_ATTEMPTS);
    for attempt in 1..=most {
        let pick = Pick { hash, session, tried: &tried, now: Instant::now() };
        let picked = balancer.pick(&pick, |n| fastrand::usize(0..n));
        let Some(endpoint) = picked.filter(|endpoint| !tried.contains(&endpoint.address)) else { break };
        worker.recorder.pick(&snapshot.cluster.service);
        let limit = if attempt < most { worker.limits.connect } else { worker.limits.connect_last };
        let expected = snapshot.cluster.expected.as_deref();
        match worker.dialer.connect(endpoint, expected, Alpn::Tcp, limit, &worker.limits).await {
            Ok(stream) => return Ok(Early::new(endpoint.address, stream)),
            Err(error) => last = error,
        }
        tried.push(endpoint.address);
    }
    Err(last)
}

/// Where the client wanted to go, as it would without a mesh.
async fn pass_through(client: TcpStream, original: SocketAddr, worker: &Rc<Worker>) {
    let service = Arc::from("");
    let _open = worker.telemetry.connection(OUT, &service, Carried::Passthrough);
    // The system's own patience: the mesh is not to add a time limit to what it knows nothing of.
    let client = Stream::Plain(client);
    match TcpStream::connect(original).await {
        Ok(upstream) => {
            net::prepare(&upstream);
            let flows = worker.recorder.flows(OUT, &service, &client, original);
            let (upstream, none) = (Stream::Plain(upstream), Buffer::default());
            tcp::relay(client, none, upstream, Buffer::default(), &flows, pending()).await;
        }
        Err(error) => fail(client, &service, &error, worker),
    }
}

fn fail(client: Stream, service: &Arc<str>, error: &io::Error, worker: &Worker) {
    tracing::debug!(%service, %error, "outbound connection failed");
    worker.recorder.not_carried(OUT, service, &client, error);
    client.reset();
}
