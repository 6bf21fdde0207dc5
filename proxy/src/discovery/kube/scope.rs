//! What one watch covers, and the requests that list and watch it.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use super::object::{Key, Kind};

/// What one watch covers: objects of a kind in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub kind: Kind,
    pub namespace: String,
    /// What is wanted of it.
    pub names: BTreeSet<String>,
    /// The watch has no selector, and what is not wanted is passed over.
    pub wide: bool,
}

impl Scope {
    /// The scope for one name alone.
    pub fn narrow(kind: Kind, namespace: &str, name: &str) -> Self {
        let names = BTreeSet::from([name.to_owned()]);
        Self { kind, namespace: namespace.to_owned(), names, wide: false }
    }

    /// What it covers.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.names.iter().map(|name| self.key(name))
    }

    fn key(&self, name: &str) -> Key {
        Key { kind: self.kind, namespace: self.namespace.clone(), name: name.to_owned() }
    }

    /// Path of the collection with its selector; more parameters can follow after `&`.
    pub fn watch_path(&self) -> String {
        if self.wide {
            return format!("{}?", self.collection());
        }
        path(self.collection(), self.kind, &self.names)
    }

    /// Paths of the lists that show `names` of it, and what each one shows. A wide one is read name by name, for
    /// it may cover thousands of objects that nobody wants.
    pub fn lists(&self, names: &BTreeSet<String>) -> Vec<(String, BTreeSet<Key>)> {
        if !self.wide {
            return vec![(self.watch_path(), self.keys().collect())];
        }
        let each = |name: &String| {
            let narrow = Self::narrow(self.kind, &self.namespace, name);
            (narrow.watch_path(), narrow.keys().collect())
        };
        names.iter().map(each).collect()
    }

    fn collection(&self) -> String {
        let (group, resource) = match self.kind {
            Kind::Service => ("/api/v1", "services"),
            Kind::Slices => ("/apis/discovery.k8s.io/v1", "endpointslices"),
            Kind::Config => ("/api/v1", "configmaps"),
        };
        format!("{group}/namespaces/{}/{resource}", self.namespace)
    }
}

/// Bytes that a name takes in the selector of many.
pub(super) fn selector_bytes(name: &str) -> usize {
    name.len() + "%2C".len()
}

/// Label selectors can name several values (`in`), field selectors but one.
fn path(collection: String, kind: Kind, names: &BTreeSet<String>) -> String {
    let mut names = names.iter();
    let first = names.next().map_or("", String::as_str);
    let mut path = collection;
    // Writing to a string can't fail.
    let _ = match (kind, names.len()) {
        (Kind::Slices, 0) => write!(path, "?labelSelector=kubernetes.io%2Fservice-name%3D{first}"),
        (Kind::Slices, _) => write!(path, "?labelSelector=kubernetes.io%2Fservice-name%20in%20%28{first}"),
        _ => write!(path, "?fieldSelector=metadata.name%3D{first}"),
    };
    if kind == Kind::Slices && names.len() > 0 {
        for name in names {
            let _ = write!(path, "%2C{name}");
        }
        path.push_str("%29");
    }
    path
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Service => "service",
            Kind::Slices => "endpointslices of",
            Kind::Config => "configmap",
        };
        if self.wide {
            return write!(f, "services of {}", self.namespace);
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        write!(f, "{kind} {}/{}", self.namespace, names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_narrow() {
        let slices = Scope::narrow(Kind::Slices, "shop", "cart");
        assert_eq!(
            slices.watch_path(),
            "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dcart"
        );
        let service = Scope::narrow(Kind::Service, "shop", "cart");
        assert!(service.watch_path().ends_with("/shop/services?fieldSelector=metadata.name%3Dcart"));
        let shard = Scope::narrow(Kind::Config, "shop", "ferrule-2");
        assert!(shard.watch_path().ends_with("/shop/configmaps?fieldSelector=metadata.name%3Dferrule-2"));
    }

    #[test]
    fn one_selector_names_the_slices_of_several_services() {
        let names = BTreeSet::from(["cart".to_owned(), "db".to_owned(), "web".to_owned()]);
        let scope = Scope { names: names.clone(), ..Scope::narrow(Kind::Slices, "shop", "cart") };
        assert!(
            scope
                .watch_path()
                .ends_with("?labelSelector=kubernetes.io%2Fservice-name%20in%20%28cart%2Cdb%2Cweb%29")
        );
        assert_eq!(scope.to_string(), "endpointslices of shop/cart,db,web");
        assert_eq!(scope.lists(&names).len(), 1);
    }

    #[test]
    fn a_wide_scope_is_listed_name_by_name() {
        let names = BTreeSet::from(["cart".to_owned(), "db".to_owned()]);
        let scope =
            Scope { wide: true, names: names.clone(), ..Scope::narrow(Kind::Service, "shop", "cart") };
        assert_eq!(scope.watch_path(), "/api/v1/namespaces/shop/services?");
        let lists = scope.lists(&names);
        assert!(lists[1].0.ends_with("?fieldSelector=metadata.name%3Ddb"));
        assert_eq!(scope.to_string(), "services of shop");
    }
}
