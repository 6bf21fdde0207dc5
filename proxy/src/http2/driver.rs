//! The driver of a connection: the one task that reads and writes its socket.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{connection::Connection, core::Role, frame::ConnectionError, stream::Stream};
use crate::{
    buffer::{self, Buffer},
    drain::{Drain, Phase},
    limits::Limit,
};

/// Bytes of a read.
const READ: usize = 64 * 1024;
/// Reads in a row before the thread's other tasks get their turn.
const TURN: usize = 4;
/// Bytes that wait to be written before nothing more is read: the peer must take answers to be given more.
const OUT_FULL: usize = 256 * 1024;
/// How long the end of a connection may take to be written, and its answer to be waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

thread_local! {
    /// Where all connections of a thread read to: what is left over of it is seldom more than a few bytes.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// What happens on a connection that others have to know of.
#[derive(Debug)]
pub enum Event {
    /// The peer has opened a stream.
    Opened(Stream),
    /// The peer wanted more than this limit allows.
    Exceeded(Limit),
}

/// Time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Without a stream; then the connection ends.
    pub idle: Duration,
    /// Without a stream; then header tables are given back.
    pub rest: Duration,
    /// From the first frame of a header block to its last, from the first byte of a frame to its last (DATA has none
    /// of this), and for the preface with its SETTINGS.
    pub head: Duration,
    /// Without the peer taking a byte of what is to be written.
    pub stall: Duration,
}

impl Connection {
    /// Reads and writes until the connection has ended. `read`: what was already read; its memory is given back before
    /// anything is waited for. `tell` is given what happens.
    ///
    /// # Errors
    /// How the peer broke the rules; it was told.
    pub async fn drive(
        self: &Rc<Self>,
        mut io: impl AsyncRead + AsyncWrite + Unpin,
        read: Buffer,
        times: Times,
        drain: &Drain,
        tell: impl FnMut(Event),
    ) -> Result<(), ConnectionError> {
        let mut driver = Driver {
            connection: self,
            pending: Vec::new(),
            tell,
            written: 0,
            stuck_since: None,
            begun: None,
            rests: false,
        };
        let received = driver.receive(read.data());
        drop(read);
        let outcome = match received {
            Ok(()) => driver.run(&mut io, times, drain).await,
            Err(error) => Err(error),
        };
        {
            let mut core = self.core();
            match outcome {
                Err(error) => core.fail(error),
                Ok(()) => core.close(),
            }
        }
        if let Err(ConnectionError { limit, .. }) = outcome {
            if let Some(limit) = limit {
                (driver.tell)(Event::Exceeded(limit));
            }
            let _ = tokio::time::timeout(LAST_WORDS, driver.last_words(&mut io)).await;
        }
        buffer::give_back(std::mem::take(&mut self.core().out));
        outcome
    }
}

struct Driver<'a, T> {
    connection: &'a Rc<Connection>,
    /// The beginning of a frame.
    pending: Vec<u8>,
    tell: T,
    /// How much of what waits was written.
    written: usize,
    stuck_since: Option<Instant>,
    /// Since when the greeting or a frame is incomplete.
    begun: Option<Instant>,
    /// What a connection needs no more after a long pause was given back.
    rests: bool,
}

/// What a turn of the driver found.
enum Turn {
    /// The peer has closed, or everything is done.
    Closed,
    /// A time limit has to be looked at.
    Time,
    /// The process is ending.
    Drain,
}

impl<T: FnMut(Event)> Driver<'_, T> {
    async fn run(
        &mut self,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
        times: Times,
        drain: &Drain,
    ) -> Result<(), ConnectionError> {
        let mut idle_since = Instant::now();
        let mut phase = Phase::Serving;
        let mut announced: Option<Instant> = None;
        loop {
            let wake_at = self.next_look(times, idle_since, announced);
            let turn = {
                let mut next_phase = pin!(drain.reached(match phase {
                    Phase::Serving => Phase::Draining,
                    _ => Phase::Closing,
                }));
                let mut timer = pin!(tokio::time::sleep_until(wake_at.into()));
                let done = phase == Phase::Closing;
                poll_fn(|cx| {
                    if let Poll::Ready(result) = self.poll(cx, io) {
                        return Poll::Ready(result.map(|()| Turn::Closed));
                    }
                    if !done && next_phase.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Ok(Turn::Drain));
                    }
                    if self.rests && self.connection.core().active {
                        return Poll::Ready(Ok(Turn::Time));
                    }
                    // What has begun just now may have to end earlier.
                    if let Some(earlier) = self.limit_at(times, announced)
                        && earlier < wake_at
                    {
                        timer.as_mut().reset(earlier.into());
                    }
                    timer.as_mut().poll(cx).map(|()| Ok(Turn::Time))
                })
                .await?
            };
            let now = Instant::now();
            match turn {
                Turn::Closed => return Ok(()),
                Turn::Drain => {
                    phase = if phase == Phase::Serving { Phase::Draining } else { Phase::Closing };
                    if announced.is_none() {
                        self.connection.core().announce_end();
                        announced = Some(now);
                    }
                    // A client's streams that are on their way are waited for: see `announced`.
                    let mut core = self.connection.core();
                    if phase == Phase::Closing && core.role() == Role::Client {
                        core.refuse_more();
                    }
                }
                Turn::Time => {
                    let mut core = self.connection.core();
                    let begun = [core.block_since, self.begun];
                    if begun.into_iter().flatten().any(|since| now >= since + times.head) {
                        let reason = "greeting, frame or header block did not end in time";
                        return Err(ConnectionError::limit(Limit::HeadTime, reason));
                    }
                    if self.stuck_since.is_some_and(|since| now >= since + times.stall) {
                        return Err(ConnectionError::limit(
                            Limit::ClientStall,
                            "nothing is taken of what is sent",
                        ));
                    }
                    if std::mem::take(&mut core.active) || !core.streams.is_empty() {
                        idle_since = now;
                        self.rests = false;
                    } else if !self.rests && now >= idle_since + times.rest {
                        core.give_back();
                        self.rests = true;
                    }
                    drop(core);
                    if now >= idle_since + times.idle {
                        (self.tell)(Event::Exceeded(Limit::Idle));
                        self.connection.core().refuse_more();
                        // A peer that does not take the GOAWAY is looked at again, not at once.
                        idle_since = now;
                    }
                    if announced.is_some_and(|since| now >= since + LAST_WORDS) {
                        self.connection.core().refuse_more();
                        announced = None;
                    }
                }
            }
        }
    }

    /// When a time limit may have passed. Coarse: streams come and go without this being computed anew.
    fn next_look(&self, times: Times, idle_since: Instant, announced: Option<Instant>) -> Instant {
        let idle = idle_since + if self.rests { times.idle } else { times.rest.min(times.idle) };
        self.limit_at(times, announced).map_or(idle, |limit| limit.min(idle))
    }

    /// When what is under way has to have come to its end.
    fn limit_at(&self, times: Times, announced: Option<Instant>) -> Option<Instant> {
        let limits = [
            self.connection.core().block_since.map(|since| since + times.head),
            self.begun.map(|since| since + times.head),
            self.stuck_since.map(|since| since + times.stall),
            announced.map(|since| since + LAST_WORDS),
        ];
        limits.into_iter().flatten().min()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Poll<Result<(), ConnectionError>> {
        for _ in 0..TURN {
            if self.poll_write(cx, io).is_err() {
                return Poll::Ready(Ok(()));
            }
            if self.is_done() {
                // A failure to close leaves nothing to be done.
                return Pin::new(&mut *io).poll_shutdown(cx).map(|_| Ok(()));
            }
            if self.connection.core().out.len() - self.written > OUT_FULL {
                self.wait(cx);
                return Poll::Pending;
            }
            match self.poll_read(cx, io) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.wait(cx);
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Has the streams wake this task.
    fn wait(&self, cx: &Context<'_>) {
        self.connection.core().rest();
        self.connection.set_driver(cx.waker().clone());
    }

    fn is_done(&self) -> bool {
        let mut core = self.connection.core();
        if core.ponged {
            core.ponged = false;
            core.refuse_more();
        }
        core.streams.is_empty() && core.out.is_empty() && !core.is_usable()
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, io: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut core = self.connection.core();
        let was_full = !core.has_room();
        while self.written < core.out.len() {
            match Pin::new(&mut *io).poll_write(cx, &core.out[self.written..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.written += count;
                    self.stuck_since = None;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    self.stuck_since.get_or_insert_with(Instant::now);
                    break;
                }
            }
        }
        if self.written == core.out.len() {
            self.written = 0;
            core.out.clear();
            // What TLS has taken lies encrypted until the socket takes it.
            match Pin::new(&mut *io).poll_flush(cx) {
                Poll::Ready(flushed) => {
                    flushed?;
                    self.stuck_since = None;
                }
                Poll::Pending => {
                    self.stuck_since.get_or_insert_with(Instant::now);
                }
            }
        } else if self.written >= READ {
            core.out.drain(..self.written);
            self.written = 0;
        }
        if was_full && core.has_room() {
            core.wake_senders();
        }
        Ok(())
    }

    /// Reads once and takes it in; `false` at the end.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut (impl AsyncRead + Unpin),
    ) -> Poll<Result<bool, ConnectionError>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let kept = self.pending.len();
            let result = {
                let mut buffer = ReadBuf::new(&mut scratch[kept..]);
                match Pin::new(io).poll_read(cx, &mut buffer) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(result) => result.map(|()| buffer.filled().len()),
                }
            };
            let Ok(count @ 1..) = result else { return Poll::Ready(Ok(false)) };
            scratch[..kept].copy_from_slice(&self.pending);
            Poll::Ready(self.receive(&scratch[..kept + count]).map(|()| true))
        })
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        let now = Instant::now();
        let mut core = self.connection.core();
        let result = core.receive(bytes, now);
        let accepted = std::mem::take(&mut core.accepted);
        let exceeded = std::mem::take(&mut core.exceeded);
        let greeting = core.awaits_greeting();
        drop(core);
        for limit in exceeded {
            (self.tell)(Event::Exceeded(limit));
        }
        for &id in &accepted {
            (self.tell)(Event::Opened(Stream::new(Rc::clone(self.connection), id)));
        }
        let used = result?;
        self.pending.clear();
        self.pending.extend_from_slice(&bytes[used..]);
        self.begun = match self.begun {
            _ if self.pending.is_empty() && !greeting => None,
            Some(since) if used == 0 => Some(since),
            _ => Some(now),
        };
        if self.pending.is_empty() && self.pending.capacity() > READ / 16 {
            self.pending = Vec::new();
        }
        let mut core = self.connection.core();
        if core.accepted.capacity() == 0 {
            let mut accepted = accepted;
            accepted.clear();
            core.accepted = accepted;
        }
        Ok(())
    }

    /// Writes the GOAWAY and reads on for a moment, so that it is not lost to a reset by the system.
    async fn last_words(&mut self, io: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
        poll_fn(|cx| {
            self.poll_write(cx, io)?;
            let written = self.connection.core().out.is_empty();
            if written { Poll::Ready(Ok::<_, io::Error>(())) } else { Poll::Pending }
        })
        .await?;
        poll_fn(|cx| Pin::new(&mut *io).poll_shutdown(cx)).await?;
        let mut dropped = vec![0; 4096];
        let mut left = READ;
        while left > 0 {
            let count = tokio::io::AsyncReadExt::read(io, &mut dropped).await?;
            if count == 0 {
                break;
            }
            left = left.saturating_sub(count);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
