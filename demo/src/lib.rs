//! `make demo`: what it shows, measured.
//!
//! ```text
//!   load ──▶ frontend ──▶ its proxy ──Route──▶ proxy of backend-v1 ──▶ backend-v1   90, then 50 of 100
//!                                        └───▶ proxy of backend-v2 ──▶ backend-v2   10, then 50 of 100
//! ```
//!
//! The services (`demo-frontend`, `demo-backend`) know nothing of the mesh. `ferrule-demo` runs them with
//! `ferrule local`, sends requests all the time, edits the Route meanwhile, and judges what it saw.

pub mod load;
pub mod mesh;
pub mod service;
pub mod split;
