//! The `ferrule-proxy` binary.
fn main() {}
