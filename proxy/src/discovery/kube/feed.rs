//! Where watches, lists and checks hand over what they find: what is news is told on, once and in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use super::{
    client::Client,
    error::ApiError,
    ledger::{Difference, Ledger},
    list::Envelope,
    object::{Key, Kind, Object, version},
};
use crate::discovery::world::Change;

/// What was told, and to whom.
pub(super) struct Feed {
    ledger: Mutex<Ledger>,
    changes: mpsc::Sender<Change>,
}

/// What a list showed.
pub(super) struct Listed<T> {
    /// Version of the list.
    pub at: u64,
    keys: BTreeMap<Key, BTreeMap<String, u64>>,
    /// Those that are other than what was told; the rest was not kept.
    objects: BTreeMap<(Key, String), T>,
}

impl Feed {
    pub fn new(changes: mpsc::Sender<Change>) -> Self {
        Self { ledger: Mutex::default(), changes }
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wanted of a kind in a namespace.
    pub fn wanted(&self, kind: Kind, namespace: &str) -> BTreeSet<String> {
        self.ledger().wanted(kind, namespace).into_iter().map(|key| key.name).collect()
    }

    /// A watch tells that an object was added or changed.
    pub async fn put<T: Object>(&self, object: T, version: u64) {
        let Some(key) = object.key() else { return };
        let name = object.metadata().name.clone();
        // Taken into account and told on in one go: a watch that is ended in between must not have done half.
        let Ok(permit) = self.changes.reserve().await else { return };
        if self.ledger().put(&key, &name, version)
            && let Some(change) = object.put(&key)
        {
            permit.send(change);
        }
    }

    /// A watch tells that an object is gone.
    pub async fn gone<T: Object>(&self, object: &T, version: u64) {
        let Some(key) = object.key() else { return };
        let Ok(permit) = self.changes.reserve().await else { return };
        let name = &object.metadata().name;
        if self.ledger().gone(&key, name, version)
            && let Some(change) = T::gone(&key, name)
        {
            permit.send(change);
        }
    }

    /// Reads the list of all objects of these keys. Of those that were told already only the version is kept.
    pub async fn read<T: Object>(
        &self,
        client: &Client,
        path: &str,
        keys: &BTreeSet<Key>,
    ) -> Result<Listed<T>, ApiError> {
        let mut listed: BTreeMap<Key, BTreeMap<String, u64>> =
            keys.iter().map(|key| (key.clone(), BTreeMap::new())).collect();
        let mut objects = BTreeMap::new();
        let take = |object: T| {
            let Some(key) = object.key() else { return Ok(()) };
            let Some(versions) = listed.get_mut(&key) else { return Ok(()) };
            let version = version(&object.metadata().resource_version)?;
            let name = object.metadata().name.clone();
            versions.insert(name.clone(), version);
            if self.ledger().is_other(&key, &name, version) {
                objects.insert((key, name), object);
            }
            Ok(())
        };
        let Envelope { metadata } = client.list(path, true, take).await?;
        Ok(Listed { at: version(&metadata.resource_version)?, keys: listed, objects })
    }

    /// Whether a list shows anything else than what was told.
    pub fn differs<T>(&self, listed: &Listed<T>) -> bool {
        let ledger = self.ledger();
        listed.keys.iter().any(|(key, versions)| !ledger.differences(key, listed.at, versions).is_empty())
    }

    /// Tells on what a list shows: everything where nothing was told yet, otherwise what differs. Gives the number
    /// of objects that differed from what was told.
    ///
    /// # Errors
    /// [`ApiError::Behind`] when the list is too old for a beginning.
    pub async fn take<T: Object>(&self, listed: Listed<T>) -> Result<usize, ApiError> {
        let Listed { at, keys, mut objects } = listed;
        let mut differed = 0;
        for (key, versions) in keys {
            let Some(seen) = self.ledger().is_seen(&key) else { continue };
            if seen {
                differed += self.merge(&key, at, &versions, &mut objects).await;
            } else {
                self.begin(&key, at, versions, &mut objects).await?;
            }
        }
        Ok(differed)
    }

    async fn begin<T: Object>(
        &self,
        key: &Key,
        at: u64,
        versions: BTreeMap<String, u64>,
        objects: &mut BTreeMap<(Key, String), T>,
    ) -> Result<(), ApiError> {
        let names = versions.keys().map(|name| (key.clone(), name.clone()));
        let all: Vec<T> = names.filter_map(|place| objects.remove(&place)).collect();
        let Ok(permit) = self.changes.reserve().await else { return Ok(()) };
        // When it was forgotten and wanted again meanwhile, some may not have been kept.
        if all.len() != versions.len() || !self.ledger().begin(key, at, versions) {
            return Err(ApiError::Behind);
        }
        if let Some(change) = T::all(key, all) {
            permit.send(change);
        }
        Ok(())
    }

    async fn merge<T: Object>(
        &self,
        key: &Key,
        at: u64,
        versions: &BTreeMap<String, u64>,
        objects: &mut BTreeMap<(Key, String), T>,
    ) -> usize {
        let differences = self.ledger().differences(key, at, versions);
        let mut differed = 0;
        for difference in differences {
            let Ok(permit) = self.changes.reserve().await else { return differed };
            let change = match &difference {
                Difference::Put(name, _) => {
                    // One that was not kept has changed since the list was read; the next one shows it.
                    let Some(object) = objects.remove(&(key.clone(), name.clone())) else { continue };
                    object.put(key)
                }
                Difference::Gone(name) => T::gone(key, name),
            };
            if self.ledger().mend(key, at, &difference) {
                differed += 1;
                if let Some(change) = change {
                    permit.send(change);
                }
            }
        }
        self.ledger().raise(key, at);
        differed
    }
}
