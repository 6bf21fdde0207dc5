//! Field sections as they come in: requests, responses, trailers (RFC 9113 §8.1, §6.2, §6.10).

use std::time::Instant;

use super::{Block, Core, MOST_INTERIM, Role, SPARE_CONTINUATIONS};
use crate::{
    http2::{
        fields::{Fields, RequestInfo},
        flood::Nuisance,
        frame::{self, Code, ConnectionError, Header, MAX_PAYLOAD, flag},
        streams::{Ended, Past},
    },
    limits::Limit,
};

impl Core {
    pub(super) fn headers(
        &mut self,
        header: Header,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), ConnectionError> {
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

    pub(super) fn continuation(
        &mut self,
        header: Header,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let Some(block) = &mut self.block else { return Ok(()) };
        block.continuations += 1;
        block.bytes.extend_from_slice(payload);
        let last = header.has(flag::END_HEADERS);
        let most = self.limits.head_bytes / MAX_PAYLOAD + SPARE_CONTINUATIONS;
        if block.bytes.len() > self.limits.head_bytes || block.continuations as usize > most {
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
    pub(super) fn section(
        &mut self,
        id: u32,
        end: bool,
        depends: Option<u32>,
        block: &[u8],
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let mut fields = Fields::take();
        let (most_bytes, most_fields) = (self.limits.head_bytes, self.limits.head_fields);
        let mut too_large = None;
        self.decoder
            .decode_fields(block, |field| {
                let size = fields.size() + field.name.len() + field.value.len() + 32;
                if size > most_bytes {
                    too_large.get_or_insert(Limit::HeadBytes);
                } else if fields.len() >= most_fields {
                    too_large.get_or_insert(Limit::Fields);
                }
                if too_large.is_none() {
                    fields.push_field(field);
                }
            })
            .map_err(|_| ConnectionError::new(Code::COMPRESSION_ERROR, "header block can't be decoded"))?;
        self.exceeded.extend(too_large);
        let too_large = too_large.is_some();
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
            return self.unexpected(id);
        }
        if id <= self.last_peer {
            return match self.streams.past(id) {
                Some(Past::ResetByUs | Past::Forgotten) => Ok(()),
                Some(Past::Closed) => {
                    Err(ConnectionError::new(Code::STREAM_CLOSED, "HEADERS on a closed stream"))
                }
                None => Err(ConnectionError::protocol("stream identifier is not higher than the last")),
            };
        }
        self.request(id, end, fields, too_large, now)
    }

    pub(super) fn request(
        &mut self,
        id: u32,
        end: bool,
        mut fields: Fields,
        too_large: bool,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        self.last_peer = id;
        if self.goaway_sent.is_some_and(|last| id > last) {
            // It crossed our GOAWAY, which tells the peer that it was not processed: what comes of it is ignored.
            fields.give_back();
            self.streams.insert_past(id, Past::ResetByUs);
            return Ok(());
        }
        if self.streams.len() >= self.limits.streams as usize {
            fields.give_back();
            self.exceeded.push(Limit::Http2Streams);
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
        let entry = self.insert(id);
        entry.opened = true;
        entry.received_end = end;
        entry.expected = info.length;
        entry.head = Some(fields);
        self.accepted.push(id);
        Ok(())
    }

    pub(super) fn response(
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

    pub(super) fn trailers(
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
    pub(super) fn refuse_section(&mut self, id: u32, code: Code) {
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

    pub(super) fn unexpected(&mut self, id: u32) -> Result<(), ConnectionError> {
        if self.is_idle(id) {
            return Err(ConnectionError::protocol("HEADERS on a stream that the peer can't open"));
        }
        match self.streams.past(id) {
            Some(Past::ResetByUs | Past::Forgotten) => Ok(()),
            _ => Err(ConnectionError::new(Code::STREAM_CLOSED, "HEADERS on a closed stream")),
        }
    }
}
