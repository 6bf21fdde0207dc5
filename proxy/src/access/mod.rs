//! Who may call this pod: decided for each request, and for each connection that carries none.
//!
//! ```text
//!   discovery::own ──▶ Policy (compiled) ──▶ Access (in force, all threads) ──▶ Guard (a thread's) ──▶ inbound, serve
//!                                                    │ changes                     └─ held: connections that carry bytes
//!                                                    └──────────────────────────────▶ are looked at again, and ended
//! ```
//!
//! `policy` and `path` are pure. `docs/access.md` has the rules.

mod guard;
mod held;
mod path;
mod policy;
mod subject;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

pub use self::{
    guard::{Check, Guard},
    held::{Held, revoked},
    path::meaning,
    policy::{Policy, Refusal, Verdict, Why},
    subject::{Asked, Subject},
};

/// What is in force for this pod; clones are the same.
#[derive(Clone, Debug)]
pub struct Access(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    policy: ArcSwap<Policy>,
    changes: watch::Sender<()>,
}

impl Default for Access {
    /// Everybody is let in.
    fn default() -> Self {
        Self(Arc::new(Shared { policy: ArcSwap::default(), changes: watch::channel(()).0 }))
    }
}

impl Access {
    /// Puts this in force: for all requests from here on, and for connections that carry bytes also afterwards.
    pub fn set(&self, policy: Policy) {
        self.0.policy.store(Arc::new(policy));
        self.0.changes.send_replace(());
    }

    /// What is in force. To be held for a decision, not for longer.
    fn now(&self) -> arc_swap::Guard<Arc<Policy>> {
        self.0.policy.load()
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }
}
