//! Keeps what the pod uses: answers look-ups, starts and ends watches, and puts snapshots in force.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use super::{
    Command, Resolved, assemble, balancing,
    kube::{Kube, Watched},
    objects::{Name, Service},
    world::{Change, World},
};
use crate::{
    balance::Locality,
    settings::ServicePort,
    snapshot::{Backend, Destination, Directory, Entry},
    telemetry::Telemetry,
};

/// How long an address that is no Service's is not asked about again.
const OUTSIDE_FOR: Duration = Duration::from_secs(10);
/// The same after a look-up that failed: the rights of a namespace that was labelled just now may still be on
/// their way.
const UNKNOWN_FOR: Duration = Duration::from_millis(500);
/// How long a configuration that was deleted stays in force: the operator puts back what somebody else deleted,
/// and in the meantime requests must not fall back to having no Route.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// Addresses that are remembered as no Service's.
const MOST_OUTSIDE: usize = 4096;
/// News that are taken in together, before snapshots are made.
const BATCH: usize = 64;

/// Where news comes from.
pub(super) enum Origin {
    Kube(Arc<Kube>),
    Files,
}

pub(super) struct Keeper {
    origin: Origin,
    world: World,
    directory: Arc<Directory>,
    telemetry: Arc<Telemetry>,
    kept: HashMap<ServicePort, Arc<Destination>>,
    /// Look-ups by name whose Service is not completely known yet.
    waiting: Vec<(ServicePort, Option<SocketAddr>, oneshot::Sender<Resolved>)>,
    /// Look-ups by address that the API server was asked about.
    asked: HashMap<IpAddr, Vec<(SocketAddr, oneshot::Sender<Resolved>)>>,
    watches: HashMap<Watched, AbortHandle>,
    last_refusal: Option<String>,
    /// Namespaces whose configuration is gone, and when that takes effect.
    gone: HashMap<String, tokio::time::Instant>,
}

/// The API server's answer to a look-up by address; none when it gave none.
type Answer = (IpAddr, Option<Option<Service>>);

impl Keeper {
    pub(super) fn new(
        origin: Origin,
        locality: Locality,
        directory: Arc<Directory>,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        Self {
            origin,
            world: World::new(locality),
            directory,
            telemetry,
            kept: HashMap::new(),
            waiting: Vec::new(),
            asked: HashMap::new(),
            watches: HashMap::new(),
            last_refusal: None,
            gone: HashMap::new(),
        }
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut changes: mpsc::Receiver<Change>,
    ) {
        let (answers, mut answered) = mpsc::channel::<Answer>(256);
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
                Some((address, service)) = answered.recv() => self.answered(address, service.as_ref()),
                () = first(&self.gone), if !self.gone.is_empty() => self.drop_gone(),
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
                return;
            }
        }
        match self.world.apply(change) {
            Ok(()) => {}
            // Half of the shards are new and half are not: the rest is on its way.
            Err(ferrule_config::shard::ShardError::Incomplete { .. }) => {}
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
            Command::Named(port, answer) => self.want(port, None, answer),
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
        let Origin::Kube(kube) = &self.origin else { return self.outside(address, OUTSIDE_FOR, answer) };
        let waiting = self.asked.entry(address.ip()).or_default();
        waiting.push((address, answer));
        if waiting.len() == 1 {
            let (kube, answers) = (Arc::clone(kube), answers.clone());
            tokio::spawn(async move {
                let ip = address.ip();
                let service = match kube.service_at(ip).await {
                    Ok(service) => Some(service),
                    Err(error) => {
                        tracing::warn!(%error, address = %ip, "look-up failed; the connection goes straight on");
                        None
                    }
                };
                let _ = answers.send((ip, service)).await;
            });
        }
    }

    fn answered(&mut self, ip: IpAddr, service: Option<&Option<Service>>) {
        for (address, answer) in self.asked.remove(&ip).unwrap_or_default() {
            match service {
                None => self.outside(address, UNKNOWN_FOR, answer),
                Some(None) => self.outside(address, OUTSIDE_FOR, answer),
                Some(Some(service)) => {
                    let Name { namespace, name } = service.metadata.full_name();
                    self.want(ServicePort { namespace, name, port: address.port() }, Some(address), answer);
                }
            }
        }
    }

    fn outside(&self, address: SocketAddr, duration: Duration, answer: oneshot::Sender<Resolved>) {
        let until = Instant::now() + duration;
        self.directory.update(|entries| {
            if entries.len() >= MOST_OUTSIDE {
                entries.retain(|_, entry| matches!(entry, Entry::Service(_)));
            }
            entries.insert(address, Entry::Outside(until));
        });
        let _ = answer.send(Resolved::Outside);
    }

    /// Answers with the destination, at once or when all that it needs was seen.
    fn want(&mut self, port: ServicePort, address: Option<SocketAddr>, answer: oneshot::Sender<Resolved>) {
        self.waiting.push((port, address, answer));
        self.watch();
        self.answer_waiting();
    }

    fn refresh(&mut self) {
        self.watch();
        let ports: Vec<_> = self.kept.keys().cloned().collect();
        for port in ports {
            let name = service_name(&port);
            // A route that leads to a Service not seen yet takes effect when that is seen.
            if !self.is_complete(&name) {
                continue;
            }
            match assemble::snapshot(&mut self.world, &name, port.port, Instant::now()) {
                Some(snapshot) => {
                    self.kept[&port].replace(snapshot);
                    self.telemetry.snapshots.inc();
                }
                None => self.forget(&port),
            }
        }
        self.answer_waiting();
    }

    /// The Service or its port is gone: its addresses may become somebody else's.
    fn forget(&mut self, port: &ServicePort) {
        let Some(gone) = self.kept.remove(port) else { return };
        self.directory.update(|entries| {
            entries.retain(|_, entry| !matches!(entry, Entry::Service(kept) if Arc::ptr_eq(kept, &gone)));
        });
        tracing::info!(namespace = port.namespace, service = port.name, port = port.port, "Service is gone");
    }

    fn answer_waiting(&mut self) {
        for (port, address, answer) in std::mem::take(&mut self.waiting) {
            let name = service_name(&port);
            if !self.is_complete(&name) {
                self.waiting.push((port, address, answer));
                continue;
            }
            let known = self.kept.get(&port).cloned();
            let destination = known.or_else(|| {
                let snapshot = assemble::snapshot(&mut self.world, &name, port.port, Instant::now())?;
                let destination = Arc::new(Destination::new(snapshot));
                self.kept.insert(port.clone(), Arc::clone(&destination));
                Some(destination)
            });
            match (destination, address) {
                (Some(destination), address) => {
                    if let Some(address) = address {
                        let entry = Entry::Service(Arc::clone(&destination));
                        self.directory.update(|entries| {
                            entries.insert(address, entry.clone());
                        });
                    }
                    let _ = answer.send(Resolved::Service(destination));
                }
                (None, Some(address)) => self.outside(address, OUTSIDE_FOR, answer),
                (None, None) => {
                    let _ = answer.send(Resolved::Outside);
                }
            }
        }
        // Whoever asked has given up: what he asked for is not needed any more.
        self.waiting.retain(|(_, _, answer)| !answer.is_closed());
    }

    fn is_complete(&self, name: &Name) -> bool {
        matches!(self.origin, Origin::Files) || self.world.is_complete(name)
    }

    /// Starts the watches that are missing and ends those that are not needed any more.
    fn watch(&mut self) {
        let Origin::Kube(kube) = &self.origin else { return };
        let wanted = self.kept.keys().chain(self.waiting.iter().map(|(port, ..)| port)).map(service_name);
        let needs = self.world.needs(wanted);
        let mut watched: HashSet<Watched> = HashSet::new();
        for name in &needs.services {
            watched.insert(Watched::Service(name.clone()));
            watched.insert(Watched::Slices(name.clone()));
        }
        for namespace in &needs.namespaces {
            for index in 0..self.world.shard_count(namespace) {
                watched.insert(Watched::Shard(namespace.clone(), index));
            }
        }
        self.watches.retain(|watch, handle| {
            let needed = watched.contains(watch);
            if !needed {
                handle.abort();
            }
            needed
        });
        for watch in watched {
            if !self.watches.contains_key(&watch) {
                self.watches.insert(watch.clone(), kube.watch(watch));
            }
        }
        self.telemetry.watches.set(i64::try_from(self.watches.len()).unwrap_or(i64::MAX));
        self.world.retain(&needs);
    }

    fn dump(&self) -> serde_json::Value {
        let now = Instant::now();
        let destinations: Vec<_> = self
            .kept
            .iter()
            .map(|(port, destination)| {
                let snapshot = destination.now();
                let rules = snapshot.rules.iter().map(|rule| {
                    let backends = rule.backends.iter().map(|(bound, backend)| match backend {
                        Backend::Missing(name) => json!({"missing": &**name, "upTo": bound}),
                        Backend::Cluster(cluster) => json!({
                            "service": &*cluster.service,
                            "port": cluster.port,
                            "upTo": bound,
                            "balancer": balancing::describe(&cluster.balancer, now),
                        }),
                    });
                    json!({
                        "name": &*rule.name,
                        "backends": backends.collect::<Vec<_>>(),
                        "requestHeaders": rule.request_headers,
                        "responseHeaders": rule.response_headers,
                        "timeouts": rule.timeouts,
                    })
                });
                json!({
                    "service": format!("{}/{}", port.namespace, port.name),
                    "port": port.port,
                    "protocol": format!("{:?}", snapshot.protocol).to_lowercase(),
                    "balancer": balancing::describe(&snapshot.cluster.balancer, now),
                    "routes": snapshot.routes,
                    "rules": rules.collect::<Vec<_>>(),
                })
            })
            .collect();
        let watches: Vec<_> = self.watches.keys().map(ToString::to_string).collect();
        json!({"destinations": destinations, "watches": watches, "lastRefusal": self.last_refusal})
    }
}

/// Waits for the earliest of these times.
async fn first(times: &HashMap<String, tokio::time::Instant>) {
    if let Some(earliest) = times.values().min() {
        tokio::time::sleep_until(*earliest).await;
    }
}

fn service_name(port: &ServicePort) -> Name {
    Name { namespace: port.namespace.clone(), name: port.name.clone() }
}
