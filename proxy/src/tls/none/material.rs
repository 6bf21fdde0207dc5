//! A build without TLS has nothing to make handshakes with.

use std::convert::Infallible;

use ferrule_config::identity::SpiffeId;

use super::Tls;
use crate::identity::Identity;

/// There is none.
#[derive(Debug)]
pub struct Material {
    /// Who this sidecar is.
    pub id: SpiffeId,
    pub(super) never: Infallible,
}

impl Tls {
    /// An identity that there is not has no changes.
    pub fn follow(&self, _: Identity) {}
}
