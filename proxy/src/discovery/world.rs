//! What was seen of the cluster, and what follows from it: pure but for the endpoints' shared counters.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ferrule_config::{Mesh, shard};

use super::{
    balancing::Balancing,
    objects::{ConfigMap, EndpointSlice, Name, Service},
};
use crate::balance::{Endpoint, Locality};

/// A piece of news.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// All that there is of a Service.
    Service(Name, Option<Service>),
    /// All slices of a Service.
    Slices(Name, Vec<EndpointSlice>),
    /// One slice of a Service; `None` when it is gone.
    Slice { service: Name, slice: String, object: Option<EndpointSlice> },
    /// One shard of a namespace's configuration; `None` when it is gone.
    Shard { namespace: String, index: usize, object: Option<ConfigMap> },
    /// Everything at once, from files.
    All { services: Vec<Service>, slices: Vec<EndpointSlice>, shards: Vec<ConfigMap> },
}

/// What must be watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    pub services: BTreeSet<Name>,
    /// Namespaces whose configuration is needed.
    pub namespaces: BTreeSet<String>,
}

/// All that was seen. An entry that is there, though empty, was looked at; one that is not there was not yet.
#[derive(Debug, Default)]
pub(super) struct World {
    pub services: HashMap<Name, Option<Service>>,
    pub slices: HashMap<Name, BTreeMap<String, EndpointSlice>>,
    shards: HashMap<String, BTreeMap<usize, shard::Data>>,
    seen_config: BTreeSet<String>,
    /// Last good one of each namespace.
    pub meshes: HashMap<String, Mesh>,
    endpoints: HashMap<SocketAddr, std::sync::Weak<Endpoint>>,
    pub balancing: Balancing,
    touched: Touched,
}

/// What has changed since it was last asked.
#[derive(Debug, Default)]
pub(super) struct Touched {
    services: BTreeSet<Name>,
    /// Namespaces whose configuration has.
    namespaces: BTreeSet<String>,
    all: bool,
}

impl Touched {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        !self.all && self.services.is_empty() && self.namespaces.is_empty()
    }
}

impl World {
    /// Nothing was seen yet by a proxy that runs there.
    pub fn new(locality: Locality) -> Self {
        Self { balancing: Balancing::new(locality), ..Self::default() }
    }

    /// Takes in a piece of news.
    ///
    /// # Errors
    /// A configuration that can't be used; the last good one stays.
    pub fn apply(&mut self, change: Change) -> Result<(), shard::ShardError> {
        match change {
            Change::Service(name, service) => {
                self.touched.services.insert(name.clone());
                self.services.insert(name, service);
            }
            Change::Slices(name, slices) => {
                self.touched.services.insert(name.clone());
                let slices = slices.into_iter().map(|slice| (slice.metadata.name.clone(), slice)).collect();
                self.slices.insert(name, slices);
            }
            Change::Slice { service, slice, object } => {
                // One slice of a Service whose others are not known, or not wanted any more, says nothing.
                let Some(slices) = self.slices.get_mut(&service) else { return Ok(()) };
                self.touched.services.insert(service);
                match object {
                    Some(object) => slices.insert(slice, object),
                    None => slices.remove(&slice),
                };
            }
            Change::Shard { namespace, index, object } => {
                self.seen_config.insert(namespace.clone());
                let shards = self.shards.entry(namespace.clone()).or_default();
                match object {
                    Some(object) => shards.insert(index, object.data),
                    None => shards.remove(&index),
                };
                return self.join(&namespace);
            }
            Change::All { services, slices, shards } => {
                self.touched.all = true;
                return self.replace(services, slices, shards);
            }
        }
        Ok(())
    }

    fn replace(
        &mut self,
        services: Vec<Service>,
        slices: Vec<EndpointSlice>,
        shards: Vec<ConfigMap>,
    ) -> Result<(), shard::ShardError> {
        self.services =
            services.into_iter().map(|service| (service.metadata.full_name(), Some(service))).collect();
        self.slices.clear();
        for slice in slices {
            let Some(service) = slice.service() else { continue };
            self.slices.entry(service).or_default().insert(slice.metadata.name.clone(), slice);
        }
        self.shards.clear();
        for object in shards {
            let Some(index) = shard::index(&object.metadata.name) else { continue };
            self.shards.entry(object.metadata.full_name().namespace).or_default().insert(index, object.data);
        }
        let namespaces: BTreeSet<_> = self.shards.keys().chain(self.meshes.keys()).cloned().collect();
        let mut result = Ok(());
        for namespace in namespaces {
            result = result.and(self.join(&namespace));
        }
        result
    }

    fn join(&mut self, namespace: &str) -> Result<(), shard::ShardError> {
        match self.shards.get(namespace).filter(|shards| !shards.is_empty()) {
            None => {
                self.meshes.remove(namespace);
            }
            Some(shards) => {
                let mesh = shard::join(shards)?;
                super::assemble::check(&mesh)?;
                self.meshes.insert(namespace.to_owned(), mesh);
            }
        }
        self.touched.namespaces.insert(namespace.to_owned());
        Ok(())
    }

    /// How many shards of a namespace's configuration there are to be, going by the first.
    pub fn shard_count(&self, namespace: &str) -> usize {
        let first = self.shards.get(namespace).and_then(|shards| shards.get(&0));
        let count = first.and_then(|data| data.get("shards")).and_then(|count| count.parse().ok());
        count.unwrap_or(1).clamp(1, shard::MAX_SHARDS)
    }

    /// What must be known to send traffic to these Services: themselves, and where their routes lead.
    pub fn needs(&self, wanted: impl IntoIterator<Item = Name>) -> Needs {
        let mut needs = Needs::default();
        for name in wanted {
            needs.namespaces.insert(name.namespace.clone());
            needs.services.extend(self.backends(&name));
            needs.services.insert(name);
        }
        needs
    }

    /// The Services that a Service's routes lead to.
    fn backends(&self, name: &Name) -> impl Iterator<Item = Name> + use<'_> {
        let service = self.meshes.get(&name.namespace).and_then(|mesh| mesh.services.get(&name.name));
        let rules = service.map_or(&[][..], |service| &service.rules);
        rules
            .iter()
            .flat_map(|rule| &rule.backends)
            .map(|backend| Name { namespace: backend.namespace.clone(), name: backend.name.clone() })
    }

    /// Whether everything that traffic to this Service needs was seen.
    pub fn is_complete(&self, name: &Name) -> bool {
        let seen = |name: &Name| self.services.contains_key(name) && self.slices.contains_key(name);
        self.seen_config.contains(&name.namespace)
            && seen(name)
            && self.backends(name).all(|backend| seen(&backend))
    }

    /// The Service that has this address.
    pub fn by_address(&self, address: IpAddr) -> Option<Name> {
        self.services.iter().find_map(|(name, service)| {
            let spec = &service.as_ref()?.spec;
            let mut addresses = spec.cluster_ips.iter().chain([&spec.cluster_ip]);
            addresses.any(|each| each.parse() == Ok(address)).then(|| name.clone())
        })
    }

    /// The endpoint at this address: the one that is in use already, so that what was learnt of it is kept.
    pub fn endpoint(&mut self, address: SocketAddr) -> Arc<Endpoint> {
        if let Some(endpoint) = self.endpoints.get(&address).and_then(std::sync::Weak::upgrade) {
            return endpoint;
        }
        let endpoint = Arc::new(Endpoint::new(address));
        if self.endpoints.len() >= 1024 {
            self.endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
        }
        self.endpoints.insert(address, Arc::downgrade(&endpoint));
        endpoint
    }

    /// What has changed since this was last called.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    /// Whether that can make a difference to traffic for a Service.
    pub fn concerns(&self, touched: &Touched, name: &Name) -> bool {
        touched.all
            || touched.namespaces.contains(&name.namespace)
            || touched.services.contains(name)
            || (!touched.is_empty()
                && self.backends(name).any(|backend| {
                    // A backend in another namespace is balanced as that namespace says.
                    touched.services.contains(&backend) || touched.namespaces.contains(&backend.namespace)
                }))
    }

    /// Forgets what is not needed any more.
    pub fn retain(&mut self, needs: &Needs) {
        self.services.retain(|name, _| needs.services.contains(name));
        self.slices.retain(|name, _| needs.services.contains(name));
        self.shards.retain(|namespace, _| needs.namespaces.contains(namespace));
        self.seen_config.retain(|namespace| needs.namespaces.contains(namespace));
        self.meshes.retain(|namespace, _| needs.namespaces.contains(namespace));
    }
}

#[cfg(test)]
mod tests {
    use ferrule_config::{Backend, Rule};

    use super::*;

    #[test]
    fn the_configuration_of_a_backend_s_namespace_concerns_whoever_sends_there() {
        let name = |namespace: &str, name: &str| Name { namespace: namespace.into(), name: name.into() };
        let backend = Backend { namespace: "pay".into(), name: "bank".into(), port: Some(80), weight: 1 };
        let cart = ferrule_config::Service {
            rules: vec![Rule { backends: vec![backend], ..Rule::default() }],
            ..ferrule_config::Service::default()
        };
        let mut world = World::new(Locality::default());
        let shop = Mesh { services: [("cart".to_owned(), cart)].into(), ..Mesh::default() };
        world.meshes.insert("shop".into(), shop);
        let pay = Touched { namespaces: ["pay".to_owned()].into(), ..Touched::default() };
        assert!(world.concerns(&pay, &name("shop", "cart")));
        assert!(!world.concerns(&pay, &name("shop", "reviews")));
        assert!(!world.concerns(&Touched::default(), &name("shop", "cart")));
    }
}
