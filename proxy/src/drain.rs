//! How a proxy ends: in phases that every connection can see.
//!
//! ```text
//!   Serving ──SIGTERM──▶ Draining ──linger──▶ Closing ──last connection, or time is up──▶ exit
//! ```
//!
//! A native sidecar is told to end after the application has ended, at a time when other proxies may still hold
//! connections to it. While `Draining` these are served: a request for an application that is gone is answered
//! with the proof that it was not processed, so the other proxy sends it elsewhere. `Closing` closes whatever idles.

use std::sync::Arc;

use tokio::sync::watch;

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Business as usual.
    Serving,
    /// Responses ask clients to close; idle connections stay.
    Draining,
    /// Idle connections are closed, nothing new is accepted.
    Closing,
}

/// A connection's view of the end. Counted: the drain waits until all clones but the first are dropped.
#[derive(Clone, Debug)]
pub struct Drain {
    phase: watch::Receiver<Phase>,
    alive: Arc<()>,
}

/// The side that decides.
#[derive(Debug)]
pub struct DrainControl {
    phase: watch::Sender<Phase>,
    alive: Arc<()>,
}

/// A control and the view that is handed out.
#[must_use]
pub fn channel() -> (DrainControl, Drain) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    let alive = Arc::new(());
    (DrainControl { phase: sender, alive: Arc::clone(&alive) }, Drain { phase: receiver, alive })
}

impl Drain {
    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether clients should be told to close.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.phase() >= Phase::Draining
    }

    /// Waits for a phase; for ever if the control is gone.
    pub async fn reached(&self, phase: Phase) {
        let mut receiver = self.phase.clone();
        if receiver.wait_for(|now| *now >= phase).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// A token for one connection: while it lives, the drain is not over.
    #[must_use]
    pub fn token(&self) -> Token {
        Token(Arc::clone(&self.alive))
    }
}

/// Keeps the drain waiting until it is dropped.
#[derive(Debug)]
pub struct Token(#[expect(dead_code, reason = "held for its count alone")] Arc<()>);

impl DrainControl {
    /// Moves on to a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Connections that are open; `views` is how many [`Drain`]s were handed out besides their tokens.
    #[must_use]
    pub fn open(&self, views: usize) -> usize {
        (Arc::strong_count(&self.alive) - 1).saturating_sub(views)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn open_connections_are_counted_by_their_tokens() {
        let (control, drain) = channel();
        let token = drain.token();
        assert_eq!(control.open(1), 1);
        drop(token);
        assert_eq!(control.open(1), 0);
    }

    #[tokio::test]
    async fn a_phase_that_was_reached_is_not_waited_for() {
        let (control, drain) = channel();
        assert!(!drain.is_draining());
        control.enter(Phase::Closing);
        drain.reached(Phase::Draining).await;
        assert!(drain.is_draining());
    }
}
