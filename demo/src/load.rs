//! Requests without a pause, and what became of them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{body::Body, http::Uri};
use http_body_util::BodyExt as _;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::split::Counts;

/// Clients at the same time.
const CLIENTS: usize = 4;
/// Time from one request of a client to its next; longer when the answer takes longer.
const PACE: Duration = Duration::from_millis(4);
/// An answer that takes longer counts as failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Answers by the split that they came by.
    pub splits: BTreeMap<String, Counts>,
    /// When the last request was sent that came by a split.
    pub last_sent: BTreeMap<String, Instant>,
    /// Requests without a good answer.
    pub failed: u64,
    /// What the first of them had.
    pub first_failure: Option<String>,
}

/// Requests that go on until this is dropped.
#[derive(Debug)]
pub struct Load {
    seen: Arc<Mutex<Seen>>,
    _clients: JoinSet<()>,
}

impl Load {
    /// Starts to send requests to the frontend at this address.
    ///
    /// # Errors
    /// When the address makes no URL.
    pub fn start(frontend: SocketAddr) -> anyhow::Result<Self> {
        let uri: Uri = format!("http://{frontend}/").parse()?;
        let seen = Arc::default();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(send(uri.clone(), Arc::clone(&seen)));
        }
        Ok(Self { seen, _clients: clients })
    }

    /// What was seen until now.
    #[must_use]
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

/// Waits until the frontend gives a good answer.
///
/// # Errors
/// The last bad one, when there is no good one within `patience`.
pub async fn answers(frontend: SocketAddr, patience: Duration) -> anyhow::Result<()> {
    let uri: Uri = format!("http://{frontend}/").parse()?;
    let client = client();
    let until = Instant::now() + patience;
    loop {
        match ask(&client, &uri).await {
            Ok(_) => return Ok(()),
            Err(problem) if Instant::now() > until => {
                anyhow::bail!("the frontend does not answer: {problem}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn send(uri: Uri, seen: Arc<Mutex<Seen>>) {
    let client = client();
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sent = Instant::now();
        let answer = ask(&client, &uri).await;
        let mut seen = lock(&seen);
        match answer {
            Ok(Answer { split, version }) => {
                let counts = seen.splits.entry(split.clone()).or_default();
                match version.as_str() {
                    "v1" => counts.v1 += 1,
                    _ => counts.v2 += 1,
                }
                let last = seen.last_sent.entry(split).or_insert(sent);
                *last = sent.max(*last);
            }
            Err(problem) => {
                seen.failed += 1;
                seen.first_failure.get_or_insert(problem);
            }
        }
    }
}

struct Answer {
    split: String,
    version: String,
}

async fn ask(client: &Client<HttpConnector, Body>, uri: &Uri) -> Result<Answer, String> {
    let answer = async {
        let response = client.get(uri.clone()).await.map_err(|error| format!("{error:?}"))?;
        let status = response.status();
        let split = response
            .headers()
            .get("x-split")
            .and_then(|value| value.to_str().ok())
            .unwrap_or("none")
            .to_owned();
        let body =
            response.into_body().collect().await.map_err(|error| format!("half an answer: {error}"))?;
        let version = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        if !status.is_success() || !matches!(version.as_str(), "v1" | "v2") {
            return Err(format!("{status}: {version}"));
        }
        Ok(Answer { split, version })
    };
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
}

fn client() -> Client<HttpConnector, Body> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

/// Counts are right after each single change, so a panic elsewhere spoils nothing.
fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
