//! Who is at the other end of an inbound connection.

use std::{net::IpAddr, sync::Arc};

use ferrule_config::identity::SpiffeId;

/// The other end of an inbound connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it has proved to be by its certificate; nothing on a plain connection.
    pub identity: Option<Arc<SpiffeId>>,
    /// Where it comes from. An address is no identity: it may have been masqueraded.
    pub address: IpAddr,
}
