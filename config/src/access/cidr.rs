//! Ranges of addresses (RFC 4632, RFC 4291 §2.3).

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A range of addresses, written as `10.0.0.0/8`; an address alone is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    length: u8,
}

/// Why a text is no range.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CidrError {
    /// Not of the form.
    #[error("{0:?} is not a range of addresses; expected one like 10.0.0.0/8 or 2001:db8::/32")]
    Form(String),
    /// Bits are set that the range does not fix.
    #[error("{found} has bits set beyond its first {}; did you mean {meant}?", .meant.length)]
    HostBits {
        /// As it was written.
        found: String,
        /// The range that the address is in.
        meant: Cidr,
    },
}

impl Cidr {
    /// Whether the address is in the range. One of IPv4 that is written as IPv6 is taken for what it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        network(address.to_canonical(), self.length) == Some(self.address)
    }
}

/// The address with all but its first bits cleared, if it has so many.
fn network(address: IpAddr, length: u8) -> Option<IpAddr> {
    let length = u32::from(length);
    match address {
        IpAddr::V4(v4) => {
            let rest = u32::BITS.checked_sub(length)?;
            let mask = u32::MAX.checked_shl(rest).unwrap_or_default();
            Some(IpAddr::V4((v4.to_bits() & mask).into()))
        }
        IpAddr::V6(v6) => {
            let rest = u128::BITS.checked_sub(length)?;
            let mask = u128::MAX.checked_shl(rest).unwrap_or_default();
            Some(IpAddr::V6((v6.to_bits() & mask).into()))
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let form = || CidrError::Form(text.chars().take(64).collect());
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| form())?;
        if address != address.to_canonical() {
            return Err(form());
        }
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                length.parse().map_err(|_| form())?
            }
            Some(_) => return Err(form()),
            None => whole,
        };
        let network = network(address, length).ok_or_else(form)?;
        if network != address {
            let meant = Self { address: network, length };
            return Err(CidrError::HostBits { found: text.to_owned(), meant });
        }
        Ok(Self { address, length })
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Self, CidrError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}
