//! The side that answers.

use super::{
    Shape,
    block::{Block, Table, stable},
    frame::{self, DEFAULT_WINDOW, END_HEADERS, END_STREAM, Frame, PREFACE, Splitter, kind, setting},
};
use crate::{
    content,
    session::{self, After},
};

/// A server that answers every request alike.
#[derive(Debug)]
pub struct Server {
    opening: usize,
    splitter: Splitter,
    state: State,
}

#[derive(Debug)]
struct State {
    shape: Shape,
    response: Block,
    trailers: Block,
    table: Table,
    /// What the connection's window lets us send.
    window: i64,
    /// Streams whose answer waits for it.
    waiting: Vec<u32>,
    /// What we have received since we last widened the connection's window.
    received: u32,
}

const MAX_STREAMS: (u16, u32) = (3, 1000);
/// Received bytes after which the connection's window is widened.
const WIDEN_AT: u32 = 16 * 1024;

impl Server {
    /// A server of this shape.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        let mut fields = vec![stable(":status", "200")];
        match shape {
            Shape::Get => fields.extend([
                stable("content-type", "application/octet-stream"),
                stable("content-length", content::SMALL.to_string()),
                stable("cache-control", "no-store"),
            ]),
            Shape::Unary => fields.push(stable("content-type", "application/grpc")),
        }
        fields.push(stable("x-served-by", "backend"));
        // Out of the table, so that the two blocks' entries do not mix.
        let trailers =
            [super::block::volatile("grpc-status", "0"), super::block::volatile("grpc-message", "")];
        let state = State {
            shape,
            response: Block::new(&fields),
            trailers: Block::new(&trailers),
            table: Table::default(),
            window: DEFAULT_WINDOW,
            waiting: Vec::new(),
            received: 0,
        };
        Self { opening: 0, splitter: Splitter::default(), state }
    }
}

impl session::Server for Server {
    fn receive(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<After, String> {
        if self.opening < PREFACE.len() {
            let count = bytes.len().min(PREFACE.len() - self.opening);
            if bytes[..count] != PREFACE[self.opening..self.opening + count] {
                return Err(format!("not HTTP/2: {}", bytes[..count].escape_ascii()));
            }
            self.opening += count;
            bytes = &bytes[count..];
            if self.opening < PREFACE.len() {
                return Ok(After::Open);
            }
            frame::write_settings(out, &[MAX_STREAMS]);
        }
        let Self { splitter, state, .. } = self;
        splitter.split(bytes, |frame| state.take(frame, out))?;
        state.answer_waiting(out);
        if state.received > WIDEN_AT {
            frame::write_window_update(out, std::mem::take(&mut state.received));
        }
        Ok(After::Open)
    }
}

impl State {
    fn take(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        match frame.kind {
            kind::HEADERS | kind::DATA => {
                if frame.kind == kind::DATA {
                    self.received += u32::try_from(frame.payload.len()).expect("a frame is small");
                }
                if frame.has(END_STREAM) {
                    self.waiting.push(frame.stream);
                }
            }
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
            kind::RST_STREAM => self.waiting.retain(|stream| *stream != frame.stream),
            kind::GOAWAY | kind::PRIORITY => {}
            _ => {}
        }
        Ok(())
    }

    fn answer_waiting(&mut self, out: &mut Vec<u8>) {
        let body: &[u8] = match self.shape {
            Shape::Get => &content::SMALL_BODY,
            Shape::Unary => &content::GRPC_BODY,
        };
        let cost = i64::try_from(body.len()).expect("a body is small");
        let count = usize::try_from(self.window / cost).unwrap_or(0).min(self.waiting.len());
        for stream in self.waiting.drain(..count) {
            self.window -= cost;
            let mut fields = Vec::with_capacity(256);
            self.response.append(&mut fields, self.table);
            self.table = self.table.after();
            frame::write(out, kind::HEADERS, END_HEADERS, stream, &fields);
            match self.shape {
                Shape::Get => frame::write(out, kind::DATA, END_STREAM, stream, body),
                Shape::Unary => {
                    frame::write(out, kind::DATA, 0, stream, body);
                    fields.clear();
                    self.trailers.append(&mut fields, self.table);
                    frame::write(out, kind::HEADERS, END_HEADERS | END_STREAM, stream, &fields);
                }
            }
        }
    }
}
