//! Which Service has an address, or which pod.

use std::net::IpAddr;

use ferrule_config::peers;
use http::StatusCode;

use super::{Kube, Shared, error::ApiError};
use crate::discovery::objects::{ConfigMap, Service};

/// Services that one page of a list holds.
const PAGE: usize = 500;

impl Kube {
    /// The Service with this address, if there is one.
    ///
    /// The API selects by a Service's primary address only; one of the other family of a dual-stack Service is found
    /// in the list of all, page by page, of which nothing is kept.
    pub(in crate::discovery) fn service_at(
        &self,
        address: IpAddr,
    ) -> impl Future<Output = Result<Option<Service>, ApiError>> + Send + use<> {
        let shared = self.shared();
        async move {
            let primary = by_primary(&shared, address).await?;
            if primary.is_some() || !may_be_secondary(address) {
                return Ok(primary);
            }
            by_secondary(&shared, address).await
        }
    }
}

impl Kube {
    /// The pod with a sidecar at this address, if there is one, by what the operator keeps in its namespace.
    pub(in crate::discovery) fn pod_at(
        &self,
        system: &str,
        address: IpAddr,
    ) -> impl Future<Output = Result<Option<peers::Peer>, ApiError>> + Send + use<> {
        let shared = self.shared();
        let name = peers::name(peers::shard(address));
        // From the API server's memory: this is asked for each address that is no Service's.
        let path = format!("/api/v1/namespaces/{system}/configmaps/{name}?resourceVersion=0");
        async move {
            let object: ConfigMap = match shared.client.object(&path).await {
                // An operator that knows nothing of it, or has not written it yet.
                Err(ApiError::Status { status: StatusCode::NOT_FOUND, .. }) => return Ok(None),
                object => object?,
            };
            let mut addresses = peers::read(&object.data)?;
            Ok(addresses.remove(&address.to_canonical()))
        }
    }
}

async fn by_primary(shared: &Shared, address: IpAddr) -> Result<Option<Service>, ApiError> {
    let address = address.to_string().replace(':', "%3A");
    let path = format!("/api/v1/services?fieldSelector=spec.clusterIP%3D{address}");
    let mut found = None;
    let keep = |service: Service| {
        found = Some(service);
        Ok(())
    };
    shared.client.list(&path, false, keep).await?;
    Ok(found)
}

async fn by_secondary(shared: &Shared, address: IpAddr) -> Result<Option<Service>, ApiError> {
    let mut path = format!("/api/v1/services?limit={PAGE}");
    loop {
        let mut found = None;
        let keep = |service: Service| {
            let mut secondary = service.spec.cluster_ips.iter().skip(1);
            if secondary.any(|each| each.parse() == Ok(address)) {
                found = Some(service);
            }
            Ok(())
        };
        let page = shared.client.list(&path, false, keep).await?;
        if found.is_some() || page.metadata.continue_token.is_empty() {
            return Ok(found);
        }
        path = format!("/api/v1/services?limit={PAGE}&continue={}", page.metadata.continue_token);
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
