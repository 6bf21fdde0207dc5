//! TLS between sidecars: who is spoken to in TLS, and who has proved to be whom.
//!
//! ```text
//!   identity ──changes──▶ material (keys, roots, tickets) ─┬─▶ dial: to an endpoint, verified for its Service's accounts
//!                                                          └─▶ accept: from a client, whoever it is in the mesh
//!   Service::peers ─▶ expected ─▶ plain or TLS, and why         stream: bytes in, bytes out
//! ```
//!
//! Nothing here knows of requests. `docs/security.md` has the rules and what they are worth.

pub mod accept;
pub mod alpn;
#[cfg(feature = "tls")]
mod diagnosis;
pub mod dial;
pub mod error;
pub mod expected;
#[cfg_attr(not(feature = "tls"), path = "none/handshake.rs")]
mod handshake;
#[cfg_attr(not(feature = "tls"), path = "none/material.rs")]
pub mod material;
pub mod mode;
#[cfg_attr(not(feature = "tls"), path = "none/stream.rs")]
pub mod stream;
#[cfg(feature = "tls")]
pub mod verify;

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwapOption;

use self::{
    material::Material,
    mode::{Inbound, InboundPolicy},
};
use crate::telemetry::Telemetry;

/// What all threads share; clones are the same.
#[derive(Clone, Debug)]
pub struct Tls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    material: ArcSwapOption<Material>,
    inbound: Inbound,
    /// The pod's own addresses: what goes there never leaves it.
    own: Vec<IpAddr>,
    telemetry: Arc<Telemetry>,
}

impl Tls {
    /// Without an identity so far. `known`: the policy is the one that holds, and not what holds where nothing is said. `own`:
    /// the pod's addresses.
    #[must_use]
    pub fn new(policy: InboundPolicy, known: bool, own: Vec<IpAddr>, telemetry: Arc<Telemetry>) -> Self {
        let inbound = Inbound::new(policy, known);
        Self(Arc::new(Shared { material: ArcSwapOption::empty(), inbound, own, telemetry }))
    }

    /// What handshakes are made with; nothing while there is no identity.
    #[must_use]
    pub fn material(&self) -> Option<Arc<Material>> {
        self.0.material.load_full()
    }

    /// What this pod accepts, and whom it has seen.
    #[must_use]
    pub fn inbound(&self) -> &Inbound {
        &self.0.inbound
    }

    /// Whether this is an address of the pod.
    fn is_own(&self, address: IpAddr) -> bool {
        self.0.own.contains(&address)
    }

    fn telemetry(&self) -> &Arc<Telemetry> {
        &self.0.telemetry
    }
}
