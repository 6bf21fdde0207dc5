//! What the data path reads: immutable once built, replaced as a whole.
//!
//! ```text
//!   discovery ── address:port ──▶ Destination ── now() ──▶ Snapshot ─┬─ routes ─▶ rules ─▶ backends
//!   (all that this pod uses)      (one, for as long as it is used)   └─ cluster: endpoints of the Service itself
//! ```
//!
//! Discovery builds snapshots and swaps them in; a request reads its destination's snapshot once and keeps to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use ferrule_config::{HeaderChange, Timeouts};

use crate::{
    act::Actions,
    balance::Balancer,
    retry::{Budget, Policy},
    route::Table,
    tls::expected::Expected,
};

/// A port of a Service that this proxy sends traffic to.
#[derive(Debug)]
pub struct Destination {
    current: ArcSwap<Snapshot>,
    /// Its server has spoken before its client: detection need not wait for the client again.
    server_speaks_first: AtomicBool,
    /// Bounds the retries of its requests.
    pub budget: Budget,
}

impl Destination {
    /// A destination with its first snapshot.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            current: ArcSwap::from_pointee(snapshot),
            server_speaks_first: AtomicBool::new(false),
            budget: Budget::new(Instant::now()),
        }
    }

    /// The snapshot in force.
    #[must_use]
    pub fn now(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Puts another snapshot in force for all requests from here on.
    pub fn replace(&self, snapshot: Snapshot) {
        self.current.store(Arc::new(snapshot));
    }

    /// Remembers whether the server spoke before its client.
    pub fn set_server_first(&self, first: bool) {
        self.server_speaks_first.store(first, Relaxed);
    }

    /// Whether detection can be skipped because the server was seen to speak first.
    #[must_use]
    pub fn is_server_first(&self) -> bool {
        self.server_speaks_first.load(Relaxed)
    }
}

/// What happens to traffic for one port of a Service.
#[derive(Debug)]
pub struct Snapshot {
    /// The Service itself: where requests without a route go, and connections that carry no requests.
    pub cluster: Arc<Cluster>,
    /// What the Service declares that its port speaks.
    pub protocol: Protocol,
    /// Which rule a request falls under. Empty: there is no route and all requests go to `cluster`.
    pub routes: Arc<Table>,
    /// What the routes lead to.
    pub rules: Vec<Rule>,
}

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1, said by `appProtocol`.
    Http1,
    /// HTTP/2 without TLS, said by `appProtocol`; gRPC is HTTP/2.
    Http2,
    /// Bytes, said by `appProtocol`.
    Opaque,
    /// Not said: to be told from the first bytes.
    Detect,
}

impl Protocol {
    /// From a Service port's `appProtocol` (Kubernetes' standard names, and those in common use).
    #[must_use]
    pub fn of(app_protocol: Option<&str>) -> Self {
        match app_protocol.map(str::to_ascii_lowercase).as_deref() {
            Some("http" | "http1" | "http/1.1" | "kubernetes.io/ws") => Self::Http1,
            Some("kubernetes.io/h2c" | "h2c" | "http2" | "grpc") => Self::Http2,
            Some(
                "tcp" | "tls" | "https" | "kubernetes.io/wss" | "mysql" | "redis" | "mongo" | "smtp"
                | "postgresql",
            ) => Self::Opaque,
            _ => Self::Detect,
        }
    }
}

/// A compiled rule of a Route.
#[derive(Debug)]
pub struct Rule {
    /// `namespace/route/rule`, for metrics.
    pub name: Arc<str>,
    /// Where requests go.
    pub backends: Backends,
    /// Changes on the way there.
    pub request_headers: HeaderChange,
    /// Changes on the way back.
    pub response_headers: HeaderChange,
    /// Time limits.
    pub timeouts: Timeouts,
    /// When requests are sent again, if the rule says that.
    pub retry: Option<Box<Policy>>,
    /// Bounds the retries, if the rule has a budget of its own.
    pub budget: Option<Arc<Budget>>,
    /// What else is done with requests; mostly nothing.
    pub actions: Option<Box<Actions>>,
}

/// Backends by weight.
#[derive(Debug, Default)]
pub struct Backends {
    /// Sum of the weights up to and including each.
    bounds: Vec<(u64, Backend)>,
}

/// Where a share of the requests goes.
#[derive(Clone, Debug)]
pub enum Backend {
    /// To this port of a Service.
    Cluster(Arc<Cluster>),
    /// There too, with changes of the head on both ways in the place of the rule's.
    Changed(Arc<Cluster>, Arc<Changes>),
    /// There is no such Service or port: this share is answered with 500, as Gateway API says. Holds
    /// `namespace/name:port`.
    Missing(Arc<str>),
}

/// Changes of the heads, the rule's and the backend's in one.
#[derive(Debug)]
pub struct Changes {
    /// On the way there.
    pub request_headers: HeaderChange,
    /// On the way back.
    pub response_headers: HeaderChange,
}

impl Backends {
    /// Backends with their weights; those of weight 0 get nothing.
    #[must_use]
    pub fn new(weighted: impl IntoIterator<Item = (u32, Backend)>) -> Self {
        let mut sum = 0u64;
        let bounds = weighted
            .into_iter()
            .filter(|(weight, _)| *weight > 0)
            .map(|(weight, backend)| {
                sum += u64::from(weight);
                (sum, backend)
            })
            .collect();
        Self { bounds }
    }

    /// One of them at random; `random(n)` gives a uniform number in `0..n`. `None` when all weights are 0.
    pub fn pick(&self, random: impl FnOnce(u64) -> u64) -> Option<&Backend> {
        match self.bounds.as_slice() {
            [] => None,
            [(_, only)] => Some(only),
            bounds => {
                let point = random(bounds.last()?.0);
                let index = bounds.partition_point(|(bound, _)| *bound <= point);
                Some(&bounds[index].1)
            }
        }
    }

    /// All of them, with the upper bound of each one's share.
    pub fn iter(&self) -> impl Iterator<Item = &(u64, Backend)> {
        self.bounds.iter()
    }
}

/// The endpoints of one port of a Service.
#[derive(Debug)]
pub struct Cluster {
    /// `namespace/name`.
    pub service: Arc<str>,
    /// Port of the Service.
    pub port: u16,
    /// What the Service declares that this port speaks.
    pub protocol: Protocol,
    /// Its endpoints, and which of them is picked.
    pub balancer: Arc<Balancer>,
    /// Who answers behind it; nothing: nothing is encrypted.
    pub expected: Option<Arc<Expected>>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn missing(name: &str) -> Backend {
        Backend::Missing(name.into())
    }

    fn name(backend: &Backend) -> &str {
        match backend {
            Backend::Missing(name) => name,
            Backend::Cluster(cluster) | Backend::Changed(cluster, _) => &cluster.service,
        }
    }

    proptest! {
        #[test]
        fn each_backend_gets_exactly_its_share(weights in prop::collection::vec(0..50u32, 1..6)) {
            let backends = Backends::new(
                weights.iter().enumerate().map(|(index, &weight)| (weight, missing(&index.to_string()))),
            );
            let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
            let mut counts = vec![0u32; weights.len()];
            for point in 0..total {
                let backend = backends.pick(|n| point % n).expect("total is not zero");
                counts[name(backend).parse::<usize>().expect("a number")] += 1;
            }
            if weights.iter().filter(|&&weight| weight > 0).count() > 1 {
                prop_assert_eq!(counts, weights);
            }
            prop_assert_eq!(backends.pick(|_| 0).is_none(), total == 0);
        }
    }

    #[test]
    fn app_protocol_decides_and_its_absence_does_not() {
        assert_eq!(Protocol::of(Some("http")), Protocol::Http1);
        assert_eq!(Protocol::of(Some("HTTP")), Protocol::Http1);
        assert_eq!(Protocol::of(Some("kubernetes.io/h2c")), Protocol::Http2);
        assert_eq!(Protocol::of(Some("grpc")), Protocol::Http2);
        assert_eq!(Protocol::of(Some("tcp")), Protocol::Opaque);
        assert_eq!(Protocol::of(None), Protocol::Detect);
        assert_eq!(Protocol::of(Some("example.com/own")), Protocol::Detect);
    }
}
