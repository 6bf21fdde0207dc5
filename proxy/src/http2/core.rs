//! What a connection knows, and what it does with each frame: no I/O, time passed in.
//!
//! Bytes that were read go in by [`Core::receive`]; bytes to be written lie in [`Core::out`]. What concerns a stream
//! is put into its [`Entry`] and wakes whoever waits there.

use std::time::Instant;

use super::{
    fields::{Fields, RequestInfo},
    flood::{Flood, Nuisance},
    frame::{self, Code, ConnectionError, HEADER, Header, MAX_31, MAX_PAYLOAD, PREFACE, flag, kind},
    hpack::{Decoder, Encoder},
    streams::{Ended, Entry, Past, Streams},
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

/// CONTINUATION frames of one header block: what a block of the largest size needs, and a few.
const MOST_CONTINUATIONS: u32 = 16;
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
    /// Streams that were refused because there were too many.
    pub refused: u32,
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
            refused: 0,
            goaway_sent: None,
            goaway_received: false,
            announced: false,
            ponged: false,
            closed: false,
        };
        core.greet();
        core
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
                used += self.content(&bytes[used..], now)?;
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
            kind::SETTINGS if header.has(flag::ACK) => Ok(()),
            kind::SETTINGS => self.settings(payload, now),
            kind::PUSH_PROMISE => Err(ConnectionError::protocol("PUSH_PROMISE, which nobody may send here")),
            kind::PING if header.has(flag::ACK) => {
                self.ponged |= self.announced && payload == LAST_PING;
                Ok(())
            }
            kind::PING => {
                self.flood.note(Nuisance::Ping, now)?;
                frame::write_ping(&mut self.out, true, payload.first_chunk().copied().unwrap_or_default());
                Ok(())
            }
            kind::GOAWAY => {
                self.goaway(frame::number(payload));
                Ok(())
            }
            kind::WINDOW_UPDATE => self.window_update(header.stream, frame::number(payload), now),
            _ => self.flood.note(Nuisance::Empty, now),
        }
    }

    // Header blocks.

    fn headers(&mut self, header: Header, payload: &[u8], now: Instant) -> Result<(), ConnectionError> {
        let (bytes, depends) = frame::header_block(header, payload)?;
        let end_stream = header.has(flag::END_STREAM);
        if header.has(flag::END_HEADERS) {
            return self.section(header.stream, end_stream, depends, bytes, now);
        }
        let bytes = bytes.to_vec();
        self.block = Some(Block { stream: header.stream, end_stream, depends, bytes, continuations: 0 });
        self.block_since = Some(now);
        Ok(())
    }

    fn continuation(&mut self, header: Header, payload: &[u8], now: Instant) -> Result<(), ConnectionError> {
        let Some(block) = &mut self.block else { return Ok(()) };
        block.continuations += 1;
        block.bytes.extend_from_slice(payload);
        let last = header.has(flag::END_HEADERS);
        if block.bytes.len() > self.limits.head_bytes || block.continuations > MOST_CONTINUATIONS {
            return Err(ConnectionError::limit(Limit::HeadBytes, "header block is too large"));
        }
        if payload.is_empty() && !last {
            self.flood.note(Nuisance::Empty, now)?;
        }
        if !last {
            return Ok(());
        }
        let Some(Block { stream, end_stream, depends, bytes, .. }) = self.block.take() else { return Ok(()) };
        self.block_since = None;
        self.section(stream, end_stream, depends, &bytes, now)
    }

    /// A complete header block: a request, a response, or trailers.
    fn section(
        &mut self,
        id: u32,
        end: bool,
        depends: Option<u32>,
        block: &[u8],
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let mut fields = Fields::take();
        let (most_bytes, most_fields) = (self.limits.head_bytes, self.limits.head_fields);
        let mut too_large = false;
        self.decoder
            .decode(block, |name, value| {
                let size = fields.size() + name.len() + value.len() + 32;
                if size > most_bytes || fields.len() >= most_fields {
                    too_large = true;
                } else {
                    fields.push(name, value);
                }
            })
            .map_err(|_| ConnectionError::new(Code::COMPRESSION_ERROR, "header block can't be decoded"))?;
        if depends == Some(id) {
            self.refuse_section(id, Code::PROTOCOL_ERROR);
            return self.flood.note(Nuisance::Reset, now);
        }
        if let Some(entry) = self.streams.find(id) {
            if matches!(entry.ended, Some(ended) if !matches!(ended, Ended::ByPeer(_))) {
                fields.give_back();
                return Ok(());
            }
            if entry.received_end || entry.ended.is_some() {
                return self.stream_fault(id, Code::STREAM_CLOSED, now);
            }
            if entry.opened {
                return self.trailers(id, end, fields, too_large, now);
            }
            return self.response(id, end, fields, too_large, now);
        }
        if self.role == Role::Client || id.is_multiple_of(2) {
            return self.unexpected(id, now);
        }
        if id <= self.last_peer {
            return match self.streams.past(id) {
                Some(Past::ResetByUs) => Ok(()),
                Some(Past::Closed) => {
                    Err(ConnectionError::new(Code::STREAM_CLOSED, "HEADERS on a closed stream"))
                }
                None => Err(ConnectionError::protocol("stream identifier is not higher than the last")),
            };
        }
        self.request(id, end, fields, too_large, now)
    }

    fn request(
        &mut self,
        id: u32,
        end: bool,
        mut fields: Fields,
        too_large: bool,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        if self.goaway_sent.is_some_and(|last| id > last) {
            // It crossed our GOAWAY, which tells the peer that it was not processed.
            return Ok(());
        }
        self.last_peer = id;
        if self.streams.len() >= self.limits.streams as usize {
            fields.give_back();
            self.refused += 1;
            self.flood.note(Nuisance::Reset, now)?;
            self.refuse_section(id, Code::REFUSED_STREAM);
            return Ok(());
        }
        let info = if too_large {
            // The stream is opened to be answered with 431.
            fields.clear();
            Ok(RequestInfo { length: None, connect: false })
        } else {
            fields.as_request()
        };
        let Ok(info) = info else {
            fields.give_back();
            self.flood.note(Nuisance::Reset, now)?;
            self.refuse_section(id, Code::PROTOCOL_ERROR);
            return Ok(());
        };
        if end && info.length.is_some_and(|length| length > 0) {
            self.refuse_section(id, Code::PROTOCOL_ERROR);
            return self.flood.note(Nuisance::Reset, now);
        }
        let (send, receive) = (self.peer_window, i64::from(self.limits.stream_window));
        let entry = self.streams.insert(id);
        entry.send_window = send;
        entry.receive_window = receive;
        entry.opened = true;
        entry.received_end = end;
        entry.expected = info.length;
        entry.head = Some(fields);
        self.accepted.push(id);
        Ok(())
    }

    fn response(
        &mut self,
        id: u32,
        end: bool,
        mut fields: Fields,
        too_large: bool,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let info = fields.as_response();
        let Some(entry) = self.streams.find(id) else { return Ok(()) };
        let interim = matches!(info, Ok(info) if info.status < 200);
        let (Ok(info), false) =
            (info, too_large || (interim && (end || entry.interim.len() >= MOST_INTERIM)))
        else {
            fields.give_back();
            return self.stream_fault(id, Code::PROTOCOL_ERROR, now);
        };
        if interim {
            entry.interim.push_back(fields);
            entry.wake_receiver();
            return Ok(());
        }
        let bodiless = entry.bodiless || matches!(info.status, 204 | 304);
        if end && !bodiless && info.length.is_some_and(|length| length > 0) {
            fields.give_back();
            return self.stream_fault(id, Code::PROTOCOL_ERROR, now);
        }
        entry.expected = if bodiless { None } else { info.length };
        entry.bodiless = bodiless;
        entry.opened = true;
        entry.received_end = end;
        entry.head = Some(fields);
        entry.wake_receiver();
        Ok(())
    }

    fn trailers(
        &mut self,
        id: u32,
        end: bool,
        mut fields: Fields,
        too_large: bool,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let valid = end && !too_large && fields.as_trailers().is_ok();
        let Some(entry) = self.streams.find(id) else { return Ok(()) };
        if !valid || entry.expected.is_some_and(|left| left > 0) {
            fields.give_back();
            return self.stream_fault(id, Code::PROTOCOL_ERROR, now);
        }
        entry.received_end = true;
        entry.trailers = Some(fields);
        entry.wake_receiver();
        Ok(())
    }

    /// Sends RST_STREAM for a stream that was not opened because of its head.
    fn refuse_section(&mut self, id: u32, code: Code) {
        if self.role == Role::Server && id > self.last_peer {
            self.last_peer = id;
        }
        frame::write_reset(&mut self.out, id, code);
        if self.streams.find(id).is_none() {
            self.streams.insert_past(id, Past::ResetByUs);
        } else if let Some(entry) = self.streams.find(id) {
            entry.ended = Some(Ended::Faulty);
            entry.wake_all();
        }
    }

    // Content.

    /// Begins a DATA frame; returns how many bytes after the header were used, or `None` while they are missing.
    fn begin_data(
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
        self.flood.carry(1);
        let content = header.length - used - padding;
        if content == 0 && !end {
            self.flood.note(Nuisance::Empty, now)?;
        }
        // Padding is used up at once.
        self.release((used + padding) as u32);
        let fault = match self.streams.find(id) {
            None => match self.streams.past(id) {
                Some(Past::ResetByUs) => None,
                _ => Some(Code::STREAM_CLOSED),
            },
            Some(Entry { ended: Some(Ended::ByPeer(_)), .. }) => Some(Code::STREAM_CLOSED),
            Some(entry) if entry.ended.is_some() => None,
            Some(entry) if entry.received_end => Some(Code::STREAM_CLOSED),
            Some(entry) if !entry.opened => Some(Code::PROTOCOL_ERROR),
            Some(entry) => {
                entry.receive_window -= length;
                entry.taken += (used + padding) as u32;
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
        if let Some(code) = fault {
            self.stream_fault(id, code, now)?;
        }
        self.incoming = Some(Incoming { stream: id, content, padding, end });
        Ok(Some(used))
    }

    /// Takes content of the DATA frame that was begun.
    fn content(&mut self, bytes: &[u8], _now: Instant) -> Result<usize, ConnectionError> {
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

    /// Notes content that was taken from a stream and asks for more when half of a window was used.
    pub fn taken(&mut self, id: u32, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
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
        self.release(count);
    }

    fn release(&mut self, count: u32) {
        self.taken += count;
        if self.taken >= self.limits.connection_window / 2 {
            let increment = std::mem::take(&mut self.taken);
            self.receive_window += i64::from(increment);
            frame::write_window_update(&mut self.out, 0, increment);
        }
    }

    // The other frames.

    fn priority(&mut self, header: Header, payload: &[u8], now: Instant) -> Result<(), ConnectionError> {
        // Its meaning is gone (§5.3.2), its rules are not.
        if header.length != 5 {
            return self.stream_fault(header.stream, Code::FRAME_SIZE_ERROR, now);
        }
        if frame::number(payload) == header.stream {
            return self.stream_fault(header.stream, Code::PROTOCOL_ERROR, now);
        }
        self.flood.note(Nuisance::Empty, now)
    }

    fn reset_received(&mut self, id: u32, code: Code, now: Instant) -> Result<(), ConnectionError> {
        if self.is_idle(id) {
            return Err(ConnectionError::protocol("RST_STREAM on an idle stream"));
        }
        if self.role == Role::Server {
            self.flood.note(Nuisance::Reset, now)?;
        }
        if let Some(entry) = self.streams.find(id)
            && entry.ended.is_none()
        {
            let refused = code == Code::REFUSED_STREAM && self.role == Role::Client && !entry.opened;
            entry.ended = Some(if refused { Ended::Refused } else { Ended::ByPeer(code) });
            entry.wake_all();
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8], now: Instant) -> Result<(), ConnectionError> {
        self.flood.note(Nuisance::Settings, now)?;
        for (name, value) in frame::settings(payload) {
            match name {
                setting::HEADER_TABLE_SIZE => self.encoder.set_max_table_size(value as usize),
                setting::ENABLE_PUSH if value > 1 || (value == 1 && self.role == Role::Client) => {
                    return Err(ConnectionError::protocol("ENABLE_PUSH is neither 0 nor 1"));
                }
                setting::MAX_CONCURRENT_STREAMS => self.peer_streams = value,
                setting::INITIAL_WINDOW_SIZE => self.initial_window(value)?,
                setting::MAX_FRAME_SIZE if !(MAX_PAYLOAD as u32..=0xff_ffff).contains(&value) => {
                    return Err(ConnectionError::protocol("MAX_FRAME_SIZE is out of range"));
                }
                _ => {}
            }
        }
        frame::write_settings_ack(&mut self.out);
        Ok(())
    }

    /// §6.9.2: the difference applies to all streams, and may make their windows negative.
    fn initial_window(&mut self, value: u32) -> Result<(), ConnectionError> {
        if value > MAX_31 {
            return Err(ConnectionError::new(
                Code::FLOW_CONTROL_ERROR,
                "INITIAL_WINDOW_SIZE is above 2^31-1",
            ));
        }
        let difference = i64::from(value) - self.peer_window;
        self.peer_window = i64::from(value);
        for (_, entry) in self.streams.iter_mut() {
            entry.send_window += difference;
            if entry.send_window > i64::from(MAX_31) {
                return Err(ConnectionError::new(
                    Code::FLOW_CONTROL_ERROR,
                    "a stream's window passes 2^31-1",
                ));
            }
            if difference > 0 {
                entry.wake_sender();
            }
        }
        Ok(())
    }

    fn window_update(&mut self, id: u32, increment: u32, now: Instant) -> Result<(), ConnectionError> {
        let most = i64::from(MAX_31);
        if id == 0 {
            if increment == 0 {
                return Err(ConnectionError::protocol("WINDOW_UPDATE of 0"));
            }
            let blocked = self.send_window <= 0;
            self.send_window += i64::from(increment);
            if self.send_window > most {
                return Err(ConnectionError::new(
                    Code::FLOW_CONTROL_ERROR,
                    "the connection's window passes 2^31-1",
                ));
            }
            if blocked {
                self.wake_senders();
            }
            return Ok(());
        }
        if self.is_idle(id) {
            return Err(ConnectionError::protocol("WINDOW_UPDATE on an idle stream"));
        }
        if increment == 0 {
            return self.stream_fault(id, Code::PROTOCOL_ERROR, now);
        }
        let Some(entry) = self.streams.find(id) else { return Ok(()) };
        if entry.ended.is_some() {
            return Ok(());
        }
        entry.send_window += i64::from(increment);
        if entry.send_window > most {
            return self.stream_fault(id, Code::FLOW_CONTROL_ERROR, now);
        }
        entry.wake_sender();
        Ok(())
    }

    fn goaway(&mut self, last: u32) {
        self.goaway_received = true;
        if self.role == Role::Client {
            for (id, entry) in self.streams.iter_mut().filter(|(id, _)| *id > last) {
                debug_assert!(id > last, "filtered");
                if entry.ended.is_none() {
                    entry.ended = Some(Ended::Refused);
                    entry.wake_all();
                }
            }
        }
    }

    fn unexpected(&mut self, id: u32, _now: Instant) -> Result<(), ConnectionError> {
        if self.is_idle(id) {
            return Err(ConnectionError::protocol("HEADERS on a stream that the peer can't open"));
        }
        match self.streams.past(id) {
            Some(Past::ResetByUs) => Ok(()),
            _ => Err(ConnectionError::new(Code::STREAM_CLOSED, "HEADERS on a closed stream")),
        }
    }

    /// Whether this stream was never opened (§5.1).
    fn is_idle(&self, id: u32) -> bool {
        let ours = (id % 2 == 1) == (self.role == Role::Client);
        if ours { id >= self.next_own } else { id > self.last_peer }
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

    // Sending.

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
        let (send, receive) = (self.peer_window, i64::from(self.limits.stream_window));
        let entry = self.streams.insert(id);
        entry.send_window = send;
        entry.receive_window = receive;
        entry.bodiless = bodiless;
        Some(id)
    }

    /// Sends a field section; `each` is given a function that adds a field (names in lower case).
    pub fn send_section(&mut self, id: u32, end: bool, each: impl FnOnce(&mut dyn FnMut(&[u8], &[u8]))) {
        let Some(entry) = self.streams.find(id) else { return };
        if entry.ended.is_some() || entry.sent_end {
            return;
        }
        entry.sent_end = end;
        self.out.extend_from_slice(&[0; HEADER]);
        let start = self.out.len();
        let Self { encoder, out, .. } = self;
        encoder.begin(out);
        each(&mut |name, value| encoder.field(name, value, out));
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
        if count == 0 && !(whole && end) {
            return 0;
        }
        entry.send_window -= count as i64;
        self.send_window -= count as i64;
        entry.sent_end = whole && end;
        let mut rest = &content[..count];
        loop {
            self.flood.carry(1);
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
        let untaken = entry.data.len();
        let past = if entry.ended == Some(Ended::Faulty) { Past::ResetByUs } else { Past::Closed };
        self.streams.remove(id, past);
        self.release(u32::try_from(untaken).unwrap_or(u32::MAX));
    }

    /// Wakes all who wait to send.
    pub fn wake_senders(&mut self) {
        for (_, entry) in self.streams.iter_mut() {
            entry.wake_sender();
        }
    }

    /// Whether content may be added to what waits to be written.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.out.len() < OUT_HIGH
    }

    // The end.

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
