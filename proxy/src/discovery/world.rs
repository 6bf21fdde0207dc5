//! What was seen of the cluster, and what follows from it: pure but for the endpoints' shared counters.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use ferrule_config::{Mesh, RetryBudget, RouteEntry, shard};

use super::{
    balancing::Balancing,
    objects::{ConfigMap, EndpointSlice, Name, Service},
    own::Source,
};
use crate::{
    balance::{Endpoint, Locality},
    retry::Budget,
    route::Table,
};

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
    /// By namespace. Where there is but one it is not kept: its successor replaces it as a whole.
    shards: HashMap<String, BTreeMap<usize, shard::Data>>,
    /// How many there are to be, going by the first.
    counts: HashMap<String, usize>,
    /// Those that were looked at.
    seen_shards: HashMap<String, BTreeSet<usize>>,
    /// Last good one of each namespace.
    pub meshes: HashMap<String, Mesh>,
    /// Services that a namespace's configuration was cut down to; where there is no entry it is whole.
    selected: HashMap<String, BTreeSet<String>>,
    endpoints: HashMap<SocketAddr, std::sync::Weak<Endpoint>>,
    /// Tables in force: what has not changed is not made again each time that an endpoint comes or goes.
    tables: HashMap<(Name, u16), std::sync::Weak<Table>>,
    /// Budgets of rules, for the same reason: what was spent is.
    budgets: HashMap<(Name, u16, String), std::sync::Weak<Budget>>,
    /// The pod that this proxy belongs to, if that is known.
    source: Option<Source>,
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
            Change::Shard { namespace, index, object } => return self.shard(namespace, index, object),
            Change::All { services, slices, shards } => {
                self.touched.all = true;
                return self.replace(services, slices, shards);
            }
        }
        Ok(())
    }

    fn shard(
        &mut self,
        namespace: String,
        index: usize,
        object: Option<ConfigMap>,
    ) -> Result<(), shard::ShardError> {
        self.seen_shards.entry(namespace.clone()).or_default().insert(index);
        if index == 0 {
            let count = object.as_ref().and_then(|object| object.data.get("shards")?.parse().ok());
            self.counts.insert(namespace.clone(), count.unwrap_or(1).clamp(1, shard::MAX_SHARDS));
            self.selected.remove(&namespace);
        } else if index >= self.shard_count(&namespace) {
            // Left over from a configuration that was larger.
            return Ok(());
        }
        let shards = self.shards.entry(namespace.clone()).or_default();
        match object {
            Some(object) => shards.insert(index, object.data),
            None => shards.remove(&index),
        };
        let joined = self.join(&namespace);
        if self.shard_count(&namespace) == 1 {
            self.shards.remove(&namespace);
        }
        joined
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
        self.counts.get(namespace).copied().unwrap_or(1)
    }

    /// What must be known to send traffic to these Services: themselves, and where their routes lead.
    pub fn needs(&self, wanted: impl IntoIterator<Item = Name>) -> Needs {
        let mut needs = Needs::default();
        for name in wanted {
            needs.services.extend(self.backends(&name));
            needs.services.insert(name);
        }
        // That of a backend says how it is balanced.
        needs.namespaces.extend(needs.services.iter().map(|name| name.namespace.clone()));
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
        let seen = |name: &Name| {
            self.services.contains_key(name) && self.slices.contains_key(name) && self.has_config(name)
        };
        seen(name) && self.backends(name).all(|backend| seen(&backend))
    }

    /// Whether what is configured for this Service is known.
    fn has_config(&self, name: &Name) -> bool {
        self.has_configuration(&name.namespace) && !self.is_cut_off(name)
    }

    /// Whether a namespace's configuration was seen, be it that there is none.
    pub fn has_configuration(&self, namespace: &str) -> bool {
        let mut shards = 0..self.shard_count(namespace);
        let seen = self.seen_shards.get(namespace);
        seen.is_some_and(|seen| shards.all(|index| seen.contains(&index)))
    }

    /// Whether the Service's configuration was left out, for nobody needed it then.
    fn is_cut_off(&self, name: &Name) -> bool {
        self.selected.get(&name.namespace).is_some_and(|selected| !selected.contains(&name.name))
    }

    /// Namespaces whose configuration has to be read again, for more of it is needed than was kept.
    pub fn cut_off(&self, needs: &Needs) -> BTreeSet<String> {
        let lacking = needs.services.iter().filter(|name| self.is_cut_off(name));
        lacking.map(|name| name.namespace.clone()).collect()
    }

    /// Takes what is there of a namespace's configuration for all that there is.
    pub fn make_do(&mut self, namespace: &str) {
        self.selected.remove(namespace);
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

    /// The table of those entries that are for this port and for requests of this pod: the one that is in force, if it is
    /// the same.
    pub fn table(&mut self, name: &Name, port: u16, mut entries: Vec<RouteEntry>) -> Arc<Table> {
        entries.retain(|entry| {
            let source = &entry.matches.source;
            entry.port.is_none_or(|only| only == port)
                && (source.is_empty() || self.source.as_ref().is_some_and(|own| own.is(source)))
        });
        let key = (name.clone(), port);
        if let Some(table) = self.tables.get(&key).and_then(std::sync::Weak::upgrade)
            && table.entries() == entries
        {
            return table;
        }
        // It was tried when the configuration came.
        let table = Arc::new(Table::new(entries).unwrap_or_default());
        self.tables.retain(|_, table| table.strong_count() > 0);
        self.tables.insert(key, Arc::downgrade(&table));
        table
    }

    /// The budget of a rule: the one that is in force, if it is the same.
    pub fn budget(
        &mut self,
        (name, port, rule): (&Name, u16, &str),
        terms: &RetryBudget,
        now: Instant,
    ) -> Arc<Budget> {
        let key = (name.clone(), port, rule.to_owned());
        if let Some(budget) = self.budgets.get(&key).and_then(std::sync::Weak::upgrade)
            && budget.is_of(terms)
        {
            return budget;
        }
        let budget = Arc::new(Budget::of(terms, now));
        self.budgets.retain(|_, budget| budget.strong_count() > 0);
        self.budgets.insert(key, Arc::downgrade(&budget));
        budget
    }

    /// Takes in what the pod of this proxy is now. What is routed by that may change.
    pub fn set_source(&mut self, source: Source) {
        if self.source.as_ref() != Some(&source) {
            self.source = Some(source);
            self.touched.all = true;
        }
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
        let needed = |namespace: &String| needs.namespaces.contains(namespace);
        self.shards.retain(|namespace, _| needed(namespace));
        self.counts.retain(|namespace, _| needed(namespace));
        self.seen_shards.retain(|namespace, _| needed(namespace));
        self.meshes.retain(|namespace, _| needed(namespace));
        self.selected.retain(|namespace, _| needed(namespace));
        self.cut_down(needs);
    }

    /// Forgets what is configured for Services that nobody needs. Where there are several shards nothing is cut
    /// off: one that is edited by hand is mended alone, and needs the others.
    fn cut_down(&mut self, needs: &Needs) {
        let needed = |namespace: &str| -> BTreeSet<String> {
            let of = needs.services.iter().filter(|name| name.namespace == namespace);
            of.map(|name| name.name.clone()).collect()
        };
        for (namespace, mesh) in &mut self.meshes {
            if self.counts.get(namespace).copied().unwrap_or(1) > 1 {
                continue;
            }
            let needed = needed(namespace);
            mesh.services.retain(|name, _| needed.contains(name));
            let selected = self.selected.entry(namespace.clone()).or_insert_with(|| needed.clone());
            selected.retain(|name| needed.contains(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Name {
        Name { namespace: "shop".into(), name: name.into() }
    }

    /// A configuration with a rule for each of these Services, in as many shards.
    fn shards(services: &[&str], count: usize) -> Vec<Change> {
        let service = |name: &&str| {
            let rule = ferrule_config::Rule { name: (*name).into(), ..ferrule_config::Rule::default() };
            ((*name).to_owned(), ferrule_config::Service { rules: vec![rule], ..Default::default() })
        };
        let services = services.iter().map(service).collect();
        let mesh =
            Mesh { format: ferrule_config::FORMAT, namespace: "shop".into(), services, ..Mesh::default() };
        let json = shard::split(&mesh).expect("small").remove(0);
        let (text, rest): (String, shard::Data) =
            (json["mesh.json"].clone(), json.into_iter().filter(|(key, _)| key != "mesh.json").collect());
        let middle = text.len() / count;
        (0..count)
            .map(|index| {
                let end = if index + 1 == count { text.len() } else { (index + 1) * middle };
                let mut data = rest.clone();
                data.insert("mesh.json".into(), text[index * middle..end].to_owned());
                data.insert("shards".into(), count.to_string());
                let object = Some(ConfigMap { data, ..ConfigMap::default() });
                Change::Shard { namespace: "shop".into(), index, object }
            })
            .collect()
    }

    fn apply(world: &mut World, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            // Incomplete until the last one.
            let _ = world.apply(change);
        }
    }

    fn know(world: &mut World, services: &[&str]) {
        for service in services {
            apply(world, [Change::Service(name(service), None), Change::Slices(name(service), Vec::new())]);
        }
    }

    #[test]
    fn only_what_is_needed_of_a_configuration_is_kept() {
        let mut world = World::default();
        know(&mut world, &["a", "b"]);
        apply(&mut world, shards(&["a", "b", "c"], 1));
        assert!(world.is_complete(&name("a")) && world.is_complete(&name("b")));
        let needs = world.needs([name("a")]);
        world.retain(&needs);
        assert!(world.meshes["shop"].services.keys().eq(["a"]));
        assert!(world.shards.is_empty());

        let needs = world.needs([name("a"), name("b")]);
        know(&mut world, &["b"]);
        assert!(!world.is_complete(&name("b")), "its rules are not known any more");
        assert_eq!(world.cut_off(&needs), BTreeSet::from(["shop".to_owned()]));
        world.retain(&needs);
        assert!(!world.is_complete(&name("b")));
        apply(&mut world, shards(&["a", "b", "c"], 1));
        assert!(world.is_complete(&name("b")));
        world.retain(&needs);
        assert!(world.meshes["shop"].services.keys().eq(["a", "b"]));
        assert!(world.is_complete(&name("b")) && world.cut_off(&needs).is_empty());
    }

    #[test]
    fn what_can_not_be_read_again_is_done_without() {
        let mut world = World::default();
        know(&mut world, &["a", "b"]);
        apply(&mut world, shards(&["a", "b"], 1));
        world.retain(&world.needs([name("a")]));
        know(&mut world, &["b"]);
        let object =
            Some(ConfigMap { data: [("mesh.json".into(), "garbage".into())].into(), ..ConfigMap::default() });
        assert!(world.apply(Change::Shard { namespace: "shop".into(), index: 0, object }).is_err());
        assert!(world.is_complete(&name("b")), "as for a proxy that begins now");
        assert!(world.meshes["shop"].services.keys().eq(["a"]), "and the last good one stays");
    }

    #[test]
    fn all_shards_are_waited_for() {
        let mut world = World::default();
        know(&mut world, &["a"]);
        let mut changes = shards(&["a", "b"], 2).into_iter();
        apply(&mut world, changes.next());
        assert_eq!(world.shard_count("shop"), 2);
        assert!(!world.is_complete(&name("a")), "its rules may be in the second one");
        apply(&mut world, changes.next());
        assert!(world.is_complete(&name("a")));
        world.retain(&world.needs([name("a")]));
        assert_eq!(world.meshes["shop"].services.len(), 2, "cut by hand, one of them must fit the other");
        // It shrinks, and the second one goes.
        apply(&mut world, shards(&["a"], 1));
        apply(&mut world, [Change::Shard { namespace: "shop".into(), index: 1, object: None }]);
        assert!(world.is_complete(&name("a")) && world.meshes["shop"].services.len() == 1);
    }

    #[test]
    fn a_slice_of_a_service_that_is_not_known_is_not_taken_for_all() {
        let mut world = World::default();
        let slice =
            Change::Slice { service: name("a"), slice: "a-0".into(), object: Some(EndpointSlice::default()) };
        apply(&mut world, [slice]);
        assert!(world.slices.is_empty());
    }

    #[test]
    fn only_what_has_changed_concerns_a_service() {
        let mut world = World::default();
        know(&mut world, &["a", "b"]);
        world.take_touched();
        know(&mut world, &["b"]);
        let touched = world.take_touched();
        assert!(world.concerns(&touched, &name("b")) && !world.concerns(&touched, &name("a")));
        assert!(world.take_touched().is_empty());
    }

    #[test]
    fn the_configuration_of_a_backend_s_namespace_concerns_whoever_sends_there() {
        let name = |namespace: &str, name: &str| Name { namespace: namespace.into(), name: name.into() };
        let backend = ferrule_config::Backend {
            namespace: "pay".into(),
            name: "bank".into(),
            port: Some(80),
            weight: 1,
            ..ferrule_config::Backend::default()
        };
        let cart = ferrule_config::Service {
            rules: vec![ferrule_config::Rule { backends: vec![backend], ..ferrule_config::Rule::default() }],
            ..ferrule_config::Service::default()
        };
        let mut world = World::new(Locality::default());
        let shop = Mesh { services: [("cart".to_owned(), cart)].into(), ..Mesh::default() };
        world.meshes.insert("shop".into(), shop);
        let pay = Touched { namespaces: ["pay".to_owned()].into(), ..Touched::default() };
        assert!(world.concerns(&pay, &name("shop", "cart")));
        assert!(!world.concerns(&pay, &name("shop", "reviews")));
        let needs = world.needs([name("shop", "cart")]);
        assert!(needs.namespaces.iter().eq(["pay", "shop"]));
        for (namespace, service) in [("shop", "cart"), ("pay", "bank")] {
            let service = name(namespace, service);
            apply(&mut world, [Change::Service(service.clone(), None), Change::Slices(service, Vec::new())]);
        }
        world.seen_shards.insert("shop".into(), [0].into());
        assert!(!world.is_complete(&name("shop", "cart")), "how the backend is balanced is not known yet");
        apply(&mut world, [Change::Shard { namespace: "pay".into(), index: 0, object: None }]);
        assert!(world.is_complete(&name("shop", "cart")));
        assert!(!world.concerns(&Touched::default(), &name("shop", "cart")));
    }
}
