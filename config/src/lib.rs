//! What Ferrule's operator writes and its proxy reads.
//!
//! ```text
//!   Route, CircuitPolicy, …  ──compile──▶  Mesh  ──JSON──▶  ConfigMap `ferrule`  ──▶  proxy
//! ```
//!
//! One [`Mesh`] describes one namespace. The operator serialises it into the ConfigMap
//! [`names::CONFIG_MAP`] of that namespace (see [`shard`]); the proxy parses it back and keeps
//! its last good one when a new one does not parse. This crate knows serde and nothing of
//! Kubernetes clients or sockets, so that both sides can depend on it and on nothing of each other.

pub mod access;
mod act;
mod balancer;
mod duration;
pub mod identity;
mod mesh;
pub mod names;
mod pattern;
pub mod peers;
pub mod probe;
mod retry;
pub mod shard;
mod tls;
pub mod trust;

pub use act::{Abort, Cors, Delay, DirectResponse, Fault, FaultStatus, PathRewrite, Redirect, Rewrite};
pub use balancer::{
    Algorithm, Balancer, ConsistentHash, EndpointWeight, HashKey, MAX_RING_SIZE, MAX_SESSION_TTL,
    MAX_SLOW_START, MAX_TABLE_SIZE, MAX_WEIGHT, MAX_WEIGHTS, MIN_HASH_SIZE, PortBalancer, Session,
    SessionKeeper, Zones, is_prime,
};
pub use duration::{Duration, DurationError};
pub use mesh::{
    Backend, FORMAT, HeaderChange, HeaderMatch, Match, Mesh, PathMatch, QueryMatch, RouteEntry, Rule,
    Service, SourceMatch, Timeouts, ValueMatch,
};
pub use pattern::{MAX_PATTERN, Pattern, PatternError};
pub use retry::{Backoff, MAX_RETRIES, Retry, RetryBudget, RetryOn};
pub use tls::{
    MAX_PLAINTEXT_CLIENTS, MinVersion, Modes, Peers, PlaintextClient, PlaintextReport, Selector, TlsMode,
    WorkloadTls,
};
