//! What accounts may do, by the word of the API server.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};
use ferrule_config::names::{SYSTEM_NAMESPACE, ports};
use ferrule_e2e::{cluster::Cluster, forward, rights, scene::Scene, suite::note};
use serde_json::{Value, json};

/// Namespaces of others, and the operator's own.
const OTHERS: [&str; 2] = ["default", "kube-system"];

pub fn roles_grant_what_was_agreed_to(scene: &Scene) -> Result<()> {
    let cluster = scene.cluster();
    let mut objects = Vec::new();
    for kinds in ["clusterroles,clusterrolebindings", "roles,rolebindings"] {
        let found = cluster.get(&[kinds, "--all-namespaces"])?;
        let ours = |object: &&Value| {
            object["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("ferrule-"))
        };
        objects.extend(found["items"].as_array().into_iter().flatten().filter(ours).cloned());
    }
    let granted = rights::table(&objects)?;
    let agreed = fs::read_to_string(cluster.file("charts/rights.txt")).context("charts/rights.txt")?;
    // The hook's rights end with it, and no authority was given.
    let lasts = |line: &String| !line.starts_with("ferrule-crds ") && !line.contains(rights::GIVEN);
    let agreed: BTreeSet<_> = rights::lines(&agreed).into_iter().filter(lasts).collect();
    let granted: BTreeSet<_> = granted.into_iter().filter(lasts).collect();
    ensure!(
        granted == agreed,
        "not agreed to: {:?}; not granted: {:?}",
        granted.difference(&agreed).collect::<Vec<_>>(),
        agreed.difference(&granted).collect::<Vec<_>>()
    );
    note(&format!("{} rights", granted.len()));
    Ok(())
}

pub fn the_operator_reads_no_secret_of_others(scene: &Scene) -> Result<()> {
    let operator = Account::new(scene, SYSTEM_NAMESPACE, "ferrule-operator");
    operator.may(&["get", "update"], "secrets", SYSTEM_NAMESPACE, "ferrule-identity-ca")?;
    operator.may_not(
        &["get", "list", "watch", "update", "delete"],
        "secrets",
        SYSTEM_NAMESPACE,
        "another",
    )?;
    operator.may_not(&["list", "watch"], "secrets", SYSTEM_NAMESPACE, "")?;
    for other in OTHERS {
        operator.may_not(
            &["get", "list", "watch", "create", "update", "patch", "delete"],
            "secrets",
            other,
            "",
        )?;
        operator.may_not(&["get"], "secrets", other, "ferrule-identity-ca")?;
        operator.may_not(&["create", "update", "patch", "delete"], "pods", other, "")?;
        operator.may_not(&["get", "create"], "pods/exec", other, "")?;
        operator.may_not(&["create"], "serviceaccounts/token", other, "")?;
        operator.may_not(&["update", "patch", "delete"], "configmaps", other, "another")?;
    }
    // Nor can it help itself to more.
    operator.may_not(
        &["bind", "escalate", "update", "patch"],
        "clusterroles.rbac.authorization.k8s.io",
        "",
        "cluster-admin",
    )?;
    operator.may_not(
        &["update", "patch"],
        "clusterrolebindings.rbac.authorization.k8s.io",
        "",
        "cluster-admin",
    )?;
    operator.may_not(&["impersonate"], "serviceaccounts", "kube-system", "")?;
    operator.may_not(&["get", "create"], "nodes/proxy", "", "")
}

pub fn sidecars_read_what_they_need_and_strangers_nothing(scene: &Scene) -> Result<()> {
    let (namespace, _) = super::meshed(scene)?;
    let sidecar = Account::new(scene, namespace.name(), "web");
    let reads = &["get", "list", "watch"];
    sidecar.may(reads, "configmaps", namespace.name(), "ferrule")?;
    sidecar.may(&["get"], "configmaps", SYSTEM_NAMESPACE, "ferrule-peers-0")?;
    sidecar.may(reads, "services", "default", "")?;
    sidecar.may(reads, "endpointslices.discovery.k8s.io", "default", "")?;
    let stranger = Account::new(scene, "default", "default");
    stranger.may_not(reads, "configmaps", namespace.name(), "ferrule")?;
    stranger.may_not(reads, "services", namespace.name(), "")?;
    stranger.may_not(reads, "endpointslices.discovery.k8s.io", namespace.name(), "")?;
    let changes = &["create", "update", "patch", "delete"];
    for account in [&sidecar, &stranger] {
        for place in [namespace.name(), SYSTEM_NAMESPACE, "kube-system"] {
            account.may_not(reads, "secrets", place, "")?;
            account.may_not(&["get"], "secrets", place, "ferrule-identity-ca")?;
            account.may_not(reads, "configmaps", place, "")?;
            account.may_not(&["get"], "configmaps", place, "another")?;
            account.may_not(reads, "pods", place, "")?;
            for resource in [
                "configmaps",
                "services",
                "endpointslices.discovery.k8s.io",
                "meshtlses.ferrule.dev",
                "accesspolicies.ferrule.dev",
            ] {
                account.may_not(changes, resource, place, "")?;
            }
        }
    }
    Ok(())
}

pub fn a_sidecar_tells_its_configuration_in_its_pod_alone(scene: &Scene) -> Result<()> {
    let (namespace, client) = super::meshed(scene)?;
    let (_outside, stranger) = super::strict::outside(scene)?;
    let address =
        namespace.get(&["pod", "cart-0"])?["status"]["podIP"].as_str().context("it runs")?.to_owned();
    let host = if address.contains(':') { format!("[{address}]") } else { address };
    for client in [&client, &stranger] {
        let config = client.once(&format!("http://{host}:{}/config", ports::ADMIN), &[])?;
        ensure!(config.status == 403, "{config:?}");
        let metrics = client.once(&format!("http://{host}:{}/metrics", ports::ADMIN), &[])?;
        ensure!(metrics.status == 200, "{}", metrics.status);
    }
    ensure!(namespace.admin("cart-0", "/config").is_err(), "by way of the API server it is told");
    let config = forward::get(&namespace, "cart-0", ports::ADMIN, "/config")?;
    ensure!(!config.contains("PRIVATE KEY") && config.trim_start().starts_with('{'), "{config}");
    Ok(())
}

/// A service account, with the groups that it is in.
struct Account<'a> {
    cluster: &'a Cluster,
    namespace: String,
    name: String,
}

impl<'a> Account<'a> {
    fn new(scene: &'a Scene, namespace: &str, name: &str) -> Self {
        Self { cluster: scene.cluster(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// `resource`: `PLURAL[/SUBRESOURCE][.GROUP]`; without namespace in the whole cluster, without name any object.
    fn may(&self, verbs: &[&str], resource: &str, namespace: &str, name: &str) -> Result<()> {
        self.expect(true, verbs, resource, namespace, name)
    }

    fn may_not(&self, verbs: &[&str], resource: &str, namespace: &str, name: &str) -> Result<()> {
        self.expect(false, verbs, resource, namespace, name)
    }

    fn expect(
        &self,
        wanted: bool,
        verbs: &[&str],
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<()> {
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        for verb in verbs {
            let review = json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                "spec": {
                    "user": format!("system:serviceaccount:{}:{}", self.namespace, self.name),
                    "groups": [
                        "system:serviceaccounts", format!("system:serviceaccounts:{}", self.namespace),
                        "system:authenticated",
                    ],
                    "resourceAttributes": {
                        "verb": verb, "group": group, "resource": resource, "subresource": subresource,
                        "namespace": namespace, "name": name,
                    },
                },
            });
            let create = self.cluster.kubectl_call(&["create", "-o", "json", "-f", "-"]);
            let answer = create.input(&review.to_string()).run()?;
            let answer: Value =
                serde_json::from_str(&answer).context("kubectl printed something else than JSON")?;
            let allowed = answer["status"]["allowed"].as_bool().context("no answer")?;
            ensure!(
                allowed == wanted,
                "{}/{} {} {verb} {resource} {name:?} in {namespace:?}",
                self.namespace,
                self.name,
                if allowed { "may" } else { "may not" }
            );
        }
        Ok(())
    }
}
