//! What is added to a pod: the init container that sets the redirect, the sidecar, and the volume with
//! the sidecar's credentials.
//!
//! Every field of a security context that a pod can set for all its containers is set here again, so that
//! a pod's `runAsNonRoot: true` does not stop the init container, and a pod's `runAsUser: 0` does not give
//! the sidecar root. The sidecar satisfies the Pod Security level "restricted"; the init container needs
//! user 0, as the capability is not effective for others, and drops everything but `NET_ADMIN`.

use std::{collections::BTreeSet, fmt::Display};

use ferrule_config::{
    names::{self, ports},
    probe::Probe,
};
use serde_json::{Map, Value, json};

use super::{IdentitySettings, ProxySettings, Resources, annotations::Options};

/// Name of the volume with the sidecar's token and the API server's certificate authority.
pub(super) const API_VOLUME: &str = "ferrule-api";
const API_PATH: &str = "/var/run/secrets/ferrule.dev/api";
/// Name of the volume with what the sidecar needs to get its certificate.
pub(super) const IDENTITY_VOLUME: &str = "ferrule-identity";
/// The kubelet renews the token when a fifth of this is left.
const TOKEN_SECONDS: u64 = 3600;

/// Sets the redirect and ends.
pub(super) fn init(options: &Options, proxy: &ProxySettings, app_armor: bool) -> Value {
    let inbound: BTreeSet<u16> =
        options.exclude_inbound_ports.iter().copied().chain([ports::ADMIN]).collect();
    let env = vec![
        variable("FERRULE_PROXY_UID", names::PROXY_UID),
        variable("FERRULE_OUTBOUND_PORT", ports::OUTBOUND),
        variable("FERRULE_INBOUND_PORT", ports::INBOUND),
        variable("FERRULE_EXCLUDE_INBOUND_PORTS", join(&inbound)),
        variable("FERRULE_EXCLUDE_OUTBOUND_PORTS", join(&options.exclude_outbound_ports)),
        variable("FERRULE_EXCLUDE_OUTBOUND_ADDRESSES", join(&options.exclude_outbound_addresses)),
        variable("FERRULE_EXCLUDE_UIDS", join(&options.exclude_uids)),
    ];
    let mut container = base(names::INIT_CONTAINER, proxy);
    container.insert("args".into(), json!(["redirect"]));
    container.insert("env".into(), Value::Array(env));
    container.insert("resources".into(), resources(&options.resources));
    let mut context = json!({
        "runAsUser": 0,
        "runAsGroup": 0,
        "runAsNonRoot": false,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    confine(&mut context, app_armor);
    container.insert("securityContext".into(), context);
    Value::Object(container)
}

/// The sidecar: an init container that stays (`restartPolicy: Always`), so it starts before the
/// application, ends after it, and no Job waits for it.
///
/// It has no liveness probe: a process that ended is restarted anyway, and restarting one that is slow to
/// answer because the node is busy would cut every connection of the pod just then.
pub(super) fn sidecar(
    options: &Options,
    proxy: &ProxySettings,
    identity: &IdentitySettings,
    probes: &BTreeSet<Probe>,
    app_armor: bool,
) -> Value {
    let IdentitySettings { system_namespace, server_name, port, trust_domain } = identity;
    let env = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_IPS", "status.podIPs"),
        field("FERRULE_NODE", "spec.nodeName"),
        field("FERRULE_ZONE", "metadata.labels['topology.kubernetes.io/zone']"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        variable("FERRULE_LOG", &options.log_level),
        variable("FERRULE_ACCESS_LOG", &options.access_log.format),
        variable("FERRULE_ACCESS_LOG_FILTER", &options.access_log.filter),
        variable("FERRULE_PROBES", list_of(probes)),
        variable("FERRULE_EXPOSE_CONFIG", options.expose_config),
        variable("FERRULE_DRAIN_SECONDS", options.drain_seconds),
        variable("FERRULE_IDENTITY", format_args!("{server_name}:{port}")),
        variable("FERRULE_TRUST_DOMAIN", trust_domain),
        variable("FERRULE_SYSTEM_NAMESPACE", system_namespace),
    ];
    let ready = json!({"path": "/ready", "port": ports::ADMIN});
    let mut container = base(names::PROXY_CONTAINER, proxy);
    container.insert("restartPolicy".into(), json!("Always"));
    container.insert("env".into(), Value::Array(env));
    container.insert("ports".into(), json!([{"name": "ferrule-admin", "containerPort": ports::ADMIN}]));
    container.insert("resources".into(), resources(&options.resources));
    container
        .insert("startupProbe".into(), json!({"httpGet": ready, "periodSeconds": 1, "failureThreshold": 60}));
    container.insert("readinessProbe".into(), json!({"httpGet": ready, "periodSeconds": 5}));
    let mut context = json!({
        "runAsUser": names::PROXY_UID,
        "runAsGroup": names::PROXY_UID,
        "runAsNonRoot": true,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    confine(&mut context, app_armor);
    container.insert("securityContext".into(), context);
    container.insert(
        "volumeMounts".into(),
        json!([
            {"name": API_VOLUME, "mountPath": API_PATH, "readOnly": true},
            {"name": IDENTITY_VOLUME, "mountPath": names::IDENTITY_FILES, "readOnly": true},
        ]),
    );
    Value::Object(container)
}

/// Credentials for the API server, for the sidecar alone: they don't depend on
/// `automountServiceAccountToken`.
///
/// The files are readable for user 15100 whatever the pod's `fsGroup`: without one the kubelet leaves the
/// token world-readable inside the volume, with one every container is a member of that group.
pub(super) fn api_volume() -> Value {
    json!({"name": API_VOLUME, "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]}})
}

/// For the identity service, and for the sidecar alone: a token that is good for nothing else, the trust bundle and the
/// service's address; and the pod's labels, by which policies select it, kept up to date by the kubelet. A pod starts without the ConfigMap, too: then the sidecar waits for it, and traffic goes on.
pub(super) fn identity_volume() -> Value {
    let keys = [names::TRUST_BUNDLE_KEY, names::IDENTITY_ADDRESS_KEY];
    let items = keys.map(|key| json!({"key": key, "path": key}));
    json!({"name": IDENTITY_VOLUME, "projected": {"sources": [
        {"serviceAccountToken": {
            "path": "token", "audience": names::IDENTITY_AUDIENCE, "expirationSeconds": TOKEN_SECONDS,
        }},
        {"configMap": {"name": names::TRUST_CONFIG_MAP, "optional": true, "items": items}},
        {"downwardAPI": {"items": [{"path": names::LABELS_FILE, "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]}})
}

fn base(name: &str, proxy: &ProxySettings) -> Map<String, Value> {
    let mut container = Map::from_iter([("name".into(), json!(name)), ("image".into(), json!(proxy.image))]);
    if let Some(policy) = &proxy.image_pull_policy {
        container.insert("imagePullPolicy".into(), json!(policy));
    }
    container
}

/// A pod with a Localhost AppArmor profile would lend it to our containers. Elsewhere none is named, since
/// naming any keeps the pod off nodes without AppArmor.
fn confine(context: &mut Value, app_armor: bool) {
    if app_armor {
        context["appArmorProfile"] = json!({"type": "RuntimeDefault"});
    }
}

fn resources(resources: &Resources) -> Value {
    let Resources { cpu_request, cpu_limit, memory_request, memory_limit } = resources;
    let mut sections = Map::new();
    for (section, cpu, memory) in
        [("requests", cpu_request, memory_request), ("limits", cpu_limit, memory_limit)]
    {
        let amounts: Map<String, Value> = [("cpu", cpu), ("memory", memory)]
            .into_iter()
            .filter_map(|(name, amount)| Some((name.to_owned(), json!(amount.as_ref()?.to_string()))))
            .collect();
        if !amounts.is_empty() {
            sections.insert(section.to_owned(), Value::Object(amounts));
        }
    }
    Value::Object(sections)
}

fn variable(name: &str, value: impl Display) -> Value {
    json!({"name": name, "value": value.to_string()})
}

fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

/// A JSON list of their paths. No `$`, for Kubernetes would take `$(NAME)` for a variable.
fn list_of(probes: &BTreeSet<Probe>) -> String {
    json!(probes.iter().map(ToString::to_string).collect::<Vec<_>>()).to_string().replace('$', "\\u0024")
}

fn join<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}
