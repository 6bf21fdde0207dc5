//! A [`Mesh`] as the data of ConfigMaps, and back.
//!
//! A ConfigMap holds at most 1 MiB. The JSON of a mesh is therefore cut into shards of at most
//! [`SHARD_BYTES`]; each shard names how many there are and the digest of the whole, so that a reader
//! who sees some shards of one state and some of the next notices and waits for the rest.
//!
//! ```text
//!   ferrule      {"mesh.json": "<first part>",  "shards": "2", "digest": "9f…"}
//!   ferrule-1    {"mesh.json": "<second part>", "shards": "2", "digest": "9f…"}
//! ```

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{FORMAT, Mesh, names::CONFIG_MAP};

/// Largest part of the JSON that goes into one ConfigMap, in bytes.
pub const SHARD_BYTES: usize = 900 * 1024;
/// Most shards that a proxy reads; its permission names each of them. 9 MB of JSON.
pub const MAX_SHARDS: usize = 10;

const MESH: &str = "mesh.json";
const SHARDS: &str = "shards";
const DIGEST: &str = "digest";

/// The `data` of one ConfigMap.
pub type Data = BTreeMap<String, String>;

/// Why a [`Mesh`] can't be written or read. All but [`ShardError::Incomplete`] mean that somebody else
/// wrote the ConfigMap, or a newer Ferrule did.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ShardError {
    /// More than [`MAX_SHARDS`] would be needed.
    #[error("the namespace's configuration has {bytes} bytes, more than the {} that fit", SHARD_BYTES * MAX_SHARDS)]
    TooLarge {
        /// Size of the JSON.
        bytes: usize,
    },
    /// Not all shards are there yet, or they are of different states; the rest will follow.
    #[error("shard {shard} is missing or of another state")]
    Incomplete {
        /// Index of the first that does not fit.
        shard: usize,
    },
    /// The ConfigMap has not the keys that the operator writes.
    #[error("ConfigMap {CONFIG_MAP}: key {key:?} is missing or malformed; was it edited by hand?")]
    Malformed {
        /// The key in question.
        key: &'static str,
    },
    /// The digest does not fit the content.
    #[error("ConfigMap {CONFIG_MAP}: content does not match its digest; was it edited by hand?")]
    Digest,
    /// The JSON is not a mesh.
    #[error("ConfigMap {CONFIG_MAP}: {0}")]
    Json(String),
    /// The writer is newer than the reader.
    #[error(
        "ConfigMap {CONFIG_MAP} has format {found}, this proxy knows up to {FORMAT}; restart the pod to update its proxy"
    )]
    Newer {
        /// The writer's format.
        found: u32,
    },
}

/// Name of the ConfigMap of the shard with this index.
#[must_use]
pub fn name(index: usize) -> String {
    if index == 0 { CONFIG_MAP.to_owned() } else { format!("{CONFIG_MAP}-{index}") }
}

/// Index of the shard that a ConfigMap of this name holds, if it is one.
#[must_use]
pub fn index(name: &str) -> Option<usize> {
    (0..MAX_SHARDS).find(|&index| self::name(index) == name)
}

/// Splits a mesh into the data of as many ConfigMaps as it needs, at least one.
///
/// # Errors
/// [`ShardError::TooLarge`].
pub fn split(mesh: &Mesh) -> Result<Vec<Data>, ShardError> {
    split_at(mesh, SHARD_BYTES)
}

fn split_at(mesh: &Mesh, limit: usize) -> Result<Vec<Data>, ShardError> {
    let json = serde_json::to_string(mesh).map_err(|error| ShardError::Json(error.to_string()))?;
    let digest = digest(json.as_bytes());
    let mut parts = Vec::new();
    let mut rest = json.as_str();
    while !rest.is_empty() {
        let mut end = limit.min(rest.len());
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (part, tail) = rest.split_at(end);
        parts.push(part.to_owned());
        rest = tail;
    }
    if parts.len() > MAX_SHARDS {
        return Err(ShardError::TooLarge { bytes: json.len() });
    }
    let shards = parts.len().to_string();
    Ok(parts
        .into_iter()
        .map(|part| {
            Data::from([
                (MESH.into(), part),
                (SHARDS.into(), shards.clone()),
                (DIGEST.into(), digest.clone()),
            ])
        })
        .collect())
}

/// Puts a mesh together from the shards at hand, by index.
///
/// # Errors
/// See [`ShardError`]; on any of them the caller keeps what it had.
pub fn join(shards: &BTreeMap<usize, Data>) -> Result<Mesh, ShardError> {
    let first = shards.get(&0).ok_or(ShardError::Incomplete { shard: 0 })?;
    let count: usize = value(first, SHARDS)?.parse().map_err(|_| ShardError::Malformed { key: SHARDS })?;
    let expected = value(first, DIGEST)?;
    if !(1..=MAX_SHARDS).contains(&count) {
        return Err(ShardError::Malformed { key: SHARDS });
    }
    let mut json = String::new();
    for shard in 0..count {
        let data = shards.get(&shard).ok_or(ShardError::Incomplete { shard })?;
        if value(data, DIGEST)? != expected {
            return Err(ShardError::Incomplete { shard });
        }
        json.push_str(value(data, MESH)?);
    }
    if digest(json.as_bytes()) != expected {
        return Err(ShardError::Digest);
    }
    let mesh: Mesh = serde_json::from_str(&json).map_err(|error| ShardError::Json(error.to_string()))?;
    if mesh.format > FORMAT {
        return Err(ShardError::Newer { found: mesh.format });
    }
    Ok(mesh)
}

fn value<'a>(data: &'a Data, key: &'static str) -> Result<&'a str, ShardError> {
    data.get(key).map(String::as_str).ok_or(ShardError::Malformed { key })
}

/// FNV-1a, 64 bits: tells states apart and finds accidents; it is no protection against an attacker, who
/// with write access to the ConfigMap could write a digest as well.
fn digest(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Rule, Service};

    fn mesh(rules: &[String]) -> Mesh {
        let rules = rules.iter().map(|name| Rule { name: name.clone(), ..Rule::default() }).collect();
        let service = Service { rules, ..Service::default() };
        Mesh {
            format: FORMAT,
            namespace: "shop".into(),
            services: [("cart".into(), service)].into(),
            ..Mesh::default()
        }
    }

    fn numbered(shards: Vec<Data>) -> BTreeMap<usize, Data> {
        shards.into_iter().enumerate().collect()
    }

    proptest! {
        #[test]
        fn a_mesh_survives_a_round_trip(rules in prop::collection::vec(".{0,20}", 0..20), limit in 100..400usize) {
            let mesh = mesh(&rules);
            match split_at(&mesh, limit) {
                Ok(shards) => prop_assert_eq!(join(&numbered(shards)), Ok(mesh)),
                Err(error) => {
                    let too_large = matches!(error, ShardError::TooLarge { .. });
                    prop_assert!(too_large, "{}", error);
                }
            }
        }
    }

    #[test]
    fn shards_of_two_states_are_not_mixed() {
        let old = split_at(&mesh(&["a".repeat(90)]), 100).expect("fits");
        let mut mixed = numbered(split_at(&mesh(&["b".repeat(90)]), 100).expect("fits"));
        mixed.insert(1, old[1].clone());
        assert_eq!(join(&mixed), Err(ShardError::Incomplete { shard: 1 }));
    }

    #[test]
    fn an_edit_by_hand_is_noticed() {
        let mut shards = numbered(split(&mesh(&[])).expect("fits"));
        shards.get_mut(&0).expect("first").insert(MESH.into(), "{}".into());
        assert_eq!(join(&shards), Err(ShardError::Digest));
    }

    #[test]
    fn a_newer_format_is_refused() {
        let newer = Mesh { format: FORMAT + 1, ..mesh(&[]) };
        let shards = numbered(split(&newer).expect("fits"));
        assert_eq!(join(&shards), Err(ShardError::Newer { found: FORMAT + 1 }));
    }

    #[test]
    fn names_and_indexes_agree() {
        for shard in 0..MAX_SHARDS {
            assert_eq!(index(&name(shard)), Some(shard));
        }
        assert_eq!(index("ferrule-operator"), None);
    }
}
