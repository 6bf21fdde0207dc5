//! How requests to a Service are spread over its endpoints.

use serde::{Deserialize, Serialize};

use crate::Duration;

/// Most entries in [`Balancer::weights`].
pub const MAX_WEIGHTS: usize = 64;
/// Largest weight of an endpoint.
pub const MAX_WEIGHT: u16 = 1000;

/// Fewest points on a ring, and fewest entries of a table, in [`ConsistentHash::size`].
pub const MIN_HASH_SIZE: u32 = 64;
/// Most points that [`Algorithm::RingHash`] can be asked for.
pub const MAX_RING_SIZE: u32 = 65_536;
/// Most entries of [`Algorithm::Maglev`]'s table; a prime, as all sizes of it are.
pub const MAX_TABLE_SIZE: u32 = 65_537;
/// Longest [`Balancer::slow_start`]: 15 minutes.
pub const MAX_SLOW_START: Duration = Duration::from_millis(15 * 60 * 1000);
/// Longest life of a session's cookie, and the most that browsers grant: 400 days (RFC 6265bis §5.5).
pub const MAX_SESSION_TTL: Duration = Duration::from_millis(400 * 24 * 3600 * 1000);

/// Whether a number is prime, by trial division: for sizes of tables, not for large numbers.
#[must_use]
pub fn is_prime(number: u32) -> bool {
    number > 1 && (2..=number.isqrt()).all(|divisor| !number.is_multiple_of(divisor))
}

/// The balancer of a Service, or of one of its ports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortBalancer {
    /// Only for the Service's port of this name; all ports when absent. An entry with the port's name comes before
    /// one without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_name: Option<String>,
    /// What is done there.
    pub balancer: Balancer,
}

/// How requests are spread over endpoints. The default is what a Service without a BalancerPolicy gets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Balancer {
    /// Which endpoint is picked.
    pub algorithm: Algorithm,
    /// Shares of endpoints relative to each other: the first entry that fits an endpoint gives its weight; 1 when
    /// none does. At most [`MAX_WEIGHTS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<EndpointWeight>,
    /// Whether endpoints of the client's own zone are preferred.
    pub zones: Zones,
    /// Time over which an endpoint that has just come gets its full share, up to [`MAX_SLOW_START`]. Default: at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Duration>,
    /// Per cent, 0 to 100: when fewer of the endpoints are usable than this, all are used, usable or not. Default 0:
    /// only usable ones ever are.
    pub panic_threshold: u8,
    /// Keeps a client's requests at the endpoint that answered its first. Default: no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
}

/// Which endpoint gets the next request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Algorithm {
    /// Of two random endpoints the one with the lower product of recent latency and requests under way.
    #[default]
    PeakEwma,
    /// Of two random endpoints the one with fewer requests under way.
    LeastRequest,
    /// One after another.
    RoundRobin,
    /// Any.
    Random,
    /// The next one on a ring of hashes: when endpoints come or go, few keys change theirs.
    RingHash(ConsistentHash),
    /// By a look-up table that spreads keys more evenly than a ring of the same size.
    Maglev(ConsistentHash),
}

/// Consistent hashing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsistentHash {
    /// What is hashed. A request that does not have it goes to a random endpoint.
    pub key: HashKey,
    /// Least points on the ring ([`MIN_HASH_SIZE`] to [`MAX_RING_SIZE`], default 1024), or size of the table (a prime
    /// from [`MIN_HASH_SIZE`] to [`MAX_TABLE_SIZE`], which is the default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
}

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HashKey {
    /// Value of this header field (name in lower case).
    Header(String),
    /// Value of this cookie.
    Cookie(String),
    /// First value of this query parameter.
    Query(String),
    /// Address of the client, without its port. The only key that connections without requests have.
    SourceAddress,
}

/// Weight of the endpoints that all given conditions fit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointWeight {
    /// Zone of the endpoint's node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Name of the endpoint's node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Beginning of the pod's name, for example that of a Deployment and a dash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_prefix: Option<String>,
    /// 0 (no requests while others are there) to [`MAX_WEIGHT`].
    pub weight: u16,
}

/// Whether endpoints of the client's own zone are preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Zones {
    /// As the EndpointSlices' hints say, when all endpoints have them; what the zone's endpoints can't take goes to
    /// the others.
    #[default]
    Hints,
    /// The client's own zone as long as it has usable endpoints, hints or not; what they can't take goes to the others.
    Prefer,
    /// No.
    Ignore,
}

/// Keeps a client's requests at one endpoint for as long as that is usable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Where the client keeps which endpoint it is.
    pub kept_in: SessionKeeper,
    /// Name of the cookie, or of the header field in lower case.
    pub name: String,
    /// Life of the cookie, up to [`MAX_SESSION_TTL`]. Default: until the browser is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
}

/// Where a session is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SessionKeeper {
    /// In a cookie, set by the proxy.
    #[default]
    Cookie,
    /// In a header field that the proxy adds to responses and the client sends back.
    Header,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_told_from_other_numbers() {
        let primes: Vec<_> = (0..32).filter(|number| is_prime(*number)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31]);
        assert!(is_prime(MAX_TABLE_SIZE) && !is_prime(251 * 257));
    }
}
