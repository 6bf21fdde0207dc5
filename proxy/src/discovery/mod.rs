//! Where traffic can go: looked up when it is first needed, kept up to date for as long as it is used.
//!
//! ```text
//!   data path ── resolve ──▶ keeper ── needs ──▶ kube (watches) │ files (directory)
//!       ▲                      │ World (pure: what was seen → snapshots)   │
//!       └──── Directory ◀──────┴──────────────── changes ◀─────────────────┘
//! ```
//!
//! Nothing here knows of sockets that carry traffic. The proxy holds only what its pod uses.

mod assemble;
mod balancing;
mod directory;
mod dump;
mod files;
mod freshness;
mod keeper;
mod kube;
mod members;
pub mod objects;
mod own;
mod pod;
mod times;
mod world;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use self::{directory::Directory, freshness::Freshness};
pub use self::{
    freshness::Fresh,
    kube::Address,
    own::{Holds, Labels, Own, Pod},
    times::Times,
};
use crate::{
    balance::Locality,
    settings::{ServicePort, Source},
    snapshot::Destination,
    telemetry::Telemetry,
};

/// Longest time that a connection waits for the first look-up of its address, after that it goes straight on; and
/// that a connection to an explicit listener waits for its Service, after that it is ended.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause between two questions for a Service that is not there.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Look-ups that may wait.
const QUEUE: usize = 1024;

/// What an address is.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// A port of a Service. Whoever holds the destination keeps it from being dropped as idle.
    Service(Arc<Destination>),
    /// Something that the mesh does not know.
    Outside,
}

/// The data path's view of discovery.
#[derive(Clone, Debug)]
pub struct Discovery {
    directory: Arc<Directory>,
    freshness: Arc<Freshness>,
    commands: mpsc::Sender<Command>,
}

/// What the keeper is asked.
#[derive(Debug)]
enum Command {
    /// What is at this address?
    Address(SocketAddr, oneshot::Sender<Resolved>),
    /// The port of a Service by name, for an explicit listener.
    Named(ServicePort, oneshot::Sender<Resolved>),
    /// What is held now, for people.
    Dump(oneshot::Sender<serde_json::Value>),
}

impl Discovery {
    /// Starts discovery on the current runtime. `locality`: where this proxy runs. `own`: whom to tell what holds for the pod.
    ///
    /// # Errors
    /// When the source can't be used at all: no credentials, no such directory.
    pub fn start(
        source: &Source,
        times: Times,
        locality: Locality,
        own: Option<Own>,
        telemetry: Arc<Telemetry>,
    ) -> anyhow::Result<Self> {
        let directory = Arc::new(Directory::new(Instant::now()));
        let freshness = Arc::new(Freshness::new(Instant::now()));
        let (commands, receiver) = mpsc::channel(QUEUE);
        let (changes, incoming) = mpsc::channel(QUEUE);
        let watch = |address, changes| {
            let kube = kube::Kube::new(address, times, changes, Arc::clone(&telemetry))?;
            anyhow::Ok(keeper::Origin::Kube(Box::new(kube)))
        };
        let origin = match source {
            Source::Kube => watch(Address::in_cluster()?, changes)?,
            Source::Server(address) => watch(address.clone(), changes)?,
            Source::Directory(path) => {
                files::watch(path, changes, Arc::clone(&telemetry))?;
                keeper::Origin::Files
            }
        };
        let shared = (Arc::clone(&directory), Arc::clone(&freshness));
        let again = commands.downgrade();
        let keeper = keeper::Keeper::new(origin, locality, own, &times, shared, telemetry, again);
        tokio::spawn(keeper.run(receiver, incoming));
        Ok(Self { directory, freshness, commands })
    }

    /// What is at this address. Answered from memory but for the first time.
    pub async fn resolve(&self, address: SocketAddr) -> Resolved {
        match self.directory.find(address, Instant::now()) {
            Some(known) => known,
            None => match self.ask(|answer| Command::Address(address, answer), PATIENCE).await {
                Some(found) => found,
                // No answer: what was known of a pod holds on.
                None => {
                    let pod = self.directory.pod(address);
                    pod.map_or(Resolved::Outside, |(destination, _)| Resolved::Service(destination))
                }
            },
        }
    }

    /// A port of a Service by name, for an explicit listener; waits a while for it to be there.
    pub async fn named(&self, port: &ServicePort) -> Option<Arc<Destination>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let resolved = self.ask(|answer| Command::Named(port.clone(), answer), left).await;
            if let Some(Resolved::Service(destination)) = resolved {
                return Some(destination);
            }
            tokio::time::sleep(ASK_AGAIN.min(left)).await;
        }
    }

    /// How fresh what is in force is.
    #[must_use]
    pub fn freshness(&self) -> Fresh {
        self.freshness.read(Instant::now())
    }

    /// What is held now, for people.
    pub async fn dump(&self) -> serde_json::Value {
        let (answer, reply) = oneshot::channel();
        if self.commands.send(Command::Dump(answer)).await.is_err() {
            return serde_json::Value::Null;
        }
        reply.await.unwrap_or_default()
    }

    async fn ask(
        &self,
        command: impl FnOnce(oneshot::Sender<Resolved>) -> Command,
        patience: Duration,
    ) -> Option<Resolved> {
        let (answer, reply) = oneshot::channel();
        let ask = async {
            self.commands.send(command(answer)).await.ok()?;
            reply.await.ok()
        };
        tokio::time::timeout(patience, ask).await.ok().flatten()
    }
}
