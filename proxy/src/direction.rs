//! The two ways through a sidecar.

/// Which way a connection crosses the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the pod's application to the mesh.
    Outbound,
    /// From the mesh to the pod's application.
    Inbound,
}

impl Direction {
    /// Label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}
