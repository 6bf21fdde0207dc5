//! What a decision is about.

use std::net::IpAddr;

use ferrule_config::identity::SpiffeId;

use crate::message::Field;

/// Who calls, and where.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Who it has proved to be; nothing on a plain connection.
    pub identity: Option<&'a SpiffeId>,
    /// Where its connection comes from.
    pub address: IpAddr,
    /// Port of the application.
    pub port: u16,
}

/// A request, as it will be forwarded.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Method, as received.
    pub method: &'a str,
    /// Path without query, as received.
    pub path: &'a str,
    /// Header fields, as received. Needed only where [`Policy::needs_fields`](super::Policy::needs_fields).
    pub fields: &'a [Field<'a>],
}
