//! Ferrule's custom resources as Rust types; their doc comments are what `kubectl explain` prints.
//!
//! ```text
//!   Route           what happens to requests for a Service: where they go, with which header, how long
//!   BalancerPolicy  how they are spread over the endpoints of the Service that they go to
//!   CircuitPolicy   when to stop sending to a Service that fails
//!   MeshTLS         whether pods accept only encrypted connections
//!   AccessPolicy    who may call what
//! ```
//!
//! What the API server can check it checks: schema, bounds and CEL rules are derived from the types, and
//! [`crd::all`] turns them into CustomResourceDefinitions. Everything is checked again when it is compiled,
//! because an object may have been stored under an older schema, or come from a file.

#![allow(clippy::duplicated_attributes, reason = "each printer column has a `type_` of its own")]
#![allow(unreachable_pub, reason = "KubeSchema repeats each `pub` struct inside of a function")]

pub mod access_policy;
pub mod balancer_policy;
pub mod circuit_policy;
pub mod crd;
pub mod mesh_tls;
mod percent;
pub mod route;
mod schema;
mod status;
mod target;

pub use access_policy::{AccessPolicy, AccessPolicySpec};
pub use balancer_policy::{BalancerPolicy, BalancerPolicySpec};
pub use circuit_policy::{CircuitPolicy, CircuitPolicySpec};
pub use mesh_tls::{MeshTLS, MeshTLSSpec, MeshTLSStatus};
pub use percent::{Percent, PercentError};
pub use route::{Route, RouteSpec};
pub use schema::{FORBIDDEN_HEADERS, GRPC_STATUSES};
pub use status::Status;
pub use target::{
    PodsTarget, PolicyTarget, PolicyTargetKind, PortTarget, ServiceGroup, ServiceKind, ServiceTarget,
};

/// Version of all kinds.
pub const VERSION: &str = "v1alpha1";
