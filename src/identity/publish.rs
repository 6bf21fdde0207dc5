//! The trust bundle in every meshed namespace, as ConfigMap `ferrule-trust`: written by the leader, and again when
//! somebody else edits or deletes it.
//!
//! A namespace that leaves the mesh keeps its ConfigMap, and the ConfigMap is kept up to date: pods that were injected
//! run on, and need the next root like all others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ferrule_config::names::{self, IDENTITY_ADDRESS_KEY, INJECT_LABEL, TRUST_BUNDLE_KEY, TRUST_CONFIG_MAP};
use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ObjectMeta, Patch, PatchParams},
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Lookup, Store},
        watcher::{self, watcher},
    },
};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{Settings, keeper::Known, metrics::Problem, status::Status};
use crate::{
    backoff::watch_backoff,
    controller::{
        Refusal as Answer, Tenure,
        plan::{MANAGED_BY, MANAGER},
    },
};

/// Key of the state of the rotation, in the operator's namespace alone.
pub const STATUS_KEY: &str = "status.json";
/// Writes at a time.
const CONCURRENCY: usize = 16;
/// Shorter than the time that another replica waits before it may lead.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// Events tell of every change; this is for what failed.
const RETRY: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(30);

type Data = BTreeMap<String, String>;

/// What the cluster holds.
pub(super) struct Publisher {
    client: Client,
    settings: Settings,
    namespaces: Store<PartialObjectMeta<Namespace>>,
    config_maps: Store<ConfigMap>,
    services: Store<Service>,
    changed: Arc<Notify>,
}

/// The watches that a [`Publisher`] lives on; they have to be polled.
pub(super) struct Watches(Vec<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Watches {
    pub(super) async fn run(self) {
        futures::future::join_all(self.0).await;
    }
}

impl Publisher {
    pub(super) fn new(client: Client, settings: Settings) -> (Self, Watches) {
        let changed = Arc::new(Notify::new());
        let labelled = watcher::Config::default().labels(&format!("{INJECT_LABEL}=enabled"));
        let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let own = Api::<Service>::namespaced(client.clone(), &settings.namespace);
        let (namespaces, first) = follow(Api::all(client.clone()), labelled, &changed);
        let (config_maps, second) = follow(Api::all(client.clone()), named(TRUST_CONFIG_MAP), &changed);
        let (services, third) = follow(own, named(&settings.service), &changed);
        let watches = Watches(vec![first, second, third]);
        (Self { client, settings, namespaces, config_maps, services, changed }, watches)
    }

    /// Namespaces whose pods may have sidecars.
    pub(super) fn namespaces(&self) -> BTreeSet<String> {
        let labelled = self.namespaces.state();
        let labelled = labelled
            .iter()
            .filter(|namespace| namespace.metadata.deletion_timestamp.is_none())
            .map(|namespace| namespace.name_any());
        let held = self.config_maps.state();
        let held =
            held.iter().filter(|held| is_ours(held)).filter_map(|held| held.metadata.namespace.clone());
        labelled.chain(held).filter(|name| name != "kube-system").collect()
    }

    /// Waits until what the cluster holds has been seen once.
    pub(super) async fn ready(&self) {
        // An error means that a watch has ended for good, and with it this process.
        let _ = self.namespaces.wait_until_ready().await;
        let _ = self.config_maps.wait_until_ready().await;
        let _ = self.services.wait_until_ready().await;
    }

    /// Writes what is missing while it leads, for as long as it is polled.
    pub(super) async fn run(
        &self,
        mut known: watch::Receiver<Known>,
        mut status: watch::Receiver<Option<Status>>,
        mut tenure: Tenure,
    ) {
        self.ready().await;
        loop {
            let mut pause = IDLE;
            if tenure.holds() && !self.publish(&mut known, &mut status, &tenure).await {
                pause = RETRY;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                changed = known.changed() => if changed.is_err() { return },
                changed = status.changed() => if changed.is_err() { return },
                () = tenure.changed() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Whether everything is as it should be.
    async fn publish(
        &self,
        known: &mut watch::Receiver<Known>,
        status: &mut watch::Receiver<Option<Status>>,
        tenure: &Tenure,
    ) -> bool {
        let bundle = known.borrow_and_update().view.as_ref().map(|view| view.state.bundle());
        let Some(bundle) = bundle else { return true };
        let status =
            status.borrow_and_update().as_ref().and_then(|status| serde_json::to_string_pretty(status).ok());
        let mut data = Data::from([(TRUST_BUNDLE_KEY.to_owned(), bundle)]);
        data.extend(self.address().map(|address| (IDENTITY_ADDRESS_KEY.to_owned(), address)));
        let mut wanted: BTreeMap<String, Data> =
            self.namespaces().into_iter().map(|namespace| (namespace, data.clone())).collect();
        data.extend(status.map(|status| (STATUS_KEY.to_owned(), status)));
        wanted.insert(self.settings.namespace.clone(), data);
        let missing: Vec<_> =
            wanted.into_iter().filter(|(namespace, data)| !self.holds(namespace, data)).collect();
        stream::iter(missing)
            .map(|(namespace, data)| self.write(namespace, data, tenure))
            .buffer_unordered(CONCURRENCY)
            .fold(true, |all, one| std::future::ready(all && one))
            .await
    }

    /// Where sidecars find the service without asking DNS, which their pods may have set as they like.
    fn address(&self) -> Option<String> {
        let service = self.services.state().into_iter().next()?;
        let spec = service.spec.as_ref()?;
        let ip = spec.cluster_ip.as_ref()?.parse().ok()?;
        let port = spec.ports.as_ref()?.first()?.port;
        Some(std::net::SocketAddr::new(ip, u16::try_from(port).ok()?).to_string())
    }

    fn holds(&self, namespace: &str, data: &Data) -> bool {
        let reference = reflector::ObjectRef::new(TRUST_CONFIG_MAP).within(namespace);
        self.config_maps.get(&reference).is_some_and(|held| {
            let found = held.data.as_ref();
            is_ours(&held)
                && data.iter().all(|(key, value)| found.and_then(|found| found.get(key)) == Some(value))
        })
    }

    async fn write(&self, namespace: String, data: Data, tenure: &Tenure) -> bool {
        if !tenure.holds() {
            return false;
        }
        let config_maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &namespace);
        let config_map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(TRUST_CONFIG_MAP.to_owned()),
                labels: Some(BTreeMap::from([(MANAGED_BY.to_owned(), MANAGER.to_owned())])),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        };
        let params = PatchParams::apply(names::FIELD_MANAGER).force();
        let patch = Patch::Apply(config_map);
        match timeout(REQUEST_TIMEOUT, config_maps.patch(TRUST_CONFIG_MAP, &params, &patch)).await {
            Ok(Ok(_)) => {
                info!(namespace, config_map = TRUST_CONFIG_MAP, "trust bundle written");
                true
            }
            // The namespace is gone or going.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 || is_terminating(&status) => {
                debug!(namespace, "takes no trust bundle any more");
                true
            }
            Ok(Err(error)) => {
                self.settings.metrics.problem(Problem::Publish);
                warn!(namespace, error = %Answer::from(error), "trust bundle not written; will try again");
                false
            }
            Err(_) => {
                self.settings.metrics.problem(Problem::Publish);
                warn!(namespace, "no answer to writing the trust bundle; will try again");
                false
            }
        }
    }
}

fn is_ours(config_map: &ConfigMap) -> bool {
    config_map.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
}

fn is_terminating(status: &kube::core::Status) -> bool {
    status.code == 403 && status.message.contains("being terminated")
}

fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    changed: &Arc<Notify>,
) -> (Store<K>, std::pin::Pin<Box<dyn Future<Output = ()> + Send>>)
where
    K: kube::Resource<DynamicType = ()>
        + Lookup<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let events = reflector::reflector(writer, watcher(api, config)).backoff(watch_backoff());
    (store, Box::pin(absorb(events, Arc::clone(changed))))
}

async fn absorb<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
    changed: Arc<Notify>,
) {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Ok(_) => changed.notify_one(),
            Err(error) => warn!(%error, "a watch for the trust bundle broke; it begins anew"),
        }
    }
}
