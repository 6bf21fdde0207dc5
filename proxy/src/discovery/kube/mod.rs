//! The API server as a source of news: few and narrow watches over HTTP/2.

mod client;
mod watch;

use std::{fmt, net::IpAddr, sync::Arc};

use ferrule_config::shard;
use tokio::{sync::mpsc, task::AbortHandle};

use super::{
    objects::{ConfigMap, EndpointSlice, Name, Service},
    world::Change,
};
use crate::telemetry::Telemetry;
use client::{ApiError, Client};
use watch::{Event, List};

/// Services that one page of a list holds.
const PAGE: usize = 500;

/// Something that is watched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Watched {
    Service(Name),
    Slices(Name),
    /// One shard of a namespace's configuration.
    Shard(String, usize),
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service {name}"),
            Self::Slices(name) => write!(f, "endpointslices of {name}"),
            Self::Shard(namespace, index) => write!(f, "configmap {namespace}/{}", shard::name(*index)),
        }
    }
}

impl Watched {
    /// Path and selector of the collection.
    fn path(&self) -> String {
        match self {
            Self::Service(Name { namespace, name }) => {
                format!("/api/v1/namespaces/{namespace}/services?fieldSelector=metadata.name%3D{name}")
            }
            Self::Slices(Name { namespace, name }) => format!(
                "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{name}"
            ),
            Self::Shard(namespace, index) => {
                let name = shard::name(*index);
                format!("/api/v1/namespaces/{namespace}/configmaps?fieldSelector=metadata.name%3D{name}")
            }
        }
    }
}

pub(super) struct Kube {
    client: Arc<Client>,
    changes: mpsc::Sender<Change>,
}

impl Kube {
    /// With the credentials that the injector mounts.
    pub(super) fn in_cluster(
        changes: mpsc::Sender<Change>,
        telemetry: Arc<Telemetry>,
    ) -> anyhow::Result<Arc<Self>> {
        let client = Arc::new(Client::in_cluster(telemetry)?);
        Ok(Arc::new(Self { client, changes }))
    }

    /// Starts a watch that goes on, whatever happens, until it is aborted.
    pub(super) fn watch(&self, watched: Watched) -> AbortHandle {
        let (client, changes) = (Arc::clone(&self.client), self.changes.clone());
        let path = watched.path();
        let task = async move {
            match watched {
                Watched::Service(name) => {
                    watch::follow(&client, &path, |event: Event<Service>| {
                        let object = match event {
                            Event::All(objects) => objects.into_iter().next(),
                            Event::Put(object) => Some(object),
                            Event::Gone(_) => None,
                        };
                        send(&changes, Change::Service(name.clone(), object))
                    })
                    .await;
                }
                Watched::Slices(service) => {
                    watch::follow(&client, &path, |event: Event<EndpointSlice>| {
                        let change = match event {
                            Event::All(slices) => Change::Slices(service.clone(), slices),
                            Event::Put(object) => Change::Slice {
                                service: service.clone(),
                                slice: object.metadata.name.clone(),
                                object: Some(object),
                            },
                            Event::Gone(object) => Change::Slice {
                                service: service.clone(),
                                slice: object.metadata.name,
                                object: None,
                            },
                        };
                        send(&changes, change)
                    })
                    .await;
                }
                Watched::Shard(namespace, index) => {
                    watch::follow(&client, &path, |event: Event<ConfigMap>| {
                        let object = match event {
                            Event::All(objects) => objects.into_iter().next(),
                            Event::Put(object) => Some(object),
                            Event::Gone(_) => None,
                        };
                        send(&changes, Change::Shard { namespace: namespace.clone(), index, object })
                    })
                    .await;
                }
            }
        };
        tokio::spawn(task).abort_handle()
    }

    /// The Service with this address. The API selects by a Service's primary address only; one of the other
    /// family of a dual-stack Service is found in the list of all, page by page, of which nothing is kept.
    pub(super) async fn service_at(&self, address: IpAddr) -> Result<Option<Service>, ApiError> {
        let selected = format!(
            "/api/v1/services?fieldSelector=spec.clusterIP%3D{}",
            address.to_string().replace(':', "%3A")
        );
        let list: List<Service> = self.client.json(&selected).await?;
        if let Some(service) = list.items.into_iter().next() {
            return Ok(Some(service));
        }
        if !may_be_secondary(address) {
            return Ok(None);
        }
        let mut page = format!("/api/v1/services?limit={PAGE}");
        loop {
            let list: List<Service> = self.client.json(&page).await?;
            let found = list.items.into_iter().find(|service| {
                service.spec.cluster_ips.iter().skip(1).any(|each| each.parse() == Ok(address))
            });
            if found.is_some() || list.metadata.continue_token.is_empty() {
                return Ok(found);
            }
            page = format!("/api/v1/services?limit={PAGE}&continue={}", list.metadata.continue_token);
        }
    }
}

/// Whether the address can be a Service's second one: Services have private addresses, and their first family is
/// usually that of the API server's own Service.
fn may_be_secondary(address: IpAddr) -> bool {
    let primary: Option<IpAddr> =
        std::env::var("KUBERNETES_SERVICE_HOST").ok().and_then(|host| host.parse().ok());
    match address {
        IpAddr::V4(v4) => v4.is_private() && !primary.is_some_and(|primary| primary.is_ipv4()),
        IpAddr::V6(v6) => v6.is_unique_local() && !primary.is_some_and(|primary| primary.is_ipv6()),
    }
}

async fn send(changes: &mpsc::Sender<Change>, change: Change) {
    // The keeper is gone only when the process ends.
    let _ = changes.send(change).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_narrow() {
        let name = Name { namespace: "shop".into(), name: "cart".into() };
        let path = Watched::Slices(name.clone()).path();
        assert!(
            path.ends_with(
                "/namespaces/shop/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dcart"
            )
        );
        assert!(Watched::Service(name).path().ends_with("metadata.name%3Dcart"));
        assert!(Watched::Shard("shop".into(), 2).path().ends_with("metadata.name%3Dferrule-2"));
    }
}
