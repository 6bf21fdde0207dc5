//! Reconciles custom resources.
//!
//! ```text
//!   watches ──▶ observe (stores only) ──▶ compile (pure) ──▶ plan (pure) ──▶ apply ──▶ ConfigMap `ferrule`
//!                                                                             └─────▶ status.conditions
//! ```
//!
//! Every replica watches and keeps its stores warm; the one that holds the Lease writes. What can be decided
//! without the API server is decided by pure functions of what was observed, and tested as such:
//! [`compile`] what the mesh should do, [`plan`] what the cluster lacks, [`schedule`] whose turn it is.

#[cfg(feature = "kubernetes")]
pub mod admin;
#[cfg(feature = "kubernetes")]
mod apply;
pub mod compile;
#[cfg(feature = "kubernetes")]
mod election;
#[cfg(feature = "kubernetes")]
mod inquiry;
#[cfg(feature = "kubernetes")]
mod metrics;
pub mod observe;
pub mod plan;
pub mod ratchet;
#[cfg(feature = "kubernetes")]
mod reconcile;
#[cfg(feature = "kubernetes")]
mod refusal;
#[cfg(feature = "kubernetes")]
mod run;
pub mod schedule;
pub mod status;
#[cfg(feature = "kubernetes")]
mod watch;
pub mod writes;

#[cfg(feature = "kubernetes")]
pub use election::{LEASE, Lead, Tenure};
#[cfg(feature = "kubernetes")]
pub use metrics::{Health, Metrics, Operation, Outcome};
#[cfg(feature = "kubernetes")]
pub(crate) use refusal::Refusal;
#[cfg(feature = "kubernetes")]
pub use run::{Settings, run};
