//! `ferrule operator`: controller, injector and admin server in one process.

use std::{io, time::Duration};

use anyhow::Context as _;
use ferrule_config::{Duration as Text, identity::TrustDomain, names};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    controller::{self, admin},
    identity::{self, Life},
    injector::{self, Quantity},
};

/// Longest wait for everything to end once asked to.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Arguments of `ferrule operator`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Namespace that the operator runs in.
    #[arg(long, env = "POD_NAMESPACE", default_value = names::SYSTEM_NAMESPACE)]
    pub namespace: String,
    /// Name of this pod, its identity among the replicas. Default: the host's name.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// Service, in the operator's namespace, that leads to the webhook.
    #[arg(long, env = "FERRULE_WEBHOOK_SERVICE", default_value = "ferrule-webhook")]
    pub webhook_service: String,
    /// MutatingWebhookConfiguration whose caBundle is kept up to date.
    #[arg(long, env = "FERRULE_WEBHOOK_CONFIGURATION", default_value = "ferrule-injector")]
    pub webhook_configuration: String,
    /// Port of the webhook (HTTPS).
    #[arg(long, env = "FERRULE_WEBHOOK_LISTEN_PORT", default_value_t = names::ports::WEBHOOK)]
    pub webhook_port: u16,
    /// Port of /ready, /live and /metrics (HTTP).
    #[arg(long, env = "FERRULE_ADMIN_LISTEN_PORT", default_value_t = names::ports::OPERATOR_ADMIN)]
    pub admin_port: u16,
    /// Who is who in the mesh.
    #[command(flatten)]
    pub identity: IdentityArgs,
    /// What is put into pods.
    #[command(flatten)]
    pub proxy: ProxyArgs,
}

/// Identities and their authority; see docs/identity.md.
#[derive(Debug, clap::Args)]
pub struct IdentityArgs {
    /// Port of the identity service (HTTPS).
    #[arg(long, env = "FERRULE_IDENTITY_LISTEN_PORT", default_value_t = names::ports::IDENTITY)]
    pub identity_port: u16,
    /// Service, in the operator's namespace, that leads to the identity service.
    #[arg(long, env = "FERRULE_IDENTITY_SERVICE", default_value = names::IDENTITY_SERVICE)]
    pub identity_service: String,
    /// Name under which all identities stand: spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT.
    #[arg(long, env = "FERRULE_TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: TrustDomain,
    /// Life of certificates, 2m to 168h. Sidecars renew them at half of it.
    #[arg(long, env = "FERRULE_CERTIFICATE_LIFE", default_value = "24h")]
    pub certificate_life: Life,
    /// Secret in the operator's namespace with an authority of yours, as cert-manager writes it: tls.crt, tls.key, ca.crt.
    /// Default: the operator makes its own.
    #[arg(long, env = "FERRULE_AUTHORITY_SECRET", value_name = "NAME")]
    pub authority_secret: Option<String>,
    /// Accept a token only from an address of the pod that it is bound to. Turn it off where the cluster's network
    /// replaces the source address of connections to Services.
    #[arg(long, env = "FERRULE_CHECK_ADDRESS", default_value_t = true, action = clap::ArgAction::Set)]
    pub check_address: bool,
    /// How long a rotation of the root may wait for sidecars before an Event says so.
    #[arg(long, env = "FERRULE_ROTATION_PATIENCE", default_value = "15m")]
    pub rotation_patience: Text,
}

/// The sidecar that the injector puts into pods.
#[derive(Debug, clap::Args)]
pub struct ProxyArgs {
    /// Image of the sidecar and of the init container.
    #[arg(long, env = "FERRULE_PROXY_IMAGE", default_value = concat!("ferrule-proxy:", env!("CARGO_PKG_VERSION")))]
    pub proxy_image: String,
    /// When the image is pulled: Always, IfNotPresent or Never. Default: what Kubernetes makes of its tag.
    #[arg(long, env = "FERRULE_PROXY_IMAGE_PULL_POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub proxy_image_pull_policy: Option<String>,
    /// Log filter of sidecars, unless an annotation says otherwise.
    #[arg(long, env = "FERRULE_PROXY_LOG_LEVEL", default_value = "info")]
    pub proxy_log_level: String,
    /// Whether sidecars write a line for each request, unless an annotation says otherwise: off, text or json.
    #[arg(long, env = "FERRULE_PROXY_ACCESS_LOG", default_value = "off", value_parser = injector::AccessLog::FORMATS)]
    pub proxy_access_log: String,
    /// Which requests they write a line for: all, or errors.
    #[arg(long, env = "FERRULE_PROXY_ACCESS_LOG_FILTER", default_value = "all", value_parser = injector::AccessLog::FILTERS)]
    pub proxy_access_log_filter: String,
    /// CPU that the scheduler sets aside for a sidecar.
    #[arg(long, env = "FERRULE_PROXY_CPU_REQUEST", default_value = "10m")]
    pub proxy_cpu_request: Quantity,
    /// Memory that the scheduler sets aside for a sidecar.
    #[arg(long, env = "FERRULE_PROXY_MEMORY_REQUEST", default_value = "20Mi")]
    pub proxy_memory_request: Quantity,
    /// CPU that a sidecar is throttled at. Default: none.
    #[arg(long, env = "FERRULE_PROXY_CPU_LIMIT")]
    pub proxy_cpu_limit: Option<Quantity>,
    /// Memory that a sidecar is killed at.
    #[arg(long, env = "FERRULE_PROXY_MEMORY_LIMIT", default_value = "256Mi")]
    pub proxy_memory_limit: Quantity,
}

/// Runs the operator until SIGTERM or SIGINT.
///
/// # Errors
/// When it can't begin, or a part of it ends by itself.
pub fn run(args: Args) -> anyhow::Result<()> {
    super::log::init()?;
    if let Err(error) = super::secrecy::keep() {
        warn!(%error, "a core dump of this process would hold the keys of the mesh's authority");
    }
    // An error means that there is one already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(operate(args))
}

async fn operate(args: Args) -> anyhow::Result<()> {
    let client = Client::try_default().await.context(
        "cannot find the cluster; inside a pod the service account token must be mounted, outside set KUBECONFIG",
    )?;
    let stop = stop_on_signal().context("cannot listen to signals")?;
    let Args {
        namespace,
        pod_name,
        webhook_service,
        webhook_configuration,
        webhook_port,
        admin_port,
        identity: identities,
        proxy,
    } = args;
    // An empty holder is how a Lease says that it is free.
    let identity = pod_name
        .filter(|name| !name.is_empty())
        .map_or_else(host_name, Ok)
        .context("cannot tell the host's name; give --pod-name")?;

    let lead = controller::Lead::default();
    let identities = identity_settings(identities, &namespace, &identity);
    let controller = controller::Settings {
        namespace: namespace.clone(),
        identity: identity.clone(),
        sidecar_port: names::ports::ADMIN,
        lead: lead.clone(),
        metrics: controller::Metrics::default(),
        health: controller::Health::default(),
    };
    let injector = injector::Settings {
        namespace: namespace.clone(),
        webhook_service,
        webhook_configuration,
        webhook_port,
        identity: injector::IdentitySettings {
            system_namespace: identities.namespace.clone(),
            server_name: identities.server_name(),
            port: names::ports::IDENTITY,
            trust_domain: identities.trust_domain.clone(),
        },
        proxy: proxy.into(),
        metrics: injector::Metrics::default(),
        readiness: injector::Readiness::default(),
    };
    let listener = admin::listen(admin_port).await?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        namespace, identity, admin_port, webhook_port, "operator starts"
    );

    // The admin server outlives the others, so that it tells how they end.
    let (admin_end, admin_stop) = watch::channel(false);
    let told = admin_of(&controller, &injector, &identities);
    let mut admin = tokio::spawn(admin::serve(listener, told, admin_stop));
    let mut controller = tokio::spawn(controller::run(client.clone(), controller, stop.clone()));
    let mut identities = tokio::spawn(identity::run(client.clone(), identities, lead, stop.clone()));
    let mut injector = tokio::spawn(injector::run(client, injector, stop.clone()));

    let mut stopped = stop.clone();
    tokio::select! {
        _ = stopped.wait_for(|stop| *stop) => info!("operator stops"),
        ended = &mut admin => { ended??; anyhow::bail!("the admin server ended by itself"); }
        ended = &mut controller => { ended?; anyhow::ensure!(*stop.borrow(), "the controller ended by itself"); }
        ended = &mut injector => { ended??; anyhow::ensure!(*stop.borrow(), "the injector ended by itself"); }
        ended = &mut identities => { ended??; anyhow::ensure!(*stop.borrow(), "the identity service ended by itself"); }
    }
    let all = async {
        if !controller.is_finished() {
            (&mut controller).await?;
        }
        if !injector.is_finished() {
            (&mut injector).await??;
        }
        if !identities.is_finished() {
            (&mut identities).await??;
        }
        anyhow::Ok(())
    };
    match timeout(SHUTDOWN, all).await {
        Ok(ended) => ended?,
        Err(_) => warn!("does not end in time; what is under way is given up"),
    }
    admin_end.send_replace(true);
    Ok(())
}

fn identity_settings(args: IdentityArgs, namespace: &str, replica: &str) -> identity::Settings {
    let IdentityArgs {
        identity_port,
        identity_service,
        trust_domain,
        certificate_life,
        authority_secret,
        check_address,
        rotation_patience,
    } = args;
    identity::Settings {
        namespace: namespace.to_owned(),
        service: identity_service,
        port: identity_port,
        trust_domain,
        life: certificate_life,
        authority_secret: authority_secret.filter(|name| !name.is_empty()),
        rotation_patience: rotation_patience.get(),
        check_address,
        ..identity::Settings::new(replica)
    }
}

fn admin_of(
    controller: &controller::Settings,
    injector: &injector::Settings,
    identities: &identity::Settings,
) -> admin::Admin {
    let mut registry = Registry::default();
    identities.metrics.register(&mut registry);
    controller.metrics.register(&mut registry);
    injector.metrics.register(&mut registry);
    let (ready, alive, webhook) =
        (controller.health.clone(), controller.health.clone(), injector.readiness.clone());
    let unready = move || {
        let mut missing: Vec<String> =
            ready.missing().into_iter().map(|kind| format!("list of {kind}")).collect();
        if !webhook.is_ready() {
            missing.push("webhook certificate".to_owned());
        }
        missing
    };
    admin::Admin { registry, unready: Box::new(unready), alive: Box::new(move || alive.is_alive()) }
}

/// A signal that turns true on SIGTERM or SIGINT; a second one ends the process at once.
fn stop_on_signal() -> io::Result<watch::Receiver<bool>> {
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.send_replace(true) {
                warn!("asked to stop again; stops at once");
                std::process::exit(1);
            }
        }
    });
    Ok(stopped)
}

/// In a pod this is the pod's name.
fn host_name() -> io::Result<String> {
    match std::env::var("HOSTNAME") {
        Ok(name) if !name.is_empty() => Ok(name),
        _ => Ok(std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned()),
    }
}

impl From<ProxyArgs> for injector::ProxySettings {
    fn from(args: ProxyArgs) -> Self {
        let ProxyArgs {
            proxy_image,
            proxy_image_pull_policy,
            proxy_log_level,
            proxy_access_log,
            proxy_access_log_filter,
            proxy_cpu_request,
            proxy_memory_request,
            proxy_cpu_limit,
            proxy_memory_limit,
        } = args;
        Self {
            image: proxy_image,
            image_pull_policy: proxy_image_pull_policy,
            log_level: proxy_log_level,
            access_log: injector::AccessLog { format: proxy_access_log, filter: proxy_access_log_filter },
            resources: injector::Resources {
                cpu_request: Some(proxy_cpu_request),
                cpu_limit: proxy_cpu_limit,
                memory_request: Some(proxy_memory_request),
                memory_limit: Some(proxy_memory_limit),
            },
        }
    }
}
