//! Checks now and then that what is held is what there is. A watch that works never needs it; one that lost
//! something, for whatever reason, would stay wrong for ever without it.
//!
//! The lists are consistent reads (no `resourceVersion` given), not `resourceVersion=0`: that would be answered from the
//! same cache that serves the watches, which is one of the things that may be behind. Since Kubernetes 1.31 such a
//! list costs etcd no more than the question how far it is (KEP-2340).

use std::{sync::Arc, time::Duration};

use super::{
    Shared,
    error::ApiError,
    follow::Progress,
    object::{Kind, Object},
    scope::Scope,
};
use crate::discovery::objects::{ConfigMap, EndpointSlice, Service};

/// Checks all watches again and again.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        // Proxies that were started together do not ask together.
        let pause = shared.times.check.mul_f64(0.75 + fastrand::f64() / 2.0);
        tokio::time::sleep(pause).await;
        for (scope, progress) in shared.watches() {
            let checked = match scope.kind {
                Kind::Service => check::<Service>(&shared, &scope, &progress).await,
                Kind::Slices => check::<EndpointSlice>(&shared, &scope, &progress).await,
                Kind::Config => check::<ConfigMap>(&shared, &scope, &progress).await,
            };
            if let Err(error) = checked {
                tracing::debug!(%error, %scope, "check failed; the next one is in {:?}", shared.times.check);
            }
        }
    }
}

async fn check<T: Object>(shared: &Shared, scope: &Scope, progress: &Progress) -> Result<(), ApiError> {
    let names = shared.feed.wanted(scope.kind, &scope.namespace);
    for (path, keys) in scope.lists(&names) {
        let listed = shared.feed.read::<T>(&shared.client, &path, &keys).await?;
        shared.telemetry.discovery.checks.inc();
        if !shared.feed.differs(&listed) {
            continue;
        }
        // It may only be late.
        tokio::time::sleep(shared.times.grace).await;
        let mended = shared.feed.take(listed).await?;
        if mended > 0 {
            shared.telemetry.discovery.mended(scope.kind.name(), mended);
            tracing::warn!(
                %scope,
                mended,
                silent = ?rounded(progress.silence(std::time::Instant::now())),
                "a watch missed changes; they were taken from a list and the watch begins again"
            );
            progress.begin_again();
        }
    }
    Ok(())
}

fn rounded(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}
