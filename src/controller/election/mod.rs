//! Takes and renews the Lease that decides which replica writes.

mod lease;

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use lease::{Candidate, Record, Step};

use super::{
    metrics::{Metrics, Operation},
    refusal::Refusal,
};

/// Name of the Lease, in the operator's namespace.
pub const LEASE: &str = "ferrule-operator";
/// Longest a request about the Lease may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Whether we lead. It ends by itself when it is not renewed, so a replica that is cut off stops in time.
#[derive(Clone, Debug)]
pub struct Tenure(watch::Receiver<Option<Instant>>);

impl Tenure {
    /// When it ends unless it is renewed, if it has not ended.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.0.borrow().filter(|until| Instant::now() < *until)
    }

    /// Whether we lead now.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.until().is_some()
    }

    /// Returns when it began, was renewed or was lost.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody will ever renew it; its end is seen by the clock.
            std::future::pending::<()>().await;
        }
    }
}

/// The lead: who grants it, and who asks whether it is held. At first it is not.
#[derive(Clone, Debug)]
pub struct Lead {
    pub(super) grant: watch::Sender<Option<Instant>>,
    pub(super) tenure: Tenure,
}

impl Default for Lead {
    fn default() -> Self {
        let (grant, tenure) = watch::channel(None);
        Self { grant, tenure: Tenure(tenure) }
    }
}

impl Lead {
    /// One that is held without an election until then, by a process that has no rivals.
    #[must_use]
    pub fn without_rivals(until: Instant) -> Self {
        let lead = Self::default();
        lead.grant.send_replace(Some(until));
        lead
    }

    /// Whether this replica leads.
    #[must_use]
    pub fn tenure(&self) -> Tenure {
        self.tenure.clone()
    }
}

/// Seeks the lead until `shutdown` turns true, then gives it up.
pub async fn run(
    client: Client,
    namespace: String,
    identity: String,
    grant: watch::Sender<Option<Instant>>,
    metrics: Metrics,
    mut shutdown: watch::Receiver<bool>,
) {
    let election =
        Election { leases: Api::namespaced(client, &namespace), identity: identity.clone(), grant };
    let mut candidate = Candidate::new(identity);
    loop {
        let wait = election.attempt(&mut candidate, &metrics).await;
        tokio::select! {
            () = sleep(wait.mul_f64(1.0 + fastrand::f64() * 0.2)) => {}
            _ = shutdown.wait_for(|stop| *stop) => break,
        }
    }
    election.release().await;
}

struct Election {
    leases: Api<Lease>,
    identity: String,
    grant: watch::Sender<Option<Instant>>,
}

/// What went wrong with the Lease.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the API server did not answer within {REQUEST_TIMEOUT:?}")]
    Timeout,
    #[error("{0}")]
    Api(Refusal),
}

impl Election {
    /// One look at the Lease, and what follows; returns when to look again.
    async fn attempt(&self, candidate: &mut Candidate, metrics: &Metrics) -> Duration {
        let asked = Instant::now();
        match timeout(REQUEST_TIMEOUT, self.step(candidate)).await.unwrap_or(Err(Error::Timeout)) {
            Ok(true) => {
                // From before the request: the others count from when they see its effect, which is later.
                let began = self.grant.send_replace(Some(asked + lease::RENEW_DEADLINE)).is_none();
                if began {
                    info!(lease = LEASE, identity = self.identity, "leads");
                }
                lease::RENEW_EVERY
            }
            Ok(false) => {
                if self.grant.send_replace(None).is_some() {
                    warn!(lease = LEASE, identity = self.identity, "lost the lead");
                }
                lease::LOOK_EVERY
            }
            Err(error) => {
                metrics.api_error(Operation::Lease);
                warn!(lease = LEASE, %error, "cannot take or renew the Lease; will try again");
                lease::RENEW_EVERY
            }
        }
    }

    /// Whether we hold the Lease now.
    async fn step(&self, candidate: &mut Candidate) -> Result<bool, Error> {
        let current = self.leases.get_opt(LEASE).await.map_err(|error| Error::Api(error.into()))?;
        let step = candidate.look(current.as_ref().map(record), Instant::now());
        let result = match (step, current) {
            (Step::Wait, _) => return Ok(false),
            (Step::Create, _) | (_, None) => {
                let metadata = ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(self.spec(Some(MicroTime(Timestamp::now())), 0)) };
                self.leases.create(&PostParams::default(), &lease).await
            }
            (Step::Renew, Some(lease)) => {
                let spec = lease.spec.unwrap_or_default();
                let spec = self.spec(spec.acquire_time, spec.lease_transitions.unwrap_or_default());
                self.replace(lease.metadata, spec).await
            }
            (Step::Take { transitions }, Some(lease)) => {
                let spec = self.spec(Some(MicroTime(Timestamp::now())), transitions);
                self.replace(lease.metadata, spec).await
            }
        };
        match result {
            Ok(_) => Ok(true),
            // Another was quicker: the version we wrote against is not the latest, or it has been created.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(Error::Api(error.into())),
        }
    }

    /// Writes against the version that was read, so that of two only one succeeds.
    async fn replace(&self, metadata: ObjectMeta, spec: LeaseSpec) -> kube::Result<Lease> {
        let lease = Lease { metadata, spec: Some(spec) };
        self.leases.replace(LEASE, &PostParams::default(), &lease).await
    }

    fn spec(&self, acquired: Option<MicroTime>, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(lease::DURATION.as_secs()).ok(),
            acquire_time: acquired,
            renew_time: Some(MicroTime(Timestamp::now())),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Gives the lead up, so that a successor need not wait for the Lease to run out.
    async fn release(&self) {
        if self.grant.send_replace(None).is_none() {
            return;
        }
        let release = async {
            let Some(lease) = self.leases.get_opt(LEASE).await? else { return Ok(()) };
            let spec = lease.spec.unwrap_or_default();
            if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
                return Ok(());
            }
            let spec = LeaseSpec {
                holder_identity: Some(String::new()),
                renew_time: Some(MicroTime(Timestamp::now())),
                lease_duration_seconds: Some(1),
                ..spec
            };
            self.replace(lease.metadata, spec).await.map(|_| ())
        };
        match timeout(REQUEST_TIMEOUT, release).await {
            Ok(Ok(())) => info!(lease = LEASE, identity = self.identity, "gave up the lead"),
            Ok(Err(error)) => {
                let error = Refusal(error);
                warn!(lease = LEASE, %error, "cannot release the Lease; it runs out by itself");
            }
            Err(_) => warn!(lease = LEASE, "no answer to releasing the Lease; it runs out by itself"),
        }
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: seconds.map_or(lease::DURATION, Duration::from_secs),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}
