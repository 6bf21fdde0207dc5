//! What a connection knows, and what it does with each frame: no I/O, time passed in.
//!
//! Bytes that were read go in by [`Core::receive`]; bytes to be written lie in [`Core::out`]. What concerns a stream
//! is put into its [`Entry`] and wakes whoever waits there.

mod content;
mod control;
mod sections;
mod send;

use std::time::Instant;

use super::{
    flood::{Flood, Nuisance},
    frame::{self, Code, ConnectionError, HEADER, Header, MAX_31, PREFACE, flag, kind},
    hpack::{Decoder, Encoder},
    streams::{Ended, Entry, Streams},
};
use crate::{
    buffer,
    limits::{Http2Limits, Limit},
};

/// Which side of a connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We open streams.
    Client,
    /// The peer opens streams.
    Server,
}

/// CONTINUATION frames of one header block beyond what a block of the largest size needs.
const SPARE_CONTINUATIONS: usize = 12;
/// Interim responses that wait to be taken.
const MOST_INTERIM: usize = 16;
/// The windows with which everything begins (RFC 9113 §6.9.2).
const INITIAL_WINDOW: i64 = 65_535;
/// Our header table; the default of RFC 9113 §6.5.2.
const TABLE: usize = 4096;
/// Streams that we open before the peer has told its limit.
const ASSUMED_STREAMS: u32 = 100;
/// Bytes that wait to be written before nobody may add content.
const OUT_HIGH: usize = 64 * 1024;

/// Payload of the PING that follows the first GOAWAY.
const LAST_PING: [u8; 8] = *b"ferrule\0";

mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// A header block of which not all frames have come.
#[derive(Debug)]
struct Block {
    stream: u32,
    end_stream: bool,
    depends: Option<u32>,
    bytes: Vec<u8>,
    continuations: u32,
}

/// Content of a DATA frame that is still to come.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    stream: u32,
    content: usize,
    padding: usize,
    end: bool,
}

/// A connection without its socket.
#[derive(Debug)]
pub struct Core {
    role: Role,
    limits: Http2Limits,
    /// What is to be written.
    pub out: Vec<u8>,
    pub(super) encoder: Encoder,
    decoder: Decoder,
    /// The streams.
    pub streams: Streams,
    /// Bytes of the preface that are still to come.
    preface: &'static [u8],
    greeted: bool,
    block: Option<Block>,
    /// When the block began.
    pub block_since: Option<Instant>,
    incoming: Option<Incoming>,
    flood: Flood,
    receive_window: i64,
    taken: u32,
    send_window: i64,
    peer_window: i64,
    peer_streams: u32,
    last_peer: u32,
    next_own: u32,
    /// Streams that the peer opened and nobody has accepted.
    pub accepted: Vec<u32>,
    /// Limits that streams have exceeded, which the connection outlives.
    pub exceeded: Vec<Limit>,
    /// A stream was opened since this was last looked at.
    pub active: bool,
    /// The stream that was the last to find no room for all its content.
    turn: u32,
    /// The last stream that our GOAWAY names.
    goaway_sent: Option<u32>,
    goaway_received: bool,
    /// The graceful end has begun.
    announced: bool,
    /// The answer to the PING that follows its GOAWAY has come: no stream is on its way any more.
    pub ponged: bool,
    /// The socket is gone, or about to be.
    pub closed: bool,
}

impl Core {
    /// A connection that begins now, with our preface in `out`.
    #[must_use]
    pub fn new(role: Role, limits: Http2Limits, now: Instant) -> Self {
        let mut core = Self {
            role,
            limits,
            out: buffer::take(),
            encoder: Encoder::new(),
            decoder: Decoder::new(TABLE),
            streams: Streams::default(),
            preface: if role == Role::Server { PREFACE } else { b"" },
            greeted: false,
            block: None,
            block_since: None,
            incoming: None,
            flood: Flood::new(limits.rates, now),
            receive_window: i64::from(limits.connection_window).max(INITIAL_WINDOW),
            taken: 0,
            send_window: INITIAL_WINDOW,
            peer_window: INITIAL_WINDOW,
            peer_streams: ASSUMED_STREAMS,
            last_peer: 0,
            next_own: 1,
            accepted: Vec::new(),
            exceeded: Vec::new(),
            active: false,
            turn: 0,
            goaway_sent: None,
            goaway_received: false,
            announced: false,
            ponged: false,
            closed: false,
        };
        core.greet();
        core
    }

    /// Which side we are.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    fn greet(&mut self) {
        let Http2Limits { streams, head_bytes, stream_window, connection_window, .. } = self.limits;
        let head_bytes = u32::try_from(head_bytes).unwrap_or(u32::MAX);
        let mut settings =
            vec![(setting::INITIAL_WINDOW_SIZE, stream_window), (setting::MAX_HEADER_LIST_SIZE, head_bytes)];
        match self.role {
            Role::Client => {
                self.out.extend_from_slice(PREFACE);
                settings.push((setting::ENABLE_PUSH, 0));
            }
            Role::Server => settings.push((setting::MAX_CONCURRENT_STREAMS, streams)),
        }
        frame::write_settings(&mut self.out, &settings);
        let more = i64::from(connection_window) - INITIAL_WINDOW;
        if let Ok(more @ 1..) = u32::try_from(more) {
            frame::write_window_update(&mut self.out, 0, more);
        }
    }

    /// Takes in what was read; returns how many bytes were used. The rest is the beginning of a frame.
    ///
    /// # Errors
    /// The connection has to end: [`Core::fail`] says so to the peer.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<usize, ConnectionError> {
        self.have_buffer();
        let mut used = 0;
        if !self.preface.is_empty() {
            let count = self.preface.len().min(bytes.len());
            if bytes[..count] != self.preface[..count] {
                return Err(ConnectionError::protocol("no connection preface"));
            }
            self.preface = &self.preface[count..];
            used = count;
            if !self.preface.is_empty() {
                return Ok(used);
            }
        }
        loop {
            if self.incoming.is_some() {
                used += self.content(&bytes[used..])?;
                if self.incoming.is_some() {
                    return Ok(used);
                }
            }
            let rest = &bytes[used..];
            let Some(header) = Header::parse(rest) else { return Ok(used) };
            header.check()?;
            self.check_order(header)?;
            if header.kind == kind::DATA {
                match self.begin_data(header, &rest[HEADER..], now)? {
                    Some(count) => used += HEADER + count,
                    None => return Ok(used),
                }
                continue;
            }
            let Some(payload) = rest.get(HEADER..HEADER + header.length) else { return Ok(used) };
            self.frame(header, payload, now)?;
            used += HEADER + header.length;
        }
    }

    /// An idle connection holds no buffer.
    fn have_buffer(&mut self) {
        if self.out.capacity() == 0 {
            self.out = buffer::take();
        }
    }

    /// Gives back what only a busy connection needs.
    pub fn rest(&mut self) {
        if self.streams.is_empty() && self.out.is_empty() && self.out.capacity() > 0 {
            buffer::give_back(std::mem::take(&mut self.out));
            self.streams.shrink();
        }
    }

    /// Gives back what serves the requests of a moment alone, after a long pause.
    pub fn give_back(&mut self) {
        self.encoder.forget();
        self.decoder.shrink();
        self.streams.forget_past();
        self.accepted = Vec::new();
        self.exceeded = Vec::new();
    }

    /// Whether there is something of it, for tests.
    #[cfg(test)]
    pub(super) fn holds_header_memory(&self) -> bool {
        self.encoder.holds_memory()
    }

    /// SETTINGS come first (§3.4), and nothing comes between the frames of a header block (§6.10).
    fn check_order(&mut self, header: Header) -> Result<(), ConnectionError> {
        if !self.greeted {
            if header.kind != kind::SETTINGS || header.has(flag::ACK) {
                return Err(ConnectionError::protocol("the first frame is not SETTINGS"));
            }
            self.greeted = true;
        }
        match &self.block {
            Some(block) if header.kind != kind::CONTINUATION || header.stream != block.stream => {
                Err(ConnectionError::protocol("header block is interrupted"))
            }
            None if header.kind == kind::CONTINUATION => {
                Err(ConnectionError::protocol("CONTINUATION without HEADERS"))
            }
            _ => Ok(()),
        }
    }

    fn frame(&mut self, header: Header, payload: &[u8], now: Instant) -> Result<(), ConnectionError> {
        match header.kind {
            kind::HEADERS => self.headers(header, payload, now),
            kind::CONTINUATION => self.continuation(header, payload, now),
            kind::PRIORITY => self.priority(header, payload, now),
            kind::RST_STREAM => self.reset_received(
                header.stream,
                Code(u32::from_be_bytes(payload.first_chunk().copied().unwrap_or_default())),
                now,
            ),
            kind::SETTINGS if header.has(flag::ACK) => self.flood.note(Nuisance::Settings, now),
            kind::SETTINGS => self.settings(payload, now),
            kind::PUSH_PROMISE => Err(ConnectionError::protocol("PUSH_PROMISE, which nobody may send here")),
            kind::PING if header.has(flag::ACK) => {
                self.ponged |= self.announced && payload == LAST_PING;
                self.flood.note(Nuisance::Ping, now)
            }
            kind::PING => {
                self.flood.note(Nuisance::Ping, now)?;
                frame::write_ping(&mut self.out, true, payload.first_chunk().copied().unwrap_or_default());
                Ok(())
            }
            kind::GOAWAY => {
                self.goaway(frame::number(payload));
                self.flood.note(Nuisance::Empty, now)
            }
            kind::WINDOW_UPDATE => self.window_update(header.stream, frame::number(payload), now),
            _ => self.flood.note(Nuisance::Empty, now),
        }
    }

    /// Whether this stream was never opened (§5.1).
    fn is_idle(&self, id: u32) -> bool {
        let ours = (id % 2 == 1) == (self.role == Role::Client);
        if ours { id >= self.next_own } else { id > self.last_peer }
    }

    /// Begins a stream, with the windows that both sides have announced.
    fn insert(&mut self, id: u32) -> &mut Entry {
        self.active = true;
        self.flood.opened();
        let entry = self.streams.insert(id);
        entry.send_window = self.peer_window;
        entry.receive_window = i64::from(self.limits.stream_window);
        entry
    }

    /// A stream error (§5.4.2) that the peer made.
    fn stream_fault(&mut self, id: u32, code: Code, now: Instant) -> Result<(), ConnectionError> {
        self.flood.note(Nuisance::Reset, now)?;
        frame::write_reset(&mut self.out, id, code);
        if let Some(entry) = self.streams.find(id) {
            entry.ended = Some(Ended::Faulty);
            entry.wake_all();
        }
        Ok(())
    }

    /// Whether a client's greeting is still to come: its preface and SETTINGS.
    #[must_use]
    pub fn awaits_greeting(&self) -> bool {
        self.role == Role::Server && !self.greeted
    }

    /// Streams that the peer allows, once it has told.
    #[must_use]
    pub fn allowed_streams(&self) -> Option<u32> {
        self.greeted.then_some(self.peer_streams)
    }

    /// Has as many streams opened at most until the peer tells its limit.
    pub fn assume_streams(&mut self, streams: u32) {
        self.peer_streams = streams;
    }

    /// Begins a graceful end (§6.8): no stream is refused yet, for some may be on their way.
    pub fn announce_end(&mut self) {
        if self.goaway_sent.is_none() && self.role == Role::Server {
            frame::write_goaway(&mut self.out, MAX_31, Code::NO_ERROR, "");
            frame::write_ping(&mut self.out, false, LAST_PING);
            self.announced = true;
        }
    }

    /// Refuses all streams after those that are there.
    pub fn refuse_more(&mut self) {
        if self.goaway_sent.is_none() {
            let last = if self.role == Role::Server { self.last_peer } else { 0 };
            frame::write_goaway(&mut self.out, last, Code::NO_ERROR, "");
            self.goaway_sent = Some(last);
        }
    }

    /// Says why the connection ends, and ends all streams.
    pub fn fail(&mut self, error: ConnectionError) {
        let last = if self.role == Role::Server { self.last_peer } else { 0 };
        // It never rises again (§6.8).
        let last = self.goaway_sent.map_or(last, |sent| sent.min(last));
        frame::write_goaway(&mut self.out, last, error.code, error.reason);
        self.goaway_sent = Some(last);
        self.close();
    }

    /// The socket is gone: all streams end.
    pub fn close(&mut self) {
        self.closed = true;
        self.block = None;
        self.incoming = None;
        for (_, entry) in self.streams.iter_mut() {
            end_with_connection(entry);
        }
    }
}

/// What was received completely stays; what was not will never come.
fn end_with_connection(entry: &mut Entry) {
    if entry.ended.is_none() && !(entry.received_end && entry.sent_end) {
        entry.ended = Some(Ended::Gone);
    }
    entry.wake_all();
}
