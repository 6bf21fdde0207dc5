//! Ferrule's custom resources as Rust types.
