//! What is held, for people: the admin port's `/config`.

use std::time::Instant;

use serde_json::json;

use super::{
    balancing,
    keeper::{Keeper, Origin},
};
use crate::snapshot::Backend;

impl Keeper {
    pub(super) fn dump(&self) -> serde_json::Value {
        let now = Instant::now();
        let destinations: Vec<_> = self
            .kept
            .iter()
            .map(|(port, kept)| {
                let snapshot = kept.destination.now();
                let rules = snapshot.rules.iter().map(|rule| {
                    let backends = rule.backends.iter().map(|(bound, backend)| match backend {
                        Backend::Missing(name) => json!({"missing": &**name, "upTo": bound}),
                        Backend::Cluster(cluster) | Backend::Changed(cluster, _) => json!({
                            "service": &*cluster.service,
                            "port": cluster.port,
                            "upTo": bound,
                            "balancer": balancing::describe(&cluster.balancer, now),
                        }),
                    });
                    json!({
                        "name": &*rule.name,
                        "backends": backends.collect::<Vec<_>>(),
                        "requestHeaders": rule.request_headers,
                        "responseHeaders": rule.response_headers,
                        "timeouts": rule.timeouts,
                    })
                });
                json!({
                    "service": format!("{}/{}", port.namespace, port.name),
                    "port": port.port,
                    "protocol": format!("{:?}", snapshot.protocol).to_lowercase(),
                    "balancer": balancing::describe(&snapshot.cluster.balancer, now),
                    "routes": snapshot.routes.entries(),
                    "rules": rules.collect::<Vec<_>>(),
                })
            })
            .collect();
        let watches = match &self.origin {
            Origin::Kube(kube) => kube.dump(),
            Origin::Files => Vec::new(),
        };
        json!({"destinations": destinations, "watches": watches, "lastRefusal": self.last_refusal})
    }
}
