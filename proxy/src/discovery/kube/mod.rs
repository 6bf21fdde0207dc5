//! The API server as a source of news: few and narrow watches over HTTP/2.
//!
//! ```text
//!   what is wanted ─▶ plan ─ steps ─▶ follow: list, watch ─▶ line │ list ─▶ feed ─ ledger ─▶ news
//!                    (pure)           check: list again ──────────────────▶┘  (newest wins)
//!                                     all by client, connect
//! ```

mod backoff;
mod check;
mod client;
mod connect;
mod error;
mod feed;
mod follow;
mod ledger;
mod line;
mod list;
mod lookup;
mod object;
mod plan;
mod scope;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::AbortHandle};

pub use self::connect::Address;
use self::{
    client::Client,
    feed::Feed,
    follow::Progress,
    plan::{Id, Plan, Step},
    scope::Scope,
};
pub(super) use self::{
    error::ApiError,
    object::{Key, Kind},
};
use super::{Times, world::Change};
use crate::telemetry::Telemetry;

/// The API server, and what is watched there. Watches end with it.
pub(super) struct Kube {
    shared: Arc<Shared>,
    plan: Plan,
    wanted: BTreeSet<Key>,
    tasks: BTreeMap<Id, AbortHandle>,
    check: AbortHandle,
}

/// What the tasks of all watches share.
struct Shared {
    client: Client,
    feed: Feed,
    times: Times,
    telemetry: Arc<Telemetry>,
    watches: Mutex<BTreeMap<Id, (Scope, Arc<Progress>)>>,
}

impl Shared {
    /// What is watched now.
    fn watches(&self) -> Vec<(Scope, Arc<Progress>)> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Id, (Scope, Arc<Progress>)>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kube {
    /// An API server of which nothing is watched yet.
    ///
    /// # Errors
    /// When the credentials can't be used.
    pub(super) fn new(
        address: Address,
        times: Times,
        changes: mpsc::Sender<Change>,
        telemetry: Arc<Telemetry>,
    ) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            client: Client::new(address, times, Arc::clone(&telemetry))?,
            feed: Feed::new(changes),
            times,
            telemetry,
            watches: Mutex::default(),
        });
        let check = tokio::spawn(check::run(Arc::clone(&shared))).abort_handle();
        let plan = Plan::new(times.settle);
        Ok(Self { shared, plan, wanted: BTreeSet::new(), tasks: BTreeMap::new(), check })
    }

    /// These are wanted from now on, and nothing else.
    pub(super) fn want(&mut self, keys: BTreeSet<Key>, now: Instant) {
        if keys == self.wanted {
            return;
        }
        self.shared.feed.ledger().want(&keys);
        let steps = self.plan.want(&keys, now);
        let listing = self.take(steps);
        // A watch that runs already covers it from now on, but does not tell what there is.
        for key in keys.difference(&self.wanted).filter(|key| !listing.contains(key)) {
            self.list(key.clone());
        }
        self.wanted = keys;
    }

    /// All that there is of this is to be told anew.
    pub(super) fn again(&self, key: Key) {
        // What was not told yet is on its way.
        if self.shared.feed.ledger().forget(&key) {
            self.list(key);
        }
    }

    /// Joins watches, when it is time.
    pub(super) fn settle(&mut self, now: Instant) {
        let steps = self.plan.settle(&self.wanted, now);
        let _ = self.take(steps);
    }

    /// When [`Kube::settle`] is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        self.plan.due()
    }

    /// What is watched, for people.
    pub(super) fn dump(&self) -> Vec<String> {
        self.plan.scopes().values().map(ToString::to_string).collect()
    }

    /// The longest time that one of the watches has heard nothing.
    pub(super) fn silence(&self, now: Instant) -> Option<Duration> {
        self.shared.lock().values().map(|(_, progress)| progress.silence(now)).max()
    }

    fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Takes the steps; gives what is covered by a watch that begins with a list.
    fn take(&mut self, steps: Vec<Step>) -> BTreeSet<Key> {
        let mut listing = BTreeSet::new();
        for step in steps {
            match step {
                Step::Start { id, after } => listing.extend(self.start(id, &after)),
                Step::End(id) => self.end(id),
            }
        }
        self.update_scopes();
        self.shared.telemetry.watches.set(i64::try_from(self.tasks.len()).unwrap_or(i64::MAX));
        listing
    }

    /// Starts a watch where the oldest of others ended: it tells again what the younger ones told already, which the
    /// ledger notices, and nothing is lost in between. Gives what it covers if it begins with a list.
    fn start(&mut self, id: Id, after: &[Id]) -> Vec<Key> {
        let Some(scope) = self.plan.scopes().get(&id).cloned() else { return Vec::new() };
        for id in after {
            if let Some(task) = self.tasks.get(id) {
                task.abort();
            }
        }
        let oldest = {
            let watches = self.shared.lock();
            after.iter().filter_map(|id| watches.get(id)?.1.version()).min()
        };
        let covered: Vec<Key> = scope.keys().collect();
        let progress = Arc::new(Progress::from(oldest));
        self.shared.lock().insert(id, (scope.clone(), Arc::clone(&progress)));
        let task = tokio::spawn(follow::follow(Arc::clone(&self.shared), scope, progress));
        self.tasks.insert(id, task.abort_handle());
        if oldest.is_none() {
            return covered;
        }
        // One of the others may have been ended before it had listed anything.
        for key in covered {
            self.list(key);
        }
        Vec::new()
    }

    fn end(&mut self, id: Id) {
        if let Some(task) = self.tasks.remove(&id) {
            task.abort();
        }
        self.shared.lock().remove(&id);
    }

    /// Lists what was not seen yet and no watch begins with. Ends by itself when nobody wants it any more.
    fn list(&self, key: Key) {
        if self.shared.feed.ledger().is_seen(&key) == Some(false) {
            tokio::spawn(follow::list_name(Arc::clone(&self.shared), key));
        }
    }

    /// The plan may let a watch cover more or less than it began with.
    fn update_scopes(&self) {
        let mut watches = self.shared.lock();
        for (id, scope) in self.plan.scopes() {
            if let Some((held, _)) = watches.get_mut(id) {
                held.clone_from(scope);
            }
        }
    }
}

impl Drop for Kube {
    fn drop(&mut self) {
        self.check.abort();
        for task in self.tasks.values() {
            task.abort();
        }
    }
}
