//! Notices an exchange in which nothing moves.

use std::{cell::Cell, time::Duration};

use crate::limits::{Limit, Limits};

/// What an exchange does at the moment.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Status of the response, once some of it was sent to the client.
    pub forwarded: Cell<Option<u16>>,
    /// Content was taken from the client and can't be sent again.
    pub taken: Cell<bool>,
    /// Something was received or sent since this was last looked at.
    pub moved: Cell<bool>,
    /// The client is waited for: for content of the request, or to take some of the response.
    pub reads_client: Cell<bool>,
    /// See [`Progress::reads_client`].
    pub writes_client: Cell<bool>,
}

impl Progress {
    fn waits_for_client(&self) -> bool {
        // While the endpoint's response is awaited, a client that sends nothing more keeps nobody waiting.
        self.writes_client.get() || (self.reads_client.get() && self.forwarded.get().is_none())
    }
}

/// Waits until nothing has moved for as long as is allowed, and tells which limit that was.
pub(super) async fn stalled(progress: &Progress, limits: &Limits) -> Limit {
    let Limits { client_stall, endpoint_stall, .. } = *limits;
    let mut still = Duration::ZERO;
    loop {
        let limit = if progress.waits_for_client() { client_stall } else { endpoint_stall };
        let pause = limit.saturating_sub(still).min(client_stall.min(endpoint_stall));
        if pause.is_zero() {
            return if progress.waits_for_client() { Limit::ClientStall } else { Limit::EndpointStall };
        }
        tokio::time::sleep(pause).await;
        still = if progress.moved.take() { Duration::ZERO } else { still + pause };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            client_stall: Duration::from_secs(5),
            endpoint_stall: Duration::from_secs(60),
            ..Limits::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_side_has_its_own_patience() {
        let begin = tokio::time::Instant::now();
        assert_eq!(stalled(&Progress::default(), &limits()).await, Limit::EndpointStall);
        assert_eq!(begin.elapsed(), Duration::from_secs(60));
        let progress = Progress { writes_client: Cell::new(true), ..Progress::default() };
        let begin = tokio::time::Instant::now();
        assert_eq!(stalled(&progress, &limits()).await, Limit::ClientStall);
        assert_eq!(begin.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn what_moves_is_not_stalled() {
        let progress = Progress { reads_client: Cell::new(true), ..Progress::default() };
        let limits = limits();
        tokio::select! {
            limit = stalled(&progress, &limits) => panic!("{limit:?}"),
            () = async {
                for _ in 0..30 {
                    tokio::time::sleep(Duration::from_secs(3)).await;
                    progress.moved.set(true);
                }
            } => {}
        }
    }
}
