//! Whether an endpoint is spoken to in TLS, and who must answer then: pure.

use std::{fmt, net::SocketAddr, pin::Pin, sync::Arc};

use ferrule_config::{MinVersion, Peers, TlsMode, names::ports};

/// Who may answer: service accounts of a namespace. Whoever is verified for one such set is never taken for another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Accounts {
    /// Namespace of all of them.
    pub namespace: String,
    /// Their names, sorted.
    pub names: Vec<String>,
}

/// What is known of the pods behind a Service, or of one pod.
#[derive(Clone, Debug)]
pub struct Expected {
    accounts: Arc<Accounts>,
    peers: Peers,
    source: Option<Arc<dyn Source>>,
}

/// Where it comes from that is known of a pod, if nobody brings news of it.
pub trait Source: fmt::Debug + Send + Sync {
    /// What is known of the pod now; nothing if that can't be told, or if it is none of the mesh any more.
    fn ask(&self) -> Pin<Box<dyn Future<Output = Option<Arc<Expected>>> + '_>>;
}

/// How an endpoint is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// As bytes come, for this reason.
    Plain(PlainReason),
    /// In TLS with one of these.
    Tls {
        /// Who must answer.
        accounts: Arc<Accounts>,
        /// Never plain, whatever happens.
        strict: bool,
        /// Lowest version of TLS.
        min_version: MinVersion,
    },
}

/// Why a connection is plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlainReason {
    /// No pod behind the Service is known to have a sidecar.
    NotMeshed,
    /// This pod has none.
    NoSidecar,
    /// MeshTLS is disabled for the port.
    Disabled,
    /// It is the pod itself: it never leaves it.
    OwnPod,
    /// It is the admin port of a sidecar, which speaks plain HTTP: metrics are asked for in the mesh, too.
    AdminPort,
    /// This sidecar has no certificate yet.
    NoIdentity,
    /// The peer has said that it has none.
    PeerNoIdentity,
    /// The peer closed before it proved anything.
    PeerClosed,
    /// The peer answered with something that is no TLS.
    PeerNotTls,
}

impl PlainReason {
    /// Label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotMeshed => "not-meshed",
            Self::NoSidecar => "no-sidecar",
            Self::Disabled => "disabled",
            Self::OwnPod => "own-pod",
            Self::AdminPort => "admin-port",
            Self::NoIdentity => "no-identity",
            Self::PeerNoIdentity => "peer-no-identity",
            Self::PeerClosed => "peer-closed",
            Self::PeerNotTls => "peer-not-tls",
        }
    }
}

impl Expected {
    /// What the configuration says of a Service of this namespace.
    #[must_use]
    pub fn new(namespace: &str, mut peers: Peers) -> Self {
        peers.plain.sort_unstable();
        let mut names = std::mem::take(&mut peers.accounts);
        names.sort_unstable();
        let accounts = Arc::new(Accounts { namespace: namespace.to_owned(), names });
        Self { accounts, peers, source: None }
    }

    /// The same, of which nobody brings news: before a connection fails of it, it is asked for again.
    #[must_use]
    pub fn asked_of(self, source: Arc<dyn Source>) -> Self {
        Self { source: Some(source), ..self }
    }

    /// What is known now, if that is something else.
    pub async fn newer(&self) -> Option<Arc<Self>> {
        let now = self.source.as_ref()?.ask().await?;
        (now.accounts != self.accounts || now.peers != self.peers).then_some(now)
    }

    /// Who may answer.
    #[must_use]
    pub fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    /// Whether some endpoint may be spoken to in TLS.
    #[must_use]
    pub fn is_meshed(&self) -> bool {
        let modes = &self.peers.modes;
        let enabled = |mode: &TlsMode| *mode != TlsMode::Disabled;
        !self.accounts.names.is_empty() && (enabled(&modes.mode) || modes.ports.values().any(enabled))
    }

    /// How the endpoint at this address is spoken to, if both sides can.
    #[must_use]
    pub fn of(&self, endpoint: SocketAddr) -> Security {
        if self.accounts.names.is_empty() {
            return Security::Plain(PlainReason::NotMeshed);
        }
        if endpoint.port() == ports::ADMIN {
            return Security::Plain(PlainReason::AdminPort);
        }
        let mode = self.peers.modes.of(endpoint.port());
        if mode == TlsMode::Disabled {
            return Security::Plain(PlainReason::Disabled);
        }
        if self.peers.plain.binary_search(&endpoint.ip().to_canonical()).is_ok() {
            return Security::Plain(PlainReason::NoSidecar);
        }
        Security::Tls {
            accounts: Arc::clone(&self.accounts),
            strict: mode == TlsMode::Strict,
            min_version: self.peers.modes.min_version,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ferrule_config::Modes;

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_admin_port_of_a_sidecar_is_spoken_to_plain_whatever_its_pod_accepts() {
        let modes = Modes { mode: TlsMode::Strict, ..Modes::default() };
        let peers = Peers { accounts: vec!["cart".into()], plain: Vec::new(), modes };
        let admin = SocketAddr::from(([10, 0, 0, 1], ports::ADMIN));
        assert_eq!(Expected::new("shop", peers).of(admin), Security::Plain(PlainReason::AdminPort));
    }

    #[test]
    fn who_has_a_sidecar_is_spoken_to_in_tls_and_nobody_else() {
        let modes = Modes {
            mode: TlsMode::Strict,
            ports: BTreeMap::from([(81, TlsMode::Disabled), (82, TlsMode::Permissive)]),
            ..Modes::default()
        };
        let plain = vec!["10.0.0.9".parse().expect("one"), "10.0.0.2".parse().expect("one")];
        let expected = Expected::new("shop", Peers { accounts: vec!["cart".into()], plain, modes });
        let is_strict = |address: &str| match expected.of(at(address)) {
            Security::Tls { strict, .. } => Ok(strict),
            Security::Plain(reason) => Err(reason),
        };
        assert_eq!(is_strict("10.0.0.1:80"), Ok(true));
        assert_eq!(is_strict("10.0.0.1:82"), Ok(false));
        assert_eq!(is_strict("10.0.0.1:81"), Err(PlainReason::Disabled));
        assert_eq!(is_strict("10.0.0.2:80"), Err(PlainReason::NoSidecar));
        assert_eq!(is_strict("[::ffff:10.0.0.9]:80"), Err(PlainReason::NoSidecar));
    }

    #[test]
    fn without_an_account_nothing_is_encrypted() {
        let expected = Expected::new("shop", Peers::default());
        assert!(!expected.is_meshed());
        assert_eq!(expected.of(at("10.0.0.1:80")), Security::Plain(PlainReason::NotMeshed));
        let modes = Modes { mode: TlsMode::Disabled, ..Modes::default() };
        let off = Peers { accounts: vec!["cart".into()], modes, ..Peers::default() };
        assert!(!Expected::new("shop", off).is_meshed());
    }
}
