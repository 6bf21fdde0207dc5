//! Takes the steps of [`rotation`](super::rotation) while this replica leads, and tells of them.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use ferrule_config::names::FIELD_MANAGER;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{sync::watch, time::sleep};
use tracing::{debug, info, warn};

use super::{
    Settings, census,
    certificate::Certificate,
    issue::IssueError,
    keeper::{FORCE, Keeper, KeeperError, Known, ROTATE, SECRET, View},
    metrics::Problem,
    publish::Publisher,
    rotation::{Census, HASTE, Inputs, Step, awaits_census, carry_out, decide},
    state::State,
    status::Status,
};
use crate::controller::{Refusal as Answer, Tenure};

/// How often the state is looked at, and sidecars are asked where it waits for them.
const PERIOD: Duration = Duration::from_secs(5);
/// Between two Events about the same.
const REMINDER: Duration = Duration::from_secs(24 * 60 * 60);
/// Latest time before the end of an authority at which its end is told of.
const FOREWARNING: Duration = Duration::from_secs(180 * 24 * 60 * 60);

#[derive(Debug, thiserror::Error)]
enum LeadError {
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error("cannot list the pods that have sidecars: {0}")]
    Census(Answer),
}

/// The leader's part.
pub(super) struct Leader {
    client: Client,
    settings: Settings,
    keeper: Arc<Keeper>,
    publisher: Arc<Publisher>,
    status: watch::Sender<Option<Status>>,
    recorder: Recorder,
    told: HashMap<&'static str, Instant>,
    /// Since when this replica, as leader, has known of the state with this generation.
    seen: Option<(u64, Instant)>,
}

impl Leader {
    pub(super) fn new(
        client: Client,
        settings: Settings,
        keeper: Arc<Keeper>,
        publisher: Arc<Publisher>,
        status: watch::Sender<Option<Status>>,
    ) -> Self {
        let reporter =
            Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(settings.replica.clone()) };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, settings, keeper, publisher, status, recorder, told: HashMap::new(), seen: None }
    }

    /// Runs for as long as it is polled.
    pub(super) async fn run(mut self, mut tenure: Tenure) {
        self.publisher.ready().await;
        let mut known = self.keeper.known();
        loop {
            if tenure.holds() {
                let now = known.borrow_and_update().clone();
                if let Err(error) = self.lead(&now, &tenure).await {
                    let problem = match error {
                        LeadError::Census(_) => Problem::Census,
                        LeadError::Keeper(_) | LeadError::Issue(_) => Problem::Rotation,
                    };
                    self.settings.metrics.problem(problem);
                    warn!(%error, "rotation of the root; will try again");
                }
            } else {
                self.seen = None;
                self.status.send_if_modified(|status| status.take().is_some());
            }
            tokio::select! {
                changed = known.changed() => if changed.is_err() { return },
                () = tenure.changed() => {}
                () = sleep(PERIOD.min(self.settings.grace)) => {}
            }
        }
    }

    /// Looks at the state once, and takes a step if one is due.
    async fn lead(&mut self, known: &Known, tenure: &Tenure) -> Result<(), LeadError> {
        let Some(view) = &known.view else { return Ok(()) };
        let census = self.census(&view.state).await?;
        let (now, decided) = (SystemTime::now(), Instant::now());
        let supplied = known.supplied.as_ref().and_then(|supplied| supplied.as_ref().ok());
        let inputs = Inputs {
            life: self.settings.life.get(),
            grace: self.settings.grace,
            supplied: supplied.map(Arc::as_ref),
            user_supplies: self.settings.authority_secret.is_some(),
            request: view.annotation(ROTATE),
            force: view.annotation(FORCE).and_then(|generation| generation.parse().ok()),
            census: census.as_ref(),
        };
        let step = decide(&view.state, &inputs, now);
        let problem = known.supplied.as_ref().and_then(|supplied| supplied.as_ref().err().cloned());
        let Some(changed) = carry_out(&view.state, step.clone(), &inputs, now)? else {
            self.tell(&view.state, census.as_ref(), problem, now).await;
            return Ok(());
        };
        // What was decided before the machine stood still may be wrong by now.
        if !tenure.holds() || decided.elapsed() > HASTE {
            return Ok(());
        }
        if self.keeper.replace(view, &changed).await? {
            self.announce(view, &step, &changed).await;
        }
        Ok(())
    }

    async fn census(&mut self, state: &State) -> Result<Option<Census>, LeadError> {
        let now = Instant::now();
        let since = match self.seen {
            Some((generation, since)) if generation == state.generation => since,
            _ => now,
        };
        self.seen = Some((state.generation, since));
        let known_for = now.duration_since(since);
        if !awaits_census(state, self.settings.grace, known_for) {
            return Ok(None);
        }
        let namespaces = self.publisher.namespaces();
        let census = census::take(&self.client, namespaces, self.settings.admin_port, state, known_for)
            .await
            .map_err(|error| LeadError::Census(error.into()))?;
        self.settings.metrics.set_waiting(census.waiting.len());
        debug!(sidecars = census.sidecars, waiting = census.waiting.len(), "sidecars were asked");
        Ok(Some(census))
    }

    fn supplied_name(&self) -> Option<&str> {
        self.settings.authority_secret.as_deref()
    }

    fn set_status(&self, status: Status) {
        self.status.send_if_modified(|held| {
            let changed = held.as_ref() != Some(&status);
            *held = Some(status);
            changed
        });
    }

    /// Status, and Events about what needs somebody's attention.
    async fn tell(
        &mut self,
        state: &State,
        census: Option<&Census>,
        problem: Option<String>,
        now: SystemTime,
    ) {
        if let Some(problem) = problem.clone() {
            self.remind("AuthorityUnusable", format!("{problem}; the last good authority stays")).await;
        }
        for (what, certificate) in state
            .current
            .roots()
            .iter()
            .map(|root| ("root", root))
            .chain([("issuer", state.current.issuer())])
        {
            // An issuer that was made here is renewed by itself.
            let own = what == "issuer" && state.current.is_self_made();
            if !own && ends_soon(certificate, now) {
                let days = certificate.validity().not_after.duration_since(now).unwrap_or_default().as_secs()
                    / 86_400;
                let note = format!(
                    "the {what} of the mesh ends in {days} days; rotate it (docs/identity.md) before sidecars stop trusting each other"
                );
                self.remind("AuthorityExpires", note).await;
            }
        }
        let late = state.phase.since().is_some_and(|since| now > since + self.settings.rotation_patience);
        if let Some(census) = census.filter(|census| late && !census.waiting.is_empty()) {
            let some: Vec<&str> = census.waiting.iter().take(5).map(String::as_str).collect();
            let note = format!(
                "the rotation of the root waits for {} of {} sidecars, among them {}; `ferrule identity rotate --force` goes on without them",
                census.waiting.len(),
                census.sidecars,
                some.join(", ")
            );
            self.remind("RotationWaits", note).await;
        }
        if state.phase.since().is_none() {
            self.settings.metrics.set_waiting(0);
        }
        self.set_status(Status::new(state, self.supplied_name(), census, problem));
    }

    async fn remind(&mut self, reason: &'static str, note: String) {
        let now = Instant::now();
        if self.told.get(reason).is_some_and(|last| now.duration_since(*last) < REMINDER) {
            return;
        }
        self.told.insert(reason, now);
        warn!(reason, note, "authority of the mesh");
        self.publish(EventType::Warning, reason, note).await;
    }

    async fn announce(&mut self, view: &View, step: &Step, state: &State) {
        let root = state.current.roots()[0].fingerprint();
        let (reason, note) = match step {
            Step::Keep | Step::Lengthen => return,
            Step::RenewIssuer => ("IssuerRenewed", "a new issuer signs below the same root".to_owned()),
            Step::AdoptIssuer(_) => {
                ("IssuerChanged", "the user's new issuer signs below the same root".to_owned())
            }
            Step::Prepare(_) => {
                ("RotationBegan", "another root is trusted; it signs when every sidecar knows it".to_owned())
            }
            Step::Abandon => ("RotationAbandoned", "the user's authority is the former one again".to_owned()),
            Step::Promote => ("RotationSigns", format!("root {root} signs; the old one is still trusted")),
            Step::Retire => ("RotationEnded", format!("root {root} is the only one that is trusted")),
            Step::Decline => (
                "RotationDeclined",
                "the authority is the user's: put the new one into its Secret, and the rotation begins"
                    .to_owned(),
            ),
        };
        let before = view.state.generation;
        info!(reason, note, before, generation = state.generation, "authority of the mesh");
        // What was late is on time again.
        self.told.remove("RotationWaits");
        self.publish(EventType::Normal, reason, note).await;
    }

    async fn publish(&self, type_: EventType, reason: &str, note: String) {
        let object = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Secret".to_owned()),
            namespace: Some(self.settings.namespace.clone()),
            name: Some(SECRET.to_owned()),
            ..ObjectReference::default()
        };
        let note = Some(note.chars().take(1000).collect());
        let event =
            Event { type_, reason: reason.to_owned(), note, action: "Rotate".to_owned(), secondary: None };
        if let Err(error) = self.recorder.publish(&event, &object).await {
            debug!(%error, "cannot publish an Event");
        }
    }
}

/// Within the last quarter of its life, and the last half year.
fn ends_soon(certificate: &Certificate, now: SystemTime) -> bool {
    let validity = certificate.validity();
    let life = validity.not_after.duration_since(validity.not_before).unwrap_or_default();
    now + FOREWARNING.min(life / 4) >= validity.not_after
}
