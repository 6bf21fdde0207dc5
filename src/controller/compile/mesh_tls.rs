//! MeshTLS: which one decides on which pods.
//!
//! ```text
//!   of the namespace, for pods       the oldest first  ──┐
//!   of the namespace, for all of it  the oldest        ──┼──▶ entries: the first that selects a pod decides
//!   of the operator's, for all       the oldest        ──┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

use ferrule_config::{MinVersion, Modes, Selector, TlsMode, WorkloadTls};
use k8s_openapi::jiff::Timestamp;

use crate::{
    api::{
        MeshTLSSpec,
        mesh_tls::{MAX_LABELS, Mode, PodSelector, PortMode, TlsVersion},
    },
    controller::observe::{Kind, Observation, Observed, Resource},
};

use super::{
    finding::{ConditionType, Finding, Reason, Verdict},
    header::invalid,
    target, verdict,
};

/// Most Services of one object.
const MAX_TARGETS: usize = 16;
/// Most ports of one object.
const MAX_PORTS: usize = 64;

/// One that is sound in itself.
struct Parsed<'a> {
    name: &'a str,
    created: Option<Timestamp>,
    /// `None`: the whole namespace, or the whole mesh.
    selectors: Option<Vec<Selector>>,
    /// Targets that select no pods, and why.
    missing: Vec<String>,
    modes: Modes,
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
    let parsed: Vec<_> = of.mesh_tls.iter().map(|(name, resource)| parse(of, name, resource)).collect();
    let mut in_order: Vec<&Parsed<'_>> = parsed.iter().flatten().collect();
    in_order.sort_by_key(|policy| policy.age());
    let verdicts = of
        .mesh_tls
        .iter()
        .zip(&parsed)
        .map(|((name, resource), parsed)| {
            let findings = match parsed {
                Ok(parsed) => judge(of, parsed, &in_order),
                Err((reason, problem)) => refused(*reason, &format!("{problem}; it is not in force")),
            };
            verdict(Kind::MeshTls, name, resource, findings)
        })
        .collect();
    (entries(observed, namespace, &in_order), verdicts)
}

/// What pods of a namespace accept, as [`compile`] has it.
pub(super) fn in_force(observed: &Observed, namespace: &str, of: &Observation) -> Vec<WorkloadTls> {
    let parsed = of.mesh_tls.iter().filter_map(|(name, resource)| parse(of, name, resource).ok());
    let parsed: Vec<_> = parsed.collect();
    let mut in_order: Vec<_> = parsed.iter().collect();
    in_order.sort_by_key(|policy| policy.age());
    entries(observed, namespace, &in_order)
}

/// What holds for the whole mesh, if anything does.
fn of_mesh(observed: &Observed) -> Option<WorkloadTls> {
    let of = observed.system()?;
    let parsed = of.mesh_tls.iter().filter_map(|(name, resource)| parse(of, name, resource).ok());
    let decider = parsed.filter(|policy| policy.selectors.is_none()).min_by(|a, b| a.age().cmp(&b.age()))?;
    Some(WorkloadTls { selector: Selector::default(), modes: decider.modes })
}

/// The narrowest first.
fn entries(observed: &Observed, namespace: &str, in_order: &[&Parsed<'_>]) -> Vec<WorkloadTls> {
    let mut entries = Vec::new();
    for policy in in_order {
        for selector in policy.selectors.iter().flatten() {
            entries.push(WorkloadTls { selector: selector.clone(), modes: policy.modes.clone() });
        }
    }
    let wide = in_order.iter().find(|policy| policy.selectors.is_none());
    entries.extend(
        wide.map(|policy| WorkloadTls { selector: Selector::default(), modes: policy.modes.clone() }),
    );
    if !observed.is_system(namespace) {
        entries.extend(of_mesh(observed));
    }
    entries
}

fn parse<'a>(
    of: &Observation,
    name: &'a str,
    resource: &Resource<MeshTLSSpec>,
) -> Result<Parsed<'a>, (Reason, String)> {
    let spec = resource.spec.as_ref().map_err(|error| (Reason::Invalid, error.clone()))?;
    let MeshTLSSpec { selector, target_refs, mode, ports, min_version, force: _ } = spec;
    let wrong = |field: &str, problem: String| (Reason::Invalid, invalid(field, problem).to_string());
    if selector.is_some() && !target_refs.is_empty() {
        return Err(wrong("spec.selector", "contradicts targetRefs; give one of the two".into()));
    }
    if target_refs.len() > MAX_TARGETS {
        return Err(wrong("spec.targetRefs", format!("name at most {MAX_TARGETS} Services")));
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
    let modes = Modes {
        mode: self::mode(*mode),
        ports: self::ports(ports).map_err(|error| (Reason::Invalid, error))?,
        min_version: match min_version {
            TlsVersion::V1_2 => MinVersion::V1_2,
            TlsVersion::V1_3 => MinVersion::V1_3,
        },
    };
    Ok(Parsed { name, created: resource.created, selectors, missing, modes })
}

fn ports(ports: &[PortMode]) -> Result<BTreeMap<u16, TlsMode>, String> {
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

fn mode(mode: Mode) -> TlsMode {
    match mode {
        Mode::Permissive => TlsMode::Permissive,
        Mode::Strict => TlsMode::Strict,
        Mode::Disabled => TlsMode::Disabled,
    }
}

/// Where it is in force, and why it is not where it is not.
fn judge(of: &Observation, policy: &Parsed<'_>, in_order: &[&Parsed<'_>]) -> Vec<Finding> {
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
        return refused(reason, &format!("{}; it is not in force", problems.join("; ")));
    }
    if problems.is_empty() {
        return vec![
            Finding::good(ConditionType::Accepted, Reason::Accepted, "It is in force"),
            Finding::good(ConditionType::Enforced, Reason::Enforced, "Sidecars are told what to accept"),
        ];
    }
    let message = format!("{}; it is in force for the other pods", problems.join("; "));
    vec![
        Finding::bad(ConditionType::Accepted, reason, message),
        Finding::good(
            ConditionType::Enforced,
            Reason::Enforced,
            "In part: the condition Accepted says where not",
        ),
    ]
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
