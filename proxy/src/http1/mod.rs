//! HTTP/1.0 and HTTP/1.1 as RFC 9110 and RFC 9112 have it: bytes to meaning and back, no I/O.
//!
//! ```text
//!   head, body   bytes to meaning, strictly: one interpretation of the framing or none
//!   rewrite      head in, head out: hop-by-hop fields dropped, the route's changes applied
//!   reply        responses that the proxy makes itself
//! ```

pub mod body;
pub mod head;
pub mod reply;
pub mod rewrite;
