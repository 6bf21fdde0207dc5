//! What the namespaces in the mesh enforce, kept from a watch of their metadata.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use ferrule_config::names::INJECT_LABEL;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tracing::warn;

use super::podsecurity::Level;
use crate::backoff::watch_backoff;

/// Pod Security levels that forbid injection, by namespace; clones share the state.
///
/// While nothing is known yet of a namespace, nothing is assumed: Pod Security itself refuses what this
/// overlooks, only in other words.
#[derive(Clone, Debug, Default)]
pub struct Namespaces(Arc<RwLock<HashMap<String, Level>>>);

impl Namespaces {
    /// The level that a namespace enforces, if it forbids injection.
    #[must_use]
    pub fn enforced(&self, namespace: &str) -> Option<Level> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(namespace).copied()
    }

    /// Sets what a namespace enforces.
    pub fn set(&self, namespace: &str, level: Option<Level>) {
        let mut levels = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match level {
            Some(level) => levels.insert(namespace.to_owned(), level),
            None => levels.remove(namespace),
        };
    }

    /// Follows the cluster for as long as it is polled.
    pub(super) async fn follow(self, client: Client) {
        let api = Api::<PartialObjectMeta<Namespace>>::all(client);
        let config = watcher::Config::default().labels(&format!("{INJECT_LABEL}=enabled"));
        self.absorb(watcher(api, config).backoff(watch_backoff())).await;
    }

    async fn absorb(&self, events: impl Stream<Item = watcher::Result<Event<PartialObjectMeta<Namespace>>>>) {
        let mut events = std::pin::pin!(events);
        // Names seen since the watch began anew; what is not among them is gone.
        let mut fresh = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => fresh.clear(),
                Ok(Event::InitApply(namespace)) => {
                    if let Some(level) = level(&namespace) {
                        fresh.insert(namespace.name_any(), level);
                    }
                }
                Ok(Event::InitDone) => {
                    *self.0.write().unwrap_or_else(PoisonError::into_inner) = std::mem::take(&mut fresh);
                }
                Ok(Event::Apply(namespace)) => self.set(&namespace.name_any(), level(&namespace)),
                Ok(Event::Delete(namespace)) => self.set(&namespace.name_any(), None),
                Err(error) => warn!(%error, "cannot watch namespaces; will try again"),
            }
        }
    }
}

fn level(namespace: &PartialObjectMeta<Namespace>) -> Option<Level> {
    Level::enforced(namespace.labels(), namespace.annotations())
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn namespace(name: &str, level: &str) -> PartialObjectMeta<Namespace> {
        let mut namespace = PartialObjectMeta::<Namespace>::default();
        namespace.metadata.name = Some(name.into());
        namespace.labels_mut().insert("pod-security.kubernetes.io/enforce".into(), level.into());
        namespace
    }

    #[tokio::test]
    async fn what_disappeared_while_the_watch_was_down_is_forgotten() {
        let namespaces = Namespaces::default();
        let events = [
            Event::Init,
            Event::InitApply(namespace("gone", "restricted")),
            Event::InitDone,
            Event::Apply(namespace("relaxed", "baseline")),
            Event::Apply(namespace("relaxed", "privileged")),
            Event::Init,
            Event::InitApply(namespace("shop", "baseline")),
            Event::InitDone,
        ];
        namespaces.absorb(stream::iter(events.map(Ok))).await;
        assert_eq!(namespaces.enforced("gone"), None);
        assert_eq!(namespaces.enforced("relaxed"), None);
        assert_eq!(namespaces.enforced("shop"), Some(Level::Baseline));
    }
}
