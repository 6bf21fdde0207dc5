//! Connections that carry requests: each is decided on, sent to an endpoint, and its response forwarded.
//!
//! ```text
//!   http1 ─┬─▶ decide ─▶ http1::exchange   HTTP/1 on both sides: forwarded without being taken apart ─┬─▶ attempts
//!   http2 ─┘         └─▶ translate         HTTP/2 on either side                                     ─┘
//! ```

mod attempts;
mod decide;
pub mod http1;
pub mod http2;
mod translate;
