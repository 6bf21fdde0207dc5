//! What this pod accepts, and who came without encryption.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use ferrule_config::{Modes, TlsMode};
use serde::Serialize;

/// Clients that are remembered.
const MOST_CLIENTS: usize = 256;

/// What this pod accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InboundPolicy {
    /// Modes by port, and the lowest version of TLS. Default: permissive, TLS 1.3.
    pub tls: Modes,
}

/// The policy in force, and the clients that were seen without encryption.
#[derive(Debug)]
pub struct Inbound {
    policy: ArcSwap<InboundPolicy>,
    plaintext: Mutex<HashMap<(IpAddr, u16), u64>>,
}

/// A client that came without encryption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlaintextClient {
    /// Where it came from.
    pub address: IpAddr,
    /// Port of the application that it wanted.
    pub port: u16,
    /// When it came last, in seconds since 1970.
    pub seen: u64,
}

/// What the admin port tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What is accepted.
    pub accepts: Modes,
    /// Clients that came without encryption, the last one first; 256 at most.
    pub plaintext_clients: Vec<PlaintextClient>,
}

impl Inbound {
    /// With this policy, and nobody seen.
    pub(super) fn new(policy: InboundPolicy) -> Self {
        Self { policy: ArcSwap::from_pointee(policy), plaintext: Mutex::default() }
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Arc<InboundPolicy> {
        self.policy.load_full()
    }

    /// Puts another policy in force for connections from here on.
    pub fn set_policy(&self, policy: InboundPolicy) {
        self.policy.store(Arc::new(policy));
    }

    /// The mode of a port of the application.
    #[must_use]
    pub fn mode(&self, port: u16) -> TlsMode {
        self.policy.load().tls.of(port)
    }

    /// Takes note of a client that came without encryption to this port.
    pub fn saw_plaintext(&self, address: IpAddr, port: u16, now: SystemTime) {
        let seen = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut clients = self.plaintext.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (address.to_canonical(), port);
        if clients.len() >= MOST_CLIENTS
            && !clients.contains_key(&key)
            && let Some(oldest) = clients.iter().min_by_key(|(_, seen)| **seen).map(|(key, _)| *key)
        {
            clients.remove(&oldest);
        }
        clients.insert(key, seen);
    }

    /// What can be told of it.
    #[must_use]
    pub fn report(&self) -> Report {
        let clients = self.plaintext.lock().unwrap_or_else(PoisonError::into_inner);
        let each = clients.iter().map(|(&(address, port), &seen)| PlaintextClient { address, port, seen });
        let mut plaintext_clients: Vec<_> = each.collect();
        plaintext_clients.sort_by_key(|client| (std::cmp::Reverse(client.seen), client.address, client.port));
        Report { accepts: self.policy().tls.clone(), plaintext_clients }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    #[test]
    fn the_last_clients_are_remembered_and_no_more_of_them() {
        let inbound = Inbound::new(InboundPolicy::default());
        for number in 0..400u32 {
            let address = Ipv4Addr::from(0x0a00_0000 + number);
            inbound.saw_plaintext(address.into(), 80, UNIX_EPOCH + Duration::from_secs(number.into()));
        }
        inbound.saw_plaintext(Ipv4Addr::from(0x0a00_018f).into(), 80, UNIX_EPOCH + Duration::from_secs(999));
        let clients = inbound.report().plaintext_clients;
        assert_eq!(clients.len(), MOST_CLIENTS);
        assert_eq!((clients[0].seen, clients[255].seen), (999, 400 - 256));
    }
}
