//! What the fuzz targets share: a second parser, and the proxy's road of a message without its sockets.

pub mod forward;
pub mod strict;
