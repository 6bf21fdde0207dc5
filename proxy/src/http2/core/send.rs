//! What is sent: streams opened, sections, content, resets.

use super::{Core, OUT_HIGH};
use crate::http2::{
    frame::{self, Code, HEADER, MAX_31, MAX_PAYLOAD},
    hpack,
    streams::{Ended, Past},
};

impl Core {
    /// Whether a stream could be opened now.
    #[must_use]
    pub fn can_open(&self) -> bool {
        !self.closed
            && !self.goaway_received
            && self.goaway_sent.is_none()
            && self.next_own < MAX_31
            && self.streams.len() < self.peer_streams.min(self.limits.streams) as usize
    }

    /// Whether streams may be opened later, when others have ended.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.closed && !self.goaway_received && self.goaway_sent.is_none() && self.next_own < MAX_31
    }

    /// Opens a stream; its head has to be sent at once. `None`: not now, or not on this connection.
    pub fn open(&mut self, bodiless: bool) -> Option<u32> {
        if !self.can_open() {
            return None;
        }
        self.have_buffer();
        let id = self.next_own;
        self.next_own += 2;
        self.insert(id).bodiless = bodiless;
        Some(id)
    }

    /// Sends a field section; `each` is given a function that adds a field (names in lower case).
    pub fn send_section(&mut self, id: u32, end: bool, each: impl FnOnce(&mut dyn FnMut(hpack::Field<'_>))) {
        let Some(entry) = self.streams.find(id) else { return };
        if entry.ended.is_some() || entry.sent_end {
            return;
        }
        entry.sent_end = end;
        self.out.extend_from_slice(&[0; HEADER]);
        let start = self.out.len();
        let Self { encoder, out, .. } = self;
        encoder.begin(out);
        each(&mut |hpack::Field { name, value, never_indexed }| {
            if never_indexed {
                encoder.field_never_indexed(name, value, out);
            } else {
                encoder.field(name, value, out);
            }
        });
        frame::finish_headers(&mut self.out, start, id, end);
    }

    /// Sends as much content as windows and buffers take; `end` applies when all of it was sent. Returns how much
    /// that was.
    pub fn send_content(&mut self, id: u32, content: &[u8], end: bool) -> usize {
        let room = OUT_HIGH.saturating_sub(self.out.len()) as i64;
        let Some(entry) = self.streams.find(id) else { return 0 };
        if entry.ended.is_some() || entry.sent_end {
            return 0;
        }
        let allowed = entry.send_window.min(self.send_window).min(room).max(0);
        let count = content.len().min(usize::try_from(allowed).unwrap_or(0));
        let whole = count == content.len();
        if !whole {
            self.turn = id;
        }
        if count == 0 && !(whole && end) {
            return 0;
        }
        entry.send_window -= count as i64;
        self.send_window -= count as i64;
        entry.sent_end = whole && end;
        let mut rest = &content[..count];
        loop {
            self.flood.sent_data();
            let (piece, tail) = rest.split_at(rest.len().min(MAX_PAYLOAD));
            frame::write_data(&mut self.out, id, piece, whole && end && tail.is_empty());
            rest = tail;
            if rest.is_empty() {
                return count;
            }
        }
    }

    /// Ends a stream before its time.
    pub fn reset(&mut self, id: u32, code: Code) {
        let Some(entry) = self.streams.find(id) else { return };
        if entry.ended.is_none() && !(entry.received_end && entry.sent_end) {
            frame::write_reset(&mut self.out, id, code);
            entry.ended = Some(Ended::Faulty);
        }
    }

    /// Forgets a stream that nobody holds any more.
    pub fn forget(&mut self, id: u32) {
        let Some(entry) = self.streams.find(id) else { return };
        let untaken = entry.data.len() + entry.handed_out as usize;
        let past = if entry.ended == Some(Ended::Faulty) { Past::ResetByUs } else { Past::Closed };
        self.streams.remove(id, past);
        self.release(u32::try_from(untaken).unwrap_or(u32::MAX));
    }

    /// Wakes all who wait to send, by turns: what there is room for goes to those who run first.
    pub fn wake_senders(&mut self) {
        let turn = self.turn;
        for (_, entry) in self.streams.iter_mut().filter(|(id, _)| *id > turn) {
            entry.wake_sender();
        }
        for (_, entry) in self.streams.iter_mut().take_while(|(id, _)| *id <= turn) {
            entry.wake_sender();
        }
    }

    /// Whether content may be added to what waits to be written.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.out.len() < OUT_HIGH
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        task::{Wake, Waker},
        time::Instant,
    };

    use super::*;
    use crate::{http2::core::Role, limits::Http2Limits};

    struct Note(u32, Arc<Mutex<Vec<u32>>>);

    impl Wake for Note {
        fn wake(self: Arc<Self>) {
            self.1.lock().expect("no test panics while it holds this").push(self.0);
        }
    }

    #[test]
    fn who_has_filled_the_connection_is_the_last_to_be_woken() {
        let mut core = Core::new(Role::Client, Http2Limits::default(), Instant::now());
        let woken = Arc::new(Mutex::new(Vec::new()));
        let ids: Vec<u32> = (0..4).map(|_| core.open(false).expect("there is room")).collect();
        for greedy in [3, 7, 1, 5] {
            core.out.clear();
            core.send_window = 1 << 20;
            let content = vec![0; OUT_HIGH + 1];
            assert!(core.send_content(greedy, &content, false) <= OUT_HIGH);
            for &id in &ids {
                let waker = Waker::from(Arc::new(Note(id, Arc::clone(&woken))));
                core.streams.find(id).expect("open").sender = Some(waker);
            }
            core.wake_senders();
            let order = std::mem::take(&mut *woken.lock().expect("no test panics while it holds this"));
            assert_eq!(order.len(), 4);
            assert_eq!(order.last(), Some(&greedy), "{order:?}");
        }
    }
}
