//! Asks the sidecars of a MeshTLS who comes to them without encryption.

use std::sync::Arc;

use ferrule_config::PlaintextReport;
use futures::{StreamExt as _, stream};
use tokio::sync::Semaphore;
use tracing::debug;

use super::{
    metrics::{Metrics, Outcome},
    ratchet::{Answer, Key, Pod},
};
use crate::sidecars::{self, CONCURRENCY};

/// What came of asking.
pub(super) struct Answers {
    pub(super) key: Key,
    pub(super) answers: Vec<Answer>,
}

/// Asks; clones share the bound on how many are asked at a time.
#[derive(Clone)]
pub(super) struct Inquirer {
    port: u16,
    metrics: Metrics,
    permits: Arc<Semaphore>,
}

impl Inquirer {
    pub(super) fn new(port: u16, metrics: Metrics) -> Self {
        Self { port, metrics, permits: Arc::new(Semaphore::new(CONCURRENCY)) }
    }

    /// Asks all of them, and takes no longer than the slowest.
    pub(super) async fn ask(self, key: Key, pods: Vec<Pod>) -> Answers {
        let ask = |pod: Pod| {
            let this = self.clone();
            async move {
                // The semaphore is never closed; without a permit it would only be less polite.
                let _permit = this.permits.acquire().await.ok();
                let report = this.report(&pod).await;
                Answer { pod, report }
            }
        };
        let answers = stream::iter(pods).map(ask).buffer_unordered(CONCURRENCY).collect().await;
        Answers { key, answers }
    }

    async fn report(&self, pod: &Pod) -> Option<PlaintextReport> {
        let answer = sidecars::ask(pod.address, self.port, "/tls").await;
        self.metrics.asked(if matches!(answer, Ok(Some(_))) { Outcome::Ok } else { Outcome::Error });
        match answer {
            Ok(report) => {
                if report.is_none() {
                    debug!(pod = pod.name, "sidecar is too old to tell who comes without encryption");
                }
                report
            }
            Err(error) => {
                debug!(pod = pod.name, %error, "sidecar does not tell who comes without encryption");
                None
            }
        }
    }
}
