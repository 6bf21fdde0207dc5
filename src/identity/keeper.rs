//! Keeps the authority's Secret: makes it once, however many replicas start, and knows what it holds now.
//!
//! Every replica does this. Writes are made against the version that was read, so of two only one succeeds; the other
//! finds it by its watch. What was once read stays in memory: a Secret that is deleted or spoilt is written anew as it
//! was, for another root would cut every sidecar off from every other.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use ferrule_config::names::FIELD_MANAGER;
use futures::{StreamExt as _, future::Either, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
    runtime::{WatchStreamExt as _, watcher::watch_object},
};
use thiserror::Error;
use tokio::{
    sync::{Mutex, watch},
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

use super::{
    Settings,
    authority::Authority,
    issue::{self, IssueError},
    metrics::Problem,
    rotation::FRESH,
    state::State,
    supplied,
};
use crate::{backoff::watch_backoff, controller::Refusal as Answer};

/// Name of the Secret in the operator's namespace.
pub const SECRET: &str = "ferrule-identity-ca";
/// Annotation on it that asks for a rotation; each new value is a request.
pub const ROTATE: &str = "ferrule.dev/rotate";
/// Annotation on it that leaves a phase without waiting for sidecars; its value is the generation to be left.
pub const FORCE: &str = "ferrule.dev/force-rotation";
/// Authorities expire without any event.
const PERIOD: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(2);
/// Longest a request to the API server may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// The state, as one replica knows it.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) state: Arc<State>,
    /// Of the Secret: version and annotations.
    pub(super) metadata: Arc<ObjectMeta>,
    /// When this was certainly what the Secret held.
    confirmed: Instant,
}

impl View {
    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }
}

/// What is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) view: Option<View>,
    /// The user's authority, if there is to be one: what was read last, or why it can't be used.
    pub(super) supplied: Option<Result<Arc<Authority>, String>>,
}

/// What keeps a replica from knowing the state.
#[derive(Debug, Error)]
pub(super) enum KeeperError {
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error("cannot write Secret {SECRET}: {0}")]
    Write(Answer),
    #[error("cannot read Secret {SECRET}: {0}")]
    Read(Answer),
    #[error("the API server did not answer within {REQUEST_TIMEOUT:?}")]
    Timeout,
    #[error("there is none yet")]
    NotYet,
}

/// Knows and writes the Secret; one for each replica.
pub(super) struct Keeper {
    secrets: Api<Secret>,
    settings: Settings,
    known: watch::Sender<Known>,
    /// Held by whoever reads the Secret for all that wait.
    reading: Mutex<()>,
}

/// What the watch last said of the Secret.
enum Seen {
    NotYet,
    Absent,
    /// It can't be used; with its metadata.
    Spoilt(Box<ObjectMeta>),
    Usable,
}

impl Keeper {
    pub(super) fn new(client: Client, settings: Settings) -> Self {
        let secrets = Api::namespaced(client, &settings.namespace);
        Self { secrets, settings, known: watch::channel(Known::default()).0, reading: Mutex::default() }
    }

    /// What is known, and news of it.
    pub(super) fn known(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// The state, known to be the Secret's content not long ago.
    ///
    /// A replica that signed by an older state could sign with a root that is trusted no more, or hand out a bundle that
    /// lacks the next one: the rotation counts on it that none does.
    pub(super) async fn fresh(&self) -> Result<Arc<State>, KeeperError> {
        if let Some(state) = self.confirmed() {
            return Ok(state);
        }
        let _reading = self.reading.lock().await;
        // Another one may have read it while this one waited.
        if let Some(state) = self.confirmed() {
            return Ok(state);
        }
        let asked = Instant::now();
        let secret = timeout(REQUEST_TIMEOUT, self.secrets.get_opt(SECRET))
            .await
            .map_err(|_| KeeperError::Timeout)?
            .map_err(|error| KeeperError::Read(error.into()))?;
        if let Some(secret) = secret {
            self.take_in(secret, asked);
        }
        self.confirmed().ok_or(KeeperError::NotYet)
    }

    fn confirmed(&self) -> Option<Arc<State>> {
        let known = self.known.borrow();
        let view = known.view.as_ref()?;
        (view.confirmed.elapsed() < FRESH).then(|| Arc::clone(&view.state))
    }

    /// Watches the Secrets and makes ours, for as long as it is polled.
    pub(super) async fn run(&self) {
        let mut secrets = pin!(watch_object(self.secrets.clone(), SECRET).backoff(watch_backoff()));
        let mut supplied = pin!(match &self.settings.authority_secret {
            Some(name) => {
                Either::Left(watch_object(self.secrets.clone(), name).backoff(watch_backoff()))
            }
            None => Either::Right(stream::pending()),
        });
        let (mut seen, mut user) = (Seen::NotYet, None);
        let mut pause = PERIOD;
        loop {
            tokio::select! {
                Some(event) = secrets.next() => match event {
                    Ok(Some(secret)) => seen = self.take_in(secret, Instant::now()),
                    Ok(None) => seen = Seen::Absent,
                    Err(error) => warn!(%error, "cannot watch the authority's Secret; will try again"),
                },
                Some(event) = supplied.next() => match event {
                    Ok(secret) => user = Some(secret),
                    Err(error) => warn!(%error, "cannot watch the user's authority; will try again"),
                },
                () = sleep(pause) => {}
            }
            let now = SystemTime::now();
            if let Some(secret) = &user {
                self.take_in_supplied(secret.as_ref(), now);
            }
            pause = match self.mend(&mut seen, now).await {
                Ok(()) => PERIOD,
                Err(error) => {
                    self.settings.metrics.problem(Problem::Secret);
                    warn!(%error, "authority's Secret; will try again");
                    RETRY
                }
            };
        }
    }

    /// Takes in what the Secret holds, unless something later is known.
    fn take_in(&self, secret: Secret, asked: Instant) -> Seen {
        let Secret { metadata, data, .. } = secret;
        let state = match State::parse(&data.unwrap_or_default()) {
            Ok(state) => state,
            Err(problem) => {
                self.settings.metrics.problem(Problem::Secret);
                error!(%problem, secret = SECRET, "the authority's Secret can't be used");
                return Seen::Spoilt(Box::new(metadata));
            }
        };
        self.settings.metrics.set_state(&state);
        self.known.send_if_modified(|known| {
            let version = version(&metadata);
            match &mut known.view {
                // A watch may be behind a read.
                Some(view) if self::version(&view.metadata) > version => false,
                Some(view) if version.is_some() && self::version(&view.metadata) == version => {
                    view.confirmed = view.confirmed.max(asked);
                    false
                }
                view => {
                    let (state, metadata) = (Arc::new(state), Arc::new(metadata));
                    *view = Some(View { state, metadata, confirmed: asked });
                    true
                }
            }
        });
        Seen::Usable
    }

    fn take_in_supplied(&self, secret: Option<&Secret>, now: SystemTime) {
        let name = self.settings.authority_secret.as_deref().unwrap_or_default();
        let read = match secret {
            None => Err(format!("Secret {name} is not there")),
            Some(secret) => {
                let data = secret.data.clone().unwrap_or_default();
                supplied::read(&data, &self.settings.trust_domain, now)
                    .map(Arc::new)
                    .map_err(|error| format!("Secret {name}: {error}"))
            }
        };
        self.known.send_if_modified(|known| {
            if known.supplied.as_ref() == Some(&read) {
                return false;
            }
            if let Err(problem) = &read {
                self.settings.metrics.problem(Problem::Authority);
                error!(problem, "the user's authority can't be used; the last good one stays");
            }
            known.supplied = Some(read);
            true
        });
    }

    /// Makes the Secret where there is none, and puts it back where it was deleted or spoilt.
    async fn mend(&self, seen: &mut Seen, now: SystemTime) -> Result<(), KeeperError> {
        let known = self.known.borrow().clone();
        let (metadata, state) = match (&*seen, known.view) {
            (Seen::NotYet | Seen::Usable, _) => return Ok(()),
            (Seen::Spoilt(metadata), Some(view)) => {
                warn!(secret = SECRET, "is put back as it was");
                ((**metadata).clone(), view.state)
            }
            // What it held may still be saved by whoever spoilt it.
            (Seen::Spoilt(_), None) => return Ok(()),
            (Seen::Absent, Some(view)) => {
                warn!(secret = SECRET, "was deleted; it is put back as it was");
                (new_metadata(&view.metadata), view.state)
            }
            (Seen::Absent, None) => {
                let Some(authority) = self.first(known.supplied.as_ref(), now)? else { return Ok(()) };
                let state = State::new(authority, self.settings.life.get(), now);
                (new_metadata(&ObjectMeta::default()), Arc::new(state))
            }
        };
        if self.put(&metadata, &state).await? {
            *seen = Seen::Usable;
            let root = state.current.roots()[0].fingerprint();
            info!(secret = SECRET, root, generation = state.generation, "authority written");
        }
        Ok(())
    }

    /// The first authority of a mesh; `None` while the user's can't be used.
    fn first(
        &self,
        supplied: Option<&Result<Arc<Authority>, String>>,
        now: SystemTime,
    ) -> Result<Option<Authority>, IssueError> {
        match (&self.settings.authority_secret, supplied) {
            (None, _) => issue::authority(now).map(Some),
            (Some(_), Some(Ok(supplied))) => Ok(Some((**supplied).clone())),
            (Some(_), _) => Ok(None),
        }
    }

    /// Writes a state in the place of the one that was seen; false when somebody was faster.
    pub(super) async fn replace(&self, view: &View, state: &State) -> Result<bool, KeeperError> {
        self.put(&view.metadata, state).await
    }

    async fn put(&self, metadata: &ObjectMeta, state: &State) -> Result<bool, KeeperError> {
        let asked = Instant::now();
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let secret = Secret { metadata: metadata.clone(), data: Some(state.to_data()), ..Secret::default() };
        let result = if metadata.resource_version.is_some() {
            timeout(REQUEST_TIMEOUT, self.secrets.replace(SECRET, &params, &secret)).await
        } else {
            timeout(REQUEST_TIMEOUT, self.secrets.create(&params, &secret)).await
        };
        match result.map_err(|_| KeeperError::Timeout)? {
            Ok(written) => {
                self.take_in(written, asked);
                Ok(true)
            }
            // Another replica was faster; its Secret comes by the watch.
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(false),
            Err(error) => Err(KeeperError::Write(error.into())),
        }
    }
}

/// Versions are ordered numbers (KEP-5504).
fn version(metadata: &ObjectMeta) -> Option<u64> {
    metadata.resource_version.as_deref()?.parse().ok()
}

/// For a Secret that is created; what was asked of the one before it was asked of it, too.
fn new_metadata(old: &ObjectMeta) -> ObjectMeta {
    let labels = [("app.kubernetes.io/managed-by", "ferrule"), ("app.kubernetes.io/part-of", "ferrule")];
    ObjectMeta {
        name: Some(SECRET.to_owned()),
        labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        annotations: old.annotations.clone(),
        ..ObjectMeta::default()
    }
}
