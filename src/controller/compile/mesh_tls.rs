//! MeshTLS: which one decides on which pods.
//!
//! ```text
//!   of the namespace, for pods       the oldest first  ──┐
//!   of the namespace, for all of it  the oldest        ──┼──▶ entries: the first that selects a pod decides
//!   of the operator's, for all       the oldest        ──┘
//! ```
//!
//! Where Strict is wanted it comes into force by and by: see [`ratchet`](super::super::ratchet).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ferrule_config::{MinVersion, Modes, Selector, TlsMode, WorkloadTls};
use k8s_openapi::jiff::Timestamp;

use crate::{
    api::{
        MeshTLSSpec,
        mesh_tls::{
            MAX_LABELS, MAX_QUIET_FOR, MIN_QUIET_FOR, MeshTLSStatus, Mode, PodSelector, PortMode, TlsVersion,
        },
    },
    controller::{
        observe::{Kind, MeshTls, Observation, Observed, Pod},
        ratchet::Key,
    },
};

use super::{
    finding::{ConditionType, Finding, Reason, Verdict},
    header::invalid,
    peers, strict, target, verdict,
};

/// Most Services of one object.
const MAX_TARGETS: usize = 16;
/// Most ports of one object.
const MAX_PORTS: usize = 64;

/// One that is sound in itself.
pub(super) struct Parsed<'a> {
    pub(super) name: &'a str,
    created: Option<Timestamp>,
    /// `None`: the whole namespace, or the whole mesh.
    selectors: Option<Vec<Selector>>,
    /// Targets that select no pods, and why.
    missing: Vec<String>,
    /// What it selects, in words.
    pub(super) selection: String,
    /// What the user wants.
    pub(super) wanted: Modes,
    /// What is in force: for less than wanted Strict waits.
    pub(super) modes: Modes,
    pub(super) quiet_for: Duration,
}

impl Parsed<'_> {
    fn age(&self) -> (Option<Timestamp>, &str) {
        (self.created, self.name)
    }
}

/// What the MeshTLS of a namespace, and those of the mesh, make of its pods, and what those of the namespace are told.
pub(super) fn compile(
    observed: &Observed,
    namespace: &str,
    of: &Observation,
) -> (Vec<WorkloadTls>, Vec<Verdict>) {
    let parsed: Vec<_> = of.mesh_tls.iter().map(|(name, tls)| parse(observed, of, name, tls)).collect();
    let mut in_order: Vec<&Parsed<'_>> = parsed.iter().flatten().collect();
    in_order.sort_by_key(|policy| policy.age());
    let verdicts = of
        .mesh_tls
        .iter()
        .zip(&parsed)
        .map(|((name, tls), parsed)| {
            let (findings, status) = match parsed {
                Ok(parsed) => {
                    let progress = observed.progress(namespace, name);
                    judge(of, parsed, &in_order, || strict::tell(parsed, tls, progress))
                }
                Err((reason, problem)) => {
                    (refused(*reason, &format!("{problem}; it is not in force")), MeshTLSStatus::default())
                }
            };
            let verdict = verdict(Kind::MeshTls, name, &tls.resource, findings);
            Verdict { mesh_tls: Some(Box::new(status)), ..verdict }
        })
        .collect();
    (entries(observed, namespace, &in_order), verdicts)
}

/// What pods of a namespace accept, as [`compile`] has it.
pub(super) fn in_force(observed: &Observed, namespace: &str, of: &Observation) -> Vec<WorkloadTls> {
    let parsed = all(observed, of);
    let mut in_order: Vec<_> = parsed.iter().collect();
    in_order.sort_by_key(|policy| policy.age());
    entries(observed, namespace, &in_order)
}

/// Those of a namespace that are sound.
pub(super) fn all<'a>(observed: &Observed, of: &'a Observation) -> Vec<Parsed<'a>> {
    of.mesh_tls.iter().filter_map(|(name, tls)| parse(observed, of, name, tls).ok()).collect()
}

/// Pods with sidecars that this one decides on, with their namespaces and names.
pub(super) fn decided_by<'a>(observed: &'a Observed, key: &Key) -> Vec<(&'a str, &'a str, &'a Pod)> {
    let of_mesh = observed.is_system(&key.namespace);
    let others = observed.injected().filter(|name| of_mesh && *name != key.namespace);
    let mut pods = Vec::new();
    for (namespace, of) in
        others.chain([key.namespace.as_str()]).filter_map(|name| observed.namespace_and_name(name))
    {
        let parsed = all(observed, of);
        let mut in_order: Vec<_> = parsed.iter().collect();
        in_order.sort_by_key(|policy| policy.age());
        let deciders = deciders(observed, namespace, &in_order);
        for (name, pod) in of.pods.iter().filter(|(_, pod)| pod.injected) {
            let decider = deciders.iter().find(|decider| decider.entry.selector.selects(&pod.labels));
            if decider.is_some_and(|decider| decider.namespace == key.namespace && decider.name == key.name) {
                pods.push((namespace, name.as_str(), pod));
            }
        }
    }
    pods
}

/// What holds for the whole mesh, if anything does.
fn of_mesh(observed: &Observed) -> Option<Decider> {
    let of = observed.system()?;
    let wide = all(observed, of).into_iter().filter(|policy| policy.selectors.is_none());
    let policy = wide.min_by(|a, b| a.age().cmp(&b.age()))?;
    Some(Decider::new(observed.system_name()?, &policy, Selector::default()))
}

/// What holds for pods, and which MeshTLS says so.
struct Decider {
    namespace: String,
    name: String,
    entry: WorkloadTls,
}

impl Decider {
    fn new(namespace: &str, policy: &Parsed<'_>, selector: Selector) -> Self {
        let entry = WorkloadTls { selector, modes: policy.modes.clone() };
        Self { namespace: namespace.to_owned(), name: policy.name.to_owned(), entry }
    }
}

fn entries(observed: &Observed, namespace: &str, in_order: &[&Parsed<'_>]) -> Vec<WorkloadTls> {
    deciders(observed, namespace, in_order).into_iter().map(|decider| decider.entry).collect()
}

/// The narrowest first.
fn deciders(observed: &Observed, namespace: &str, in_order: &[&Parsed<'_>]) -> Vec<Decider> {
    let mut deciders = Vec::new();
    for policy in in_order {
        for selector in policy.selectors.iter().flatten() {
            deciders.push(Decider::new(namespace, policy, selector.clone()));
        }
    }
    let wide = in_order.iter().find(|policy| policy.selectors.is_none());
    deciders.extend(wide.map(|policy| Decider::new(namespace, policy, Selector::default())));
    if !observed.is_system(namespace) {
        deciders.extend(of_mesh(observed));
    }
    deciders
}

fn parse<'a>(
    observed: &Observed,
    of: &Observation,
    name: &'a str,
    tls: &MeshTls,
) -> Result<Parsed<'a>, (Reason, String)> {
    let MeshTls { resource, status } = tls;
    let spec = resource.spec.as_ref().map_err(|error| (Reason::Invalid, error.clone()))?;
    let MeshTLSSpec { selector, target_refs, mode, ports, min_version, quiet_for, force } = spec;
    let wrong = |field: &str, problem: String| (Reason::Invalid, invalid(field, problem).to_string());
    if selector.is_some() && !target_refs.is_empty() {
        return Err(wrong("spec.selector", "contradicts targetRefs; give one of the two".into()));
    }
    if target_refs.len() > MAX_TARGETS {
        return Err(wrong("spec.targetRefs", format!("name at most {MAX_TARGETS} Services")));
    }
    if !(MIN_QUIET_FOR..=MAX_QUIET_FOR).contains(quiet_for) {
        return Err(wrong("spec.quietFor", "must be 10s to 1h".into()));
    }
    let mut missing = Vec::new();
    let selectors = match selector {
        Some(PodSelector { match_labels }) if match_labels.is_empty() || match_labels.len() > MAX_LABELS => {
            let problem = format!("give 1 to {MAX_LABELS} labels; without selector it holds for all pods");
            return Err(wrong("spec.selector.matchLabels", problem));
        }
        Some(PodSelector { match_labels }) => Some(vec![Selector { match_labels: match_labels.clone() }]),
        None if target_refs.is_empty() => None,
        None => {
            let mut selectors = Vec::new();
            for reference in target_refs {
                match target::selector(of, &reference.name) {
                    Ok(labels) => selectors.push(Selector { match_labels: labels.clone() }),
                    Err(why) => missing.push(why),
                }
            }
            if selectors.is_empty() {
                return Err((Reason::TargetNotFound, missing.join("; ")));
            }
            Some(selectors)
        }
    };
    let wanted = peers::normal(Modes {
        mode: self::mode(*mode),
        ports: self::ports(ports).map_err(|error| (Reason::Invalid, error))?,
        min_version: match min_version {
            TlsVersion::V1_2 => MinVersion::V1_2,
            TlsVersion::V1_3 => MinVersion::V1_3,
        },
    });
    let selection = strict::selection(spec);
    let at_once = *force || observed.is_strict_at_once();
    let modes = if at_once { wanted.clone() } else { strict::in_force(&wanted, &selection, status) };
    Ok(Parsed {
        name,
        created: resource.created,
        selectors,
        missing,
        selection,
        wanted,
        modes,
        quiet_for: quiet_for.get(),
    })
}

pub(super) fn ports(ports: &[PortMode]) -> Result<BTreeMap<u16, TlsMode>, String> {
    const FIELD: &str = "spec.ports";
    if ports.len() > MAX_PORTS {
        return Err(invalid(FIELD, format!("name at most {MAX_PORTS}")).to_string());
    }
    let mut modes = BTreeMap::new();
    for (index, PortMode { port, mode }) in ports.iter().enumerate() {
        if *port == 0 {
            return Err(invalid(format!("{FIELD}[{index}].port"), "must be 1 to 65535").to_string());
        }
        if modes.insert(*port, self::mode(*mode)).is_some() {
            return Err(
                invalid(format!("{FIELD}[{index}].port"), format!("{port} is there twice")).to_string()
            );
        }
    }
    Ok(modes)
}

pub(super) fn mode(mode: Mode) -> TlsMode {
    match mode {
        Mode::Permissive => TlsMode::Permissive,
        Mode::Strict => TlsMode::Strict,
        Mode::Disabled => TlsMode::Disabled,
    }
}

/// Where it is in force, and why it is not where it is not.
fn judge(
    of: &Observation,
    policy: &Parsed<'_>,
    in_order: &[&Parsed<'_>],
    tell: impl FnOnce() -> (Result<(), (Reason, String)>, MeshTLSStatus),
) -> (Vec<Finding>, MeshTLSStatus) {
    let older: Vec<_> = in_order.iter().take_while(|other| other.age() < policy.age()).copied().collect();
    let conflict = conflict(of, policy, &older);
    let mut problems = policy.missing.clone();
    let reason = if problems.is_empty() { Reason::Conflicted } else { Reason::TargetNotFound };
    if let Some((_, deciders)) = &conflict {
        let (names, decide) = (deciders.join(", "), if deciders.len() == 1 { "decides" } else { "decide" });
        let where_ = if policy.selectors.is_some() { "on pods that it selects too" } else { "in its place" };
        problems.push(format!(
            "MeshTLS {names} {decide} {where_}: of several the oldest does, then the first by name"
        ));
    }
    if conflict.is_some_and(|(extent, _)| extent == Extent::Whole) {
        let refused = refused(reason, &format!("{}; it is not in force", problems.join("; ")));
        return (refused, MeshTLSStatus::default());
    }
    let (told, status) = tell();
    let (accepted, good) = if problems.is_empty() {
        let message = "It is valid, and decides on all that it selects";
        let accepted = Finding::good(ConditionType::Accepted, Reason::Accepted, message);
        (accepted, "Sidecars are told what to accept")
    } else {
        let message = format!("{}; it decides on the other pods", problems.join("; "));
        let accepted = Finding::bad(ConditionType::Accepted, reason, message);
        (accepted, "In part: the condition Accepted says where not")
    };
    let enforced = match told {
        Ok(()) => Finding::good(ConditionType::Enforced, Reason::Enforced, good),
        Err((reason, message)) => Finding::bad(ConditionType::Enforced, reason, message),
    };
    (vec![accepted, enforced], status)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Whole,
    Part,
}

/// Which older ones decide on what this one is for, and on how much of it.
fn conflict<'a>(
    of: &Observation,
    policy: &Parsed<'_>,
    older: &[&Parsed<'a>],
) -> Option<(Extent, Vec<&'a str>)> {
    let Some(selectors) = &policy.selectors else {
        let other = older.iter().find(|other| other.selectors.is_none())?;
        return Some((Extent::Whole, vec![other.name]));
    };
    let selecting = || older.iter().filter_map(|other| Some((other.name, other.selectors.as_ref()?)));
    // An older one whose labels are among these selects whatever these select, now and later.
    let covers = |other: &Selector, one: &Selector| other.selects(&one.match_labels);
    let mut deciders: BTreeSet<&str> = BTreeSet::new();
    let mut uncovered = false;
    for selector in selectors {
        let covering = selecting().find(|(_, others)| others.iter().any(|other| covers(other, selector)));
        match covering {
            Some((name, _)) => {
                deciders.insert(name);
            }
            None => uncovered = true,
        }
    }
    for pod in of.pods.values().filter(|pod| pod.injected) {
        if selectors.iter().any(|selector| selector.selects(&pod.labels)) {
            let decider =
                selecting().find(|(_, others)| others.iter().any(|other| other.selects(&pod.labels)));
            deciders.extend(decider.map(|(name, _)| name));
        }
    }
    let extent = if uncovered { Extent::Part } else { Extent::Whole };
    (!deciders.is_empty()).then(|| (extent, deciders.into_iter().collect()))
}

fn refused(reason: Reason, message: &str) -> Vec<Finding> {
    vec![
        Finding::bad(ConditionType::Accepted, reason, message),
        Finding::bad(ConditionType::Enforced, reason, "It is not in force; the condition Accepted says why"),
    ]
}
