//! What this pod accepts, and who came without encryption.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use ferrule_config::{MAX_PLAINTEXT_CLIENTS, Modes, PlaintextClient, PlaintextReport, TlsMode};
use serde::Serialize;
use tokio::sync::watch;

/// How long a client is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);

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
    /// Whether it is known what holds for the pod.
    known: watch::Sender<bool>,
    /// Since when clients are seen.
    began: Instant,
    /// Clients without encryption, by their addresses and the ports that they wanted.
    plaintext: Mutex<HashMap<(IpAddr, u16), Seen>>,
}

/// What is known of a client without encryption.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// When it came last, or its last connection ended.
    last: Instant,
    /// Connections that it has open.
    open: usize,
}

/// A connection without encryption. As long as it is there, its client is: one that keeps a connection for hours comes
/// only once.
#[derive(Debug)]
pub struct Plaintext<'a> {
    inbound: &'a Inbound,
    client: (IpAddr, u16),
}

impl Drop for Plaintext<'_> {
    fn drop(&mut self) {
        let mut clients = self.inbound.plaintext.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = clients.get_mut(&self.client) {
            seen.open = seen.open.saturating_sub(1);
            seen.last = Instant::now();
        }
    }
}

/// What the admin port tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What is accepted.
    pub accepts: Modes,
    /// Who came without encryption, the last one first.
    #[serde(flatten)]
    pub plaintext: PlaintextReport,
}

impl Inbound {
    /// With this policy, and nobody seen.
    pub(super) fn new(policy: InboundPolicy, known: bool) -> Self {
        let (policy, known) = (ArcSwap::from_pointee(policy), watch::channel(known).0);
        Self { policy, known, began: Instant::now(), plaintext: Mutex::default() }
    }

    /// Waits until it is known what holds for the pod; at most for this long. Until then nobody is let in: a pod that is
    /// strict must not be open for the moment of its start.
    pub async fn is_known(&self, limit: Duration) -> bool {
        if *self.known.borrow() {
            return true;
        }
        let mut known = self.known.subscribe();
        tokio::time::timeout(limit, known.wait_for(|known| *known)).await.is_ok()
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Arc<InboundPolicy> {
        self.policy.load_full()
    }

    /// Puts another policy in force for connections from here on.
    pub fn set_policy(&self, policy: InboundPolicy) {
        self.policy.store(Arc::new(policy));
        self.known.send_replace(true);
    }

    /// The mode of a port of the application.
    #[must_use]
    pub fn mode(&self, port: u16) -> TlsMode {
        self.policy.load().tls.of(port)
    }

    /// Takes note of a client that came without encryption to this port, for as long as what is returned lives.
    pub fn saw_plaintext(&self, address: IpAddr, port: u16, now: Instant) -> Plaintext<'_> {
        let mut clients = self.plaintext.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (address.to_canonical(), port);
        if clients.len() >= MAX_PLAINTEXT_CLIENTS
            && !clients.contains_key(&key)
            && let Some(oldest) =
                clients.iter().min_by_key(|(_, seen)| (seen.open > 0, seen.last)).map(|(key, _)| *key)
        {
            clients.remove(&oldest);
        }
        let seen = clients.entry(key).or_insert(Seen { last: now, open: 0 });
        seen.last = now;
        seen.open += 1;
        Plaintext { inbound: self, client: key }
    }

    /// What can be told of it.
    #[must_use]
    pub fn report(&self, now: Instant) -> Report {
        let clients = self.plaintext.lock().unwrap_or_else(PoisonError::into_inner);
        let ago = |seen: Seen| match seen.open {
            0 => now.saturating_duration_since(seen.last),
            _ => Duration::ZERO,
        };
        let each = clients.iter().map(|(&(address, port), &seen)| (ago(seen), address, port));
        let mut lately: Vec<_> = each.filter(|(ago, ..)| *ago < REMEMBERED).collect();
        lately.sort_unstable();
        let told = |(ago, address, port): (Duration, IpAddr, u16)| PlaintextClient {
            address,
            port,
            seconds_ago: ago.as_secs(),
        };
        let plaintext = PlaintextReport {
            plaintext_clients: lately.into_iter().map(told).collect(),
            observed_seconds: Some(now.saturating_duration_since(self.began).as_secs()),
        };
        Report { accepts: self.policy().tls.clone(), plaintext }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_last_clients_are_remembered_for_an_hour_and_no_more_of_them_than_are_told() {
        let inbound = Inbound::new(InboundPolicy::default(), true);
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        for number in 0..400u32 {
            let key = (IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number)), 80);
            drop(inbound.saw_plaintext(key.0, key.1, begin));
            let mut clients = inbound.plaintext.lock().expect("sound");
            clients.insert(key, Seen { last: at(number.into()), open: 0 });
        }
        let clients = inbound.report(at(1000)).plaintext.plaintext_clients;
        assert_eq!(clients.len(), MAX_PLAINTEXT_CLIENTS);
        assert_eq!((clients[0].seconds_ago, clients[255].seconds_ago), (1000 - 399, 1000 - (400 - 256)));
        let later = inbound.report(at(399 + 3600)).plaintext;
        assert_eq!(later.plaintext_clients, []);
        assert!(later.observed_seconds.is_some_and(|seconds| (3998..=3999).contains(&seconds)), "{later:?}");
    }

    #[test]
    fn a_client_is_there_for_as_long_as_its_last_connection() {
        let inbound = Inbound::new(InboundPolicy::default(), true);
        let address = IpAddr::from(Ipv4Addr::new(10, 0, 0, 7));
        let connections = [(); 2].map(|()| inbound.saw_plaintext(address, 80, Instant::now()));
        let ago = |hours: u64| {
            let now = Instant::now() + Duration::from_secs(hours * 3600);
            let clients = inbound.report(now).plaintext.plaintext_clients;
            clients.iter().map(|client| client.seconds_ago).collect::<Vec<_>>()
        };
        assert_eq!(ago(5), [0]);
        let [first, second] = connections;
        drop(first);
        assert_eq!(ago(5), [0]);
        drop(second);
        assert_eq!((ago(0), ago(5)), (vec![0], vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_holds_is_waited_for_and_not_for_ever() {
        let inbound = Arc::new(Inbound::new(InboundPolicy::default(), false));
        assert!(!inbound.is_known(Duration::from_secs(5)).await);
        let waiting = Arc::clone(&inbound);
        let waits = tokio::spawn(async move { waiting.is_known(Duration::from_secs(5)).await });
        tokio::task::yield_now().await;
        inbound.set_policy(InboundPolicy::default());
        assert!(waits.await.expect("ends"));
    }
}
