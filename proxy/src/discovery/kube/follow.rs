//! Follows what a scope covers: list, then watch from there; again from where it broke off; from a list when that is
//! too long ago.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    Shared,
    backoff::Backoff,
    error::ApiError,
    line::{self, Line},
    object::{Key, Kind, Object},
    scope::Scope,
};
use crate::discovery::objects::{ConfigMap, EndpointSlice, Service};

/// Largest line of a watch, in bytes: an object is at most about 1.5 MiB, etcd's limit.
const MAX_LINE: usize = 4 * 1024 * 1024;
/// Memory for lines that is kept from one to the next.
const KEPT: usize = 64 * 1024;
/// A watch that ends sooner than this, and brought nothing, is an error: without a pause it would be begun again and
/// again.
const BRIEF: Duration = Duration::from_secs(1);

/// How far a watch has come.
#[derive(Debug)]
pub(super) struct Progress {
    /// All up to this version was told; 0 before the first list.
    version: AtomicU64,
    /// When it last heard anything, in milliseconds since the beginning.
    heard: AtomicU64,
    began: Instant,
    /// It missed something and has to begin again.
    again: Notify,
}

impl Progress {
    /// One that goes on at `version`, if there is one.
    pub fn from(version: Option<u64>) -> Self {
        let began = Instant::now();
        let version = AtomicU64::new(version.unwrap_or_default());
        Self { version, heard: AtomicU64::new(0), began, again: Notify::new() }
    }

    /// The version that all was told up to.
    pub fn version(&self) -> Option<u64> {
        Some(self.version.load(SeqCst)).filter(|version| *version > 0)
    }

    /// How long it has heard nothing.
    pub fn silence(&self, now: Instant) -> Duration {
        let heard = self.began + Duration::from_millis(self.heard.load(SeqCst));
        now.saturating_duration_since(heard)
    }

    /// It missed something and has to begin again.
    pub fn begin_again(&self) {
        self.again.notify_one();
    }

    fn set(&self, version: Option<u64>) {
        self.version.store(version.unwrap_or_default(), SeqCst);
        self.hear();
    }

    fn hear(&self) {
        let heard = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(heard, SeqCst);
    }
}

/// Follows a scope for ever.
pub(super) async fn follow(shared: Arc<Shared>, scope: Scope, progress: Arc<Progress>) {
    match scope.kind {
        Kind::Service => run::<Service>(&shared, &scope, &progress).await,
        Kind::Slices => run::<EndpointSlice>(&shared, &scope, &progress).await,
        Kind::Config => run::<ConfigMap>(&shared, &scope, &progress).await,
    }
}

async fn run<T: Object>(shared: &Shared, scope: &Scope, progress: &Progress) {
    let mut backoff = Backoff::new(shared.times.backoff.0, shared.times.backoff.1);
    loop {
        let began = Instant::now();
        let result = match progress.version() {
            None => list_scope::<T>(shared, scope).await.map(|at| progress.set(Some(at))),
            Some(version) => {
                let watched = watch::<T>(shared, scope, progress, version).await;
                if began.elapsed() > BRIEF {
                    backoff.reset();
                }
                watched
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, %scope, "watch failed; trying again");
            if matches!(error, ApiError::Gone) {
                progress.set(None);
            }
            let pause = backoff.pause(fastrand::f64());
            tokio::time::sleep(pause.max(error.retry_after().unwrap_or_default())).await;
        }
    }
}

/// Lists all that the scope covers; gives the version to watch from.
async fn list_scope<T: Object>(shared: &Shared, scope: &Scope) -> Result<u64, ApiError> {
    let names = shared.feed.wanted(scope.kind, &scope.namespace);
    let mut oldest = None;
    for (path, keys) in scope.lists(&names) {
        let listed = shared.feed.read::<T>(&shared.client, &path, &keys).await?;
        let at = listed.at;
        oldest = Some(oldest.map_or(at, |oldest: u64| oldest.min(at)));
        shared.feed.take(listed).await?;
    }
    // A scope that nobody wants any of ends soon.
    oldest.ok_or(ApiError::Behind)
}

/// Lists one name until that succeeds: what a running watch covers from now on.
pub(super) async fn list_name(shared: Arc<Shared>, key: Key) {
    let narrow = Scope::narrow(key.kind, &key.namespace, &key.name);
    let keys = BTreeSet::from([key.clone()]);
    let mut backoff = Backoff::new(shared.times.backoff.0, shared.times.backoff.1);
    while shared.feed.ledger().is_seen(&key) == Some(false) {
        let listed = match key.kind {
            Kind::Service => list::<Service>(&shared, &narrow, &keys).await,
            Kind::Slices => list::<EndpointSlice>(&shared, &narrow, &keys).await,
            Kind::Config => list::<ConfigMap>(&shared, &narrow, &keys).await,
        };
        if let Err(error) = listed {
            tracing::debug!(%error, scope = %narrow, "list failed; trying again");
            let pause = backoff.pause(fastrand::f64());
            tokio::time::sleep(pause.max(error.retry_after().unwrap_or_default())).await;
        }
    }
}

async fn list<T: Object>(shared: &Shared, narrow: &Scope, keys: &BTreeSet<Key>) -> Result<(), ApiError> {
    let listed = shared.feed.read::<T>(&shared.client, &narrow.watch_path(), keys).await?;
    shared.feed.take(listed).await.map(drop)
}

/// One watch until its end; `progress` moves on with every line.
async fn watch<T: Object>(
    shared: &Shared,
    scope: &Scope,
    progress: &Progress,
    version: u64,
) -> Result<(), ApiError> {
    let began = Instant::now();
    let seconds = 240 + fastrand::u32(0..120);
    let path = scope.watch_path();
    let path =
        format!("{path}&watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}");
    let mut body = shared.client.get(&path, true).await?;
    progress.hear();
    let mut lines = Vec::new();
    let mut heard = false;
    loop {
        let data = tokio::select! {
            data = tokio::time::timeout(shared.times.quiet, body.data()) => data,
            () = progress.again.notified() => return Ok(()),
        };
        let Ok(data) = data else {
            tracing::debug!(%scope, "watch is silent; beginning it again");
            return Ok(());
        };
        let Some(data) = data? else { break };
        let mut rest: &[u8] = &data;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            lines.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            take_in::<T>(shared, progress, &lines).await?;
            heard = true;
            lines.clear();
            lines.shrink_to(KEPT);
        }
        lines.extend_from_slice(rest);
        if lines.len() > MAX_LINE {
            return Err(ApiError::TooLarge);
        }
    }
    if heard || began.elapsed() > BRIEF { Ok(()) } else { Err(ApiError::Brief) }
}

async fn take_in<T: Object>(shared: &Shared, progress: &Progress, line: &[u8]) -> Result<(), ApiError> {
    let (line, version) = line::read::<T>(line)?;
    match line {
        Line::Put(object) => shared.feed.put(object, version).await,
        Line::Gone(object) => shared.feed.gone(&object, version).await,
        Line::Bookmark => {}
    }
    progress.set(Some(version));
    Ok(())
}
