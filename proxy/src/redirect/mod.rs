//! Sets the nftables rules that send a pod's traffic through its sidecar.
//!
//! ```text
//!   environment ──config──▶ Config ──rules──▶ Table ──encode──▶ netlink batch ──netlink──▶ kernel
//!                                   (pure)           (pure)                    (one transaction)
//!
//!   application ──connect──▶ output chain ──redirect──▶ 127.0.0.1:15101 or [::1]:15101   outbound listener
//!   peer ──connect──▶ prerouting chain ──redirect──▶ (pod address):15102                 inbound listener
//! ```
//!
//! It runs as the pod's init container, with uid 0 and the capability NET_ADMIN, and speaks netlink by
//! itself: the image holds no `nft` and no `iptables`. One batch replaces whatever an earlier run left, so
//! a second run is harmless and a failed one changes nothing.
//!
//! What is never redirected, and why there is no loop:
//! - what the proxy's own user sends, or everything that the proxy forwards would come back to it;
//! - what stays in the pod: the loopback interface, and any address that is the pod's own. A connection from
//!   the proxy to an application in its own pod is both, and it reaches the application directly;
//! - what is not TCP. UDP and ICMP take their way as if there were no mesh;
//! - what arrives for the proxy's own ports. A peer may thus connect to a listener directly; the connection's
//!   original destination is then the listener itself, and the proxy must refuse it, or it would forward to
//!   itself;
//! - what the pod merely forwards for others, for example for containers inside it.

mod config;
mod encode;
mod netlink;
pub mod rules;

use std::io;

use thiserror::Error;

pub use config::{Config, ConfigError, Network};
use rules::Table;

/// Why the redirect is not in force. The rules that were there before are unchanged, except after
/// [`Error::Incomplete`].
#[derive(Debug, Error)]
pub enum Error {
    /// No netlink socket to be had.
    #[error("cannot open a netlink socket to nf_tables: {source}; {}", netlink::remedy(.source))]
    Open {
        /// What the system said.
        source: io::Error,
    },
    /// The batch could not be sent or its answer not be read.
    #[error("cannot talk to nf_tables over netlink: {source}; {}", netlink::remedy(.source))]
    Transport {
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused one message, and with it all of them.
    #[error("the kernel refused `{message}`: {source}; {}", netlink::remedy(.source))]
    Refused {
        /// The refused message, as `nft` would write it.
        message: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel acknowledged the batch, but its table does not hold what was sent.
    #[error(
        "table {table} holds {found} rules after {expected} were set; does something else in this pod edit nftables?"
    )]
    Incomplete {
        /// Name of the table.
        table: String,
        /// Rules that were sent.
        expected: usize,
        /// Rules that were read back.
        found: usize,
    },
}

/// Puts the redirect that `config` describes in force in the current network namespace.
///
/// # Errors
/// See [`Error`]; each names its probable cause.
pub fn run(config: &Config) -> Result<(), Error> {
    let table = Table::redirect(config);
    apply(&table)?;
    tracing::info!(
        table = %table.name,
        rules = table.rules().count(),
        proxy_uid = config.proxy_uid,
        outbound_port = config.outbound_port,
        inbound_port = config.inbound_port,
        exclude_uids = ?config.exclude_uids,
        exclude_inbound_ports = ?config.exclude_inbound_ports,
        exclude_outbound_ports = ?config.exclude_outbound_ports,
        exclude_outbound_addresses = ?config.exclude_outbound_addresses,
        "redirect set"
    );
    Ok(())
}

/// Replaces the table of this name by `table`, or changes nothing, and reads back what is there then.
///
/// # Errors
/// See [`Error`].
pub fn apply(table: &Table) -> Result<(), Error> {
    netlink::commit(&encode::batch(table))?;
    let expected = table.rules().count();
    let found = netlink::count_rules(&table.name)?;
    if found == expected {
        Ok(())
    } else {
        Err(Error::Incomplete { table: table.name.clone(), expected, found })
    }
}
