//! How long a broken watch waits before it begins anew.

use std::time::Duration;

use backon::ExponentialBuilder;
use kube::runtime::watcher::ExponentialBackoff;

/// Grows to 3 s, with jitter. kube's own default grows to 30 s, so that after an outage of the API server a
/// Route, or a caBundle that was cleared, would have to wait for half a minute.
pub(crate) fn watch_backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(3))
        .with_jitter()
        .without_max_times()
        .into()
}
