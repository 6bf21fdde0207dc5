//! What to redirect, parsed from the environment.

use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr};

use ferrule_config::names::{self, ports};
use thiserror::Error;

const PROXY_UID: &str = "FERRULE_PROXY_UID";
const OUTBOUND_PORT: &str = "FERRULE_OUTBOUND_PORT";
const INBOUND_PORT: &str = "FERRULE_INBOUND_PORT";
const EXCLUDE_INBOUND_PORTS: &str = "FERRULE_EXCLUDE_INBOUND_PORTS";
const EXCLUDE_OUTBOUND_PORTS: &str = "FERRULE_EXCLUDE_OUTBOUND_PORTS";
const EXCLUDE_OUTBOUND_ADDRESSES: &str = "FERRULE_EXCLUDE_OUTBOUND_ADDRESSES";
const EXCLUDE_UIDS: &str = "FERRULE_EXCLUDE_UIDS";

/// Which connections of the pod go through its proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// User that the proxy runs as; what it sends is not redirected. Default: [`names::PROXY_UID`].
    pub proxy_uid: u32,
    /// Port that outbound connections are redirected to. Default: [`ports::OUTBOUND`].
    pub outbound_port: u16,
    /// Port that inbound connections are redirected to. Default: [`ports::INBOUND`].
    pub inbound_port: u16,
    /// Ports of the pod whose connections are not redirected. The proxy's own ports are always among them.
    pub exclude_inbound_ports: BTreeSet<u16>,
    /// Ports that connections out of the pod reach without the proxy.
    pub exclude_outbound_ports: BTreeSet<u16>,
    /// Networks that connections out of the pod reach without the proxy.
    pub exclude_outbound_addresses: BTreeSet<Network>,
    /// Further users whose connections out of the pod are not redirected.
    pub exclude_uids: BTreeSet<u32>,
}

/// A variable of the environment has no meaning.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{variable}={value:?}: {reason}")]
pub struct ConfigError {
    /// Name of the variable.
    pub variable: &'static str,
    /// Its value.
    pub value: String,
    /// Which part is wrong, and what is accepted.
    pub reason: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            proxy_uid: names::PROXY_UID,
            outbound_port: ports::OUTBOUND,
            inbound_port: ports::INBOUND,
            exclude_inbound_ports: BTreeSet::from([ports::ADMIN, ports::OUTBOUND, ports::INBOUND]),
            exclude_outbound_ports: BTreeSet::new(),
            exclude_outbound_addresses: BTreeSet::new(),
            exclude_uids: BTreeSet::new(),
        }
    }
}

impl Config {
    /// Reads the environment through `lookup`. An absent or empty variable means its default.
    ///
    /// # Errors
    /// The first variable that cannot be understood.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let default = Self::default();
        let value = |variable| lookup(variable).unwrap_or_default();
        let proxy_uid = single(PROXY_UID, &value(PROXY_UID), uid)?.unwrap_or(default.proxy_uid);
        if proxy_uid == 0 {
            let reason = "the proxy must have a user of its own: with uid 0, no connection of root would be redirected";
            return Err(ConfigError { variable: PROXY_UID, value: "0".into(), reason: reason.into() });
        }
        let outbound_port =
            single(OUTBOUND_PORT, &value(OUTBOUND_PORT), port)?.unwrap_or(default.outbound_port);
        let inbound_port = single(INBOUND_PORT, &value(INBOUND_PORT), port)?.unwrap_or(default.inbound_port);
        if inbound_port == outbound_port {
            let reason = format!("is also {OUTBOUND_PORT}; the two listeners need different ports");
            return Err(ConfigError { variable: INBOUND_PORT, value: inbound_port.to_string(), reason });
        }
        let mut exclude_inbound_ports = list(EXCLUDE_INBOUND_PORTS, &value(EXCLUDE_INBOUND_PORTS), port)?;
        exclude_inbound_ports.extend([ports::ADMIN, outbound_port, inbound_port]);
        Ok(Self {
            proxy_uid,
            outbound_port,
            inbound_port,
            exclude_inbound_ports,
            exclude_outbound_ports: list(EXCLUDE_OUTBOUND_PORTS, &value(EXCLUDE_OUTBOUND_PORTS), port)?,
            exclude_outbound_addresses: list(
                EXCLUDE_OUTBOUND_ADDRESSES,
                &value(EXCLUDE_OUTBOUND_ADDRESSES),
                Network::from_str,
            )?,
            exclude_uids: list(EXCLUDE_UIDS, &value(EXCLUDE_UIDS), uid)?,
        })
    }
}

fn single<T>(
    variable: &'static str,
    value: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    let text = value.trim();
    if text.is_empty() {
        return Ok(None);
    }
    parse(text).map(Some).map_err(|reason| ConfigError { variable, value: value.to_owned(), reason })
}

fn list<T: Ord>(
    variable: &'static str,
    value: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<BTreeSet<T>, ConfigError> {
    let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| parse(item).map_err(|reason| ConfigError { variable, value: value.to_owned(), reason }))
        .collect()
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{text:?} is not a port; write a number from 1 to 65535")),
    }
}

fn uid(text: &str) -> Result<u32, String> {
    // The highest number stands for "no user" in the kernel's interfaces.
    match text.parse() {
        Ok(uid) if uid < u32::MAX => Ok(uid),
        _ => Err(format!("{text:?} is not a user id; write a number from 0 to {}", u32::MAX - 1)),
    }
}

/// A network, written `10.0.0.0/8` or `fd00::/8`, or a single address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Its first address: bits beyond the prefix are zero.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Number of leading bits that count.
    #[must_use]
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Number of bits that an address of its family has.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refusal = || {
            format!("{text:?} is not an address or network; write it like 10.0.0.0/8, 192.0.2.1 or fd00::/8")
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| refusal())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| refusal())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        if prefix > bits {
            return Err(refusal());
        }
        Ok(Self { address: truncate(address, prefix), prefix })
    }
}

/// The address with all bits after the first `prefix` cleared.
fn truncate(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == self.bits() {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.prefix)
        }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_env(|name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_empty_environment_means_the_defaults() {
        assert_eq!(parse(&[]), Ok(Config::default()));
        assert_eq!(parse(&[(EXCLUDE_UIDS, ""), (PROXY_UID, "")]), Ok(Config::default()));
    }

    #[test]
    fn every_variable_is_read() {
        let config = parse(&[
            (PROXY_UID, "1337"),
            (OUTBOUND_PORT, "25101"),
            (INBOUND_PORT, "25102"),
            (EXCLUDE_INBOUND_PORTS, "9090, 22"),
            (EXCLUDE_OUTBOUND_PORTS, "25,5432,"),
            (EXCLUDE_OUTBOUND_ADDRESSES, "10.1.2.3/8,192.0.2.1,fd00::1/8"),
            (EXCLUDE_UIDS, "0,101"),
        ]);
        let network = |text: &str| text.parse::<Network>().expect("a network");
        let expected = Config {
            proxy_uid: 1337,
            outbound_port: 25101,
            inbound_port: 25102,
            exclude_inbound_ports: [22, 9090, ports::ADMIN, 25101, 25102].into(),
            exclude_outbound_ports: [25, 5432].into(),
            exclude_outbound_addresses: [network("10.0.0.0/8"), network("192.0.2.1/32"), network("fd00::/8")]
                .into(),
            exclude_uids: [0, 101].into(),
        };
        assert_eq!(config, Ok(expected));
    }

    #[test]
    fn the_proxys_own_ports_stay_excluded_whatever_the_list_says() {
        let config = parse(&[(EXCLUDE_INBOUND_PORTS, "80")]).expect("parses");
        assert_eq!(config.exclude_inbound_ports, [80, ports::OUTBOUND, ports::INBOUND, ports::ADMIN].into());
    }

    #[test]
    fn a_refusal_names_the_variable_the_value_and_what_is_accepted() {
        for (variable, value, accepted) in [
            (PROXY_UID, "root", "a number from 0 to 4294967294"),
            (PROXY_UID, "0", "a user of its own"),
            (OUTBOUND_PORT, "0", "a number from 1 to 65535"),
            (INBOUND_PORT, "15101", "different ports"),
            (EXCLUDE_INBOUND_PORTS, "80,http", "a number from 1 to 65535"),
            (EXCLUDE_OUTBOUND_PORTS, "80;81", "a number from 1 to 65535"),
            (EXCLUDE_OUTBOUND_ADDRESSES, "10.0.0.0/33", "like 10.0.0.0/8"),
            (EXCLUDE_OUTBOUND_ADDRESSES, "db.example", "like 10.0.0.0/8"),
            (EXCLUDE_UIDS, "4294967295", "a number from 0 to 4294967294"),
        ] {
            let text = parse(&[(variable, value)]).expect_err(value).to_string();
            for part in [variable, value, accepted] {
                assert!(text.contains(part), "{part:?} is not in {text:?}");
            }
        }
    }

    #[test]
    fn a_prefix_of_zero_is_the_whole_family() {
        assert_eq!("1.2.3.4/0".parse::<Network>().expect("a network").to_string(), "0.0.0.0/0");
        assert_eq!("fd00::1/0".parse::<Network>().expect("a network").to_string(), "::/0");
    }

    proptest! {
        #[test]
        fn a_network_survives_a_round_trip(address: IpAddr, prefix in 0..=128u8) {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let network: Network = format!("{address}/{}", prefix.min(bits)).parse().expect("a network");
            prop_assert_eq!(network.to_string().parse(), Ok(network));
        }
    }
}
