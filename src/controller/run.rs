//! The controller's parts put together: watches, election, and the loop that writes.

use kube::Client;
use tokio::{
    sync::{mpsc, watch as signal},
    task::JoinSet,
};

use super::{
    Health, Lead, Metrics,
    apply::Applier,
    election,
    inquiry::Inquirer,
    observe::{Kind, Observed},
    reconcile::Reconciler,
    watch,
};

/// Messages of watches that wait for the loop; a watch waits in turn when they are more.
const CHANNEL: usize = 1024;

/// Everything that [`run`] needs besides a client.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the operator; its Lease is there, and its pods are never injected.
    pub namespace: String,
    /// Identity in the Lease, which no other replica may have: the name of the pod.
    pub identity: String,
    /// Port on which sidecars tell who came without encryption.
    pub sidecar_port: u16,
    /// Whether this replica leads; for others who write only then. A clone shares the state.
    pub lead: Lead,
    /// Counters that the caller has registered. A clone shares them.
    pub metrics: Metrics,
    /// Whether the controller is ready and alive. A clone shares the state.
    pub health: Health,
}

/// Watches, and writes while it leads, until `shutdown` turns true; then the lead is given up, after the last
/// write. Trouble with the API server is no error but is logged, counted and tried again.
pub async fn run(client: Client, settings: Settings, shutdown: signal::Receiver<bool>) {
    let Settings { namespace, identity, sidecar_port, lead, metrics, health } = settings;
    let (sender, messages) = mpsc::channel(CHANNEL);
    let mut watches = JoinSet::new();
    for kind in Kind::ALL {
        watches.spawn(watch::run(client.clone(), kind, sender.clone(), metrics.clone()));
    }
    drop(sender);

    let Lead { grant, tenure } = lead;
    let (stop_election, election_stopped) = signal::channel(false);
    let election = tokio::spawn(election::run(
        client.clone(),
        namespace.clone(),
        identity.clone(),
        grant,
        metrics.clone(),
        election_stopped,
    ));

    let observed =
        Observed::without_injection_in([namespace.clone(), KUBE_SYSTEM.to_owned()]).with_system(namespace);
    let applier = Applier::new(client, tenure.clone(), identity, metrics.clone());
    let inquirer = Inquirer::new(sidecar_port, metrics.clone());
    Reconciler::new(observed, applier, inquirer, tenure, metrics.clone(), health)
        .run(messages, shutdown)
        .await;

    watches.abort_all();
    stop_election.send_replace(true);
    if let Err(error) = election.await
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
    metrics.set_leader(false);
}

/// Its pods never get sidecars.
const KUBE_SYSTEM: &str = "kube-system";
