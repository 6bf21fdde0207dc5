//! Connections that carry bytes: they may last for days, so a change of policy ends those that are not allowed any more.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

use super::{Policy, Subject, Verdict};
use crate::peer::Caller;

/// What is decided on a connection when another policy is in force.
type Decide = dyn Fn(&Policy, &Subject<'_>) -> Verdict;

/// A connection that was let in.
pub struct Held {
    caller: Rc<Caller>,
    decide: Box<Decide>,
    ended: Cell<bool>,
    waits: RefCell<Option<Waker>>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("caller", &self.caller)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Held {
    pub(super) fn new(
        caller: Rc<Caller>,
        decide: impl Fn(&Policy, &Subject<'_>) -> Verdict + 'static,
    ) -> Self {
        Self { caller, decide: Box::new(decide), ended: Cell::new(false), waits: RefCell::default() }
    }

    pub(super) fn decide(&self, policy: &Policy) -> Verdict {
        (self.decide)(policy, &self.caller.subject())
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    pub(super) fn end(&self) {
        self.ended.set(true);
        if let Some(waker) = self.waits.take() {
            waker.wake();
        }
    }
}

/// Waits until the connection is not allowed any more; for ever if there is none to be held.
pub async fn revoked(held: Option<&Held>) {
    poll_fn(|context| {
        let Some(held) = held else { return Poll::Pending };
        if held.ended.get() {
            return Poll::Ready(());
        }
        let mut waits = held.waits.borrow_mut();
        match &mut *waits {
            Some(waker) => waker.clone_from(context.waker()),
            None => *waits = Some(context.waker().clone()),
        }
        Poll::Pending
    })
    .await;
}
