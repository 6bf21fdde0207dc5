//! Ferrule's tests on a real cluster: the programs that run in pods, and the harness around kubectl and helm.
//!
//! ```text
//!   tests/GROUP ──▶ suite (a Scene each)     ──▶ cluster (kubectl, helm) ──▶ API server
//!                     │                     └──▶ client (testclient in a pod) ──▶ workload::report
//!                     └─ on failure: diagnosis
//! ```

pub mod api;
pub mod client;
pub mod cluster;
pub mod command;
pub mod diagnosis;
pub mod exec;
pub mod forward;
pub mod identities;
pub mod install;
pub mod memory;
pub mod metrics;
pub mod namespace;
pub mod rights;
pub mod scene;
pub mod shop;
pub mod stats;
pub mod suite;
pub mod wait;
pub mod workload;
