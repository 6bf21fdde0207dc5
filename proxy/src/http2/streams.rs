//! The streams of a connection, by their identifiers.

use std::{collections::VecDeque, task::Waker};

use super::{fields::Fields, frame::Code};

/// Streams of the recent past that are told apart from those that never were.
const REMEMBERED: usize = 64;
/// Retired streams whose memory is used again.
const KEPT: usize = 32;
/// A body buffer that has grown beyond this is not kept.
const USUAL: usize = 32 * 1024;

/// Why a stream ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer sent RST_STREAM.
    ByPeer(Code),
    /// The peer broke the rules on it, and was sent RST_STREAM.
    Faulty,
    /// The connection is gone.
    Gone,
    /// GOAWAY said that it was not processed (RFC 9113 §6.8).
    Refused,
}

/// One stream.
#[derive(Debug, Default)]
pub struct Entry {
    /// Interim heads that were received and not yet taken; they come before the final one.
    pub interim: VecDeque<Fields>,
    /// The final head, when it was received and not yet taken.
    pub head: Option<Fields>,
    /// Content that was received and not yet taken.
    pub data: Vec<u8>,
    /// Trailers that were received and not yet taken.
    pub trailers: Option<Fields>,
    /// The final head was received.
    pub opened: bool,
    /// The peer has sent END_STREAM.
    pub received_end: bool,
    /// We have sent END_STREAM.
    pub sent_end: bool,
    /// It ended before its time.
    pub ended: Option<Ended>,
    /// Content that must still come according to `Content-Length`.
    pub expected: Option<u64>,
    /// It is the response to a HEAD, so `Content-Length` says nothing of it.
    pub bodiless: bool,
    /// What the peer may still send.
    pub receive_window: i64,
    /// Content handed out and perhaps not yet passed on: it counts as taken when more is asked for.
    pub handed_out: u32,
    /// Content taken that the peer was not yet told of.
    pub taken: u32,
    /// What we may still send; below zero after the peer has shrunk it (RFC 9113 §6.9.2).
    pub send_window: i64,
    /// Whoever waits to receive.
    pub receiver: Option<Waker>,
    /// Whoever waits to send.
    pub sender: Option<Waker>,
    /// Whoever waits for the stream's early end.
    pub closer: Option<Waker>,
}

impl Entry {
    /// Wakes whoever waits for anything.
    pub fn wake_all(&mut self) {
        self.wake_receiver();
        self.wake_sender();
        if let Some(waker) = self.closer.take() {
            waker.wake();
        }
    }

    /// Wakes whoever waits to receive.
    pub fn wake_receiver(&mut self) {
        if let Some(waker) = self.receiver.take() {
            waker.wake();
        }
    }

    /// Wakes whoever waits to send.
    pub fn wake_sender(&mut self) {
        if let Some(waker) = self.sender.take() {
            waker.wake();
        }
    }

    /// Whether both sides have sent all they will.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.ended.is_some() || (self.received_end && self.sent_end)
    }

    fn reset(&mut self) {
        let Self { interim, head, data, trailers, .. } = std::mem::take(self);
        interim.into_iter().chain(head).chain(trailers).for_each(Fields::give_back);
        if data.capacity() <= USUAL {
            self.data = data;
            self.data.clear();
        }
    }
}

/// How a stream that is no more was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// In order, or by the peer's RST_STREAM.
    Closed,
    /// By our RST_STREAM: the peer may not know yet, so its frames are ignored (§5.4.2).
    ResetByUs,
    /// Too long ago to be known, or never opened at all. It may be one that was reset by us, so its frames are ignored.
    Forgotten,
}

/// All streams of a connection that still matter to someone.
#[derive(Debug, Default)]
pub struct Streams {
    /// In the order of their identifiers, which is the order in which they were opened. Boxed, for they are moved.
    open: VecDeque<(u32, Box<Entry>)>,
    #[expect(clippy::vec_box, reason = "they go back into `open` as they are")]
    spare: Vec<Box<Entry>>,
    past: VecDeque<(u32, Past)>,
    /// The highest identifier that has left `past`; above it, what is not there was never opened.
    forgotten: u32,
}

impl Streams {
    /// Adds a stream with a higher identifier than all before.
    pub fn insert(&mut self, id: u32) -> &mut Entry {
        let entry = self.spare.pop().unwrap_or_default();
        self.open.push_back((id, entry));
        let last = self.open.len() - 1;
        &mut self.open[last].1
    }

    fn position(&self, id: u32) -> Option<usize> {
        // Nearly always it is the newest, or the only one.
        match self.open.back() {
            Some((last, _)) if *last == id => Some(self.open.len() - 1),
            _ => self.open.binary_search_by_key(&id, |(id, _)| *id).ok(),
        }
    }

    /// The stream with this identifier.
    pub fn find(&mut self, id: u32) -> Option<&mut Entry> {
        let position = self.position(id)?;
        Some(&mut self.open[position].1)
    }

    /// Forgets a stream.
    pub fn remove(&mut self, id: u32, past: Past) {
        let Some((_, mut entry)) = self.position(id).and_then(|position| self.open.remove(position)) else {
            return;
        };
        if self.spare.len() < KEPT {
            entry.reset();
            self.spare.push(entry);
        }
        self.insert_past(id, past);
    }

    /// Remembers a stream that is no more, or never was more than its refusal.
    pub fn insert_past(&mut self, id: u32, past: Past) {
        if self.past.len() == REMEMBERED
            && let Some((oldest, _)) = self.past.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest);
        }
        self.past.push_back((id, past));
    }

    /// Gives back the memory of streams that are no more.
    pub fn forget_past(&mut self) {
        let highest = self.past.iter().map(|(id, _)| *id).max();
        self.forgotten = self.forgotten.max(highest.unwrap_or(0));
        self.past = VecDeque::new();
    }

    /// How a stream was closed that is no more; `None` if it never was.
    #[must_use]
    pub fn past(&self, id: u32) -> Option<Past> {
        let known = self.past.iter().rev().find(|(past, _)| *past == id).map(|(_, past)| *past);
        known.or((id <= self.forgotten).then_some(Past::Forgotten))
    }

    /// All streams, with their identifiers.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Entry)> {
        self.open.iter_mut().map(|(id, entry)| (*id, entry.as_mut()))
    }

    /// Number of streams.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Gives back the memory that only a busy connection needs.
    pub fn shrink(&mut self) {
        self.spare = Vec::new();
        if self.open.is_empty() {
            self.open = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_found_whatever_was_removed_between() {
        let mut streams = Streams::default();
        for id in (1..20).step_by(2) {
            streams.insert(id).send_window = i64::from(id);
        }
        for id in [5, 1, 19] {
            streams.remove(id, Past::Closed);
            assert!(streams.find(id).is_none());
            assert_eq!(streams.past(id), Some(Past::Closed));
        }
        for id in [3, 7, 9, 11, 13, 15, 17] {
            assert_eq!(streams.find(id).expect("open").send_window, i64::from(id));
        }
        assert_eq!(streams.past(21), None);
    }

    #[test]
    fn what_was_forgotten_is_not_taken_for_what_never_was() {
        let mut streams = Streams::default();
        let last = 2 * REMEMBERED as u32 + 21;
        for id in (11..=last).step_by(2) {
            streams.insert(id);
            streams.remove(id, Past::ResetByUs);
        }
        assert_eq!(streams.past(last), Some(Past::ResetByUs));
        assert_eq!(streams.past(11), Some(Past::Forgotten));
        assert_eq!(streams.past(last + 2), None);
        streams.forget_past();
        assert_eq!(streams.past(last), Some(Past::Forgotten));
        assert_eq!(streams.past(last + 2), None);
    }

    #[test]
    fn a_stream_of_used_memory_is_like_new() {
        let mut streams = Streams::default();
        let entry = streams.insert(1);
        entry.data.extend_from_slice(b"old");
        entry.received_end = true;
        entry.head = Some(Fields::default());
        streams.remove(1, Past::ResetByUs);
        let entry = streams.insert(3);
        assert!(entry.data.is_empty() && entry.head.is_none() && !entry.received_end);
    }
}
