//! The usual cast: a Service `reviews` with two versions behind it, and two clients.

use std::{ops::Deref, time::Duration};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{client::Client, namespace::Namespace, scene::Scene, wait::eventually};

/// URL of the Service that routes are for.
pub const URL: &str = "http://reviews:8080/";

/// A namespace with `manifests/shop.yaml` in it.
pub struct Shop {
    namespace: Namespace,
}

impl Deref for Shop {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Shop {
    /// Creates the namespace, applies the manifest and waits until all is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn open(scene: &Scene) -> Result<Self> {
        let namespace = scene.namespace("shop", true)?;
        furnish(&namespace)?;
        Ok(Self { namespace })
    }

    /// A shop that other tests use too, without Routes; for tests that leave its pods as they are.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn shared(scene: &Scene) -> Result<Self> {
        let namespace = scene.shared("shop", furnish)?;
        namespace.kubectl(&["delete", "routes.ferrule.dev", "--all"])?;
        Ok(Self { namespace })
    }

    /// Both clients.
    ///
    /// # Errors
    /// When there is none.
    pub fn clients(&self) -> Result<Vec<Client>> {
        let pods = self.pod_names("app=client")?;
        Ok(pods.iter().map(|pod| Client::new(&self.namespace, pod)).collect())
    }

    /// The first client.
    ///
    /// # Errors
    /// When there is none.
    pub fn client(&self) -> Result<Client> {
        Ok(self.clients()?.swap_remove(0))
    }

    /// Applies a Route and waits until the first client's requests obey it, as `expected` tells by the version.
    ///
    /// # Errors
    /// When they don't within 5 s.
    pub fn route_and_wait(&self, route: &Value, expected: &str) -> Result<()> {
        self.apply(&route.to_string())?;
        let client = self.client()?;
        eventually(&format!("all requests go to {expected}"), Duration::from_secs(5), || {
            let summary = client.load(URL, &["--count", "20"])?;
            ensure!(summary.versions.get(expected) == Some(&20), "{:?}", summary.versions);
            Ok(())
        })
    }
}

fn furnish(namespace: &Namespace) -> Result<()> {
    namespace.apply_file("shop.yaml")?;
    namespace.wait_for_rollouts()
}

/// A Route for `reviews` with these rules.
#[must_use]
pub fn route(rules: &Value) -> Value {
    json!({
        "apiVersion": "ferrule.dev/v1alpha1", "kind": "Route", "metadata": {"name": "reviews"},
        "spec": {"targetRefs": [{"kind": "Service", "name": "reviews"}], "rules": rules},
    })
}

/// A Route that splits by weight.
#[must_use]
pub fn split(v1: u32, v2: u32) -> Value {
    route(&json!([{"backendRefs": [
        {"name": "reviews-v1", "port": 8080, "weight": v1},
        {"name": "reviews-v2", "port": 8080, "weight": v2},
    ]}]))
}
