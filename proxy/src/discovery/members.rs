//! The endpoints of a Service's port, from its EndpointSlices: pure.
//!
//! A dual-stack pod stands in two slices, once for each address family; it is one endpoint with two addresses.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
    sync::Arc,
};

use super::objects::{self, Conditions, EndpointSlice, ServicePort};
use crate::balance::{Endpoint, Hints, Member, State};

/// An endpoint as the slices have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// IPv4 if it has that.
    pub address: SocketAddr,
    /// Of the other family.
    pub other: Option<SocketAddr>,
    pub state: State,
    pub pod: Option<String>,
    pub node: Option<String>,
    pub zone: Option<String>,
    pub hints: Hints,
}

impl Found {
    /// As a balancer takes it. `endpoint` gives the one that is in use at an address, or makes it.
    pub fn member(self, endpoint: impl FnOnce(SocketAddr) -> Arc<Endpoint>) -> Member {
        let Self { address, other, state, pod, node, zone, hints } = self;
        let endpoint = endpoint(address);
        if let Some(other) = other {
            endpoint.set_other(other);
        }
        Member { endpoint, state, pod, node, zone, hints }
    }
}

/// The endpoints of a port, whatever state they are in; those that end and serve no more are none.
pub(super) fn of_port<'a>(slices: impl Iterator<Item = &'a EndpointSlice>, port: &ServicePort) -> Vec<Found> {
    let mut by_address: BTreeMap<SocketAddr, Found> = BTreeMap::new();
    for slice in slices {
        let target = slice.ports.iter().find(|each| {
            each.name.as_deref().unwrap_or_default() == port.name
                && super::assemble::is_tcp(each.protocol.as_deref())
        });
        let Some(number) = target.and_then(|target| target.port) else { continue };
        for endpoint in &slice.endpoints {
            let Some(found) = found(endpoint, number) else { continue };
            match by_address.entry(found.address) {
                Entry::Vacant(vacant) => {
                    vacant.insert(found);
                }
                // While endpoints move from one slice to another they may stand in both.
                Entry::Occupied(mut known) if found.state < known.get().state => {
                    known.insert(found);
                }
                Entry::Occupied(_) => {}
            }
        }
    }
    paired(by_address)
}

fn found(endpoint: &objects::Endpoint, port: u16) -> Option<Found> {
    let objects::Endpoint { addresses, conditions, hostname, target_ref, node_name, zone, hints } = endpoint;
    let address = SocketAddr::new(addresses.first()?.parse().ok()?, port);
    let pod = target_ref.as_ref().filter(|target| target.kind == "Pod").map(|target| target.name.clone());
    let names = |hints: &[objects::Hint]| hints.iter().map(|hint| hint.name.clone()).collect();
    let hints =
        hints.as_ref().map(|hints| Hints { zones: names(&hints.for_zones), nodes: names(&hints.for_nodes) });
    Some(Found {
        address,
        other: None,
        state: state(*conditions)?,
        pod: pod.or_else(|| hostname.clone()),
        node: node_name.clone(),
        zone: zone.clone(),
        hints: hints.unwrap_or_default(),
    })
}

/// As kube-proxy reads the conditions (KEP-1669); `None`: it takes no traffic any more.
fn state(Conditions { ready, serving, terminating }: Conditions) -> Option<State> {
    let is_ready = ready.unwrap_or(true);
    match (terminating.unwrap_or(false), is_ready) {
        (false, true) => Some(State::Ready),
        (false, false) => Some(State::NotReady),
        (true, _) => serving.unwrap_or(is_ready).then_some(State::Ending),
    }
}

/// Makes one of the two addresses of each pod. Of endpoints that nothing is known of, only those of one family are
/// taken, IPv4 if there is any, so that none counts twice.
fn paired(by_address: BTreeMap<SocketAddr, Found>) -> Vec<Found> {
    // IPv4 comes first in this order.
    let mut all: Vec<Found> = Vec::with_capacity(by_address.len());
    let mut by_pod: BTreeMap<(String, u16), usize> = BTreeMap::new();
    let mut nameless_ipv4 = false;
    for found in by_address.into_values() {
        let Some(pod) = &found.pod else {
            nameless_ipv4 |= found.address.is_ipv4();
            if found.address.is_ipv4() || !nameless_ipv4 {
                all.push(found);
            }
            continue;
        };
        match by_pod.entry((pod.clone(), found.address.port())) {
            Entry::Vacant(vacant) => {
                vacant.insert(all.len());
                all.push(found);
            }
            Entry::Occupied(known) => {
                let known = &mut all[*known.get()];
                if known.address.is_ipv4() && found.address.is_ipv6() {
                    known.other = known.other.or(Some(found.address));
                } else {
                    // Two addresses of one family are two endpoints, whatever they are called.
                    all.push(found);
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(slices: &[&str]) -> Vec<Found> {
        let slices: Vec<EndpointSlice> =
            slices.iter().map(|json| serde_json::from_str(json).expect("a slice")).collect();
        let port = ServicePort { name: "http".into(), port: 80, ..ServicePort::default() };
        of_port(slices.iter(), &port)
    }

    fn states(slices: &[&str]) -> Vec<(String, State)> {
        found(slices).into_iter().map(|found| (found.address.to_string(), found.state)).collect()
    }

    const READY: &str = r#"{"ports":[{"name":"http","port":8080}],
        "endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true}},{"addresses":["10.0.0.2"],"conditions":{"ready":false}}]}"#;
    const ENDING: &str = r#"{"ports":[{"name":"http","port":8080}],
        "endpoints":[{"addresses":["10.0.0.3"],"conditions":{"ready":false,"serving":true,"terminating":true}},
                     {"addresses":["10.0.0.4"],"conditions":{"ready":false,"serving":false,"terminating":true}}]}"#;
    const IPV6: &str = r#"{"ports":[{"name":"http","port":8080}],"endpoints":[{"addresses":["fd00::1"]}]}"#;

    #[test]
    fn conditions_become_states() {
        let expected = [
            ("10.0.0.1:8080".to_owned(), State::Ready),
            ("10.0.0.2:8080".to_owned(), State::NotReady),
            ("10.0.0.3:8080".to_owned(), State::Ending),
        ];
        assert_eq!(states(&[READY, ENDING]), expected);
    }

    #[test]
    fn an_endpoint_in_two_slices_is_ready_if_one_says_so() {
        let not_ready = READY.replace("true", "false");
        let expected = ("10.0.0.1:8080".to_owned(), State::Ready);
        assert_eq!(states(&[READY, &not_ready])[0], expected);
        assert_eq!(states(&[&not_ready, READY])[0], expected);
    }

    #[test]
    fn nameless_endpoints_are_taken_of_one_family() {
        assert!(found(&[READY, IPV6]).iter().all(|found| found.address.is_ipv4()));
        assert_eq!(found(&[IPV6])[0].address.to_string(), "[fd00::1]:8080");
    }

    #[test]
    fn a_dual_stack_pod_is_one_endpoint_with_two_addresses() {
        let slice = |addresses: [&str; 2]| {
            let endpoint = |(address, pod): (&str, &str)| {
                format!(r#"{{"addresses":["{address}"],"targetRef":{{"kind":"Pod","name":"{pod}"}}}}"#)
            };
            let endpoints =
                addresses.into_iter().zip(["one", "two"]).map(endpoint).collect::<Vec<_>>().join(",");
            format!(r#"{{"ports":[{{"name":"http","port":8080}}],"endpoints":[{endpoints}]}}"#)
        };
        let (v4, v6) = (slice(["10.0.0.1", "10.0.0.2"]), slice(["fd00::1", "fd00::2"]));
        for slices in [[&*v4, &*v6], [&*v6, &*v4]] {
            let both = found(&slices);
            let addresses: Vec<_> = both.iter().map(|found| (found.address, found.other)).collect();
            let pair = |v4: &str, v6: &str| (v4.parse().expect("IPv4"), Some(v6.parse().expect("IPv6")));
            assert_eq!(
                addresses,
                [pair("10.0.0.1:8080", "[fd00::1]:8080"), pair("10.0.0.2:8080", "[fd00::2]:8080")]
            );
        }
        assert_eq!(found(&[&v6]).len(), 2, "a pod that has no IPv4 address is reached by the other");
    }

    #[test]
    fn what_a_slice_says_of_an_endpoint_is_read() {
        let json = r#"{"ports":[{"name":"http","port":8080}],"endpoints":[{"addresses":["10.0.0.1"],
            "targetRef":{"kind":"Pod","name":"cart-1","uid":"u"},"nodeName":"n1","zone":"a",
            "hints":{"forZones":[{"name":"a"},{"name":"b"}],"forNodes":[{"name":"n1"}]}}]}"#;
        let found = found(&[json]);
        assert_eq!(found[0].pod.as_deref(), Some("cart-1"));
        assert_eq!((found[0].node.as_deref(), found[0].zone.as_deref()), (Some("n1"), Some("a")));
        assert_eq!(found[0].hints, Hints { zones: vec!["a".into(), "b".into()], nodes: vec!["n1".into()] });
    }

    #[test]
    fn an_empty_slice_of_the_api_is_read() {
        assert!(found(&[r#"{"ports":null,"endpoints":null}"#]).is_empty());
        let nulls = r#"{"ports":[{"name":"http","port":1}],"endpoints":[{"addresses":["10.0.0.1"],
            "targetRef":null,"nodeName":null,"zone":null,"hints":{"forZones":null}}]}"#;
        assert_eq!(found(&[nulls]).len(), 1);
    }
}
