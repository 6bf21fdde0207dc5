//! A stream as the code of a request sees it.

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
};

use super::{
    connection::Connection,
    fields::Fields,
    frame::Code,
    hpack,
    streams::{Ended, Entry},
};

/// What comes next of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Content was put into the buffer.
    Content,
    /// The message ends with these trailers.
    Trailers(Fields),
    /// The message ends.
    End,
}

/// Holds one stream. Dropping it before both sides have ended cancels it.
#[derive(Debug)]
pub struct Stream {
    connection: Rc<Connection>,
    id: u32,
}

impl Connection {
    /// Opens a stream and sends its head. `None`: no stream can be opened here, now or ever.
    #[must_use]
    pub fn open(
        self: &Rc<Self>,
        bodiless: bool,
        end: bool,
        head: impl FnOnce(&mut dyn FnMut(hpack::Field<'_>)),
    ) -> Option<Stream> {
        let mut core = self.core();
        let id = core.open(bodiless)?;
        core.send_section(id, end, head);
        drop(core);
        self.wake();
        Some(Stream::new(Rc::clone(self), id))
    }
}

impl Stream {
    pub(super) fn new(connection: Rc<Connection>, id: u32) -> Self {
        Self { connection, id }
    }

    /// The connection that it belongs to.
    #[must_use]
    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// Takes the head of a request, which is there as soon as the stream is; empty if it was too large.
    #[must_use]
    pub fn request_head(&self) -> Fields {
        self.connection.core().streams.find(self.id).and_then(|entry| entry.head.take()).unwrap_or_default()
    }

    /// Waits for the next head of a response: interim ones come before the final one.
    ///
    /// # Errors
    /// How the stream ended instead.
    pub async fn response_head(&self) -> Result<Fields, Ended> {
        poll_fn(|cx| {
            self.poll_entry(cx, |entry| entry.interim.pop_front().or_else(|| entry.head.take()).map(Ok))
        })
        .await
    }

    /// Appends content to `into`, or tells how the message ends. What is appended counts as taken when more is asked
    /// for: while it waits to be passed on, the peer's window has room for the rest of one window, not for another.
    ///
    /// # Errors
    /// How the stream ended instead.
    pub async fn piece(&self, into: &mut Vec<u8>) -> Result<Piece, Ended> {
        poll_fn(|cx| self.poll_piece(cx, into)).await
    }

    /// See [`Stream::piece`].
    pub fn poll_piece(&self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<Result<Piece, Ended>> {
        let settled = self.connection.core().settle(self.id);
        if settled {
            self.connection.wake_if_written();
        }
        self.poll_entry(cx, |entry| {
            if !entry.data.is_empty() {
                entry.handed_out = u32::try_from(entry.data.len()).unwrap_or(u32::MAX);
                if into.is_empty() && into.capacity() <= entry.data.capacity() {
                    std::mem::swap(into, &mut entry.data);
                } else {
                    into.append(&mut entry.data);
                }
                return Some(Ok(Piece::Content));
            }
            if let Some(trailers) = entry.trailers.take() {
                return Some(Ok(Piece::Trailers(trailers)));
            }
            entry.received_end.then_some(Ok(Piece::End))
        })
    }

    /// Whether all of the message was received, even if it was not taken yet.
    #[must_use]
    pub fn is_received(&self) -> bool {
        self.connection.core().streams.find(self.id).is_some_and(|entry| entry.received_end)
    }

    /// Whether the message was received to its end and nothing of it, content or trailers, is left to be taken.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        let mut core = self.connection.core();
        let entry = core.streams.find(self.id);
        entry.is_some_and(|entry| entry.received_end && entry.data.is_empty() && entry.trailers.is_none())
    }

    /// Bytes of content that were received and not taken yet.
    #[must_use]
    pub fn at_hand(&self) -> usize {
        self.connection.core().streams.find(self.id).map_or(0, |entry| entry.data.len())
    }

    fn poll_entry<T>(
        &self,
        cx: &mut Context<'_>,
        ready: impl FnOnce(&mut Entry) -> Option<Result<T, Ended>>,
    ) -> Poll<Result<T, Ended>> {
        let mut core = self.connection.core();
        let Some(entry) = core.streams.find(self.id) else { return Poll::Ready(Err(Ended::Gone)) };
        if let Some(result) = ready(entry) {
            return Poll::Ready(result);
        }
        match entry.ended {
            Some(ended) => Poll::Ready(Err(ended)),
            None => {
                remember(&mut entry.receiver, cx);
                Poll::Pending
            }
        }
    }

    /// Waits until the peer or the connection has ended the stream before its time.
    pub async fn ended(&self) -> Ended {
        poll_fn(|cx| {
            let mut core = self.connection.core();
            match core.streams.find(self.id) {
                None => Poll::Ready(Ended::Gone),
                Some(Entry { ended: Some(ended), .. }) => Poll::Ready(*ended),
                Some(entry) => {
                    remember(&mut entry.closer, cx);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Sends a head or trailers; `each` is given a function that adds a field (names in lower case).
    pub fn send_section(&self, end: bool, each: impl FnOnce(&mut dyn FnMut(hpack::Field<'_>))) {
        self.connection.core().send_section(self.id, end, each);
        self.connection.wake();
    }

    /// Sends content, as fast as the peer takes it; with `end` it is the last.
    ///
    /// # Errors
    /// How the stream ended instead.
    pub async fn send(&self, content: &[u8], end: bool) -> Result<(), Ended> {
        let mut sent = 0;
        poll_fn(|cx| {
            let mut core = self.connection.core();
            let count = core.send_content(self.id, &content[sent..], end);
            sent += count;
            let Some(entry) = core.streams.find(self.id) else { return Poll::Ready(Err(Ended::Gone)) };
            let done = sent == content.len() && (!end || entry.sent_end);
            let ended = entry.ended;
            if !done && ended.is_none() {
                remember(&mut entry.sender, cx);
            }
            drop(core);
            self.connection.wake();
            match ended {
                Some(ended) => Poll::Ready(Err(ended)),
                None if done => Poll::Ready(Ok(())),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Ends the stream before its time.
    pub fn reset(&self, code: Code) {
        self.connection.core().reset(self.id, code);
        self.connection.wake();
    }
}

fn remember(place: &mut Option<std::task::Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        place => *place = Some(cx.waker().clone()),
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.release(self.id);
    }
}
