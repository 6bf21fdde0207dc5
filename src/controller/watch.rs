//! One watch a kind, all into one channel. A watch that breaks begins anew, with a growing wait.

use futures::StreamExt as _;
use kube::{
    Api, Client, ResourceExt as _,
    core::DynamicObject,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, watcher},
    },
};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use ferrule_config::names;

use super::{
    metrics::{Metrics, Operation},
    observe::{Kind, Object},
    plan::{MANAGED_BY, MANAGER, binding_key},
    writes::Key,
};
use crate::backoff::watch_backoff;

/// What a watch says.
#[derive(Debug)]
pub enum Message {
    /// There is such an object now, at this version.
    Applied(Key, Option<String>, Box<Object>),
    /// There is none any more; the version is that of its end.
    Deleted(Key, Option<String>),
    /// These are all of the kind.
    Replaced(Kind, Vec<Object>),
}

/// Watches a kind until nobody listens.
pub async fn run(client: Client, kind: Kind, messages: mpsc::Sender<Message>, metrics: Metrics) {
    let api: Api<DynamicObject> = Api::all_with(client, &kind.api_resource());
    let mut events = watcher(api, config(kind)).backoff(watch_backoff()).boxed();
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        metrics.watch_event(kind);
        let message = match event {
            Ok(watcher::Event::Init) => {
                listed = Vec::new();
                None
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.extend(read(kind, object));
                None
            }
            Ok(watcher::Event::InitDone) => Some(Message::Replaced(kind, std::mem::take(&mut listed))),
            Ok(watcher::Event::Apply(object)) => {
                let (key, version) = (key(kind, &object), object.resource_version());
                read(kind, object).map(|object| Message::Applied(key, version, Box::new(object)))
            }
            Ok(watcher::Event::Delete(object)) => {
                Some(Message::Deleted(key(kind, &object), object.resource_version()))
            }
            Err(error) => {
                metrics.api_error(Operation::Watch);
                tell(kind, &error);
                None
            }
        };
        if let Some(message) = message
            && messages.send(message).await.is_err()
        {
            return;
        }
    }
}

/// Pods that have ended are neither listed nor sent; one that ends is told as if it were deleted.
const UNENDED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Lists come in pages from etcd and then the watch begins. Streaming lists would spare the API server memory,
/// but before Kubernetes 1.34 they are not on everywhere, and without them the watch waits for ever.
fn config(kind: Kind) -> watcher::Config {
    let config = watcher::Config::default();
    match kind {
        Kind::ConfigMap => config.labels(&format!("{MANAGED_BY}={MANAGER}")),
        Kind::ProxyBinding => config.fields(&format!("metadata.name={}", names::PROXY_ROLE)),
        Kind::Pod => config.fields(UNENDED),
        Kind::Namespace
        | Kind::Service
        | Kind::Route
        | Kind::BalancerPolicy
        | Kind::CircuitPolicy
        | Kind::MeshTls
        | Kind::AccessPolicy => config,
    }
}

fn read(kind: Kind, object: DynamicObject) -> Option<Object> {
    Object::read(kind, object)
        .inspect_err(|error| warn!(%error, "cannot be read; it is treated as if it were not there"))
        .ok()
}

fn key(kind: Kind, object: &DynamicObject) -> Key {
    match kind {
        Kind::ProxyBinding => binding_key(),
        Kind::Namespace => Key { kind, namespace: object.name_any(), name: object.name_any() },
        _ => Key { kind, namespace: object.namespace().unwrap_or_default(), name: object.name_any() },
    }
}

fn tell(kind: Kind, error: &watcher::Error) {
    let kind = kind.word();
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status.code),
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => None,
    };
    match status {
        Some(404) => warn!(kind, "the API server does not know this kind; are Ferrule's CRDs installed?"),
        Some(401 | 403) => {
            warn!(kind, %error, "not allowed to watch; is the operator's ClusterRole installed?");
        }
        // Every watch ends now and then.
        Some(410) => debug!(kind, %error, "lists anew"),
        _ => warn!(kind, %error, "watch broke; it begins anew"),
    }
}
