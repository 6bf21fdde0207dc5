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
mod files;
mod keeper;
mod kube;
mod members;
pub mod objects;
mod world;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};

use crate::{
    balance::Locality,
    settings::{ServicePort, Source},
    snapshot::{Destination, Directory, Entry},
    telemetry::Telemetry,
};

/// Longest time that a connection waits for the first look-up of its address; after that it goes straight on.
const PATIENCE: Duration = Duration::from_secs(3);
/// Look-ups that may wait.
const QUEUE: usize = 1024;

/// What an address is.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// A port of a Service.
    Service(Arc<Destination>),
    /// Something that the mesh does not know.
    Outside,
}

/// The data path's view of discovery.
#[derive(Clone, Debug)]
pub struct Discovery {
    directory: Arc<Directory>,
    commands: mpsc::Sender<Command>,
}

/// What the keeper is asked.
#[derive(Debug)]
enum Command {
    /// What is at this address?
    Address(SocketAddr, oneshot::Sender<Resolved>),
    /// The port of a Service by name.
    Named(ServicePort, oneshot::Sender<Resolved>),
    /// What is held now, for people.
    Dump(oneshot::Sender<serde_json::Value>),
}

impl Discovery {
    /// Starts discovery on the current runtime. `locality`: where this proxy runs.
    ///
    /// # Errors
    /// When the source can't be used at all: no credentials, no such directory.
    pub fn start(source: &Source, locality: Locality, telemetry: Arc<Telemetry>) -> anyhow::Result<Self> {
        let directory = Arc::new(Directory::default());
        let (commands, receiver) = mpsc::channel(QUEUE);
        let (changes, incoming) = mpsc::channel(QUEUE);
        let source = match source {
            Source::Kube => keeper::Origin::Kube(kube::Kube::in_cluster(changes, Arc::clone(&telemetry))?),
            Source::Directory(path) => {
                files::watch(path, changes, Arc::clone(&telemetry))?;
                keeper::Origin::Files
            }
        };
        let keeper = keeper::Keeper::new(source, locality, Arc::clone(&directory), telemetry);
        tokio::spawn(keeper.run(receiver, incoming));
        Ok(Self { directory, commands })
    }

    /// What is at this address. Answered from memory but for the first time.
    pub async fn resolve(&self, address: SocketAddr) -> Resolved {
        match self.directory.find(address) {
            Some(Entry::Service(destination)) => Resolved::Service(destination),
            Some(Entry::Outside(until)) if std::time::Instant::now() < until => Resolved::Outside,
            _ => self.ask(|answer| Command::Address(address, answer), PATIENCE).await,
        }
    }

    /// A port of a Service by name; waits until it is there.
    pub async fn named(&self, port: &ServicePort) -> Arc<Destination> {
        loop {
            let resolved = self.ask(|answer| Command::Named(port.clone(), answer), PATIENCE).await;
            if let Resolved::Service(destination) = resolved {
                return destination;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
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
    ) -> Resolved {
        let (answer, reply) = oneshot::channel();
        let ask = async {
            self.commands.send(command(answer)).await.ok()?;
            reply.await.ok()
        };
        tokio::time::timeout(patience, ask).await.ok().flatten().unwrap_or(Resolved::Outside)
    }
}
