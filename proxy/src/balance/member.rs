//! What is known of an endpoint when a balancer is built.

use std::sync::Arc;

use ferrule_config::EndpointWeight;

use super::Endpoint;

/// An endpoint of a Service's port, with what its EndpointSlice says of it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Address and counters.
    pub endpoint: Arc<Endpoint>,
    /// Whether it takes traffic.
    pub state: State,
    /// Name of its pod.
    pub pod: Option<String>,
    /// Name of its node.
    pub node: Option<String>,
    /// Zone of its node.
    pub zone: Option<String>,
    /// Whose clients should use it.
    pub hints: Hints,
}

/// Whether an endpoint takes traffic, from its conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It does.
    Ready,
    /// It is ending, and serves still: used when none is ready (KEP-1669).
    Ending,
    /// It does not, and is not ending: used in panic only.
    NotReady,
}

/// Whose clients should use an endpoint (`hints` of an EndpointSlice's endpoint). Empty: nobody has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Those of these zones.
    pub zones: Vec<String>,
    /// Those of these nodes.
    pub nodes: Vec<String>,
}

/// Where this proxy runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    /// Zone of its node.
    pub zone: Option<String>,
    /// Name of its node.
    pub node: Option<String>,
}

impl Member {
    /// A ready endpoint of which no more is known.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        Self { endpoint, state: State::Ready, pod: None, node: None, zone: None, hints: Hints::default() }
    }

    /// Whether the other one is the same in all respects.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let Self { endpoint, state, pod, node, zone, hints } = self;
        Arc::ptr_eq(endpoint, &other.endpoint)
            && *state == other.state
            && *pod == other.pod
            && *node == other.node
            && *zone == other.zone
            && *hints == other.hints
    }

    /// Its weight: that of the first entry that fits, or 1.
    #[must_use]
    pub fn weight(&self, weights: &[EndpointWeight]) -> u32 {
        let fits = |EndpointWeight { zone, node, pod_prefix, weight: _ }: &&EndpointWeight| {
            let is = |wanted: &Option<String>, own: &Option<String>| wanted.is_none() || wanted == own;
            let of_pod = |prefix: &String| self.pod.as_ref().is_some_and(|pod| pod.starts_with(prefix));
            is(zone, &self.zone) && is(node, &self.node) && pod_prefix.as_ref().is_none_or(of_pod)
        };
        weights.iter().find(fits).map_or(1, |entry| entry.weight.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_first_entry_that_fits_gives_the_weight() {
        let endpoint = Arc::new(Endpoint::new(([10, 0, 0, 1], 80).into()));
        let member = Member { pod: some("cart-canary-x1"), zone: some("a"), ..Member::new(endpoint) };
        let entry = |zone: Option<&str>, pod: Option<&str>, weight| EndpointWeight {
            zone: zone.map(str::to_owned),
            pod_prefix: pod.map(str::to_owned),
            weight,
            ..EndpointWeight::default()
        };
        assert_eq!(member.weight(&[]), 1);
        assert_eq!(member.weight(&[entry(Some("b"), None, 5)]), 1);
        assert_eq!(member.weight(&[entry(Some("a"), Some("web-"), 5), entry(Some("a"), None, 7)]), 7);
        assert_eq!(member.weight(&[entry(None, Some("cart-canary-"), 0), entry(Some("a"), None, 7)]), 0);
        let unknown = Member { pod: None, ..member };
        assert_eq!(unknown.weight(&[entry(None, Some(""), 9)]), 1, "a prefix needs a pod");
    }
}
