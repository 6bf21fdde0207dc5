//! Who has which address: the pods with a sidecar, for clients that dial a pod and not a Service.
//!
//! Behind a headless Service, or the name of a StatefulSet's pod, an application dials addresses of pods. Its sidecar
//! then needs to know whether that pod has a sidecar too, and who must answer. The operator keeps this for the whole
//! mesh in [`SHARDS`] ConfigMaps of its own namespace, so that a sidecar reads only the one that an address is in:
//!
//! ```text
//!   ferrule-peers-0 … ferrule-peers-15    {"peers.json": "{\"10.0.0.7\":{\"namespace\":\"shop\",\"account\":\"cart\"}}"}
//! ```
//!
//! An address that is not there is no pod's that has a sidecar.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    Modes,
    shard::{Data, SHARD_BYTES},
};

/// How many ConfigMaps there are.
pub const SHARDS: usize = 16;
/// The key of each.
pub const KEY: &str = "peers.json";

const PREFIX: &str = "ferrule-peers-";

/// A pod with a sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Its namespace.
    pub namespace: String,
    /// Its service account: with the namespace it is the identity that must answer.
    pub account: String,
    /// What it accepts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub modes: Modes,
}

fn is_default(modes: &Modes) -> bool {
    *modes == Modes::default()
}

/// Pods with sidecars by their addresses.
pub type Addresses = BTreeMap<IpAddr, Peer>;

/// Why addresses can't be written or read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PeersError {
    /// A ConfigMap holds no more.
    #[error("ConfigMap {name} would have {bytes} bytes, more than the {SHARD_BYTES} that fit")]
    TooLarge {
        /// Its name.
        name: String,
        /// Size of the JSON.
        bytes: usize,
    },
    /// The ConfigMap has not the key that the operator writes.
    #[error("key {KEY:?} is missing; was it edited by hand?")]
    Missing,
    /// The JSON is not what the operator writes.
    #[error("key {KEY:?}: {0}")]
    Json(String),
}

/// Index of the ConfigMap that an address is in: FNV-1a of 64 bits (draft-eastlake-fnv) of the address's text, modulo
/// [`SHARDS`]. The text is `10.0.0.7`, or that of RFC 5952; an IPv4 address mapped to IPv6 is the IPv4 address.
#[must_use]
pub fn shard(address: IpAddr) -> usize {
    let hash = fnv(&address.to_canonical().to_string());
    usize::try_from(hash % SHARDS as u64).unwrap_or_default()
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Name of the ConfigMap with this index.
#[must_use]
pub fn name(index: usize) -> String {
    format!("{PREFIX}{index}")
}

/// Index of the ConfigMap of this name, if it is one.
#[must_use]
pub fn index(name: &str) -> Option<usize> {
    (0..SHARDS).find(|&index| self::name(index) == name)
}

/// The data of all ConfigMaps, by index.
///
/// # Errors
/// [`PeersError::TooLarge`], beyond some 100,000 pods.
pub fn split(addresses: &Addresses) -> Result<Vec<Data>, PeersError> {
    let mut shards = vec![BTreeMap::new(); SHARDS];
    for (address, peer) in addresses {
        shards[shard(*address)].insert(address.to_canonical(), peer);
    }
    shards.iter().enumerate().map(|(index, shard)| data(index, shard)).collect()
}

fn data(index: usize, shard: &BTreeMap<IpAddr, &Peer>) -> Result<Data, PeersError> {
    let json = serde_json::to_string(shard).map_err(|error| PeersError::Json(error.to_string()))?;
    if json.len() > SHARD_BYTES {
        return Err(PeersError::TooLarge { name: name(index), bytes: json.len() });
    }
    Ok(Data::from([(KEY.to_owned(), json)]))
}

/// What a ConfigMap holds.
///
/// # Errors
/// [`PeersError::Missing`] and [`PeersError::Json`].
pub fn read(data: &Data) -> Result<Addresses, PeersError> {
    let json = data.get(KEY).ok_or(PeersError::Missing)?;
    serde_json::from_str(json).map_err(|error| PeersError::Json(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::TlsMode;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Sidecars of other versions rely on it: it may never change.
    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv("foobar"), 0x8594_4171_f739_67e8);
        let shards = ["10.0.0.7", "10.244.3.19", "fd00::7", "::1"].map(|text| shard(address(text)));
        assert_eq!(shards, [11, 13, 8, 12]);
        assert_eq!(shard(address("::ffff:10.0.0.7")), shard(address("10.0.0.7")));
    }

    #[test]
    fn pods_spread_evenly() {
        let mut counts = [0_usize; SHARDS];
        for node in 0..40 {
            for pod in 0..250 {
                counts[shard(IpAddr::from([10, 244, node, pod]))] += 1;
            }
        }
        assert!(counts.iter().all(|count| (400..=850).contains(count)), "{counts:?}");
    }

    #[test]
    fn names_lead_back_to_their_index() {
        assert_eq!(name(15), "ferrule-peers-15");
        assert_eq!(index("ferrule-peers-15"), Some(15));
        for other in ["ferrule-peers-16", "ferrule-peers-01", "ferrule-peers-", "ferrule-1"] {
            assert_eq!(index(other), None, "{other}");
        }
    }

    #[test]
    fn a_peer_that_accepts_everything_is_short() {
        let peer = Peer { namespace: "shop".into(), account: "cart".into(), modes: Modes::default() };
        let addresses = Addresses::from([(address("10.0.0.7"), peer)]);
        let data = split(&addresses).expect("fits").swap_remove(shard(address("10.0.0.7")));
        assert_eq!(data[KEY], r#"{"10.0.0.7":{"namespace":"shop","account":"cart"}}"#);
        assert_eq!(read(&data), Ok(addresses));
        assert_eq!(read(&Data::new()), Err(PeersError::Missing));
    }

    proptest! {
        #[test]
        fn addresses_are_found_where_they_are_looked_for(
            addresses in prop::collection::btree_map(any::<IpAddr>(), any::<bool>(), 0..40),
        ) {
            let addresses: Addresses = addresses
                .into_iter()
                .map(|(address, strict)| {
                    let mode = if strict { TlsMode::Strict } else { TlsMode::Permissive };
                    let modes = Modes { mode, ports: [(80, mode)].into(), ..Modes::default() };
                    (address.to_canonical(), Peer { namespace: "shop".into(), account: "cart".into(), modes })
                })
                .collect();
            let shards = split(&addresses).expect("fits");
            prop_assert_eq!(shards.len(), SHARDS);
            let mut all = Addresses::new();
            for (index, data) in shards.iter().enumerate() {
                let held = read(data).expect("readable");
                prop_assert!(held.keys().all(|address| shard(*address) == index));
                all.extend(held);
            }
            prop_assert_eq!(all, addresses);
        }
    }
}
