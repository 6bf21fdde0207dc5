//! HTTP/2 (RFC 9113), both roles, on one thread.
//!
//! ```text
//!   socket ─▶ driver ─▶ connection ─▶ core (pure: frames in, frames out) ─▶ streams, by number
//!            (reads, writes) ▲            │        │
//!                            │          hpack    flood
//!             a request ─▶ stream (async handle)
//! ```
//!
//! One task drives a connection's socket; every request has a task of its own and speaks to the connection through
//! a [`Stream`](stream::Stream). Bodies are bounded by the windows: what nobody takes is not asked for.

pub mod connection;
pub mod core;
pub mod driver;
pub mod fields;
pub mod flood;
pub mod frame;
pub mod hpack;
pub mod stream;
pub mod streams;
pub mod upstreams;
