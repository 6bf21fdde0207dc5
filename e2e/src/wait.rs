//! Waiting for what comes true in a while.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

const INTERVAL: Duration = Duration::from_millis(100);

/// Tries until it succeeds.
///
/// # Errors
/// The last attempt's, once `limit` has passed.
pub fn eventually<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("{what}: not within {limit:?}"));
            }
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn the_last_error_is_told_with_what_was_waited_for() {
        let error = eventually::<()>("rain", Duration::ZERO, || bail!("dry")).expect_err("never comes true");
        assert_eq!(format!("{error:#}"), "rain: not within 0ns: dry");
    }

    #[test]
    fn the_first_success_ends_it() {
        let mut attempts = 0;
        let result = eventually("third", Duration::from_secs(5), || {
            attempts += 1;
            if attempts < 3 { bail!("not yet") } else { Ok(attempts) }
        });
        assert_eq!(result.expect("comes true"), 3);
    }
}
