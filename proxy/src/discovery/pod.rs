//! Pods that are dialled by their addresses: nothing is watched for them, so they are asked about again.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{Command, PATIENCE, Resolved, directory::Directory};
use crate::tls::expected::{Expected, Source};

/// Shortest time between two questions about one address, for those whose connections fail.
const PAUSE: Duration = Duration::from_millis(500);

/// Asks again about the pod at an address, once for all who wait for that.
#[derive(Debug)]
pub(super) struct AskAgain {
    pub address: SocketAddr,
    pub directory: Arc<Directory>,
    pub commands: mpsc::WeakSender<Command>,
}

impl AskAgain {
    async fn again(&self) -> Option<Arc<Expected>> {
        let began = Instant::now();
        if let Some((_, asked)) = self.directory.pod(self.address) {
            tokio::time::sleep_until((asked + PAUSE).into()).await;
        }
        // Somebody else may have asked meanwhile.
        let asked = self.directory.pod(self.address).filter(|(_, asked)| *asked > began);
        let destination = match asked {
            Some((destination, _)) => destination,
            None => {
                let (answer, reply) = oneshot::channel();
                self.commands.upgrade()?.send(Command::Address(self.address, answer)).await.ok()?;
                match reply.await.ok()? {
                    Resolved::Service(destination) => destination,
                    Resolved::Outside => return None,
                }
            }
        };
        destination.now().cluster.expected.clone()
    }
}

impl Source for AskAgain {
    fn ask(&self) -> Pin<Box<dyn Future<Output = Option<Arc<Expected>>> + '_>> {
        Box::pin(async { tokio::time::timeout(PATIENCE, self.again()).await.ok().flatten() })
    }
}
