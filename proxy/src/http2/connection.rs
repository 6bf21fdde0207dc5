//! A connection as those who use it see it; [`driver`](super::driver) reads and writes it.

use std::{
    cell::{Cell, RefCell, RefMut},
    rc::Rc,
    task::Waker,
    time::Instant,
};

use super::{
    core::{Core, Role},
    frame::Code,
};
use crate::limits::Http2Limits;

/// What the driver and the streams of a connection share.
pub struct Connection {
    core: RefCell<Core>,
    driver: Cell<Option<Waker>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    /// A connection that begins; [`drive`](Connection::drive) has to run for it to do anything.
    #[must_use]
    pub fn new(role: Role, limits: Http2Limits) -> Rc<Self> {
        Rc::new(Self { core: RefCell::new(Core::new(role, limits, Instant::now())), driver: Cell::new(None) })
    }

    pub(super) fn core(&self) -> RefMut<'_, Core> {
        self.core.borrow_mut()
    }

    /// Keeps what [`Connection::wake`] is to wake.
    pub(super) fn set_driver(&self, waker: Waker) {
        self.driver.set(Some(waker));
    }

    /// Has the driver write what there is.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.driver.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_if_written(&self) {
        if !self.core.borrow().out.is_empty() {
            self.wake();
        }
    }

    pub(super) fn release(&self, id: u32) {
        let mut core = self.core();
        let unfinished = core.streams.find(id).map(|entry| (entry.received_end, entry.sent_end));
        match unfinished {
            // The response was sent before the request had come to its end (RFC 9113 §8.1).
            Some((false, true)) if core.role() == Role::Server => core.reset(id, Code::NO_ERROR),
            Some((true, true)) | None => {}
            Some(_) => core.reset(id, Code::CANCEL),
        }
        core.forget(id);
        drop(core);
        // Also because a connection that waits for its last stream ends with it.
        self.wake();
    }

    /// Whether a stream could be opened now.
    #[must_use]
    pub fn can_open(&self) -> bool {
        self.core.borrow().can_open()
    }

    /// Whether streams may be opened, now or later.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.core.borrow().is_usable()
    }

    /// Streams that are open.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.core.borrow().streams.len()
    }

    /// Streams that the peer allows, once it has told.
    #[must_use]
    pub fn allowed_streams(&self) -> Option<u32> {
        self.core.borrow().allowed_streams()
    }

    /// Has as many streams opened at most until the peer tells its limit.
    pub fn assume_streams(&self, streams: u32) {
        self.core().assume_streams(streams);
    }

    /// Ends the connection when its streams have ended.
    pub fn finish(&self) {
        self.core().refuse_more();
        self.wake();
    }
}
