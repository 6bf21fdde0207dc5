//! Points in time that can be compared between processes of one machine.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds of the wall clock since 1970.
#[must_use]
pub fn wall_us() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
}
