//! The rules, as data: one table, two chains, and what each rule matches and does.
//!
//! `Display` writes everything as `nft` would, so that a log, a test and `nft list ruleset` speak one language.

use std::fmt;

use super::config::{Config, Network};

/// A table of family `inet`: its rules see IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its chains.
    pub chains: Vec<Chain>,
}

/// A base chain of type `nat`: it sees the first packet of every connection, and its verdict holds for the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where in the kernel it is called.
    pub hook: Hook,
    /// The first that matches decides; none: the packet goes on unchanged.
    pub rules: Vec<Rule>,
}

/// Where in the kernel a chain is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets that arrive.
    Prerouting,
    /// Packets that this network namespace sends.
    Output,
}

/// One condition and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which packets.
    pub matches: Match,
    /// What happens to them.
    pub verdict: Verdict,
}

/// Condition on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// It is TCP.
    Tcp,
    /// It is anything but TCP.
    NotTcp,
    /// A process of this user sends it.
    SocketUid(u32),
    /// It leaves by the loopback interface.
    ToLoopback,
    /// It came by the loopback interface.
    FromLoopback,
    /// Its destination is an address of this network namespace.
    DestinationLocal,
    /// Its destination is elsewhere.
    DestinationElsewhere,
    /// It is TCP to this port.
    DestinationPort(u16),
    /// Its destination is in this network.
    DestinationNetwork(Network),
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on unchanged.
    Return,
    /// Its connection goes to this port here: on the loopback address of its family if this network
    /// namespace sends it, else on an address of the interface that it came by.
    Redirect(u16),
}

impl Table {
    /// The rules for a pod; see [`super`] for the reasons.
    #[must_use]
    pub fn redirect(config: &Config) -> Self {
        Self { name: "ferrule".into(), chains: vec![output(config), prerouting(config)] }
    }

    /// The rules of all its chains.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.chains.iter().flat_map(|chain| &chain.rules)
    }
}

fn output(config: &Config) -> Chain {
    let Config {
        proxy_uid,
        outbound_port,
        inbound_port: _,
        exclude_inbound_ports: _,
        exclude_outbound_ports,
        exclude_outbound_addresses,
        exclude_uids,
    } = config;
    let own = [Match::NotTcp, Match::SocketUid(*proxy_uid), Match::ToLoopback, Match::DestinationLocal];
    let uids = exclude_uids.iter().filter(|uid| *uid != proxy_uid).map(|uid| Match::SocketUid(*uid));
    let ports = exclude_outbound_ports.iter().map(|port| Match::DestinationPort(*port));
    let networks = exclude_outbound_addresses.iter().map(|network| Match::DestinationNetwork(*network));
    let untouched = own.into_iter().chain(uids).chain(ports).chain(networks);
    chain("output", Hook::Output, untouched, *outbound_port)
}

fn prerouting(config: &Config) -> Chain {
    let own = [Match::NotTcp, Match::FromLoopback, Match::DestinationElsewhere];
    let ports = config.exclude_inbound_ports.iter().map(|port| Match::DestinationPort(*port));
    chain("prerouting", Hook::Prerouting, own.into_iter().chain(ports), config.inbound_port)
}

fn chain(name: &str, hook: Hook, untouched: impl Iterator<Item = Match>, port: u16) -> Chain {
    let mut rules: Vec<_> = untouched.map(|matches| Rule { matches, verdict: Verdict::Return }).collect();
    rules.push(Rule { matches: Match::Tcp, verdict: Verdict::Redirect(port) });
    Chain { name: name.into(), hook, rules }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.name)?;
        for chain in &self.chains {
            writeln!(f, "  chain {} {{", chain.name)?;
            writeln!(f, "    type nat hook {} priority dstnat; policy accept;", chain.hook)?;
            for rule in &chain.rules {
                writeln!(f, "    {rule}")?;
            }
            writeln!(f, "  }}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Output => "output",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.matches, self.verdict)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("meta l4proto tcp"),
            Self::NotTcp => f.write_str("meta l4proto != tcp"),
            Self::SocketUid(uid) => write!(f, "meta skuid {uid}"),
            Self::ToLoopback => f.write_str("oif lo"),
            Self::FromLoopback => f.write_str("iif lo"),
            Self::DestinationLocal => f.write_str("fib daddr type local"),
            Self::DestinationElsewhere => f.write_str("fib daddr type != local"),
            Self::DestinationPort(port) => write!(f, "tcp dport {port}"),
            Self::DestinationNetwork(network) if network.address().is_ipv4() => {
                write!(f, "ip daddr {network}")
            }
            Self::DestinationNetwork(network) => write!(f, "ip6 daddr {network}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Return => f.write_str("return"),
            Self::Redirect(port) => write!(f, "redirect to :{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_table_reads_as_documented() {
        let expected = "\
table inet ferrule {
  chain output {
    type nat hook output priority dstnat; policy accept;
    meta l4proto != tcp return
    meta skuid 15100 return
    oif lo return
    fib daddr type local return
    meta l4proto tcp redirect to :15101
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto != tcp return
    iif lo return
    fib daddr type != local return
    tcp dport 15101 return
    tcp dport 15102 return
    tcp dport 15110 return
    meta l4proto tcp redirect to :15102
  }
}
";
        assert_eq!(Table::redirect(&Config::default()).to_string(), expected);
    }

    #[test]
    fn exclusions_come_before_the_redirect() {
        let config = Config {
            exclude_outbound_ports: [25].into(),
            exclude_outbound_addresses: ["10.0.0.0/8", "fd00::1"]
                .map(|text| text.parse().expect("valid"))
                .into(),
            exclude_uids: [0, 15100].into(),
            ..Config::default()
        };
        let rules: Vec<_> = output(&config).rules[4..].iter().map(Rule::to_string).collect();
        assert_eq!(
            rules,
            [
                "meta skuid 0 return",
                "tcp dport 25 return",
                "ip daddr 10.0.0.0/8 return",
                "ip6 daddr fd00::1 return",
                "meta l4proto tcp redirect to :15101"
            ]
        );
    }

    #[test]
    fn inbound_exclusions_do_not_touch_outbound_connections() {
        let config = Config { exclude_inbound_ports: [9090].into(), ..Config::default() };
        assert_eq!(output(&config), output(&Config::default()));
        assert!(prerouting(&config).rules.iter().any(|rule| rule.matches == Match::DestinationPort(9090)));
    }
}
