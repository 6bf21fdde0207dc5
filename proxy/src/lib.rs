//! The sidecar proxy of the Ferrule service mesh.
//!
//! ```text
//!   app ─redirect─▶ outbound ─▶ http1 │ tcp ─▶ route ─▶ retry ─▶ balance ─▶ pool ─▶ network ─▶ inbound ─▶ app
//!                      │
//!                  Directory ◀─ snapshots ─ discovery ◀─ API server │ directory of files
//! ```
//!
//! Pure decisions (`route`, `balance`, `retry`, `detect`, `access::policy`) know nothing of sockets; `snapshot` and `pool` stand
//! above them, `http1` and `tcp` above those, `inbound` and `outbound` on top. `discovery` writes snapshots
//! and imports nothing of the data path.

pub mod access;
pub mod act;
pub mod admin;
pub mod app;
pub mod balance;
pub mod buffer;
pub mod cause;
pub mod deadline;
pub mod detect;
pub mod direction;
pub mod discovery;
pub mod drain;
pub mod http1;
pub mod http2;
#[cfg_attr(not(feature = "tls"), path = "no_identity.rs")]
pub mod identity;
pub mod inbound;
pub mod limits;
pub mod memory;
pub mod message;
pub mod net;
pub mod outbound;
pub mod peer;
pub mod pool;
pub mod probe;
pub mod redirect;
pub mod retry;
pub mod route;
pub mod secrecy;
mod serve;
pub mod settings;
pub mod snapshot;
mod sniff;
pub mod stream;
pub mod tcp;
pub mod telemetry;
pub mod tls;
pub mod worker;
