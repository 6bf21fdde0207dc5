//! The sidecar proxy of the Ferrule service mesh.

pub mod redirect;
