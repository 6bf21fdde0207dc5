//! The loop that ties the parts together; it alone holds state, and never waits for the API server.
//!
//! ```text
//!   watches ──▶ Observed ──stale──▶ Schedule ──due──▶ compile ──▶ plan ──▶ task: apply
//!                                      ▲                 (cached)            │
//!                                      └────────── finished, writes ─────────┘
//! ```

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::{MissedTickBehavior, interval, sleep_until, timeout},
};
use tracing::{error, info, warn};

use super::{
    apply::{Applied, Applier, Error},
    compile::{compile, compile_peers, pods_of, wanting_strict},
    election::Tenure,
    inquiry::{Answers, Inquirer},
    metrics::{Health, Metrics, Outcome},
    observe::{Kind, Need, Observed, Scope, Stale},
    plan::{Desired, DesiredPeers, plan, plan_binding, plan_peers},
    ratchet::Ratchets,
    schedule::{Due, Schedule},
    watch::Message,
    writes::Writes,
};

/// How often the loop beats, and counts objects.
const BEAT: Duration = Duration::from_secs(1);
/// How long writes that are under way may take at the end.
const DRAIN: Duration = Duration::from_secs(2);

/// What became of a piece of work.
struct Finished {
    scope: Scope,
    applied: Applied,
    took: Duration,
    since: Instant,
}

/// The state of the loop.
pub(super) struct Reconciler {
    observed: Observed,
    desired: HashMap<String, Desired>,
    desired_peers: Option<DesiredPeers>,
    writes: Writes,
    schedule: Schedule,
    tasks: JoinSet<Finished>,
    ratchets: Ratchets,
    inquiries: JoinSet<Answers>,
    leading: bool,
    applier: Applier,
    inquirer: Inquirer,
    tenure: Tenure,
    metrics: Metrics,
    health: Health,
}

impl Reconciler {
    pub(super) fn new(
        observed: Observed,
        applier: Applier,
        inquirer: Inquirer,
        tenure: Tenure,
        metrics: Metrics,
        health: Health,
    ) -> Self {
        Self {
            observed,
            desired: HashMap::new(),
            desired_peers: None,
            writes: Writes::default(),
            schedule: Schedule::default(),
            tasks: JoinSet::new(),
            ratchets: Ratchets::default(),
            inquiries: JoinSet::new(),
            leading: false,
            applier,
            inquirer,
            tenure,
            metrics,
            health,
        }
    }

    /// Runs until `shutdown` turns true or the watches end; then writes that are under way are waited for.
    pub(super) async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wake = self.wake();
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => break,
                () = self.tenure.changed() => {}
                Some(finished) = self.tasks.join_next() => self.finish(finished),
                Some(answered) = self.inquiries.join_next() => self.answered(answered),
                message = messages.recv() => {
                    let Some(message) = message else { break };
                    self.take_in(message);
                    while let Ok(message) = messages.try_recv() {
                        self.take_in(message);
                    }
                }
                () = sleep_until(wake.into()) => {}
                _ = beat.tick() => self.beat(),
            }
            self.follow_tenure();
            self.work();
        }
        self.drain().await;
    }

    /// When to look again though nothing happens: work is due, or the tenure is over.
    fn wake(&self) -> Instant {
        let idle = Instant::now() + BEAT;
        [self.schedule.next(), self.tenure.until()].into_iter().flatten().fold(idle, Instant::min)
    }

    fn beat(&mut self) {
        self.health.beat();
        self.metrics.set_queue(self.schedule.waiting());
        for kind in Kind::ALL {
            self.metrics.set_objects(kind, self.observed.count(kind));
        }
        if self.leading {
            self.inquire();
        }
    }

    /// Asks the sidecars whose turn it is who comes without encryption.
    fn inquire(&mut self) {
        let now = Timestamp::now();
        for gone in self.ratchets.follow(wanting_strict(&self.observed), now) {
            let stale = self.observed.tell_progress(gone, None);
            self.mark(stale);
        }
        for key in self.ratchets.due(now) {
            let pods = pods_of(&self.observed, &key);
            self.inquiries.spawn(self.inquirer.clone().ask(key, pods));
        }
        self.metrics.set_waiting(self.ratchets.waiting());
    }

    fn answered(&mut self, answered: Result<Answers, JoinError>) {
        let Some(Answers { key, answers }) = outcome(answered) else { return };
        let reports = answers.iter().filter_map(|answer| answer.report.as_ref());
        let clients = reports.flat_map(|report| &report.plaintext_clients).map(|client| client.address);
        let pods = self.observed.pods_at(&clients.collect());
        let progress = self.ratchets.answered(&key, &answers, &pods, Timestamp::now(), fastrand::f64());
        let stale = self.observed.tell_progress(key, progress);
        self.mark(stale);
    }

    fn take_in(&mut self, message: Message) {
        let stale = match message {
            Message::Applied(key, version, object) => {
                self.writes.seen(&key, version.as_deref());
                self.observed.apply(*object)
            }
            Message::Deleted(key, version) => {
                self.writes.seen(&key, version.as_deref());
                self.observed.delete(key.kind, &key.namespace, &key.name)
            }
            Message::Replaced(kind, objects) => {
                self.writes.forget(kind);
                self.health.synced(kind);
                self.observed.replace(kind, objects)
            }
        };
        self.mark(stale);
    }

    /// A replica that stands by only keeps its stores: when it leads, everything is looked at.
    fn mark(&mut self, stale: Stale) {
        if !self.leading {
            return;
        }
        let now = Instant::now();
        for (scope, need) in stale {
            self.schedule.mark(scope, need, now);
        }
    }

    fn follow_tenure(&mut self) {
        // Until everything has been seen once, an object that is merely late would look deleted.
        let leads = self.tenure.holds() && self.health.is_ready();
        if leads == self.leading {
            return;
        }
        self.leading = leads;
        self.metrics.set_leader(leads);
        if leads {
            let now = Instant::now();
            let names: Vec<_> = self.observed.namespaces().map(str::to_owned).collect();
            info!(namespaces = names.len(), "begins to write");
            for name in names {
                self.schedule.mark(Scope::Namespace(name), Need::Compile, now);
            }
            self.schedule.mark(Scope::Peers, Need::Compile, now);
            self.schedule.mark(Scope::ProxyBinding, Need::Compare, now);
        } else {
            warn!("stops writing");
            // Dropping the set ends the tasks: what is not yet sent is never sent.
            self.tasks = JoinSet::new();
            self.inquiries = JoinSet::new();
            self.ratchets.clear();
            self.observed.forget_progress();
            self.metrics.set_waiting(self.ratchets.waiting());
            self.schedule.clear();
            self.writes.clear();
            self.desired.clear();
            self.desired_peers = None;
        }
    }

    fn work(&mut self) {
        if !self.leading {
            return;
        }
        for due in self.schedule.take(Instant::now()) {
            let Due { scope, need, since } = due;
            match scope {
                Scope::Namespace(name) => self.work_on_namespace(name, need, since),
                Scope::Peers => self.work_on_peers(need, since),
                Scope::ProxyBinding => self.work_on_binding(since),
            }
        }
    }

    fn work_on_namespace(&mut self, name: String, need: Need, since: Instant) {
        if need == Need::Compile || !self.desired.contains_key(&name) {
            self.compile(&name);
        }
        let Some(desired) = self.desired.get(&name) else {
            return self.nothing_to_do(&Scope::Namespace(name));
        };
        let plan = plan(&self.observed, &name, desired, &self.writes, Timestamp::now());
        if plan.is_empty() {
            return self.nothing_to_do(&Scope::Namespace(name));
        }
        let applier = self.applier.clone();
        self.tasks.spawn(async move {
            let began = Instant::now();
            let applied = applier.namespace(&name, plan).await;
            Finished { scope: Scope::Namespace(name), applied, took: began.elapsed(), since }
        });
    }

    /// What can't be compiled leaves what was there before.
    fn compile(&mut self, name: &str) {
        if self.observed.namespace(name).is_none() {
            self.desired.remove(name);
            return;
        }
        let began = Instant::now();
        match Desired::new(compile(&self.observed, name)) {
            Ok(desired) => {
                self.metrics.compiled(Outcome::Ok, began.elapsed());
                self.desired.insert(name.to_owned(), desired);
            }
            Err(error) => {
                self.metrics.compiled(Outcome::Error, began.elapsed());
                error!(namespace = name, %error, "keeps its last configuration; split the namespace or drop some Routes");
            }
        }
    }

    fn work_on_peers(&mut self, need: Need, since: Instant) {
        if need == Need::Compile || self.desired_peers.is_none() {
            match DesiredPeers::new(&compile_peers(&self.observed)) {
                Ok(desired) => self.desired_peers = Some(desired),
                Err(error) => {
                    error!(%error, "keeps the last list of addresses: pods that are new are not in it");
                }
            }
        }
        let Some(desired) = &self.desired_peers else { return self.nothing_to_do(&Scope::Peers) };
        let plan = plan_peers(&self.observed, desired, &self.writes);
        if plan.is_empty() {
            return self.nothing_to_do(&Scope::Peers);
        }
        let applier = self.applier.clone();
        let system = self.observed.system_name().unwrap_or_default().to_owned();
        self.tasks.spawn(async move {
            let began = Instant::now();
            let applied = applier.namespace(&system, plan).await;
            Finished { scope: Scope::Peers, applied, took: began.elapsed(), since }
        });
    }

    fn work_on_binding(&mut self, since: Instant) {
        let Some((binding, fingerprint)) = plan_binding(&self.observed, &self.writes) else {
            return self.nothing_to_do(&Scope::ProxyBinding);
        };
        let applier = self.applier.clone();
        self.tasks.spawn(async move {
            let began = Instant::now();
            let applied = applier.binding(binding, fingerprint).await;
            Finished { scope: Scope::ProxyBinding, applied, took: began.elapsed(), since }
        });
    }

    fn nothing_to_do(&mut self, scope: &Scope) {
        self.schedule.finished(scope, true, Instant::now(), 0.0);
    }

    fn finish(&mut self, finished: Result<Finished, JoinError>) {
        let Some(Finished { scope, applied, took, since }) = outcome(finished) else { return };
        let Applied { writes, error } = applied;
        for write in writes {
            self.writes.made(write);
        }
        let outcome = if error.is_none() { Outcome::Ok } else { Outcome::Error };
        self.metrics.applied(outcome, took, since.elapsed());
        if let Some(error) = &error
            && !matches!(error, Error::NotLeading)
        {
            warn!(?scope, %error, "could not be written; will try again");
        }
        self.schedule.finished(&scope, error.is_none(), Instant::now(), fastrand::f64());
    }

    async fn drain(mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(DRAIN, all).await.is_err() {
            warn!("writes under way are given up; the next leader makes them");
        }
    }
}

/// What became of a task; nothing of one that was ended.
fn outcome<T>(joined: Result<T, JoinError>) -> Option<T> {
    match joined {
        Ok(done) => Some(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}
