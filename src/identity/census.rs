//! Asks the sidecars which trust bundle and which root are in force.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use ferrule_config::{
    identity::Report,
    names::{INJECTED_ANNOTATION, PROXY_CONTAINER},
};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use tracing::debug;

use super::{
    rotation::{Census, lags},
    state::State,
};
use crate::sidecars::{self, CONCURRENCY};

/// Pods in one page of a list.
const PAGE: u32 = 500;

/// Asks every sidecar that runs in these namespaces about a state that has been known for so long. One that does not
/// answer is waited for.
pub(super) async fn take(
    client: &Client,
    namespaces: impl IntoIterator<Item = String>,
    port: u16,
    state: &State,
    after: Duration,
) -> kube::Result<Census> {
    let now = SystemTime::now();
    let mut sidecars = Vec::new();
    for namespace in namespaces {
        list(client, &namespace, now, &mut sidecars).await?;
    }
    let count = sidecars.len();
    let mut waiting: Vec<String> = stream::iter(sidecars)
        .map(|Sidecar { name, address }| async move {
            let agrees = match sidecars::ask::<Report>(address, port, "/identity").await {
                // One of a version that knows nothing of identities has none.
                Ok(report) => report.is_none_or(|report| !lags(state, &report)),
                Err(error) => {
                    debug!(name, %address, %error, "sidecar does not tell of its identity");
                    false
                }
            };
            (!agrees).then_some(name)
        })
        .buffer_unordered(CONCURRENCY)
        .filter_map(std::future::ready)
        .collect()
        .await;
    waiting.sort_unstable();
    Ok(Census { generation: state.generation, after, sidecars: count, waiting })
}

#[derive(Debug, PartialEq)]
struct Sidecar {
    name: String,
    address: IpAddr,
}

async fn list(
    client: &Client,
    namespace: &str,
    now: SystemTime,
    sidecars: &mut Vec<Sidecar>,
) -> kube::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = pods.list(&params).await?;
        sidecars.extend(page.items.iter().filter_map(|pod| sidecar(pod, now)));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}

/// The pod's sidecar, if it runs: ready or not, for it may send and take connections in any case. A pod that should have
/// ended by now is not counted, for it is on a node that nobody hears of.
fn sidecar(pod: &Pod, now: SystemTime) -> Option<Sidecar> {
    pod.annotations().get(INJECTED_ANNOTATION)?;
    if pod.metadata.deletion_timestamp.as_ref().is_some_and(|time| SystemTime::from(time.0) < now) {
        return None;
    }
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.as_deref().unwrap_or_default();
    let proxy = containers.iter().find(|container| container.name == PROXY_CONTAINER)?;
    proxy.state.as_ref()?.running.as_ref()?;
    let address = status.pod_ip.as_ref()?.parse().ok()?;
    let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    Some(Sidecar { name, address })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(change: impl FnOnce(&mut Value)) -> Option<Sidecar> {
        let mut pod = json!({
            "metadata": {
                "name": "cart", "namespace": "shop", "annotations": {"ferrule.dev/injected": "0.1.0"},
            },
            "status": {
                "podIP": "10.0.0.7",
                "initContainerStatuses": [{
                    "name": "ferrule-proxy", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                    "state": {"running": {}},
                }],
            },
        });
        change(&mut pod);
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        sidecar(&pod, SystemTime::now())
    }

    #[test]
    fn a_sidecar_that_runs_is_asked_ready_or_not() {
        let found = pod(|_| {}).expect("runs");
        assert_eq!(found, Sidecar { name: "shop/cart".into(), address: [10, 0, 0, 7].into() });
        let ending = pod(|pod| pod["metadata"]["deletionTimestamp"] = json!("2999-01-01T00:00:00Z"));
        assert!(ending.is_some(), "it still serves");
    }

    #[test]
    fn what_runs_no_more_or_has_none_is_not_asked() {
        assert_eq!(pod(|pod| pod["metadata"]["annotations"] = json!({})), None);
        assert_eq!(pod(|pod| pod["status"]["podIP"] = json!(null)), None);
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        assert_eq!(pod(|pod| pod["status"]["initContainerStatuses"][0]["state"] = waiting), None);
        let lost = json!("2020-01-01T00:00:00Z");
        assert_eq!(pod(|pod| pod["metadata"]["deletionTimestamp"] = lost), None);
    }
}
