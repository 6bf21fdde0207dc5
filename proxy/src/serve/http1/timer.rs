//! One timer a connection, for all its limits.

use std::{pin::Pin, time::Instant};

use tokio::time::Sleep;

/// Waits until points in time that are nearly always overtaken by events.
///
/// A timer of its own for each wait would be put in and taken out of the runtime's wheel several times a request.
/// This one stays where it is as long as it fires early enough, and looks at the clock when it does.
pub(super) struct Timer<'a>(Pin<&'a mut Sleep>);

impl<'a> Timer<'a> {
    /// A timer that uses `sleep`, whatever that was set to.
    pub fn new(sleep: Pin<&'a mut Sleep>) -> Self {
        Self(sleep)
    }

    /// Waits until `when`.
    pub async fn until(&mut self, when: Instant) {
        if self.0.deadline().into_std() > when {
            self.0.as_mut().reset(when.into());
        }
        loop {
            self.0.as_mut().await;
            if Instant::now() >= when {
                return;
            }
            self.0.as_mut().reset(when.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use super::*;

    #[tokio::test]
    async fn it_waits_neither_too_short_nor_too_long_whatever_it_was_set_to() {
        for set in [0, 1, 60_000] {
            let mut timer = Timer(pin!(tokio::time::sleep(Duration::from_millis(set))));
            for wait in [20, 5, 40] {
                let begun = Instant::now();
                let wait = Duration::from_millis(wait);
                timer.until(begun + wait).await;
                assert!(begun.elapsed() >= wait);
                assert!(begun.elapsed() < Duration::from_secs(5), "set to {set} ms");
            }
        }
    }
}
