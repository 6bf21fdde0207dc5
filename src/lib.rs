//! Ferrule's operator, injector and command line.
//!
//! ```text
//!   API server ──watch──▶ controller: observe → compile (pure) → apply ──▶ ConfigMap `ferrule`, status
//!   API server ──admission review──▶ injector: review in, JSON patch out ──▶ pod with a sidecar
//!   sidecar ──token and CSR──▶ identity: token reviewed, certificate signed ──▶ sidecar
//! ```

pub mod api;
#[cfg(feature = "kubernetes")]
mod backoff;
pub mod cli;
pub mod controller;
#[cfg(feature = "kubernetes")]
mod https;
#[cfg(feature = "kubernetes")]
pub mod identity;
#[cfg(feature = "kubernetes")]
pub mod injector;
pub mod local;
#[cfg(feature = "kubernetes")]
mod sidecars;
