//! Frames (RFC 9113 §4 and §6): bytes to meaning and back, pure.

use thiserror::Error;

use crate::limits::Limit;

/// Bytes of a frame's header.
pub const HEADER: usize = 9;
/// Largest payload that we accept, and send: the least that everyone must accept (§4.2).
pub const MAX_PAYLOAD: usize = 16_384;
/// What a client sends first (§3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Largest window, and largest stream identifier (§6.9.1, §4.1).
pub const MAX_31: u32 = 0x7fff_ffff;

/// Types of frames (§6).
pub mod kind {
    #![expect(missing_docs, reason = "they are the names of the RFC")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames (§6).
pub mod flag {
    #![expect(missing_docs, reason = "they are the names of the RFC")]
    pub const END_STREAM: u8 = 0x1;
    pub const ACK: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// Error codes (§7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

#[expect(missing_docs, reason = "they are the names of the RFC")]
impl Code {
    pub const NO_ERROR: Self = Self(0x0);
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    pub const INTERNAL_ERROR: Self = Self(0x2);
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    pub const SETTINGS_TIMEOUT: Self = Self(0x4);
    pub const STREAM_CLOSED: Self = Self(0x5);
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    pub const REFUSED_STREAM: Self = Self(0x7);
    pub const CANCEL: Self = Self(0x8);
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    pub const CONNECT_ERROR: Self = Self(0xa);
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
    pub const INADEQUATE_SECURITY: Self = Self(0xc);
    pub const HTTP_1_1_REQUIRED: Self = Self(0xd);
}

/// An error that ends the whole connection (§5.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{reason} (HTTP/2 error {})", code.0)]
pub struct ConnectionError {
    /// What the GOAWAY says.
    pub code: Code,
    /// For the log, and the debug data of the GOAWAY.
    pub reason: &'static str,
    /// The limit that was exceeded.
    pub limit: Option<Limit>,
}

impl ConnectionError {
    /// An error with this code.
    #[must_use]
    pub const fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason, limit: None }
    }

    /// More than a limit allows.
    #[must_use]
    pub const fn limit(limit: Limit, reason: &'static str) -> Self {
        Self { code: Code::ENHANCE_YOUR_CALM, reason, limit: Some(limit) }
    }

    /// §5.4.1 with the commonest code.
    #[must_use]
    pub const fn protocol(reason: &'static str) -> Self {
        Self::new(Code::PROTOCOL_ERROR, reason)
    }
}

/// The nine bytes before each payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of payload.
    pub length: usize,
    /// See [`kind`].
    pub kind: u8,
    /// See [`flag`].
    pub flags: u8,
    /// Stream, 0 for the connection. The reserved bit is dropped (§4.1).
    pub stream: u32,
}

impl Header {
    /// Reads a header; `None` while it is incomplete.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, w, x, y, z] = bytes.first_chunk::<HEADER>()?;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        Some(Self { length, kind, flags, stream: u32::from_be_bytes([w, x, y, z]) & MAX_31 })
    }

    /// Whether this flag is set.
    #[must_use]
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Appends it.
    pub fn write(self, out: &mut Vec<u8>) {
        let length = u32::try_from(self.length).unwrap_or(u32::MAX).to_be_bytes();
        let stream = self.stream.to_be_bytes();
        let bytes = [
            length[1], length[2], length[3], self.kind, self.flags, stream[0], stream[1], stream[2],
            stream[3],
        ];
        out.extend_from_slice(&bytes);
    }

    /// Checks what can be told from the header alone: size and stream of each type (§6).
    ///
    /// # Errors
    /// Whatever breaks the rules, as an error of the connection.
    pub fn check(self) -> Result<(), ConnectionError> {
        let size = ConnectionError::new(Code::FRAME_SIZE_ERROR, "frame has the wrong size");
        if self.length > MAX_PAYLOAD {
            return Err(ConnectionError::new(Code::FRAME_SIZE_ERROR, "frame is larger than 16384 bytes"));
        }
        let on_stream = match self.kind {
            kind::DATA
            | kind::HEADERS
            | kind::PRIORITY
            | kind::RST_STREAM
            | kind::PUSH_PROMISE
            | kind::CONTINUATION => Some(true),
            kind::SETTINGS | kind::PING | kind::GOAWAY => Some(false),
            _ => None,
        };
        match (on_stream, self.stream) {
            (Some(true), 0) => return Err(ConnectionError::protocol("frame needs a stream")),
            (Some(false), 1..) => return Err(ConnectionError::protocol("frame belongs on stream 0")),
            _ => {}
        }
        match self.kind {
            kind::RST_STREAM | kind::WINDOW_UPDATE if self.length != 4 => Err(size),
            kind::SETTINGS if self.has(flag::ACK) && self.length != 0 => Err(size),
            kind::SETTINGS if !self.length.is_multiple_of(6) => Err(size),
            kind::PING if self.length != 8 => Err(size),
            kind::GOAWAY if self.length < 8 => Err(size),
            _ => Ok(()),
        }
    }
}

/// Big-endian 32 bits at the front, without the reserved bit.
#[must_use]
pub fn number(payload: &[u8]) -> u32 {
    payload.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes) & MAX_31)
}

/// Settings of a SETTINGS frame's payload, in their order (§6.5.1).
pub fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    payload.chunks_exact(6).map(|item| {
        (u16::from_be_bytes([item[0], item[1]]), u32::from_be_bytes([item[2], item[3], item[4], item[5]]))
    })
}

/// The part of a HEADERS frame's payload that is header block, and the stream it depends on (§6.2).
///
/// # Errors
/// When padding or priority do not fit.
pub fn header_block(header: Header, payload: &[u8]) -> Result<(&[u8], Option<u32>), ConnectionError> {
    let mut block = unpad(header, payload)?;
    let mut depends = None;
    if header.kind == kind::HEADERS && header.has(flag::PRIORITY) {
        let (priority, rest) = block
            .split_first_chunk::<5>()
            .ok_or(ConnectionError::new(Code::FRAME_SIZE_ERROR, "HEADERS is too short for its priority"))?;
        depends = Some(number(priority));
        block = rest;
    }
    Ok((block, depends))
}

fn unpad(header: Header, payload: &[u8]) -> Result<&[u8], ConnectionError> {
    if !header.has(flag::PADDED) {
        return Ok(payload);
    }
    let (&padding, rest) = payload
        .split_first()
        .ok_or(ConnectionError::new(Code::FRAME_SIZE_ERROR, "padded frame without its pad length"))?;
    let content = rest
        .len()
        .checked_sub(usize::from(padding))
        .ok_or(ConnectionError::protocol("padding is longer than the frame"))?;
    Ok(&rest[..content])
}

/// Appends SETTINGS.
pub fn write_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    Header { length: settings.len() * 6, kind: kind::SETTINGS, flags: 0, stream: 0 }.write(out);
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends the acknowledgement of SETTINGS.
pub fn write_settings_ack(out: &mut Vec<u8>) {
    Header { length: 0, kind: kind::SETTINGS, flags: flag::ACK, stream: 0 }.write(out);
}

/// Appends PING.
pub fn write_ping(out: &mut Vec<u8>, ack: bool, payload: [u8; 8]) {
    let flags = if ack { flag::ACK } else { 0 };
    Header { length: 8, kind: kind::PING, flags, stream: 0 }.write(out);
    out.extend_from_slice(&payload);
}

/// Appends WINDOW_UPDATE.
pub fn write_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    Header { length: 4, kind: kind::WINDOW_UPDATE, flags: 0, stream }.write(out);
    out.extend_from_slice(&increment.to_be_bytes());
}

/// Appends RST_STREAM.
pub fn write_reset(out: &mut Vec<u8>, stream: u32, code: Code) {
    Header { length: 4, kind: kind::RST_STREAM, flags: 0, stream }.write(out);
    out.extend_from_slice(&code.0.to_be_bytes());
}

/// Appends GOAWAY.
pub fn write_goaway(out: &mut Vec<u8>, last: u32, code: Code, debug: &str) {
    Header { length: 8 + debug.len(), kind: kind::GOAWAY, flags: 0, stream: 0 }.write(out);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(debug.as_bytes());
}

/// Appends DATA.
pub fn write_data(out: &mut Vec<u8>, stream: u32, content: &[u8], end: bool) {
    let flags = if end { flag::END_STREAM } else { 0 };
    Header { length: content.len(), kind: kind::DATA, flags, stream }.write(out);
    out.extend_from_slice(content);
}

/// Appends a header block as HEADERS, and CONTINUATION where it does not fit into one frame. The block lies at
/// `out[start..]`, where `start` is [`HEADER`] bytes after the place for the first frame's header.
pub fn finish_headers(out: &mut Vec<u8>, start: usize, stream: u32, end: bool) {
    let length = out.len() - start;
    let flags = if end { flag::END_STREAM } else { 0 };
    let first = Header { length: length.min(MAX_PAYLOAD), kind: kind::HEADERS, flags, stream };
    let mut header = Vec::with_capacity(HEADER);
    if length <= MAX_PAYLOAD {
        Header { flags: flags | flag::END_HEADERS, ..first }.write_at(&mut out[start - HEADER..start]);
        return;
    }
    first.write_at(&mut out[start - HEADER..start]);
    let rest = out.split_off(start + MAX_PAYLOAD);
    let mut pieces = rest.chunks(MAX_PAYLOAD).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { flag::END_HEADERS } else { 0 };
        header.clear();
        Header { length: piece.len(), kind: kind::CONTINUATION, flags, stream }.write(&mut header);
        out.extend_from_slice(&header);
        out.extend_from_slice(piece);
    }
}

impl Header {
    fn write_at(self, place: &mut [u8]) {
        let length = u32::try_from(self.length).unwrap_or(u32::MAX).to_be_bytes();
        place[..3].copy_from_slice(&length[1..]);
        place[3] = self.kind;
        place[4] = self.flags;
        place[5..HEADER].copy_from_slice(&self.stream.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_round_trip() {
        let header = Header { length: 16_384, kind: kind::DATA, flags: flag::END_STREAM, stream: MAX_31 };
        let mut out = Vec::new();
        header.write(&mut out);
        assert_eq!(Header::parse(&out), Some(header));
        assert_eq!(Header::parse(&out[..8]), None);
    }

    #[test]
    fn sizes_and_streams_are_checked_by_type() {
        let check =
            |kind, flags, length, stream| Header { length, kind, flags, stream }.check().map_err(|e| e.code);
        for (kind, flags, length, stream, expected) in [
            (kind::DATA, 0, 16_385, 1, Err(Code::FRAME_SIZE_ERROR)),
            (kind::DATA, 0, 1, 0, Err(Code::PROTOCOL_ERROR)),
            (kind::SETTINGS, 0, 6, 1, Err(Code::PROTOCOL_ERROR)),
            (kind::SETTINGS, 0, 5, 0, Err(Code::FRAME_SIZE_ERROR)),
            (kind::SETTINGS, flag::ACK, 6, 0, Err(Code::FRAME_SIZE_ERROR)),
            (kind::PING, 0, 7, 0, Err(Code::FRAME_SIZE_ERROR)),
            (kind::GOAWAY, 0, 7, 0, Err(Code::FRAME_SIZE_ERROR)),
            (kind::WINDOW_UPDATE, 0, 3, 1, Err(Code::FRAME_SIZE_ERROR)),
            (kind::RST_STREAM, 0, 5, 1, Err(Code::FRAME_SIZE_ERROR)),
            (kind::SETTINGS, 0, 12, 0, Ok(())),
            (99, 0xff, 100, 7, Ok(())),
        ] {
            assert_eq!(check(kind, flags, length, stream), expected, "{kind} {flags} {length} {stream}");
        }
    }

    #[test]
    fn padding_and_priority_are_taken_off() {
        let header = |flags| Header { length: 0, kind: kind::HEADERS, flags, stream: 1 };
        let payload = [2, 0x80, 0, 0, 3, 16, b'a', b'b', 0, 0];
        let taken = header_block(header(flag::PADDED | flag::PRIORITY), &payload);
        assert_eq!(taken, Ok((b"ab".as_slice(), Some(3))));
        assert!(header_block(header(flag::PADDED), &[3, 1, 2]).is_err());
        assert!(header_block(header(flag::PADDED), &[]).is_err());
        assert!(header_block(header(flag::PRIORITY), &[0; 4]).is_err());
    }

    #[test]
    fn a_long_block_goes_on_in_continuations() {
        for length in [0, 1, MAX_PAYLOAD, MAX_PAYLOAD + 1, 3 * MAX_PAYLOAD] {
            let mut out = vec![0; HEADER];
            out.extend(std::iter::repeat_n(7, length));
            finish_headers(&mut out, HEADER, 5, true);
            let (mut rest, mut seen, mut ended) = (out.as_slice(), 0, false);
            while let Some(header) = Header::parse(rest) {
                assert!(!ended);
                assert_eq!(header.kind == kind::HEADERS, seen == 0 && rest.len() == out.len());
                ended = header.has(flag::END_HEADERS);
                seen += header.length;
                rest = &rest[HEADER + header.length..];
            }
            assert!(ended && rest.is_empty());
            assert_eq!(seen, length);
        }
    }
}
