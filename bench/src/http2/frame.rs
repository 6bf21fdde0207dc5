//! Frames (RFC 9113, section 4).

/// Opens a client's side of a connection.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frames' types.
pub(super) mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

/// The window that each side starts with, and the size of the header table (RFC 9113, section 6.5.2).
pub(super) const DEFAULT_WINDOW: i64 = 65_535;
pub(super) const DEFAULT_TABLE: u32 = 4096;

const HEADER: usize = 9;
/// Nobody is told of a larger one, so nobody may send a larger one.
const MAX_PAYLOAD: usize = 16_384;

#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'a [u8],
}

impl Frame<'_> {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The first four bytes as a number, the reserved bit off.
    pub fn number(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.payload.get(..4)?.try_into().ok()?) & 0x7fff_ffff)
    }

    /// What the settings say: identifier and value of each.
    pub fn settings(&self) -> impl Iterator<Item = (u16, u32)> {
        self.payload.chunks_exact(6).map(|entry| {
            let identifier = u16::from_be_bytes([entry[0], entry[1]]);
            (identifier, u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]))
        })
    }

    pub fn is_ack(&self) -> bool {
        self.has(ACK)
    }
}

pub(super) mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    pending: Vec<u8>,
}

impl Splitter {
    /// Hands each complete frame over, in order.
    pub fn split(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Frame<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.pending.is_empty() {
            let used = each(bytes, &mut take)?;
            self.pending.extend_from_slice(&bytes[used..]);
        } else {
            self.pending.extend_from_slice(bytes);
            let used = each(&self.pending, &mut take)?;
            self.pending.drain(..used);
        }
        Ok(())
    }
}

fn each(bytes: &[u8], take: &mut impl FnMut(Frame<'_>) -> Result<(), String>) -> Result<usize, String> {
    let mut used = 0;
    while let Some(header) = bytes.get(used..used + HEADER) {
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        if length > MAX_PAYLOAD {
            return Err(format!("not HTTP/2: a frame of {length} bytes"));
        }
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & 0x7fff_ffff;
        let start = used + HEADER;
        let Some(payload) = bytes.get(start..start + length) else { break };
        take(Frame { kind: header[3], flags: header[4], stream, payload })?;
        used = start + length;
    }
    Ok(used)
}

/// Appends a frame.
pub(super) fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a frame is small").to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends SETTINGS.
pub(super) fn write_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let payload: Vec<u8> = settings
        .iter()
        .flat_map(|(identifier, value)| identifier.to_be_bytes().into_iter().chain(value.to_be_bytes()))
        .collect();
    write(out, kind::SETTINGS, 0, 0, &payload);
}

/// Appends an acknowledgement of SETTINGS.
pub(super) fn write_settings_ack(out: &mut Vec<u8>) {
    write(out, kind::SETTINGS, ACK, 0, &[]);
}

/// Appends a WINDOW_UPDATE of the connection.
pub(super) fn write_window_update(out: &mut Vec<u8>, increment: u32) {
    write(out, kind::WINDOW_UPDATE, 0, 0, &increment.to_be_bytes());
}
