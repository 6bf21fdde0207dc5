//! The hash of everything that all sidecars must agree on: XXH64 with seed 0 (xxHash's specification, version 0.1.1),
//! as Envoy uses for its consistent hashing.

use std::net::{IpAddr, SocketAddr};

use twox_hash::XxHash64;

/// Hash of some bytes.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

/// Hash of an address. The same one written as IPv4 and as IPv6 with an IPv4 address in it hashes alike.
#[must_use]
pub fn of_ip(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => of_bytes(&ip.octets()),
        IpAddr::V6(ip) => of_bytes(&ip.octets()),
    }
}

/// Hash of an address with its port.
#[must_use]
pub fn of_address(address: SocketAddr) -> u64 {
    of_bytes(address.to_string().as_bytes())
}

/// Another hash of a hash: a number that has nothing to do with the first one (SplitMix64's finalizer, Steele et al.,
/// "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
#[must_use]
pub fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of xxHash's own command-line program: another version of the crate, or another crate, must give the same.
    #[test]
    fn hashes_are_those_of_xxh64() {
        assert_eq!(of_bytes(b""), 0xef46_db37_51d8_e999);
        assert_eq!(of_bytes(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(of_bytes(b"abc"), 0x44bc_2cf5_ad77_0999);
    }

    #[test]
    fn an_address_hashes_alike_in_both_notations() {
        let plain: IpAddr = "10.0.0.1".parse().expect("IPv4");
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().expect("IPv6");
        assert_eq!(of_ip(plain), of_ip(mapped));
    }
}
