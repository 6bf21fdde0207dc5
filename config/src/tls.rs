//! Encryption between sidecars: what a pod accepts, and what a client may expect of a Service's endpoints.
//!
//! ```text
//!   MeshTLS ──▶ Mesh::tls       ──▶ the sidecar of a pod: what it accepts
//!   Pods    ──▶ Service::peers  ──▶ the sidecars of its clients: whom to encrypt for, and who may answer
//! ```

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// What connections are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TlsMode {
    /// Encrypted and plain ones.
    #[default]
    Permissive,
    /// Only encrypted ones of known identity.
    Strict,
    /// Only plain ones, and none is encrypted.
    Disabled,
}

/// Lowest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MinVersion {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    V1_2,
    /// RFC 8446.
    #[default]
    #[serde(rename = "1.3")]
    V1_3,
}

/// Modes of a pod: one, and others for some of its ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Modes {
    /// Of every port that is not named.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: TlsMode,
    /// By port of the container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "ports")]
    pub ports: BTreeMap<u16, TlsMode>,
    /// Lowest version of TLS.
    #[serde(default, skip_serializing_if = "is_default")]
    pub min_version: MinVersion,
}

/// Keys of a JSON object are text. serde reads numbers from them, but not where the object was flattened into another.
fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<u16, TlsMode>, D::Error> {
    let ports = BTreeMap::<String, TlsMode>::deserialize(deserializer)?;
    let number = |port: &str| port.parse().map_err(|_| D::Error::custom(format!("{port:?} is not a port")));
    ports.into_iter().map(|(port, mode)| Ok((number(&port)?, mode))).collect()
}

impl Modes {
    /// The mode of a port of the container.
    #[must_use]
    pub fn of(&self, port: u16) -> TlsMode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

/// Which pods of the namespace something holds for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels that the pod must have, all of them. Empty: every pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

impl Selector {
    /// Whether a pod with these labels is meant.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// What pods of the namespace accept. Of several entries the first that selects a pod decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadTls {
    /// Which pods.
    #[serde(default, skip_serializing_if = "is_default")]
    pub selector: Selector,
    /// What they accept.
    #[serde(flatten)]
    pub modes: Modes,
}

/// Who answers behind a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peers {
    /// Service accounts, of the Service's own namespace, under which pods with a sidecar run that it selects; sorted.
    /// Whoever answers on an encrypted connection must have one of these identities.
    pub accounts: Vec<String>,
    /// Addresses of pods behind it that have no sidecar, sorted: connections to them are not encrypted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plain: Vec<IpAddr>,
    /// What its pods accept. Where they differ, the stricter.
    #[serde(default, skip_serializing_if = "is_default")]
    pub modes: Modes,
}

/// What a sidecar answers at `/tls` of its admin port: who sent it connections that were not encrypted.
///
/// ```text
///   {"plaintextClients":[{"address":"10.0.0.7","port":8080,"secondsAgo":12}],"observedSeconds":900}
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaintextReport {
    /// Those of the last hour, one a client and port; at most [`MAX_PLAINTEXT_CLIENTS`], the latest ones.
    #[serde(default)]
    pub plaintext_clients: Vec<PlaintextClient>,
    /// For how long the sidecar has been looking, in seconds: what came before nobody knows of. Absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_seconds: Option<u64>,
}

/// Most clients in a [`PlaintextReport`].
pub const MAX_PLAINTEXT_CLIENTS: usize = 256;

/// A client that sent something that was not encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaintextClient {
    /// Its address.
    pub address: IpAddr,
    /// Port of the container that it connected to.
    pub port: u16,
    /// How long ago its last such connection began, in seconds.
    pub seconds_ago: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_its_own_mode_or_the_pod_s() {
        let modes = Modes {
            mode: TlsMode::Strict,
            ports: BTreeMap::from([(9090, TlsMode::Permissive)]),
            ..Modes::default()
        };
        assert_eq!(modes.of(9090), TlsMode::Permissive);
        assert_eq!(modes.of(8080), TlsMode::Strict);
    }

    #[test]
    fn a_selector_wants_all_of_its_labels() {
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let selector = Selector { match_labels: labels(&[("app", "cart"), ("tier", "back")]) };
        assert!(selector.selects(&labels(&[("app", "cart"), ("tier", "back"), ("x", "y")])));
        assert!(!selector.selects(&labels(&[("app", "cart")])));
        assert!(Selector::default().selects(&labels(&[])));
    }

    #[test]
    fn it_survives_a_round_trip() {
        let tls = WorkloadTls {
            selector: Selector::default(),
            modes: Modes { mode: TlsMode::Strict, ..Modes::default() },
        };
        let text = serde_json::to_string(&tls).expect("JSON");
        assert_eq!(text, r#"{"mode":"strict"}"#);
        assert_eq!(serde_json::from_str::<WorkloadTls>(&text).expect("parses"), tls);

        let text = r#"{"selector":{"matchLabels":{"app":"cart"}},"ports":{"8080":"strict"}}"#;
        let tls: WorkloadTls = serde_json::from_str(text).expect("parses");
        assert_eq!(tls.modes.of(8080), TlsMode::Strict);
        assert_eq!(serde_json::to_string(&tls).expect("JSON"), text);
        assert!(serde_json::from_str::<Modes>(r#"{"ports":{"http":"strict"}}"#).is_err());
    }

    #[test]
    fn a_report_has_the_form_that_is_documented() {
        let text = r#"{"plaintextClients":[{"address":"10.0.0.7","port":8080,"secondsAgo":12}],"observedSeconds":900}"#;
        let report: PlaintextReport = serde_json::from_str(text).expect("parses");
        assert_eq!(report.plaintext_clients.len(), 1);
        assert_eq!(serde_json::to_string(&report).expect("JSON"), text);
        assert_eq!(
            serde_json::from_str::<PlaintextReport>("{}").expect("parses"),
            PlaintextReport::default()
        );
    }
}
