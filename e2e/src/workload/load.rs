//! The load generator of `testclient`.
//!
//! ```text
//!   schedule (slot n is due at n / rate) ──▶ workers, one connection each ──▶ channel ──▶ tally
//! ```
//!
//! A failed request is never sent again: whoever hides a failure is the mesh, not the client.

use std::{
    collections::BTreeMap,
    io::Result,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    time::{interval, sleep_until, timeout},
};

use super::{
    clock, digest,
    fetch::{Connector, Request, Stream, Target, exchange},
    http1::Connection,
    report::{Echo, Failure, Latency, Live, Response, Summary, Transition},
};

const MAX_FAILURES: usize = 50;
const LIVE_INTERVAL: Duration = Duration::from_millis(100);

/// What to send, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// http://HOST[:PORT]/PATH
    pub url: Target,
    /// Requests under way at a time, at most; with keep-alive as many connections.
    #[arg(long, default_value_t = 4)]
    pub concurrency: usize,
    /// Requests a second; 0 sends as fast as answers come.
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// Stop after this many seconds.
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Stop after this many requests.
    #[arg(long)]
    pub count: Option<u64>,
    /// Stop when standard input ends.
    #[arg(long)]
    pub until_stdin_ends: bool,
    /// One connection a request.
    #[arg(long)]
    pub no_keep_alive: bool,
    /// Give up on a request after this many seconds.
    #[arg(long, default_value_t = 10.0)]
    pub timeout: f64,
    /// What [`super::fetch`] needs.
    #[command(flatten)]
    pub message: Message,
}

/// The request.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Message {
    /// Method; POST by default if there is a body.
    #[arg(short = 'X', long)]
    pub method: Option<String>,
    /// Header field, as `Name: value`.
    #[arg(short = 'H', long = "header", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// File whose content is sent as bearer token.
    #[arg(long, value_parser = bearer)]
    pub bearer_file: Option<Bearer>,
    /// Length of the body in bytes.
    #[arg(long, default_value_t = 0)]
    pub body_bytes: usize,
    /// PEM file of the certificates to trust for https.
    #[arg(long)]
    pub ca: Option<PathBuf>,
}

/// A token, read from a file.
#[derive(Clone, Debug)]
pub struct Bearer(String);

fn bearer(path: &str) -> std::result::Result<Bearer, String> {
    let token = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(Bearer(token.trim().to_owned()))
}

fn header(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("{text:?}: want Name: value"))?;
    Ok((name.to_owned(), value.trim_start().to_owned()))
}

impl Message {
    /// The request that this describes.
    #[must_use]
    pub fn request(&self, target: &Target, close: bool) -> Request {
        let method = self.method.as_deref().unwrap_or(if self.body_bytes > 0 { "POST" } else { "GET" });
        let mut headers = self.headers.clone();
        if let Some(Bearer(token)) = &self.bearer_file {
            headers.push(("Authorization".to_owned(), format!("Bearer {token}")));
        }
        Request::new(target, method, &headers, &digest::pattern(self.body_bytes), close)
    }
}

/// One request's end.
#[derive(Clone, Debug)]
struct Outcome {
    wall_us: u64,
    elapsed: Duration,
    result: std::result::Result<Response, String>,
}

/// What is printed while the load runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Nothing.
    Quiet,
    /// A [`Live`] line each 100 ms.
    Live,
    /// A [`Transition`] line each time that another version answers.
    Split,
}

/// Runs the plan until it ends or `stop` turns true.
///
/// # Errors
/// When the load can't start.
pub async fn run(plan: &Plan, watch: Watch, stop: watch::Receiver<bool>) -> Result<Summary> {
    let start = Instant::now();
    let (outcomes, received) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        start,
        connector: Connector::new(plan.url.clone(), plan.message.ca.as_deref())?,
        request: plan.message.request(&plan.url, plan.no_keep_alive),
        body_length: plan.message.body_bytes,
        slots: AtomicU64::new(0),
        connections: AtomicU64::new(0),
    });
    for _ in 0..plan.concurrency {
        tokio::spawn(work(Arc::clone(&shared), plan.clone(), outcomes.clone(), stop.clone()));
    }
    drop(outcomes);
    let mut summary = tally(received, watch, start).await;
    summary.connections = shared.connections.load(Ordering::Relaxed);
    Ok(summary)
}

struct Shared {
    start: Instant,
    connector: Connector,
    request: Request,
    body_length: usize,
    slots: AtomicU64,
    connections: AtomicU64,
}

async fn work(
    shared: Arc<Shared>,
    plan: Plan,
    outcomes: mpsc::UnboundedSender<Outcome>,
    mut stop: watch::Receiver<bool>,
) {
    let end = plan.seconds.map(|seconds| shared.start + Duration::from_secs_f64(seconds));
    let limit = Duration::from_secs_f64(plan.timeout);
    let mut connection = None;
    loop {
        let slot = shared.slots.fetch_add(1, Ordering::Relaxed);
        if plan.count.is_some_and(|count| slot >= count) {
            return;
        }
        #[allow(clippy::cast_precision_loss, reason = "2^52 requests take a while")]
        let due = if plan.rate > 0.0 {
            shared.start + Duration::from_secs_f64(slot as f64 / plan.rate)
        } else {
            Instant::now()
        };
        if end.is_some_and(|end| due >= end) {
            return;
        }
        tokio::select! {
            () = sleep_until(due.into()) => {}
            _ = stop.wait_for(|&stop| stop) => return,
        }
        if *stop.borrow() {
            return;
        }
        let result = match timeout(limit, attempt(&shared, &mut connection)).await {
            Ok(Ok(response)) => judge(response, shared.body_length),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no response within {limit:?}")),
        };
        if result.is_err() {
            connection = None;
        }
        let outcome = Outcome { wall_us: clock::wall_us(), elapsed: shared.start.elapsed(), result };
        if outcomes.send(outcome).is_err() {
            return;
        }
    }
}

async fn attempt(shared: &Shared, idle: &mut Option<Connection<Box<dyn Stream>>>) -> Result<Response> {
    let mut connection = match idle.take() {
        Some(connection) => connection,
        None => {
            shared.connections.fetch_add(1, Ordering::Relaxed);
            shared.connector.connect().await?
        }
    };
    let (response, reusable) = exchange(&mut connection, &shared.request).await?;
    if reusable {
        *idle = Some(connection);
    }
    Ok(response)
}

fn judge(response: Response, body_length: usize) -> std::result::Result<Response, String> {
    if !(200..300).contains(&response.status) {
        let start: String = response.body.chars().take(100).collect();
        return Err(format!("status {}, header {:?}, body {start:?}", response.status, response.headers));
    }
    if body_length > 0 {
        let echo: Echo = serde_json::from_str(&response.body).map_err(|error| format!("body: {error}"))?;
        let expected = (body_length, digest::checksum(&digest::pattern(body_length)));
        if (echo.body_length, echo.body_checksum) != expected {
            return Err(format!("of {body_length} bytes the server got {}", echo.body_length));
        }
    }
    Ok(response)
}

async fn tally(mut outcomes: mpsc::UnboundedReceiver<Outcome>, watch: Watch, start: Instant) -> Summary {
    let mut summary = Summary::default();
    let mut samples = Vec::new();
    let mut live = Live::default();
    let mut split = Split::default();
    let mut tick = interval(LIVE_INTERVAL);
    loop {
        let outcome = tokio::select! {
            outcome = outcomes.recv() => outcome,
            _ = tick.tick(), if watch == Watch::Live => {
                live.elapsed_us = micros(start.elapsed());
                print_line(&std::mem::take(&mut live));
                continue;
            }
        };
        let Some(Outcome { wall_us, elapsed, result }) = outcome else { break };
        summary.requests += 1;
        match result {
            Ok(response) => {
                let version = response.header("x-version").unwrap_or("none").to_owned();
                let pod = response.header("x-pod").unwrap_or("none").to_owned();
                *live.versions.entry(version.clone()).or_default() += 1;
                *summary.versions.entry(version.clone()).or_default() += 1;
                *summary.pods.entry(pod).or_default() += 1;
                *summary.statuses.entry(response.status).or_default() += 1;
                samples.push(response.micros);
                if watch == Watch::Split
                    && let Some(transition) = split.observe(version, wall_us, micros(elapsed))
                {
                    print_line(&transition);
                }
            }
            Err(reason) => {
                live.failed += 1;
                summary.failed += 1;
                if summary.failures.len() < MAX_FAILURES {
                    summary.failures.push(Failure { wall_us, elapsed_us: micros(elapsed), reason });
                }
            }
        }
    }
    summary.latency = Latency::of(samples);
    summary
}

/// Which version answered last, and when each did.
#[derive(Default)]
struct Split {
    current: Option<String>,
    last_wall_us: BTreeMap<String, u64>,
}

impl Split {
    fn observe(&mut self, version: String, wall_us: u64, elapsed_us: u64) -> Option<Transition> {
        self.last_wall_us.insert(version.clone(), wall_us);
        if self.current.as_ref() == Some(&version) {
            return None;
        }
        let from = self.current.replace(version.clone());
        let last_old_wall_us = from.as_ref().and_then(|from| self.last_wall_us.get(from).copied());
        Some(Transition {
            from,
            to: version,
            last_old_wall_us,
            first_new_wall_us: wall_us,
            first_new_elapsed_us: elapsed_us,
        })
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Prints one JSON object as a line.
#[allow(clippy::missing_panics_doc, reason = "never panics")]
pub fn print_line(value: &impl serde::Serialize) {
    let line = serde_json::to_string(value).expect("reports have string keys");
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_the_answering_version_is_a_transition() {
        let mut split = Split::default();
        assert_eq!(split.observe("v1".into(), 10, 0).expect("first").from, None);
        assert_eq!(split.observe("v1".into(), 20, 10), None);
        let transition = split.observe("v2".into(), 30, 20).expect("change");
        assert_eq!((transition.last_old_wall_us, transition.first_new_wall_us), (Some(20), 30));
    }

    #[test]
    fn a_status_other_than_2xx_is_a_failure() {
        let response = |status| Response {
            sent: Vec::new(),
            status,
            headers: Vec::new(),
            body: String::new(),
            micros: 1,
        };
        assert!(judge(response(204), 0).is_ok());
        assert!(judge(response(503), 0).is_err());
        assert!(judge(response(200), 5).is_err());
    }
}
