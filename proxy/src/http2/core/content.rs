//! Content as it comes in, and the windows that bound it (RFC 9113 §6.1, §5.2).

use std::time::Instant;

use super::{Core, Incoming};
use crate::http2::{
    flood::Nuisance,
    frame::{self, Code, ConnectionError, Header, flag},
    streams::{Ended, Entry, Past},
};

impl Core {
    /// Begins a DATA frame; returns how many bytes after the header were used, or `None` while they are missing.
    pub(super) fn begin_data(
        &mut self,
        header: Header,
        payload: &[u8],
        now: Instant,
    ) -> Result<Option<usize>, ConnectionError> {
        let (mut padding, mut used) = (0, 0);
        if header.has(flag::PADDED) {
            if header.length == 0 {
                return Err(ConnectionError::new(
                    Code::FRAME_SIZE_ERROR,
                    "padded frame without its pad length",
                ));
            }
            let Some(&length) = payload.first() else { return Ok(None) };
            (padding, used) = (usize::from(length), 1);
            if padding >= header.length {
                return Err(ConnectionError::protocol("padding is longer than the frame"));
            }
        }
        let (length, id, end) = (header.length as i64, header.stream, header.has(flag::END_STREAM));
        self.receive_window -= length;
        if self.receive_window < 0 {
            return Err(ConnectionError::new(
                Code::FLOW_CONTROL_ERROR,
                "more content than the connection's window",
            ));
        }
        if self.is_idle(id) {
            return Err(ConnectionError::protocol("DATA on an idle stream"));
        }
        self.flood.received_data();
        let content = header.length - used - padding;
        if content == 0 && !end {
            self.flood.note(Nuisance::Empty, now)?;
        }
        // Padding is used up at once.
        self.release((used + padding) as u32);
        let fault = match self.streams.find(id) {
            None => match self.streams.past(id) {
                Some(Past::ResetByUs | Past::Forgotten) => None,
                _ => Some(Code::STREAM_CLOSED),
            },
            Some(Entry { ended: Some(Ended::ByPeer(_)), .. }) => Some(Code::STREAM_CLOSED),
            Some(entry) if entry.ended.is_some() => None,
            Some(entry) if entry.received_end => Some(Code::STREAM_CLOSED),
            Some(entry) if !entry.opened => Some(Code::PROTOCOL_ERROR),
            Some(entry) => {
                entry.receive_window -= length;
                let expected = entry.expected.map(|left| left.checked_sub(content as u64));
                if entry.receive_window < 0 {
                    Some(Code::FLOW_CONTROL_ERROR)
                } else {
                    match expected {
                        Some(None) => Some(Code::PROTOCOL_ERROR),
                        Some(Some(left)) if end && left > 0 => Some(Code::PROTOCOL_ERROR),
                        left => {
                            entry.expected = left.flatten();
                            if entry.bodiless && content > 0 { Some(Code::PROTOCOL_ERROR) } else { None }
                        }
                    }
                }
            }
        };
        match fault {
            Some(code) => self.stream_fault(id, code, now)?,
            None if !end => self.credit(id, (used + padding) as u32),
            None => {}
        }
        self.incoming = Some(Incoming { stream: id, content, padding, end });
        Ok(Some(used))
    }

    /// Takes content of the DATA frame that was begun.
    pub(super) fn content(&mut self, bytes: &[u8]) -> Result<usize, ConnectionError> {
        let Some(mut incoming) = self.incoming else { return Ok(0) };
        let count = incoming.content.min(bytes.len());
        let padding = if count == incoming.content { incoming.padding.min(bytes.len() - count) } else { 0 };
        let mut dropped = count;
        incoming.content -= count;
        incoming.padding -= padding;
        let done = incoming.content == 0 && incoming.padding == 0;
        self.incoming = if done { None } else { Some(incoming) };
        if let Some(entry) = self.streams.find(incoming.stream)
            && entry.ended.is_none()
            && entry.opened
            && !entry.received_end
        {
            if count > 0 {
                entry.data.extend_from_slice(&bytes[..count]);
                dropped = 0;
            }
            if done && incoming.end {
                entry.received_end = true;
            }
            if count > 0 || (done && incoming.end) {
                entry.wake_receiver();
            }
        }
        // Nobody will take it, so it is taken now: the connection's window is everybody's.
        self.release(dropped as u32);
        Ok(count + padding)
    }

    /// Counts as taken what was handed out of a stream before, and asks for more when half of a window was used.
    /// Returns whether there was anything.
    pub fn settle(&mut self, id: u32) -> bool {
        let Some(entry) = self.streams.find(id) else { return false };
        let count = std::mem::take(&mut entry.handed_out);
        if count > 0 {
            self.credit(id, count);
            self.release(count);
        }
        count > 0
    }

    fn credit(&mut self, id: u32, count: u32) {
        let half = self.limits.stream_window / 2;
        if let Some(entry) = self.streams.find(id)
            && !entry.received_end
            && entry.ended.is_none()
        {
            entry.taken += count;
            if entry.taken >= half {
                entry.receive_window += i64::from(entry.taken);
                let increment = std::mem::take(&mut entry.taken);
                frame::write_window_update(&mut self.out, id, increment);
            }
        }
    }

    pub(super) fn release(&mut self, count: u32) {
        self.taken += count;
        if self.taken >= self.limits.connection_window / 2 {
            let increment = std::mem::take(&mut self.taken);
            self.receive_window += i64::from(increment);
            frame::write_window_update(&mut self.out, 0, increment);
        }
    }
}
