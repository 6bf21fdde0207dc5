//! Connections of others to the pod's application.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use ferrule_config::TlsMode;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    access,
    balance::{Balancer, Endpoint},
    buffer::Buffer,
    net,
    peer::{Caller, Peer},
    serve,
    snapshot::{Cluster, Destination, Protocol, Snapshot},
    sniff::{self, Early, Found},
    stream::Stream,
    tcp::{
        self,
        client_hello::{self, Reading},
    },
    telemetry::{Carried, Told},
    tls::{accept::Accepted, alpn::Alpn, mode::Plaintext},
    worker::{Direction, Worker},
};

const IN: Direction = Direction::Inbound;
/// Ports of the application that a thread remembers. A pod has few; a scanner of ports must not fill the memory.
const MOST_PORTS: usize = 256;
/// How long a client may take to begin TLS after an application that speaks first has spoken: whoever speaks TLS does so
/// as soon as it is connected, and plain clients of such an application are held up for so long.
const HELLO: Duration = Duration::from_millis(10);

/// How long a client waits at a sidecar that has just started for it to know what it may accept.
const POLICY: Duration = Duration::from_secs(5);

/// What a thread has learnt of the application's ports.
#[derive(Debug, Default)]
pub struct Applications {
    ports: RefCell<HashMap<(SocketAddr, Protocol), Arc<Destination>>>,
}

impl Applications {
    /// The destination that stands for the application at this address, which speaks this.
    pub fn at(&self, address: SocketAddr, protocol: Protocol) -> Arc<Destination> {
        let mut ports = self.ports.borrow_mut();
        let key = (address, protocol);
        if ports.len() >= MOST_PORTS && !ports.contains_key(&key) {
            ports.clear();
        }
        Arc::clone(ports.entry(key).or_insert_with(|| Arc::new(application(address, protocol))))
    }
}

fn application(address: SocketAddr, protocol: Protocol) -> Destination {
    let cluster = Cluster {
        service: format!("port-{}", address.port()).into(),
        port: address.port(),
        protocol,
        balancer: Arc::new(Balancer::only(Arc::new(Endpoint::new(address)))),
        expected: None,
    };
    let destination = Destination::new(Snapshot {
        cluster: Arc::new(cluster),
        protocol,
        routes: Arc::default(),
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
    let inbound = Inbound { address, worker, applications };
    let accepts = worker.dialer.tls().inbound();
    if !accepts.is_known(POLICY).await {
        let detail = "connection refused: what this pod accepts is not known; is the API server reached?";
        tracing::warn!(port = address.port(), "{detail}");
        worker.telemetry.tls.refused("not-known");
        return net::reset(client);
    }
    let mode = accepts.mode(address.port());
    if mode == TlsMode::Strict {
        let mut read = Buffer::default();
        // Nobody is told anything before it has proved who it is.
        let found = timeout(worker.limits.tls_handshake, is_for_sidecar(&mut client, &mut read)).await;
        return match found {
            Ok(Ok(true)) => Box::pin(inbound.secure(client, read, None)).await,
            Ok(Ok(false)) if read.is_empty() => {}
            Ok(Ok(false)) | Err(_) => inbound.refuse(client),
            Ok(Err(_)) => {}
        };
    }
    let destination = applications.at(address, Protocol::Detect);
    let service = Arc::clone(&destination.now().cluster.service);
    let connect = async || {
        let stream = net::connect(address, worker.limits.connect_last).await?;
        Ok(Early::new(address, Stream::Plain(stream)))
    };
    let sniffed =
        Box::pin(sniff::sniff(&mut client, &destination, &worker.limits, Some(HELLO), connect)).await;
    let (found, told) = match sniffed {
        Ok(sniffed) => sniffed,
        Err(error) => return fail(Stream::Plain(client), &service, &error, worker),
    };
    let found = match found {
        Found::Opaque(mut read, early) if read.data().first() == Some(&HANDSHAKE) => {
            let found = timeout(worker.limits.tls_handshake, is_for_sidecar(&mut client, &mut read)).await;
            if matches!(found, Ok(Ok(true))) {
                return Box::pin(inbound.secure(client, read, early)).await;
            }
            Found::Opaque(read, early)
        }
        found => found,
    };
    let _plaintext = (!matches!(found, Found::Nothing)).then(|| inbound.saw_plaintext(&client));
    let caller = inbound.caller(&client, None);
    let client = Stream::Plain(client);
    match found {
        Found::Http1(read, early) => inbound.http1(client, read, early, told, caller).await,
        Found::Http2(read) => inbound.http2(client, read, Protocol::Detect, told, caller).await,
        Found::Opaque(read, early) => Box::pin(inbound.bytes(client, read, early, told, &caller)).await,
        Found::Nothing => {}
    }
}

/// A TLS record with a handshake.
const HANDSHAKE: u8 = 22;

/// Whether a client begins TLS with this sidecar. Reads as much as is needed to tell.
async fn is_for_sidecar(client: &mut TcpStream, read: &mut Buffer) -> io::Result<bool> {
    loop {
        if !read.is_empty() {
            match client_hello::read(read.data()) {
                Reading::Hello(hello) => return Ok(hello.mesh),
                Reading::Other => return Ok(false),
                Reading::Incomplete => {}
            }
        }
        if read.fill(client).await? == 0 {
            return Ok(false);
        }
    }
}

/// What a connection is served with.
struct Inbound<'a> {
    address: SocketAddr,
    worker: &'a Rc<Worker>,
    applications: &'a Applications,
}

impl Inbound<'_> {
    /// Serves a client that has begun TLS.
    async fn secure(&self, client: TcpStream, read: Buffer, early: Option<Early>) {
        let Self { address, worker, .. } = *self;
        let source = client.peer_addr().ok();
        let tls = worker.dialer.tls();
        let accepted = tls.accept(client, read, address.port(), &worker.handshakes, &worker.limits).await;
        let Accepted { stream, alpn, identity } = match accepted {
            Ok(accepted) => accepted,
            Err(failed) => {
                let cause = failed.cause.name();
                tracing::debug!(?source, cause, detail = failed.detail, "a client was not believed");
                return;
            }
        };
        let stream = Stream::Tls(Box::new(stream));
        let own = tls.material();
        let peer = Peer { identity: Some(identity), address: address_of(source) };
        let caller = Rc::new(Caller::new(peer, address.port(), own.as_ref().map(|own| &own.id)));
        let (read, told) = (Buffer::default(), Told::Handshake);
        match alpn {
            Alpn::Http2 => self.http2(stream, read, Protocol::Detect, told, caller).await,
            Alpn::Http2ForHttp1 => {
                self.keep(early);
                self.http2(stream, read, Protocol::Http1, told, caller).await;
            }
            Alpn::Http1 => self.http1(stream, read, early, told, caller).await,
            Alpn::Tcp => self.bytes(stream, read, early, told, &caller).await,
        }
    }

    fn keep(&self, early: Option<Early>) {
        if let Some(Early { address, stream: Stream::Plain(upstream), .. }) = early {
            self.worker.inbound.put(address, upstream, Instant::now());
        }
    }

    async fn http1(
        &self,
        client: Stream,
        read: Buffer,
        early: Option<Early>,
        told: Told,
        caller: Rc<Caller>,
    ) {
        let (destination, service) = self.destination(Protocol::Detect);
        let _open = self.worker.telemetry.decided(IN, &service, told, Carried::Http1);
        self.keep(early);
        let served = serve::http1::serve(client, read, &destination, self.worker, IN, Some(&caller));
        Box::pin(served).await;
    }

    /// `protocol`: what the application speaks.
    async fn http2(&self, client: Stream, read: Buffer, protocol: Protocol, told: Told, caller: Rc<Caller>) {
        let (destination, service) = self.destination(protocol);
        let _open = self.worker.telemetry.decided(IN, &service, told, Carried::Http2);
        let served = serve::http2::serve(client, read, &destination, self.worker, IN, Some(caller));
        Box::pin(served).await;
    }

    async fn bytes(
        &self,
        client: Stream,
        read: Buffer,
        early: Option<Early>,
        told: Told,
        caller: &Rc<Caller>,
    ) {
        let Self { address, worker, .. } = *self;
        let (_, service) = self.destination(Protocol::Detect);
        let _open = worker.telemetry.decided(IN, &service, told, Carried::Tcp);
        // Decided before a byte is passed on: whoever is refused learns nothing of the application.
        let Some(held) = worker.guard.hold(caller, |policy, subject| policy.decide(subject, None)) else {
            let error = io::Error::new(io::ErrorKind::PermissionDenied, "an AccessPolicy refuses it");
            return fail(client, &service, &error, worker);
        };
        let upstream = match early {
            Some(Early { stream, .. }) => Ok(stream),
            None => net::connect(address, worker.limits.connect_last).await.map(Stream::Plain),
        };
        match upstream {
            Ok(upstream) => {
                let flows = worker.recorder.flows(IN, &service, &client, address);
                let revoked = access::revoked(Some(&held));
                Box::pin(tcp::relay(client, read, upstream, Buffer::default(), &flows, revoked)).await;
            }
            Err(error) => fail(client, &service, &error, worker),
        }
    }

    fn destination(&self, protocol: Protocol) -> (Arc<Destination>, Arc<str>) {
        let destination = self.applications.at(self.address, protocol);
        let service = Arc::clone(&destination.now().cluster.service);
        (destination, service)
    }

    fn caller(
        &self,
        client: &TcpStream,
        identity: Option<Arc<ferrule_config::identity::SpiffeId>>,
    ) -> Rc<Caller> {
        let peer = Peer { identity, address: address_of(client.peer_addr().ok()) };
        Rc::new(Caller::new(peer, self.address.port(), None))
    }

    fn saw_plaintext(&self, client: &TcpStream) -> Option<Plaintext<'_>> {
        let Self { address, worker, .. } = *self;
        worker.telemetry.tls.plain(IN, "plaintext");
        let source = client.peer_addr().ok()?;
        Some(worker.dialer.tls().inbound().saw_plaintext(source.ip(), address.port(), Instant::now()))
    }

    /// The client must encrypt and does not.
    fn refuse(&self, client: TcpStream) {
        tracing::debug!(
            port = self.address.port(),
            "connection refused: it is not encrypted (MeshTLS is Strict)"
        );
        drop(self.saw_plaintext(&client));
        self.worker.telemetry.tls.refused("plaintext");
        net::reset(client);
    }
}

fn address_of(source: Option<SocketAddr>) -> IpAddr {
    source.map_or(Ipv4Addr::UNSPECIFIED.into(), |source| source.ip().to_canonical())
}

fn fail(client: Stream, service: &Arc<str>, error: &io::Error, worker: &Worker) {
    tracing::debug!(%service, %error, "inbound connection failed");
    worker.recorder.not_carried(IN, service, &client, error);
    client.reset();
}
