//! Readiness of sockets: a thin, safe layer over epoll.

use std::{io, os::fd::AsFd, os::fd::OwnedFd, time::Duration};

use rustix::event::{Timespec, epoll};

/// A socket on which something has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// What it was added with.
    pub token: usize,
    /// Its peer has closed: reading is to go on to the end, for no other event will come.
    pub ended: bool,
}

/// Told at once when a socket becomes readable or writable, and not again until that has changed.
#[allow(missing_debug_implementations, reason = "epoll's events have none")]
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

const ENDED: epoll::EventFlags =
    epoll::EventFlags::RDHUP.union(epoll::EventFlags::HUP).union(epoll::EventFlags::ERR);
/// Events taken from the kernel at once.
const BATCH: usize = 256;

impl Poller {
    /// A poller that watches nothing yet.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::with_capacity(BATCH) })
    }

    /// Watches a socket until it is closed. `token` comes back in its events.
    ///
    /// # Errors
    /// Those of the system.
    pub fn add(&self, socket: impl AsFd, token: usize) -> io::Result<()> {
        let flags =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token as u64), flags)?)
    }

    /// Waits for events, at most this long; `None` waits as long as it takes. Fills `ready` with them.
    ///
    /// # Errors
    /// Those of the system.
    pub fn wait(&mut self, limit: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let limit = limit.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        });
        self.events.clear();
        ready.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), limit.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| {
            let epoll::Event { flags, data } = *event;
            Ready {
                token: usize::try_from(data.u64()).expect("a token was a usize"),
                ended: flags.intersects(ENDED),
            }
        }));
        Ok(())
    }
}
