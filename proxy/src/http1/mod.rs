//! HTTP/1.0 and HTTP/1.1 as RFC 9110 and RFC 9112 have it.
//!
//! ```text
//!   connection   one client connection: head → exchange → next head …
//!      │
//!   exchange     one request: attempts, each to one endpoint; bodies in both directions at once
//!      │
//!   head, body   bytes to meaning, strictly: one interpretation of the framing or none
//!   rewrite      head in, head out: hop-by-hop fields dropped, the route's changes applied
//! ```

pub mod body;
pub mod buffer;
mod connection;
mod exchange;
pub mod head;
pub mod reply;
pub mod rewrite;
mod timer;

pub use connection::serve;
