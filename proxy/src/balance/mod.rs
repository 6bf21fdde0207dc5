//! Which endpoint gets the next request: pure decisions over counters that the data path keeps.
//!
//! ```text
//!   Balancer (tiers, panic, sessions) ─▶ group (an algorithm over equally good endpoints, weights, slow start)
//!       ▲ members, zones                    └─▶ peak_ewma  least_request  round_robin  random  ring_hash  maglev
//! ```

mod affinity;
mod balancer;
mod endpoint;
mod group;
pub mod hash;
pub mod key;
pub mod least_request;
pub mod maglev;
mod member;
mod peak_ewma;
pub mod random;
pub mod ring_hash;
pub mod round_robin;
pub mod session;
pub mod slow_start;
pub mod zones;

pub use affinity::Affinity;
pub use balancer::{Balancer, Pick};
pub use endpoint::Endpoint;
pub use key::parameter;
pub use member::{Hints, Locality, Member, State};
pub use peak_ewma::{Load, PeakEwma};
