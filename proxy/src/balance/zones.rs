//! Which endpoints are near enough to be preferred, and when others help out. Pure.

use ferrule_config::Zones;

use super::{Locality, Member};

/// A local endpoint with at least this many requests under way may be passed over: below that it is not loaded,
/// whatever the comparison says.
pub const SPILL_PENDING: u32 = 2;
/// Requests go on to another zone when what they cost here is more than so many times what they cost there.
pub const SPILL_FACTOR: f64 = 2.0;

/// A way to tell near endpoints from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Near {
    /// A hint says that this node's clients should use it.
    HintedNode,
    /// A hint says that this zone's clients should use it.
    HintedZone,
    /// It is in this zone.
    OwnZone,
}

impl Near {
    /// Whether an endpoint is near a proxy that runs there.
    #[must_use]
    pub fn holds(self, member: &Member, locality: &Locality) -> bool {
        let hinted =
            |hints: &[String], own: &Option<String>| own.as_ref().is_some_and(|own| hints.contains(own));
        match self {
            Self::HintedNode => hinted(&member.hints.nodes, &locality.node),
            Self::HintedZone => hinted(&member.hints.zones, &locality.zone),
            Self::OwnZone => locality.zone.is_some() && member.zone == locality.zone,
        }
    }
}

/// What is preferred, the nearest first. Hints are followed as kube-proxy does (`pkg/proxy/topology.go`): those of one
/// sort only when all ready endpoints have them, and one of them is for us.
#[must_use]
pub fn preferences(zones: Zones, locality: &Locality, ready: &[&Member]) -> Vec<Near> {
    let any = |near: Near| ready.iter().any(|member| near.holds(member, locality));
    let all_have_nodes = || ready.iter().all(|member| !member.hints.nodes.is_empty());
    let all_have_zones = || ready.iter().all(|member| !member.hints.zones.is_empty());
    let mut preferred = Vec::new();
    if zones == Zones::Ignore {
        return preferred;
    }
    if all_have_nodes() && any(Near::HintedNode) {
        preferred.push(Near::HintedNode);
    }
    match zones {
        Zones::Hints if all_have_zones() && any(Near::HintedZone) => preferred.push(Near::HintedZone),
        Zones::Prefer if any(Near::OwnZone) => preferred.push(Near::OwnZone),
        _ => {}
    }
    preferred
}

/// Whether a request goes to another zone for the sake of load: the endpoint picked here has several requests under
/// way, and costs clearly more than the one picked there.
///
/// Every request decides by itself, on what is under way at that moment, so there is no state that could flap: what
/// goes to the other zone raises the cost there until the two are within the factor.
#[must_use]
pub fn spills(pending_here: u32, cost_here: f64, cost_there: f64) -> bool {
    pending_here >= SPILL_PENDING && cost_here > SPILL_FACTOR * cost_there
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::balance::{Endpoint, Hints};

    fn member(zone: &str, for_zones: &[&str], for_nodes: &[&str]) -> Member {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Member {
            zone: Some(zone.into()),
            hints: Hints { zones: owned(for_zones), nodes: owned(for_nodes) },
            ..Member::new(Arc::new(Endpoint::new(([10, 0, 0, 1], 80).into())))
        }
    }

    fn preferred(zones: Zones, members: &[Member]) -> Vec<Near> {
        let here = Locality { zone: Some("a".into()), node: Some("n1".into()) };
        preferences(zones, &here, &members.iter().collect::<Vec<_>>())
    }

    #[test]
    fn hints_count_only_when_all_endpoints_have_them() {
        let all = [member("a", &["a"], &[]), member("b", &["b"], &[])];
        assert_eq!(preferred(Zones::Hints, &all), [Near::HintedZone]);
        let some = [member("a", &["a"], &[]), member("b", &[], &[])];
        assert!(preferred(Zones::Hints, &some).is_empty());
    }

    #[test]
    fn hints_for_others_alone_prefer_nobody() {
        let others = [member("a", &["b"], &["n2"]), member("b", &["b"], &["n3"])];
        assert!(preferred(Zones::Hints, &others).is_empty());
    }

    #[test]
    fn the_own_node_comes_before_the_own_zone() {
        let both = [member("a", &["a"], &["n1"]), member("b", &["b"], &["n2"])];
        assert_eq!(preferred(Zones::Hints, &both), [Near::HintedNode, Near::HintedZone]);
    }

    #[test]
    fn the_own_zone_can_be_preferred_without_hints_or_not_at_all() {
        let members = [member("a", &[], &[]), member("b", &[], &[])];
        assert_eq!(preferred(Zones::Prefer, &members), [Near::OwnZone]);
        assert!(preferred(Zones::Hints, &members).is_empty());
        assert!(preferred(Zones::Ignore, &[member("a", &["a"], &["n1"])]).is_empty());
        assert!(preferred(Zones::Prefer, &[member("b", &[], &[])]).is_empty());
    }

    #[test]
    fn a_proxy_that_does_not_know_where_it_is_prefers_nobody() {
        let members = [member("a", &["a"], &["n1"])];
        for zones in [Zones::Hints, Zones::Prefer] {
            assert!(preferences(zones, &Locality::default(), &members.iter().collect::<Vec<_>>()).is_empty());
        }
    }

    #[test]
    fn only_what_is_loaded_spills() {
        assert!(!spills(1, 100.0, 1.0));
        assert!(!spills(9, 2.0, 1.0));
        assert!(spills(2, 2.1, 1.0));
    }
}
