//! Balancers from what was seen: their configuration, and what they have in common with those before them.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Instant,
};

use ferrule_config::{self as config, Algorithm, ConsistentHash, HashKey, MAX_WEIGHT, MAX_WEIGHTS};
use serde_json::json;

use super::{objects::Name, world::World};
use crate::{
    balance::{Balancer, Endpoint, Locality, Member},
    http1::body::is_token,
};

/// Entries after which those are dropped that nobody uses any more.
const SWEEP: usize = 256;

/// Where we are, and what the balancer of each port was last.
#[derive(Debug, Default)]
pub(super) struct Balancing {
    /// Where this proxy runs, as far as that is known.
    locality: Locality,
    last: HashMap<(Name, u16), Weak<Balancer>>,
}

impl Balancing {
    /// Of a proxy that runs there.
    pub fn new(locality: Locality) -> Self {
        Self { locality, last: HashMap::new() }
    }

    /// The balancer of a port: the one before if nothing has changed.
    pub fn build(
        &mut self,
        port: (Name, u16),
        config: config::Balancer,
        members: Vec<Member>,
        now: Instant,
    ) -> Arc<Balancer> {
        self.learn_zone(&members);
        let previous = self.last.get(&port).and_then(Weak::upgrade);
        let start = fastrand::usize(..);
        let balancer = Balancer::build(config, members, &self.locality, previous.as_ref(), now, start);
        if self.last.len() >= SWEEP {
            self.last.retain(|_, balancer| balancer.strong_count() > 0);
        }
        self.last.insert(port, Arc::downgrade(&balancer));
        balancer
    }

    /// An endpoint on our own node is in our own zone.
    fn learn_zone(&mut self, members: &[Member]) {
        let Locality { zone: zone @ None, node: Some(node) } = &mut self.locality else { return };
        *zone = members
            .iter()
            .filter(|member| member.node.as_ref() == Some(node))
            .find_map(|member| member.zone.clone());
    }
}

/// How requests to a port are spread: as its policy says, or that of the whole Service; without one by `sessionAffinity`.
pub(super) fn config(world: &World, name: &Name, port_name: &str) -> config::Balancer {
    let service = world.meshes.get(&name.namespace).and_then(|mesh| mesh.services.get(&name.name));
    let balancers = service.map_or(&[][..], |service| &service.balancers);
    let of = |wanted: Option<&str>| balancers.iter().find(|entry| entry.port_name.as_deref() == wanted);
    if let Some(entry) = of(Some(port_name)).or_else(|| of(None)) {
        return entry.balancer.clone();
    }
    let declared = world.services.get(name).and_then(Option::as_ref);
    let affinity = declared.and_then(|service| service.spec.session_affinity.as_deref());
    let algorithm = match affinity {
        Some("ClientIP") => Algorithm::RingHash(ConsistentHash { key: HashKey::SourceAddress, size: None }),
        _ => Algorithm::default(),
    };
    config::Balancer { algorithm, ..config::Balancer::default() }
}

/// What of a balancer can't be used.
pub(super) fn fault(balancer: &config::Balancer) -> Option<String> {
    let config::Balancer { algorithm, weights, zones: _, slow_start: _, panic_threshold, session } = balancer;
    if weights.len() > MAX_WEIGHTS {
        return Some(format!("{} weights, at most {MAX_WEIGHTS} can be", weights.len()));
    }
    if let Some(entry) = weights.iter().find(|entry| entry.weight > MAX_WEIGHT) {
        return Some(format!("weight {} is over {MAX_WEIGHT}", entry.weight));
    }
    if *panic_threshold > 100 {
        return Some(format!("panic threshold {panic_threshold} is over 100 per cent"));
    }
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(is_token);
    if let Some(session) = session.as_ref().filter(|session| !is_name(&session.name)) {
        return Some(format!("{:?} is no name of a session", session.name));
    }
    if let Algorithm::RingHash(hash) | Algorithm::Maglev(hash) = algorithm
        && let HashKey::Header(name) | HashKey::Cookie(name) = &hash.key
        && !is_name(name)
    {
        return Some(format!("{name:?} is no name of a header or a cookie"));
    }
    None
}

/// For people: how a port is balanced, over which endpoints, and which others there are.
pub(super) fn describe(balancer: &Balancer, now: Instant) -> serde_json::Value {
    let in_use = |endpoint: &Arc<Endpoint>| {
        json!({
            "address": endpoint.address.to_string(),
            "other": endpoint.other().map(|other| other.to_string()),
            "available": endpoint.is_available(),
            "cost": endpoint.load.cost(now),
            "pending": endpoint.load.pending(),
        })
    };
    let is_used =
        |member: &&Member| balancer.endpoints().any(|endpoint| Arc::ptr_eq(endpoint, &member.endpoint));
    let unused = balancer.members().iter().filter(|member| !is_used(member)).map(|member| {
        json!({
            "address": member.endpoint.address.to_string(),
            "state": format!("{:?}", member.state),
        })
    });
    json!({
        "config": balancer.config(),
        "endpoints": balancer.endpoints().map(in_use).collect::<Vec<_>>(),
        "unused": unused.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use config::{EndpointWeight, Session, SessionKeeper};

    use super::*;

    #[test]
    fn the_zone_is_learnt_from_an_endpoint_of_the_same_node() {
        let member = |node: &str, zone: Option<&str>| Member {
            node: Some(node.into()),
            zone: zone.map(str::to_owned),
            ..Member::new(Arc::new(Endpoint::new(([10, 0, 0, 1], 80).into())))
        };
        let mut balancing = Balancing::new(Locality { zone: None, node: Some("n1".into()) });
        balancing.learn_zone(&[member("n2", Some("b")), member("n1", None)]);
        assert_eq!(balancing.locality.zone, None);
        balancing.learn_zone(&[member("n2", Some("b")), member("n1", Some("a"))]);
        assert_eq!(balancing.locality.zone.as_deref(), Some("a"));
        balancing.learn_zone(&[member("n1", Some("c"))]);
        assert_eq!(balancing.locality.zone.as_deref(), Some("a"), "what is known stays");
    }

    #[test]
    fn what_can_not_be_used_is_named() {
        let fault = |change: &dyn Fn(&mut config::Balancer)| {
            let mut balancer = config::Balancer::default();
            change(&mut balancer);
            fault(&balancer).unwrap_or_default()
        };
        assert_eq!(fault(&|_| {}), "");
        assert_eq!(fault(&|it| it.panic_threshold = 101), "panic threshold 101 is over 100 per cent");
        let heavy = EndpointWeight { weight: 1001, ..EndpointWeight::default() };
        assert_eq!(fault(&|it| it.weights = vec![heavy.clone()]), "weight 1001 is over 1000");
        let session = Session { kept_in: SessionKeeper::Header, name: "a b".into(), ttl: None };
        assert_eq!(fault(&|it| it.session = Some(session.clone())), "\"a b\" is no name of a session");
        let hash = ConsistentHash { key: HashKey::Header(String::new()), size: None };
        let no_name = "\"\" is no name of a header or a cookie";
        assert_eq!(fault(&|it| it.algorithm = Algorithm::RingHash(hash.clone())), no_name);
    }
}
