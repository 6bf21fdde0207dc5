//! Names, labels, annotations and ports that the operator, the injector, the proxy and the chart agree on.

/// API group of Ferrule's custom resources.
pub const GROUP: &str = "ferrule.dev";
/// Name of the ConfigMap in every meshed namespace that holds its [`crate::Mesh`]. Shards after the
/// first are called `ferrule-1`, `ferrule-2`, ….
pub const CONFIG_MAP: &str = "ferrule";
/// Field manager of everything the operator applies.
pub const FIELD_MANAGER: &str = "ferrule-operator";
/// Namespace that the operator lives in unless the chart is installed elsewhere.
pub const SYSTEM_NAMESPACE: &str = "ferrule-system";
/// Label on a namespace (`enabled`) that asks for injection, and on a pod (`disabled`) that declines it.
pub const INJECT_LABEL: &str = "ferrule.dev/inject";
/// Name of the sidecar container in an injected pod.
pub const PROXY_CONTAINER: &str = "ferrule-proxy";
/// Name of the init container that sets the redirect in an injected pod.
pub const INIT_CONTAINER: &str = "ferrule-init";
/// Response header on everything that a proxy answers by itself; its value names the cause.
pub const ERROR_HEADER: &str = "ferrule-error";
/// ClusterRole that lets a sidecar read Services, EndpointSlices and `ferrule` ConfigMaps.
pub const PROXY_ROLE: &str = "ferrule-proxy";
/// User and group id of the sidecar; its traffic is exempt from the redirect.
pub const PROXY_UID: u32 = 15100;

/// Port block 15101 to 15120.
pub mod ports {
    /// Sidecar: redirected outbound connections.
    pub const OUTBOUND: u16 = 15101;
    /// Sidecar: redirected inbound connections.
    pub const INBOUND: u16 = 15102;
    /// Sidecar: `/ready`, `/live`, `/metrics`, `/config`.
    pub const ADMIN: u16 = 15110;
    /// Operator: admission webhook (HTTPS).
    pub const WEBHOOK: u16 = 15111;
    /// Operator: `/ready`, `/live`, `/metrics`.
    pub const OPERATOR_ADMIN: u16 = 15112;
}
