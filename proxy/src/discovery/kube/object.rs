//! What the kinds of objects that are watched have in common.

use ferrule_config::shard;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::discovery::{
    objects::{ConfigMap, EndpointSlice, Metadata, Name, Service},
    world::Change,
};

/// A kind of object that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::discovery) enum Kind {
    /// Services.
    Service,
    /// EndpointSlices.
    Slices,
    /// ConfigMaps with the operator's configuration.
    Config,
}

impl Kind {
    /// Label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Slices => "endpointslice",
            Self::Config => "configmap",
        }
    }
}

/// What is wanted as a whole: a Service, all slices of a Service, or a shard of a namespace's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::discovery) struct Key {
    pub kind: Kind,
    pub namespace: String,
    /// Name of the Service or the ConfigMap.
    pub name: String,
}

impl Key {
    fn full_name(&self) -> Name {
        Name { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// A resource version as a number. They are comparable by right since Kubernetes 1.35 (KEP-5504), and were in fact
/// ever since etcd's revisions became them.
pub(super) fn version(text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| ApiError::Version(text.to_owned()))
}

/// An object that is watched.
pub(super) trait Object: DeserializeOwned {
    /// Its metadata.
    fn metadata(&self) -> &Metadata;
    /// What it belongs to; none when nobody can want it.
    fn key(&self) -> Option<Key>;
    /// The news that these are all objects of the key.
    fn all(key: &Key, objects: Vec<Self>) -> Option<Change>;
    /// The news that it was added or changed.
    fn put(self, key: &Key) -> Option<Change>;
    /// The news that the object of this name is gone.
    fn gone(key: &Key, object: &str) -> Option<Change>;
}

impl Object for Service {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn key(&self) -> Option<Key> {
        let Name { namespace, name } = self.metadata.full_name();
        Some(Key { kind: Kind::Service, namespace, name })
    }

    fn all(key: &Key, objects: Vec<Self>) -> Option<Change> {
        Some(Change::Service(key.full_name(), objects.into_iter().next()))
    }

    fn put(self, key: &Key) -> Option<Change> {
        Some(Change::Service(key.full_name(), Some(self)))
    }

    fn gone(key: &Key, _: &str) -> Option<Change> {
        Some(Change::Service(key.full_name(), None))
    }
}

impl Object for EndpointSlice {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn key(&self) -> Option<Key> {
        let Name { namespace, name } = self.service()?;
        Some(Key { kind: Kind::Slices, namespace, name })
    }

    fn all(key: &Key, objects: Vec<Self>) -> Option<Change> {
        Some(Change::Slices(key.full_name(), objects))
    }

    fn put(self, key: &Key) -> Option<Change> {
        let slice = self.metadata.name.clone();
        Some(Change::Slice { service: key.full_name(), slice, object: Some(self) })
    }

    fn gone(key: &Key, object: &str) -> Option<Change> {
        Some(Change::Slice { service: key.full_name(), slice: object.to_owned(), object: None })
    }
}

impl Object for ConfigMap {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn key(&self) -> Option<Key> {
        let Name { namespace, name } = self.metadata.full_name();
        Some(Key { kind: Kind::Config, namespace, name })
    }

    fn all(key: &Key, objects: Vec<Self>) -> Option<Change> {
        shard_change(key, objects.into_iter().next())
    }

    fn put(self, key: &Key) -> Option<Change> {
        shard_change(key, Some(self))
    }

    fn gone(key: &Key, _: &str) -> Option<Change> {
        shard_change(key, None)
    }
}

fn shard_change(key: &Key, object: Option<ConfigMap>) -> Option<Change> {
    Some(Change::Shard { namespace: key.namespace.clone(), index: shard::index(&key.name)?, object })
}
