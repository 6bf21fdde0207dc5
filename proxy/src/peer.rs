//! Who is at the other end of an inbound connection.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use ferrule_config::{HeaderChange, identity::SpiffeId};

use crate::access::Subject;

/// Envoy's field, for applications that know it.
const FORWARDED_CERTIFICATE: &str = "x-forwarded-client-cert";
/// Ours: the identity and nothing else.
const CLIENT: &str = "ferrule-client";
/// The same as some applications would read them, for they make no difference between dash and underscore.
const LOOKALIKES: [&str; 2] = ["x_forwarded_client_cert", "ferrule_client"];

/// The other end of an inbound connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it has proved to be by its certificate; nothing on a plain connection.
    pub identity: Option<Arc<SpiffeId>>,
    /// Where it comes from. An address is no identity: it may have been masqueraded.
    pub address: IpAddr,
}

/// A peer, and what its requests tell the application of it.
#[derive(Debug)]
pub struct Caller {
    /// Who it is.
    pub peer: Peer,
    /// Port of the application that it wants.
    pub port: u16,
    headers: Cow<'static, HeaderChange>,
}

impl Caller {
    /// A peer of this sidecar, which is `own`. `port`: of the application.
    #[must_use]
    pub fn new(peer: Peer, port: u16, own: Option<&SpiffeId>) -> Self {
        static NOBODY: LazyLock<HeaderChange> = LazyLock::new(|| changes(None, None));
        let headers = match &peer.identity {
            Some(identity) => Cow::Owned(changes(Some(identity), own)),
            None => Cow::Borrowed(&*NOBODY),
        };
        Self { peer, port, headers }
    }

    /// Who it is to those who decide what it may do.
    #[must_use]
    pub fn subject(&self) -> Subject<'_> {
        Subject { identity: self.peer.identity.as_deref(), address: self.peer.address, port: self.port }
    }

    /// Changes to each of its requests: what it says of itself goes, what it has proved comes in its place.
    #[must_use]
    pub fn headers(&self) -> &HeaderChange {
        &self.headers
    }
}

fn changes(identity: Option<&SpiffeId>, own: Option<&SpiffeId>) -> HeaderChange {
    let names = [FORWARDED_CERTIFICATE, CLIENT].into_iter().chain(LOOKALIKES);
    let remove = names.map(str::to_owned).collect();
    let by = own.map(|own| format!("By={own};")).unwrap_or_default();
    let set = identity.map_or_else(Vec::new, |id| {
        vec![(FORWARDED_CERTIFICATE.to_owned(), format!("{by}URI={id}")), (CLIENT.to_owned(), id.to_string())]
    });
    HeaderChange { set, add: Vec::new(), remove }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_says_of_itself_goes_and_what_it_has_proved_comes() {
        let id = |name: &str| {
            format!("spiffe://cluster.local/ns/shop/sa/{name}").parse::<SpiffeId>().expect("one")
        };
        let address = "10.0.0.1".parse().expect("an address");
        let nobody = Caller::new(Peer { identity: None, address }, 80, Some(&id("own")));
        assert!(nobody.headers().set.is_empty());
        assert_eq!(nobody.headers().remove.len(), 4);
        let known = Peer { identity: Some(Arc::new(id("cart"))), address };
        let known = Caller::new(known, 80, Some(&id("own")));
        let set: Vec<_> =
            known.headers().set.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(
            set,
            [
                format!("x-forwarded-client-cert: By={};URI={}", id("own"), id("cart")),
                format!("ferrule-client: {}", id("cart")),
            ]
        );
        assert_eq!(known.headers().remove.len(), 4);
    }
}
