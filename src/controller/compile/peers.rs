//! Who answers behind each Service, and what the pods there accept.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ferrule_config::{Modes, Peers, TlsMode, WorkloadTls};

use crate::controller::observe::{Observation, Pod, Service};

/// By Service; one that selects no pod with a sidecar has none. `tls` is what pods of the namespace accept.
pub(super) fn compile(of: &Observation, tls: &[WorkloadTls]) -> BTreeMap<String, Peers> {
    let pods = Index::new(of);
    let of_service = |(name, service): (&String, &Service)| Some((name.clone(), peers(&pods, service, tls)?));
    of.services.iter().filter_map(of_service).collect()
}

/// What a pod accepts. Where its sidecar does not stand, nobody would understand what is encrypted.
pub(super) fn accepted(tls: &[WorkloadTls], pod: &Pod) -> Modes {
    let entry = tls.iter().find(|entry| entry.selector.selects(&pod.labels));
    let mut modes = entry.map(|entry| entry.modes.clone()).unwrap_or_default();
    modes.ports.extend(pod.bypassed.iter().map(|&port| (port, TlsMode::Disabled)));
    modes
}

fn peers(pods: &Index<'_>, service: &Service, tls: &[WorkloadTls]) -> Option<Peers> {
    if service.external || service.selector.is_empty() {
        return None;
    }
    let mut accounts: BTreeSet<&str> = BTreeSet::new();
    let mut plain: BTreeSet<IpAddr> = BTreeSet::new();
    let mut modes: Option<Modes> = None;
    for pod in pods.selected(service) {
        if !pod.injected {
            plain.extend(&pod.addresses);
            continue;
        }
        accounts.insert(&pod.account);
        let of_pod = accepted(tls, pod);
        modes = Some(modes.map_or_else(|| normal(of_pod.clone()), |before| stricter(&before, &of_pod)));
    }
    Some(Peers {
        accounts: accounts.into_iter().map(str::to_owned).collect(),
        plain: plain.into_iter().collect(),
        modes: modes?,
    })
}

/// Port by port the stricter of two.
pub(super) fn stricter(one: &Modes, other: &Modes) -> Modes {
    let ports = one.ports.keys().chain(other.ports.keys());
    normal(Modes {
        mode: max(one.mode, other.mode),
        ports: ports.map(|&port| (port, max(one.of(port), other.of(port)))).collect(),
        min_version: one.min_version.max(other.min_version),
    })
}

/// Without ports that are as the others.
pub(super) fn normal(mut modes: Modes) -> Modes {
    let Modes { mode, ports, min_version: _ } = &mut modes;
    ports.retain(|_, port| port != mode);
    modes
}

fn max(one: TlsMode, other: TlsMode) -> TlsMode {
    std::cmp::max_by_key(one, other, |mode| match mode {
        TlsMode::Disabled => 0,
        TlsMode::Permissive => 1,
        TlsMode::Strict => 2,
    })
}

/// Pods by each of their labels: a namespace may have thousands of Services, and each would look at thousands of
/// pods.
struct Index<'a> {
    by_label: HashMap<(&'a str, &'a str), Vec<&'a Pod>>,
}

impl<'a> Index<'a> {
    fn new(of: &'a Observation) -> Self {
        // Only labels that a Service asks for.
        let asked: BTreeSet<(&str, &str)> = of
            .services
            .values()
            .flat_map(|service| &service.selector)
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let mut by_label: HashMap<_, Vec<&Pod>> = HashMap::new();
        for pod in of.pods.values() {
            for (key, value) in &pod.labels {
                let label = (key.as_str(), value.as_str());
                if asked.contains(&label) {
                    by_label.entry(label).or_default().push(pod);
                }
            }
        }
        Self { by_label }
    }

    fn selected<'b>(&'b self, service: &'b Service) -> impl Iterator<Item = &'a Pod> + use<'a, 'b> {
        let labels = service.selector.iter();
        let candidates = labels
            .map(|(key, value)| {
                self.by_label.get(&(key.as_str(), value.as_str())).map_or(&[][..], Vec::as_slice)
            })
            .min_by_key(|pods| pods.len())
            .unwrap_or_default();
        let fits =
            |pod: &&Pod| service.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value));
        candidates.iter().copied().filter(fits)
    }
}
