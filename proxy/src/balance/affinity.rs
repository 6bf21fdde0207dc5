//! What ties a request to an endpoint: its key, for consistent hashing, and its session.

use std::{borrow::Cow, net::IpAddr};

use ferrule_config::{HashKey, HeaderChange};

use super::{Balancer, Endpoint, key, session};
use crate::route::Request;

/// What ties a request to an endpoint. Nothing, with most balancers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// Hash of its key.
    pub hash: Option<u64>,
    /// [`Endpoint::id`] of the endpoint that its session is kept at.
    pub session: Option<u64>,
}

impl Affinity {
    /// Of a request, as far as this balancer cares. `source`: gives the client's address.
    #[must_use]
    pub fn of(balancer: &Balancer, request: &Request<'_>, source: impl FnOnce() -> Option<IpAddr>) -> Self {
        let hash = balancer.hash_key().and_then(|key| {
            let source = if *key == HashKey::SourceAddress { source() } else { None };
            key::of(key, request, source)
        });
        let session = balancer.session().and_then(|session| session::read(session, request.fields));
        Self { hash, session }
    }

    /// Of a connection without requests: an address is all that it has.
    #[must_use]
    pub fn of_connection(balancer: &Balancer, source: impl FnOnce() -> Option<IpAddr>) -> Self {
        Self { session: None, ..Self::of(balancer, &Request::default(), source) }
    }

    /// Whether a request's header fields are needed to tell.
    #[must_use]
    pub fn needs_fields(balancer: &Balancer) -> bool {
        balancer.session().is_some() || balancer.hash_key().is_some_and(key::needs_fields)
    }

    /// The changes of a response of `endpoint`: those given, and where the session is kept from now on, unless the
    /// client knows.
    #[must_use]
    pub fn kept<'a>(
        self,
        balancer: &Balancer,
        endpoint: &Endpoint,
        changes: &'a HeaderChange,
    ) -> Cow<'a, HeaderChange> {
        match balancer.session() {
            Some(session) if self.session != Some(endpoint.id()) => {
                Cow::Owned(session::added(session, endpoint.id(), changes))
            }
            _ => Cow::Borrowed(changes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use ferrule_config::{self as config, Algorithm, ConsistentHash, Session, SessionKeeper};

    use super::*;
    use crate::{
        balance::{Locality, Member},
        message::Field,
    };

    fn endpoint() -> Arc<Endpoint> {
        Arc::new(Endpoint::new(([10, 0, 0, 1], 80).into()))
    }

    fn balancer(config: config::Balancer) -> Arc<Balancer> {
        let members = vec![Member::new(endpoint())];
        Balancer::build(config, members, &Locality::default(), None, Instant::now(), 0)
    }

    #[test]
    fn the_default_looks_at_nothing() {
        let balancer = balancer(config::Balancer::default());
        let fields = &[Field { name: "a", value: b"b" }];
        let request = Request { path: "/", query: Some("a=b"), fields, ..Request::default() };
        let of = Affinity::of(&balancer, &request, || panic!("nobody asked for the address"));
        assert_eq!(of, Affinity::default());
        assert!(!Affinity::needs_fields(&balancer));
        assert!(matches!(of.kept(&balancer, &endpoint(), &HeaderChange::default()), Cow::Borrowed(_)));
    }

    #[test]
    fn a_connection_has_an_address_alone() {
        let with = |key| {
            let algorithm = Algorithm::Maglev(ConsistentHash { key, size: Some(11) });
            balancer(config::Balancer { algorithm, ..config::Balancer::default() })
        };
        let source = || Some("10.0.0.9".parse().expect("an address"));
        assert!(Affinity::of_connection(&with(HashKey::SourceAddress), source).hash.is_some());
        assert!(Affinity::of_connection(&with(HashKey::Header("a".into())), source).hash.is_none());
    }

    #[test]
    fn a_client_is_told_only_what_it_does_not_know() {
        let session = Session { kept_in: SessionKeeper::Cookie, name: "s".into(), ttl: None };
        let balancer = balancer(config::Balancer { session: Some(session), ..config::Balancer::default() });
        let (endpoint, none) = (endpoint(), HeaderChange::default());
        assert!(Affinity::needs_fields(&balancer));
        for known in [None, Some(1)] {
            let affinity = Affinity { hash: None, session: known };
            assert_eq!(affinity.kept(&balancer, &endpoint, &none).add.len(), 1);
        }
        let affinity = Affinity { hash: None, session: Some(endpoint.id()) };
        assert!(affinity.kept(&balancer, &endpoint, &none).is_empty());
    }
}
