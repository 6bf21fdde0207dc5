//! Services that traffic is sent to, and what is known of their endpoints.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::exposition::{Sample, Value};
use crate::{
    balance::State,
    snapshot::{Backend, Cluster, Destination},
};

/// Ports of Services whose endpoints are told.
const MOST: usize = 1000;

type Port = (Arc<str>, u16);

/// Destinations that are in use.
#[derive(Debug, Default)]
pub(super) struct Targets(Mutex<BTreeMap<Port, Weak<Destination>>>);

impl Targets {
    /// Adds a destination, unless it is there.
    pub(super) fn add(&self, destination: &Arc<Destination>) {
        let port = port(&destination.now().cluster);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known =
            known.get(&port).is_some_and(|each| std::ptr::eq(each.as_ptr(), Arc::as_ptr(destination)));
        if !is_known && (known.len() < MOST || known.contains_key(&port)) {
            known.insert(port, Arc::downgrade(destination));
        }
    }

    /// Endpoints of these destinations and of the Services that their Routes lead to.
    pub(super) fn endpoints(&self) -> Vec<Sample> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, destination| destination.strong_count() > 0);
        let destinations: Vec<_> = known.values().filter_map(Weak::upgrade).collect();
        drop(known);
        let mut clusters = BTreeMap::new();
        for destination in destinations {
            let snapshot = destination.now();
            for (_, backend) in snapshot.rules.iter().flat_map(|rule| rule.backends.iter()) {
                if let Backend::Cluster(cluster) = backend {
                    clusters.entry(port(cluster)).or_insert_with(|| Arc::clone(cluster));
                }
            }
            clusters.insert(port(&snapshot.cluster), Arc::clone(&snapshot.cluster));
        }
        clusters.values().take(MOST).flat_map(|cluster| states(cluster)).collect()
    }
}

fn port(cluster: &Cluster) -> Port {
    (Arc::clone(&cluster.service), cluster.port)
}

/// How many endpoints a port has in each state.
fn states(cluster: &Cluster) -> impl Iterator<Item = Sample> {
    let members = cluster.balancer.members();
    let states = [("ready", State::Ready), ("ending", State::Ending), ("not-ready", State::NotReady)];
    states.into_iter().map(|(name, state)| Sample {
        labels: vec![
            ("service", (&cluster.service).into()),
            ("port", cluster.port.to_string().into()),
            ("state", name.into()),
        ],
        value: Value::Number(members.iter().filter(|member| member.state == state).count() as f64),
        since: None,
    })
}
