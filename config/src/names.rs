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
/// Request header on an attempt that follows another: which one it is, from 2 on. Who passes it on to the requests that it
/// makes itself lets the sidecars on the way know that these are not to be sent again.
pub const ATTEMPT_HEADER: &str = "ferrule-attempt";
/// Request header with the time that is left for the response, in milliseconds.
pub const DEADLINE_HEADER: &str = "ferrule-deadline";
/// ClusterRole that lets a sidecar read Services, EndpointSlices and `ferrule` ConfigMaps.
pub const PROXY_ROLE: &str = "ferrule-proxy";
/// Audience of the tokens that sidecars show to the identity service, and of no others.
pub const IDENTITY_AUDIENCE: &str = "ferrule.dev/identity";
/// Service in the operator's namespace that leads to the identity service.
pub const IDENTITY_SERVICE: &str = "ferrule-identity";
/// ConfigMap in every meshed namespace with the trust bundle ([`TRUST_BUNDLE_KEY`]) and the address of the identity
/// service ([`IDENTITY_ADDRESS_KEY`]).
pub const TRUST_CONFIG_MAP: &str = "ferrule-trust";
/// Key of the trust bundle, and its file name where it is mounted.
pub const TRUST_BUNDLE_KEY: &str = "ca.crt";
/// Key of the identity service's address (`IP:PORT`), and its file name where it is mounted.
pub const IDENTITY_ADDRESS_KEY: &str = "address";
/// Where the sidecar's token, trust bundle and address for the identity service are mounted.
pub const IDENTITY_FILES: &str = "/var/run/secrets/ferrule.dev/identity";
/// File beside these with the pod's labels, as the downward API writes them.
pub const LABELS_FILE: &str = "labels";
/// Path of the identity service that certificates are asked for at.
pub const CERTIFICATES_PATH: &str = "/v1/certificates";
/// Annotation on pods with ports, separated by commas, that go to the application directly.
pub const EXCLUDE_INBOUND_PORTS_ANNOTATION: &str = "ferrule.dev/exclude-inbound-ports";
/// Annotation on pods that have a sidecar; its value is the version of the injector.
pub const INJECTED_ANNOTATION: &str = "ferrule.dev/injected";
/// User and group id of the sidecar; its traffic is exempt from the redirect.
pub const PROXY_UID: u32 = 15100;

/// Port block 15101 to 15120.
pub mod ports {
    /// Sidecar: redirected outbound connections.
    pub const OUTBOUND: u16 = 15101;
    /// Sidecar: redirected inbound connections.
    pub const INBOUND: u16 = 15102;
    /// Sidecar: `/ready`, `/live`, `/metrics`, `/config`, `/identity`.
    pub const ADMIN: u16 = 15110;
    /// Operator: admission webhook (HTTPS).
    pub const WEBHOOK: u16 = 15111;
    /// Operator: `/ready`, `/live`, `/metrics`.
    pub const OPERATOR_ADMIN: u16 = 15112;
    /// Operator: certificates for sidecars (HTTPS).
    pub const IDENTITY: u16 = 15113;
}
