//! Keeps what the pod uses: answers look-ups, says what is to be watched, puts snapshots in force, and drops what
//! nobody uses any more.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use ferrule_config::{peers::Peer, shard};
use tokio::sync::{mpsc, oneshot};

use super::{
    Command, Resolved, Times, assemble,
    directory::{Directory, POD_FOR},
    freshness::Freshness,
    kube::{ApiError, Key, Kind, Kube},
    objects::{Name, Service},
    own::Own,
    pod::AskAgain,
    world::{Change, Needs, World},
};
use crate::{balance::Locality, settings::ServicePort, snapshot::Destination, telemetry::Telemetry};

/// How long an address is not asked about again after a look-up that failed: the rights of a namespace that was
/// labelled just now may still be on their way.
const UNKNOWN_FOR: Duration = Duration::from_millis(500);
/// How long a configuration that was deleted stays in force: the operator puts back what somebody else deleted,
/// and in the meantime requests must not fall back to having no Route.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// News that are taken in together, before snapshots are made.
const BATCH: usize = 64;
/// Longest and shortest time between two looks for what is idle.
const SWEEP: Duration = Duration::from_secs(15);
const SHORTEST_SWEEP: Duration = Duration::from_millis(10);

/// Where news comes from.
pub(super) enum Origin {
    Kube(Box<Kube>),
    Files,
}

pub(super) struct Keeper {
    pub(super) origin: Origin,
    world: World,
    directory: Arc<Directory>,
    freshness: Arc<Freshness>,
    telemetry: Arc<Telemetry>,
    idle: Duration,
    pub(super) kept: HashMap<ServicePort, Kept>,
    /// What explicit listeners stand for: used as long as the process lives.
    pinned: HashSet<ServicePort>,
    /// Look-ups by name whose Service is not completely known yet.
    waiting: Vec<(ServicePort, Option<SocketAddr>, oneshot::Sender<Resolved>)>,
    /// Look-ups by address that the API server was asked about.
    asked: HashMap<IpAddr, Vec<(SocketAddr, oneshot::Sender<Resolved>)>>,
    pub(super) last_refusal: Option<String>,
    /// Namespaces whose configuration is gone, and when that takes effect.
    gone: HashMap<String, tokio::time::Instant>,
    own: Option<Own>,
    /// For those who ask again.
    commands: mpsc::WeakSender<Command>,
}

/// A destination that is held.
pub(super) struct Kept {
    pub destination: Arc<Destination>,
    /// When a connection or a request that had it was last seen.
    alive: Instant,
}

/// The API server's answer to a look-up by address; none when it gave none.
type Answer = (IpAddr, Option<Found>);

/// What has an address.
enum Found {
    Service(Box<Service>),
    Pod(Peer),
    Nothing,
}

impl Keeper {
    pub(super) fn new(
        origin: Origin,
        locality: Locality,
        own: Option<Own>,
        times: &Times,
        (directory, freshness): (Arc<Directory>, Arc<Freshness>),
        telemetry: Arc<Telemetry>,
        commands: mpsc::WeakSender<Command>,
    ) -> Self {
        let mut world = World::new(locality);
        if let Some(own) = &own {
            world.set_source(own.source());
        }
        Self {
            origin,
            world,
            directory,
            freshness,
            telemetry,
            idle: times.idle,
            kept: HashMap::new(),
            pinned: HashSet::new(),
            waiting: Vec::new(),
            asked: HashMap::new(),
            last_refusal: None,
            gone: HashMap::new(),
            own,
            commands,
        }
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut changes: mpsc::Receiver<Change>,
    ) {
        // The configuration of the pod's own namespace is needed whatever the pod uses.
        self.watch();
        let (answers, mut answered) = mpsc::channel::<Answer>(256);
        let mut sweep = tokio::time::interval((self.idle / 4).clamp(SHORTEST_SWEEP, SWEEP));
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                change = changes.recv() => {
                    let Some(change) = change else { return };
                    self.take_in(change);
                    for _ in 0..BATCH {
                        let Ok(change) = changes.try_recv() else { break };
                        self.take_in(change);
                    }
                    self.refresh();
                }
                command = commands.recv() => {
                    let Some(command) = command else { return };
                    self.obey(command, &answers);
                }
                Some((address, service)) = answered.recv() => self.answered(address, service),
                () = until(self.gone.values().min().copied()), if !self.gone.is_empty() => self.drop_gone(),
                () = until(self.settle_at()) => self.settle(),
                _ = sweep.tick() => self.sweep(Instant::now()),
            }
        }
    }

    fn take_in(&mut self, change: Change) {
        if let Change::Shard { namespace, index: 0, object } = &change {
            if object.is_some() {
                self.gone.remove(namespace);
            } else if self.world.meshes.contains_key(namespace) {
                let at = tokio::time::Instant::now() + GONE_AFTER;
                self.gone.entry(namespace.clone()).or_insert(at);
                self.world.make_do(namespace);
                return;
            }
        }
        match self.world.apply(change) {
            Ok(()) => {}
            // Half of the shards are new and half are not: the rest is on its way.
            Err(shard::ShardError::Incomplete { .. }) => {}
            Err(error) => {
                self.telemetry.config_refused.inc();
                let text = error.to_string();
                if self.last_refusal.as_ref() != Some(&text) {
                    tracing::warn!(%error, "configuration refused; the last good one stays in force");
                    self.last_refusal = Some(text);
                }
            }
        }
    }

    fn drop_gone(&mut self) {
        let now = tokio::time::Instant::now();
        let due: Vec<_> = self.gone.extract_if(|_, at| *at <= now).map(|(namespace, _)| namespace).collect();
        for namespace in due {
            // Nothing is left that could be refused.
            let _ = self.world.apply(Change::Shard { namespace, index: 0, object: None });
        }
        self.refresh();
    }

    fn obey(&mut self, command: Command, answers: &mpsc::Sender<Answer>) {
        match command {
            Command::Named(port, answer) => {
                self.pinned.insert(port.clone());
                self.want(port, None, answer);
            }
            Command::Address(address, answer) => self.look_up(address, answer, answers),
            Command::Dump(answer) => {
                let _ = answer.send(self.dump());
            }
        }
    }

    fn look_up(
        &mut self,
        address: SocketAddr,
        answer: oneshot::Sender<Resolved>,
        answers: &mpsc::Sender<Answer>,
    ) {
        if let Some(name) = self.world.by_address(address.ip()) {
            let port = ServicePort { namespace: name.namespace, name: name.name, port: address.port() };
            return self.want(port, Some(address), answer);
        }
        let Origin::Kube(kube) = &self.origin else { return self.outside(address, answer) };
        let waiting = self.asked.entry(address.ip()).or_default();
        waiting.push((address, answer));
        if waiting.len() == 1 {
            let (ip, answers) = (address.ip(), answers.clone());
            let asking = kube.service_at(ip);
            let system = self.own.as_ref().and_then(Own::system);
            let pod = system.map(|system| kube.pod_at(system, ip));
            tokio::spawn(async move {
                let pod = async {
                    match pod {
                        Some(asking) => asking.await,
                        None => Ok(None),
                    }
                };
                let found = futures::join!(asking, pod);
                let found = match found {
                    (Ok(Some(service)), _) => Ok(Found::Service(Box::new(service))),
                    (Ok(None), Ok(Some(pod))) => Ok(Found::Pod(pod)),
                    (Ok(None), Ok(None)) => Ok(Found::Nothing),
                    (Err(error), _) | (_, Err(error)) => Err(error),
                };
                let service = match found {
                    Ok(found) => Some(found),
                    Err(ApiError::Away) => None,
                    Err(error) => {
                        tracing::warn!(%error, address = %ip, "look-up failed; the connection goes straight on");
                        None
                    }
                };
                let _ = answers.send((ip, service)).await;
            });
        }
    }

    fn answered(&mut self, ip: IpAddr, found: Option<Found>) {
        for (address, answer) in self.asked.remove(&ip).unwrap_or_default() {
            match &found {
                None => {
                    let _ = answer.send(self.unknown(address));
                }
                Some(Found::Nothing) => self.outside(address, answer),
                Some(Found::Pod(peer)) => {
                    let _ = answer.send(Resolved::Service(self.pod(address, peer)));
                }
                Some(Found::Service(service)) => {
                    let Name { namespace, name } = service.metadata.full_name();
                    self.want(ServicePort { namespace, name, port: address.port() }, Some(address), answer);
                }
            }
        }
    }

    /// The destination that stands for a pod; the one that did before, as long as nothing has changed.
    fn pod(&self, address: SocketAddr, peer: &Peer) -> Arc<Destination> {
        let source = Arc::new(AskAgain {
            address,
            directory: Arc::clone(&self.directory),
            commands: self.commands.clone(),
        });
        let destination = match self.directory.pod(address) {
            Some((held, _)) => {
                held.replace(assemble::pod(address, peer, source, Some(&held.now())));
                held
            }
            None => Arc::new(Destination::new(assemble::pod(address, peer, source, None))),
        };
        self.directory.set_pod(address, &destination, POD_FOR, Instant::now());
        destination
    }

    /// Nothing could be found out. What was known of a pod holds on: it must not be spoken to plain for that the API
    /// server is away.
    fn unknown(&self, address: SocketAddr) -> Resolved {
        let now = Instant::now();
        match self.directory.pod(address) {
            Some((held, _)) => {
                self.directory.set_pod(address, &held, UNKNOWN_FOR, now);
                Resolved::Service(held)
            }
            None => {
                self.directory.set_unknown(address, UNKNOWN_FOR, now);
                Resolved::Outside
            }
        }
    }

    fn outside(&self, address: SocketAddr, answer: oneshot::Sender<Resolved>) {
        self.directory.set_outside(address, Instant::now());
        let _ = answer.send(Resolved::Outside);
    }

    /// Answers with the destination, at once or when all that it needs was seen.
    fn want(&mut self, port: ServicePort, address: Option<SocketAddr>, answer: oneshot::Sender<Resolved>) {
        self.waiting.push((port, address, answer));
        self.watch();
        self.answer_waiting();
    }

    /// Tells what holds for the pod, as soon as it is known. Its labels may change without any news.
    fn tell_own(&mut self) {
        let Some(own) = &mut self.own else { return };
        if matches!(self.origin, Origin::Files) || self.world.has_configuration(own.namespace()) {
            own.update(self.world.meshes.get(own.namespace()));
        } else {
            own.look();
        }
        self.world.set_source(own.source());
    }

    /// Puts what has changed in force, where it makes a difference.
    fn refresh(&mut self) {
        self.tell_own();
        let touched = self.world.take_touched();
        if !touched.is_empty() {
            self.watch();
            let ports: Vec<_> = self.kept.keys().cloned().collect();
            let mut changed = false;
            for port in ports {
                let name = service_name(&port);
                // A route that leads to a Service not seen yet takes effect when that is seen.
                if !self.world.concerns(&touched, &name) || !self.is_complete(&name) {
                    continue;
                }
                changed = true;
                match assemble::snapshot(&mut self.world, &name, port.port, Instant::now()) {
                    Some(snapshot) => {
                        self.kept[&port].destination.replace(snapshot);
                        self.telemetry.snapshots.inc();
                    }
                    None => self.forget(&port),
                }
            }
            if changed {
                self.freshness.changed(Instant::now());
            }
        }
        self.answer_waiting();
    }

    /// The Service or its port is gone: its addresses may become somebody else's.
    fn forget(&mut self, port: &ServicePort) {
        let Some(gone) = self.kept.remove(port) else { return };
        self.directory.forget(&gone.destination);
        self.count();
        tracing::info!(namespace = port.namespace, service = port.name, port = port.port, "Service is gone");
    }

    fn answer_waiting(&mut self) {
        for (port, address, answer) in std::mem::take(&mut self.waiting) {
            let name = service_name(&port);
            if !self.is_complete(&name) {
                self.waiting.push((port, address, answer));
                continue;
            }
            match (self.destination(&port, &name), address) {
                (Some(destination), address) => {
                    if let Some(address) = address {
                        self.directory.set_service(address, &destination, Instant::now());
                    }
                    let _ = answer.send(Resolved::Service(destination));
                }
                (None, Some(address)) => self.outside(address, answer),
                (None, None) => {
                    let _ = answer.send(Resolved::Outside);
                }
            }
        }
        // Whoever asked has given up: what he asked for is not needed any more.
        self.waiting.retain(|(_, _, answer)| !answer.is_closed());
    }

    /// The destination that is held, or a new one; none when the Service has no such port.
    fn destination(&mut self, port: &ServicePort, name: &Name) -> Option<Arc<Destination>> {
        if let Some(kept) = self.kept.get(port) {
            return Some(Arc::clone(&kept.destination));
        }
        let now = Instant::now();
        let snapshot = assemble::snapshot(&mut self.world, name, port.port, Instant::now())?;
        let destination = Arc::new(Destination::new(snapshot));
        self.kept.insert(port.clone(), Kept { destination: Arc::clone(&destination), alive: now });
        self.freshness.changed(now);
        self.count();
        Some(destination)
    }

    fn is_complete(&self, name: &Name) -> bool {
        matches!(self.origin, Origin::Files) || self.world.is_complete(name)
    }

    /// Drops what nobody has used for too long, in two steps: first its addresses, so that no connection finds it any
    /// more; and when at the next look none has it either, itself. A connection that found it just before that
    /// keeps it, and what it has stays up to date.
    fn sweep(&mut self, now: Instant) {
        self.directory.forget_outside(now);
        let (directory, pinned, idle) = (&self.directory, &self.pinned, self.idle);
        self.kept.retain(|port, kept| {
            let (addresses, unused) = directory.uses(&kept.destination, now);
            // Whoever has it but us and the directory is a connection or a request.
            if pinned.contains(port) || Arc::strong_count(&kept.destination) > 1 + addresses {
                kept.alive = now;
                return true;
            }
            if addresses == 0 {
                tracing::debug!(
                    namespace = port.namespace,
                    service = port.name,
                    port = port.port,
                    "idle; dropped"
                );
                return false;
            }
            if now.duration_since(kept.alive) >= idle && unused.is_none_or(|unused| unused >= idle) {
                directory.forget(&kept.destination);
            }
            true
        });
        self.waiting.retain(|(_, _, answer)| !answer.is_closed());
        self.watch();
        self.refresh();
        self.count();
        if let Origin::Kube(kube) = &self.origin {
            self.freshness.set_silence(kube.silence(now), now);
        }
    }

    fn count(&self) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.telemetry.discovery.destinations.set(gauge(self.kept.len()));
        self.telemetry.discovery.outside.set(gauge(self.directory.outside()));
    }

    /// Says what is to be watched, and forgets what is not needed any more.
    fn watch(&mut self) {
        let Origin::Kube(kube) = &mut self.origin else { return };
        let wanted = self.kept.keys().chain(self.waiting.iter().map(|(port, ..)| port)).map(service_name);
        let mut needs = self.world.needs(wanted);
        needs.namespaces.extend(self.own.as_ref().map(|own| own.namespace().to_owned()));
        kube.want(keys(&needs, &self.world), Instant::now());
        for namespace in self.world.cut_off(&needs) {
            kube.again(Key { kind: Kind::Config, namespace, name: shard::name(0) });
        }
        self.world.retain(&needs);
        self.gone.retain(|namespace, _| needs.namespaces.contains(namespace));
    }

    fn settle_at(&self) -> Option<tokio::time::Instant> {
        let Origin::Kube(kube) = &self.origin else { return None };
        kube.due().map(Into::into)
    }

    fn settle(&mut self) {
        if let Origin::Kube(kube) = &mut self.origin {
            kube.settle(Instant::now());
        }
    }
}

/// The objects that are needed.
fn keys(needs: &Needs, world: &World) -> BTreeSet<Key> {
    let of = |kind, name: &Name| Key { kind, namespace: name.namespace.clone(), name: name.name.clone() };
    let services = needs.services.iter().flat_map(|name| [of(Kind::Service, name), of(Kind::Slices, name)]);
    let shards = needs.namespaces.iter().flat_map(|namespace| {
        (0..world.shard_count(namespace)).map(|index| Key {
            kind: Kind::Config,
            namespace: namespace.clone(),
            name: shard::name(index),
        })
    });
    services.chain(shards).collect()
}

/// Waits until then; for ever without a time.
async fn until(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn service_name(port: &ServicePort) -> Name {
    Name { namespace: port.namespace.clone(), name: port.name.clone() }
}
