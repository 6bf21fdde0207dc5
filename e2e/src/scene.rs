//! What a test acts on: the cluster, and namespaces that are gone when it ends.

use std::{
    collections::BTreeMap,
    env,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::Result;

use crate::{cluster::Cluster, namespace::Namespace, workload::clock};

static COUNTER: AtomicU32 = AtomicU32::new(0);
/// Namespaces that several tests use one after another, since pods take seconds to start.
static SHARED: Mutex<BTreeMap<&'static str, Namespace>> = Mutex::new(BTreeMap::new());

/// What one test acts on.
pub struct Scene {
    cluster: Arc<Cluster>,
    namespaces: Mutex<Vec<Namespace>>,
}

impl Scene {
    /// A scene without namespaces.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, namespaces: Mutex::default() }
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// The namespaces that the test has used.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Namespace> {
        lock(&self.namespaces).clone()
    }

    /// A fresh namespace that lives as long as the test.
    ///
    /// # Errors
    /// When it can't be created.
    pub fn namespace(&self, hint: &str, meshed: bool) -> Result<Namespace> {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("e2e-{hint}-{}-{number}", clock::wall_us() / 1_000_000 % 1_000_000);
        let namespace = Namespace::create(&self.cluster, &name, meshed)?;
        lock(&self.namespaces).push(namespace.clone());
        Ok(namespace)
    }

    /// A meshed namespace that is furnished once and then used by one test after another, as long as none of
    /// them fails: a failed one may have left a mess.
    ///
    /// # Errors
    /// When it can't be created or furnished.
    pub fn shared(
        &self,
        hint: &'static str,
        furnish: impl FnOnce(&Namespace) -> Result<()>,
    ) -> Result<Namespace> {
        let known = lock(&SHARED).get(hint).cloned();
        if let Some(namespace) = known {
            lock(&self.namespaces).push(namespace.clone());
            return Ok(namespace);
        }
        let namespace = self.namespace(hint, true)?;
        furnish(&namespace)?;
        lock(&SHARED).insert(hint, namespace.clone());
        Ok(namespace)
    }

    /// Deletes the namespaces, but for those that other tests can use, and those that a failure is to be
    /// looked for in.
    pub fn end(self, success: bool) {
        for namespace in self.namespaces() {
            let mut shared = lock(&SHARED);
            let is_shared = shared.values().any(|other| other.name() == namespace.name());
            if success && is_shared {
                continue;
            }
            shared.retain(|_, other| other.name() != namespace.name());
            if success || env::var_os("FERRULE_E2E_KEEP").is_none() {
                delete(&namespace);
            }
        }
    }
}

/// Deletes the shared namespaces, when no test follows.
pub fn clear() {
    for namespace in std::mem::take(&mut *lock(&SHARED)).values() {
        delete(namespace);
    }
}

fn delete(namespace: &Namespace) {
    // Whoever runs the tests again gets fresh names; a namespace left behind only costs room.
    let _ = namespace.cluster().kubectl(&["delete", "namespace", namespace.name(), "--wait=false"]);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
