//! The program: listeners, worker threads, discovery, admin port, and the end of all that.
//!
//! [`build`] binds everything and returns the addresses, so that tests run the real program on port 0.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{net::TcpListener, net::TcpStream, task::LocalSet};

use crate::{
    access::{Access, Guard, Policy},
    admin::{self, Admin},
    discovery::{Discovery, Holds, Own},
    drain::{self, Drain, DrainControl, Phase},
    http2::upstreams::Upstreams,
    identity::Identity,
    inbound::{self, Applications},
    limits::Limit,
    memory::{self, Burst},
    net, outbound,
    pool::Pool,
    probe::Probes,
    settings::{ServicePort, Settings},
    telemetry::{AccessLog, Recorder, Telemetry},
    tls::{Tls, accept::Handshakes, dial::Dialer, mode::InboundPolicy},
    worker::{Direction, Worker},
};

/// How long a proxy that took inbound connections stays after it was told to end, so that those who still send to
/// it hear that the application is gone rather than nothing.
const LINGER: Duration = Duration::from_secs(2);
/// How long the end waits for the access log's last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_secs(5);
/// Pause after a failed accept: out of file descriptors, most likely, and a busy loop frees none.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A proxy that runs.
#[derive(Debug)]
pub struct App {
    /// Where the admin port is.
    pub admin: SocketAddr,
    /// Where connections are taken, in the order of the settings: redirected outbound and inbound, explicit
    /// outbound, explicit inbound.
    pub listeners: Vec<SocketAddr>,
    control: DrainControl,
    /// Views of the drain that are not connections.
    views: usize,
    telemetry: Arc<Telemetry>,
    limit: Duration,
    _workers: Vec<JoinHandle<()>>,
}

/// What a listener's connections are.
#[derive(Clone, Debug)]
enum Role {
    RedirectedOutbound,
    RedirectedInbound,
    Outbound(ServicePort),
    Inbound(SocketAddr),
}

/// Binds all listeners and starts everything.
///
/// # Errors
/// When an address can't be bound or discovery can't begin.
pub async fn build(settings: &Settings) -> anyhow::Result<App> {
    let access_log = settings.access_log.map(|options| AccessLog::start(options, std::io::stdout()));
    let telemetry = Arc::new(Telemetry::new(access_log.transpose().context("starting the access log")?));
    let (accepts, own_addresses) = (settings.accepts.clone(), settings.own_addresses.clone());
    let known = settings.pod.is_none();
    let tls = Tls::new(accepts, known, own_addresses, Arc::clone(&telemetry));
    let access = Access::default();
    let own = settings.pod.clone().map(|pod| {
        let (tls, access) = (tls.clone(), access.clone());
        let publish = move |holds: &Holds| {
            access.set(Policy::new(&holds.access));
            // Last, for it opens the door.
            tls.inbound().set_policy(InboundPolicy { tls: holds.modes.clone() });
        };
        Own::new(pod, settings.accepts.tls.clone(), publish)
    });
    let discovery = Discovery::start(
        &settings.discovery,
        settings.times,
        settings.locality.clone(),
        own,
        Arc::clone(&telemetry),
    )
    .context("starting discovery")?;
    let (control, drain) = drain::channel();
    let mut roles = Vec::new();
    if let Some(redirected) = settings.redirected {
        roles.push((redirected.outbound, Role::RedirectedOutbound));
        roles.push((redirected.inbound, Role::RedirectedInbound));
    }
    roles.extend(settings.outbound.iter().map(|(address, port)| (*address, Role::Outbound(port.clone()))));
    roles.extend(
        settings.inbound.iter().map(|(address, application)| (*address, Role::Inbound(*application))),
    );

    let mut listeners = Vec::new();
    let mut workers = Vec::new();
    for index in 0..settings.workers {
        let mut bound = Vec::new();
        for (position, (address, role)) in roles.iter().enumerate() {
            // All workers listen on the port that the first was given.
            let address = if index == 0 { *address } else { listeners[position] };
            let listener = net::listen(address)?;
            if index == 0 {
                listeners.push(listener.local_addr()?);
            }
            bound.push((listener.into_std()?, role.clone()));
        }
        let context = Context {
            limits: settings.limits,
            telemetry: Arc::clone(&telemetry),
            discovery: discovery.clone(),
            drain: drain.clone(),
            tls: tls.clone(),
            access: access.clone(),
            own_addresses: settings.own_addresses.clone(),
        };
        workers.push(
            std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || work(bound, context))?,
        );
    }
    let listener = net::listen(settings.admin)?;
    let address = listener.local_addr()?;
    let identity = Identity::start(settings.identity.as_ref(), Arc::clone(&telemetry));
    tls.follow(identity.clone());
    let admin = Admin {
        telemetry: Arc::clone(&telemetry),
        discovery,
        identity,
        tls,
        drain,
        probes: Probes::new(settings.probes.iter().cloned(), settings.own_addresses.clone()),
        expose_config: settings.expose_config,
    };
    tokio::spawn(admin::serve(listener, Arc::new(admin)));
    tokio::spawn(give_memory_back(Arc::clone(&telemetry)));
    let views = settings.workers + 1;
    Ok(App { admin: address, listeners, control, views, telemetry, limit: settings.drain, _workers: workers })
}

impl App {
    /// Ends in order: see [`drain`](crate::drain). Returns when no connection is open or the time is up.
    pub async fn end(self) {
        let deadline = Instant::now() + self.limit;
        self.control.enter(Phase::Draining);
        if self.telemetry.connections(Direction::Inbound) > 0 {
            tokio::time::sleep(LINGER.min(self.limit)).await;
        }
        self.control.enter(Phase::Closing);
        while self.control.open(self.views) > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let open = self.control.open(self.views);
        if let Some(log) = self.telemetry.access_log() {
            log.flush(LAST_LINES);
        }
        tracing::info!(open, "drained");
    }
}

async fn give_memory_back(telemetry: Arc<Telemetry>) {
    let mut burst = Burst::default();
    loop {
        tokio::time::sleep(memory::LOOK).await;
        let open =
            [Direction::Inbound, Direction::Outbound].map(|direction| telemetry.connections(direction));
        if burst.is_over(open.iter().sum()) {
            memory::give_back();
        }
    }
}

struct Context {
    limits: crate::limits::Limits,
    telemetry: Arc<Telemetry>,
    discovery: Discovery,
    drain: Drain,
    tls: Tls,
    access: Access,
    own_addresses: Vec<IpAddr>,
}

/// A worker thread: one runtime, everything on it local to the thread.
fn work(listeners: Vec<(std::net::TcpListener, Role)>, context: Context) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "worker thread has no runtime");
            return;
        }
    };
    let Context { limits, telemetry, discovery, drain, tls, access, own_addresses } = context;
    let shared = Rc::new(Shared {
        worker: Rc::new(Worker {
            outbound: Pool::default(),
            inbound: Pool::default(),
            outbound_http2: Upstreams::default(),
            inbound_http2: Upstreams::default(),
            dialer: Dialer::new(tls),
            handshakes: Handshakes::default(),
            guard: Guard::new(access, own_addresses, Arc::clone(&telemetry)),
            limits,
            recorder: Recorder::new(Arc::clone(&telemetry)),
            telemetry,
            drain,
        }),
        discovery,
        applications: Applications::default(),
    });
    let local = LocalSet::new();
    for (listener, role) in listeners {
        local.spawn_local(accept(listener, role, Rc::clone(&shared)));
    }
    let worker = Rc::clone(&shared.worker);
    local.spawn_local(async move { worker.guard.follow().await });
    local.spawn_local(async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            shared.worker.sweep(Instant::now());
        }
    });
    runtime.block_on(local);
}

struct Shared {
    worker: Rc<Worker>,
    discovery: Discovery,
    applications: Applications,
}

async fn accept(listener: std::net::TcpListener, role: Role, shared: Rc<Shared>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "listener is unusable");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.worker.drain.reached(Phase::Closing) => return,
        };
        match accepted {
            Ok((client, _)) => {
                tokio::task::spawn_local(serve(client, role.clone(), Rc::clone(&shared)));
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(client: TcpStream, role: Role, shared: Rc<Shared>) {
    let Shared { worker, discovery, applications } = &*shared;
    let _open = worker.drain.token();
    net::prepare(&client);
    let direction = match role {
        Role::RedirectedOutbound | Role::Outbound(_) => Direction::Outbound,
        Role::RedirectedInbound | Role::Inbound(_) => Direction::Inbound,
    };
    let open = worker.telemetry.open(direction);
    if open.now() > i64::try_from(worker.limits.connections).unwrap_or(i64::MAX) {
        worker.telemetry.limit(direction, Limit::Connections);
        return net::reset(client);
    }
    match role {
        Role::Outbound(port) => {
            let Some(destination) = discovery.named(&port).await else {
                tracing::warn!(
                    service = format!("{}/{}", port.namespace, port.name),
                    port = port.port,
                    "connection refused: there is no such Service, or no such port of it"
                );
                return net::reset(client);
            };
            outbound::serve(client, &destination, worker).await;
        }
        Role::Inbound(application) => inbound::serve(client, application, worker, applications).await,
        Role::RedirectedOutbound | Role::RedirectedInbound => {
            let Some(original) = original_destination(&client) else {
                tracing::debug!(
                    ?direction,
                    "connection to the proxy's own port refused: it was not redirected"
                );
                return net::reset(client);
            };
            match direction {
                Direction::Outbound => outbound::redirected(client, original, worker, discovery).await,
                Direction::Inbound => inbound::serve(client, original, worker, applications).await,
            }
        }
    }
}

/// Where the connection was meant to go; `None` when that is this listener itself, which would go round for ever.
fn original_destination(client: &TcpStream) -> Option<SocketAddr> {
    let original = net::original_destination(client)?;
    let own = net::canonical(client.local_addr().ok()?);
    (original != own).then_some(original)
}
