//! The side that asks.

use super::{
    Shape,
    block::{self, Block, Table, stable, volatile},
    frame::{self, DEFAULT_WINDOW, END_HEADERS, END_STREAM, Frame, PADDED, PREFACE, Splitter, kind, setting},
};
use crate::{content, session};

/// A client that sends one and the same request on stream after stream.
#[derive(Debug)]
pub struct Client {
    shape: Shape,
    request: Block,
    expected: &'static [u8],
    splitter: Splitter,
    state: State,
}

#[derive(Debug)]
struct State {
    next_stream: u32,
    streams: Vec<Stream>,
    table: Table,
    /// What the connection's window lets us send.
    window: i64,
    /// Requests that wait for it.
    waiting: usize,
    /// What we have received since we last widened the connection's window.
    received: u32,
    /// Whether trailers have been seen to hold `grpc-status`.
    checked_trailers: bool,
}

#[derive(Debug)]
struct Stream {
    id: u32,
    heads: u8,
    come: usize,
}

/// The widest window there is; it is widened again at its half.
const WIDEST: u32 = 0x7fff_ffff;
/// `grpc-status` in HPACK's Huffman code.
const GRPC_STATUS_HUFFMAN: &[u8] = &[0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f];

impl Client {
    /// A client of this shape.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        let (method, path) = match shape {
            Shape::Get => ("GET", content::SMALL_PATH),
            Shape::Unary => ("POST", content::GRPC_PATH),
        };
        let mut fields = vec![
            stable(":method", method),
            stable(":scheme", "http"),
            stable(":path", path),
            stable(":authority", "items.bench"),
        ];
        fields.extend(content::REQUEST_FIELDS.map(|(name, value)| match name {
            "x-request-id" | "traceparent" => volatile(name, value),
            _ => stable(name, value),
        }));
        if shape == Shape::Unary {
            fields.extend([stable("content-type", "application/grpc"), stable("te", "trailers")]);
        }
        let expected: &[u8] = match shape {
            Shape::Get => &content::SMALL_BODY,
            Shape::Unary => &content::GRPC_BODY,
        };
        let state = State {
            next_stream: 1,
            streams: Vec::new(),
            table: Table::default(),
            window: DEFAULT_WINDOW,
            waiting: 0,
            received: 0,
            checked_trailers: false,
        };
        Self { shape, request: Block::new(&fields), expected, splitter: Splitter::default(), state }
    }
}

impl session::Client for Client {
    fn open(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFACE);
        frame::write_settings(out, &[(setting::ENABLE_PUSH, 0)]);
        frame::write_window_update(out, WIDEST - u32::try_from(DEFAULT_WINDOW).expect("a window"));
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        self.state.waiting += 1;
        self.state.start_waiting(self.shape, &self.request, out);
    }

    fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, String> {
        let Self { shape, request, expected, splitter, state } = self;
        let mut complete = 0;
        splitter.split(bytes, |frame| {
            complete += usize::from(state.take(frame, *shape, expected, out)?);
            Ok(())
        })?;
        state.start_waiting(*shape, request, out);
        Ok(complete)
    }
}

impl State {
    fn start_waiting(&mut self, shape: Shape, request: &Block, out: &mut Vec<u8>) {
        let body: &[u8] = match shape {
            Shape::Get => &[],
            Shape::Unary => &content::GRPC_BODY,
        };
        let cost = i64::try_from(body.len()).expect("a body is small");
        while self.waiting > 0 && self.window >= cost {
            self.waiting -= 1;
            self.window -= cost;
            let id = self.next_stream;
            self.next_stream += 2;
            let mut fields = Vec::with_capacity(512);
            request.append(&mut fields, self.table);
            self.table = self.table.after();
            let ends = if body.is_empty() { END_STREAM } else { 0 };
            frame::write(out, kind::HEADERS, END_HEADERS | ends, id, &fields);
            if !body.is_empty() {
                frame::write(out, kind::DATA, END_STREAM, id, body);
            }
            self.streams.push(Stream { id, heads: 0, come: 0 });
        }
    }

    /// Takes a frame. Whether it completes a response.
    fn take(
        &mut self,
        frame: Frame<'_>,
        shape: Shape,
        expected: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, String> {
        match frame.kind {
            kind::HEADERS | kind::DATA => return self.message(frame, shape, expected, out),
            kind::SETTINGS if frame.is_ack() => {}
            kind::SETTINGS => {
                for (identifier, value) in frame.settings() {
                    if identifier == setting::HEADER_TABLE_SIZE {
                        self.table.limit(value);
                    }
                }
                frame::write_settings_ack(out);
            }
            kind::PING if !frame.is_ack() => frame::write(out, kind::PING, frame::ACK, 0, frame.payload),
            kind::WINDOW_UPDATE if frame.stream == 0 => {
                self.window += i64::from(frame.number().ok_or("WINDOW_UPDATE without a number")?);
            }
            kind::RST_STREAM => {
                return Err(format!("stream {} was reset: {:?}", frame.stream, frame.number()));
            }
            kind::GOAWAY => return Err(format!("GOAWAY: {:?}", frame.payload.get(4..8))),
            kind::CONTINUATION => return Err("a CONTINUATION, which small heads do not need".into()),
            _ => {}
        }
        Ok(false)
    }

    fn message(
        &mut self,
        frame: Frame<'_>,
        shape: Shape,
        expected: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, String> {
        let id = frame.stream;
        let position = self.streams.iter().position(|stream| stream.id == id);
        let position = position.ok_or_else(|| format!("a frame on stream {id}, which is not open"))?;
        if frame.has(PADDED) {
            return Err("a padded frame, which nobody asked for".into());
        }
        let stream = &mut self.streams[position];
        if frame.kind == kind::DATA {
            let end = stream.come + frame.payload.len();
            if stream.heads != 1 || expected.get(stream.come..end) != Some(frame.payload) {
                return Err(format!("the body differs after byte {}", stream.come));
            }
            stream.come = end;
            self.received += u32::try_from(frame.payload.len()).expect("a frame is small");
            if self.received > WIDEST / 2 {
                frame::write_window_update(out, self.received);
                self.received = 0;
            }
        } else {
            stream.heads += 1;
            match stream.heads {
                1 if !block::is_ok(frame.payload) => {
                    return Err(format!("the status is not 200; the head: {}", frame.payload.escape_ascii()));
                }
                2 if !self.checked_trailers => {
                    check_trailers(frame.payload)?;
                    self.checked_trailers = true;
                }
                _ => {}
            }
        }
        if !frame.has(END_STREAM) {
            return Ok(false);
        }
        let stream = self.streams.swap_remove(position);
        let heads = if shape == Shape::Unary { 2 } else { 1 };
        if stream.heads != heads || stream.come != expected.len() {
            return Err(format!(
                "a response of {} heads and {} bytes instead of {heads} and {}",
                stream.heads,
                stream.come,
                expected.len()
            ));
        }
        Ok(true)
    }
}

/// The first trailers of a connection must spell `grpc-status` out; later ones may name it by its index.
fn check_trailers(block: &[u8]) -> Result<(), String> {
    let holds = |name: &[u8]| block.windows(name.len()).any(|window| window == name);
    if holds(b"grpc-status") || holds(GRPC_STATUS_HUFFMAN) {
        return Ok(());
    }
    Err(format!("trailers without grpc-status: {}", block.escape_ascii()))
}
