//! What the injector must know; the command line fills it in.

use ferrule_config::{identity::TrustDomain, names};

use super::{Metrics, Quantity, Readiness};

/// Everything that [`super::run`] needs besides a client.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the operator; its pods are never injected, and its Secret holds the certificate.
    pub namespace: String,
    /// Service in [`Self::namespace`] that leads to the webhook; it gives the certificate its name.
    pub webhook_service: String,
    /// MutatingWebhookConfiguration whose `caBundle` is kept up to date.
    pub webhook_configuration: String,
    /// TCP port of the webhook on all addresses of the host; 0 picks a free one.
    pub webhook_port: u16,
    /// Where sidecars get their certificates.
    pub identity: IdentitySettings,
    /// What is put into pods.
    pub proxy: ProxySettings,
    /// Counters that the caller has registered, to be rendered by the admin server. A clone shares them.
    pub metrics: Metrics,
    /// Tells the admin server whether this replica answers reviews. A clone shares the state.
    pub readiness: Readiness,
}

/// Where sidecars get their certificates, and the name under which they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitySettings {
    /// Namespace of the operator, where sidecars read which pod has which address.
    pub system_namespace: String,
    /// Name in the identity service's own certificate.
    pub server_name: String,
    /// Port of its Service.
    pub port: u16,
    /// The name under which all identities stand.
    pub trust_domain: TrustDomain,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        Self {
            system_namespace: names::SYSTEM_NAMESPACE.to_owned(),
            server_name: format!("{}.{}.svc", names::IDENTITY_SERVICE, names::SYSTEM_NAMESPACE),
            port: names::ports::IDENTITY,
            trust_domain: TrustDomain::default(),
        }
    }
}

/// The sidecar as it is without annotations on the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxySettings {
    /// Image of both containers.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`; Kubernetes' own default when absent.
    pub image_pull_policy: Option<String>,
    /// Log filter of the sidecar, for example `info`.
    pub log_level: String,
    /// Lines about single requests.
    pub access_log: AccessLog,
    /// Requests and limits.
    pub resources: Resources,
}

/// Whether and how the sidecar writes a line for each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// One of [`Self::FORMATS`].
    pub format: String,
    /// One of [`Self::FILTERS`].
    pub filter: String,
}

impl AccessLog {
    /// Formats; `off` is none.
    pub const FORMATS: [&str; 3] = ["off", "text", "json"];
    /// All requests, or those that failed.
    pub const FILTERS: [&str; 2] = ["all", "errors"];
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { format: "off".to_owned(), filter: "all".to_owned() }
    }
}

/// Requests and limits of the sidecar; what is absent is not set on the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU that the scheduler sets aside.
    pub cpu_request: Option<Quantity>,
    /// CPU that throttling starts at.
    pub cpu_limit: Option<Quantity>,
    /// Memory that the scheduler sets aside.
    pub memory_request: Option<Quantity>,
    /// Memory that the container is killed at.
    pub memory_limit: Option<Quantity>,
}

impl Settings {
    /// Settings with every name and default of the chart, for the given proxy image.
    #[must_use]
    pub fn new(proxy_image: impl Into<String>) -> Self {
        let quantity = |text: &str| Some(text.parse().expect("the defaults are quantities"));
        Self {
            namespace: names::SYSTEM_NAMESPACE.to_owned(),
            webhook_service: "ferrule-webhook".to_owned(),
            webhook_configuration: "ferrule-injector".to_owned(),
            webhook_port: names::ports::WEBHOOK,
            identity: IdentitySettings::default(),
            proxy: ProxySettings {
                image: proxy_image.into(),
                image_pull_policy: None,
                log_level: "info".to_owned(),
                access_log: AccessLog::default(),
                resources: Resources {
                    cpu_request: quantity("10m"),
                    cpu_limit: None,
                    memory_request: quantity("20Mi"),
                    memory_limit: quantity("256Mi"),
                },
            },
            metrics: Metrics::default(),
            readiness: Readiness::default(),
        }
    }

    /// Name by which the API server calls the webhook.
    #[must_use]
    pub fn server_name(&self) -> String {
        format!("{}.{}.svc", self.webhook_service, self.namespace)
    }
}
