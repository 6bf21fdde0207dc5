//! Where Strict waits: what is in force meanwhile, what its status says, and whom to ask.

use ferrule_config::{Modes, TlsMode};
use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::{
        MeshTLSSpec,
        mesh_tls::{MeshTLSStatus, Mode, PlaintextClient, PortMode},
    },
    controller::{
        observe::{MeshTls, Observed, Resource},
        ratchet::{self, Key, Pod, Progress, Step, Subject, Wanting},
    },
};

use super::{
    finding::{ConditionType, Reason},
    mesh_tls::{self, Parsed},
};

/// Clients that a condition names; the status lists more.
const NAMED: usize = 3;

/// All MeshTLS that want Strict somewhere and are in force as far as their status says.
#[must_use]
pub fn wanting_strict(observed: &Observed) -> Vec<Wanting> {
    let mut wanting = Vec::new();
    for (namespace, of) in observed.namespaces().filter_map(|name| observed.namespace_and_name(name)) {
        if of.mesh_tls.is_empty() {
            continue;
        }
        for policy in mesh_tls::all(observed, of) {
            let Some(MeshTls { resource, status }) = of.mesh_tls.get(policy.name) else { continue };
            let is_told = status.mode.is_some() && status.selection.as_ref() == Some(&policy.selection);
            if !is_told || !ratchet::wants_strict(&policy.wanted) {
                continue;
            }
            wanting.push(Wanting {
                key: Key { namespace: namespace.to_owned(), name: policy.name.to_owned() },
                subject: subject(&policy, resource),
                in_force: policy.modes,
                quiet_for: policy.quiet_for,
                listed: status.plaintext_clients.clone(),
            });
        }
    }
    wanting
}

fn subject(policy: &Parsed<'_>, resource: &Resource<MeshTLSSpec>) -> Subject {
    Subject { uid: resource.uid.clone(), selection: policy.selection.clone(), wanted: policy.wanted.clone() }
}

/// The pods that a MeshTLS decides on and that can be asked.
#[must_use]
pub fn pods_of(observed: &Observed, key: &Key) -> Vec<Pod> {
    let decided = mesh_tls::decided_by(observed, key).into_iter();
    decided
        .filter(|(.., pod)| !pod.host_network)
        .filter_map(|(namespace, name, pod)| {
            Some(Pod {
                name: format!("{namespace}/{name}"),
                workload: format!("{namespace}/{}", pod.workload),
                address: *pod.addresses.first()?,
                ready: pod.ready,
            })
        })
        .collect()
}

/// What is selected, in words: what has taken hold has done so for this and nothing else.
pub(super) fn selection(spec: &MeshTLSSpec) -> String {
    if let Some(selector) = &spec.selector {
        let labels = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}"));
        return labels.collect::<Vec<_>>().join(",");
    }
    if spec.target_refs.is_empty() {
        return "all pods".to_owned();
    }
    let mut names: Vec<&str> = spec.target_refs.iter().map(|target| target.name.as_str()).collect();
    names.sort_unstable();
    format!("Service {}", names.join(", "))
}

/// What is in force of what is wanted, by what the status says.
pub(super) fn in_force(wanted: &Modes, selection: &str, status: &MeshTLSStatus) -> Modes {
    let before = status.mode.filter(|_| status.selection.as_deref() == Some(selection)).and_then(|mode| {
        let ports = mesh_tls::ports(&status.ports).ok()?;
        Some(Modes { mode: mesh_tls::mode(mode), ports, ..Modes::default() })
    });
    ratchet::in_force(wanted, before.as_ref())
}

/// Whether all that is wanted is in force, or why it is not; and the status without conditions.
pub(super) fn tell(
    policy: &Parsed<'_>,
    tls: &MeshTls,
    progress: Option<&Progress>,
) -> (Result<(), (Reason, String)>, MeshTLSStatus) {
    let progress = progress.filter(|progress| progress.subject == subject(policy, &tls.resource));
    let may_hold = progress.is_some_and(|progress| progress.step == Step::Hold);
    let modes = if may_hold { &policy.wanted } else { &policy.modes };
    let (clients, count) = match progress {
        _ if !ratchet::wants_strict(&policy.wanted) => (Vec::new(), None),
        Some(Progress { clients, count, .. }) => (clients.clone(), Some(*count)),
        // Nobody was asked yet since this replica leads: what the one before it was told still holds.
        None => {
            let MeshTLSStatus { plaintext_clients, plaintext_client_count: count, .. } = tls.status.clone();
            (plaintext_clients, count.and_then(|count| usize::try_from(count).ok()))
        }
    };
    let told = if policy.wanted == *modes { Ok(()) } else { Err(why(policy, tls, progress)) };
    let status = MeshTLSStatus {
        conditions: Vec::new(),
        mode: Some(mode(modes.mode)),
        ports: modes.ports.iter().map(|(&port, &of)| PortMode { port, mode: mode(of) }).collect(),
        selection: Some(policy.selection.clone()),
        plaintext_clients: clients,
        plaintext_client_count: count.map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
    };
    (told, status)
}

/// Why Strict waits.
fn why(policy: &Parsed<'_>, tls: &MeshTls, progress: Option<&Progress>) -> (Reason, String) {
    let quiet_for = SignedDuration::try_from(policy.quiet_for).unwrap_or(SignedDuration::MAX);
    let Some(Progress { step, clients, count, .. }) = progress else {
        let message = "Strict waits until the sidecars have been asked who comes without encryption";
        return before(tls).unwrap_or((Reason::Observing, message.to_owned()));
    };
    match step {
        Step::Clients => {
            let message = format!(
                "Strict waits: {count} came without encryption within the last hour, {}. It takes hold when nobody has for \
                 {quiet_for:#}; status.plaintextClients lists them, spec.force cuts them off",
                named(clients, *count)
            );
            (Reason::PlaintextClients, message)
        }
        Step::Missing { named, count } => {
            let others = others(named.len(), *count);
            let message = format!(
                "Strict waits for sidecars that don't tell who comes without encryption: {}{others}. Is their admin port \
                 out of the operator's reach, or their version older? spec.force does not wait",
                named.join(", ")
            );
            (Reason::ReportsMissing, message)
        }
        Step::Observing { until } => {
            let message = format!(
                "Strict waits until {until}: nobody came without encryption so far, but sidecars have not been looking \
                 for {quiet_for:#} yet; spec.force does not wait"
            );
            (Reason::Observing, message)
        }
        Step::Hold | Step::Held => (Reason::Observing, "Strict is about to take hold".to_owned()),
    }
}

/// What the status says already of the same specification.
fn before(tls: &MeshTls) -> Option<(Reason, String)> {
    let enforced = ConditionType::Enforced.as_str();
    let condition = tls.resource.conditions.iter().find(|condition| {
        condition.type_ == enforced && condition.observed_generation == Some(tls.resource.generation)
    })?;
    let reasons = [Reason::PlaintextClients, Reason::ReportsMissing, Reason::Observing];
    let reason = reasons.into_iter().find(|reason| reason.as_str() == condition.reason)?;
    Some((reason, condition.message.clone()))
}

fn named(clients: &[PlaintextClient], count: usize) -> String {
    let each = clients.iter().take(NAMED).map(|client| {
        let PlaintextClient { address, pod, workload, port, last_seen: _ } = client;
        let from = pod.as_ref().map_or(address.clone(), |pod| format!("{pod} ({address})"));
        format!("{from} to {workload} port {port}")
    });
    let mut each: Vec<String> = each.collect();
    // The order in the list changes with every request.
    each.sort_unstable();
    format!("{}{}", each.join(", "), others(each.len(), count))
}

fn others(named: usize, count: usize) -> String {
    match count.saturating_sub(named) {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    }
}

fn mode(mode: TlsMode) -> Mode {
    match mode {
        TlsMode::Permissive => Mode::Permissive,
        TlsMode::Strict => Mode::Strict,
        TlsMode::Disabled => Mode::Disabled,
    }
}
