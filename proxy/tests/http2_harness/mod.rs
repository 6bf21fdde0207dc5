//! HTTP/2 by the frame, on both sides of the real proxy: every frame is the test's own, and header blocks go through
//! another implementation of HPACK than the proxy's.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use ferrule_proxy::app::App;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::support::{get, talk};

/// Longer than anything here takes, and short enough that a hanging test is noticed.
pub const PATIENCE: Duration = Duration::from_secs(10);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const INTERNAL_ERROR: u32 = 2;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub type List = Vec<(String, String)>;

/// A frame, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Headers {
        id: u32,
        fields: List,
        end: bool,
    },
    Data {
        id: u32,
        content: Vec<u8>,
        end: bool,
    },
    Reset {
        id: u32,
        code: u32,
    },
    Settings(Vec<(u16, u32)>),
    SettingsAck,
    Ping([u8; 8]),
    Pong([u8; 8]),
    GoAway {
        last: u32,
        code: u32,
        debug: String,
    },
    WindowUpdate {
        id: u32,
        increment: u32,
    },
    /// The connection has ended in order.
    Closed,
    /// The connection was reset.
    Aborted,
}

/// One end of a connection.
pub struct Peer {
    pub stream: TcpStream,
    encoder: loona_hpack::Encoder<'static>,
    decoder: loona_hpack::Decoder<'static>,
    read: Vec<u8>,
    /// Gives back at once what DATA takes of the windows.
    pub gives_back: bool,
    /// Answers PING.
    pub answers_pings: bool,
    next: u32,
}

impl Peer {
    /// An end over this connection; nothing was sent.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket");
        Self {
            stream,
            encoder: loona_hpack::Encoder::new(),
            decoder: loona_hpack::Decoder::new(),
            read: Vec::new(),
            gives_back: true,
            answers_pings: true,
            next: 1,
        }
    }

    /// A client's end, with its preface and these settings sent.
    pub async fn client_with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut peer = Self::over(TcpStream::connect(address).await.expect("the proxy listens"));
        peer.write(PREFACE).await;
        peer.settings(settings).await;
        peer
    }

    pub async fn client(address: SocketAddr) -> Self {
        Self::client_with(address, &[]).await
    }

    /// A server's end, that has read the preface; `None` if none came.
    pub async fn server(stream: TcpStream, settings: &[(u16, u32)]) -> Option<Self> {
        let mut peer = Self::over(stream);
        let mut preface = [0; PREFACE.len()];
        peer.stream.read_exact(&mut preface).await.ok()?;
        assert_eq!(preface, PREFACE);
        peer.settings(settings).await;
        Some(peer)
    }

    /// That the other side has closed by then is no failure here.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    pub async fn frame(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) -> bool {
        let bytes = frame(kind, flags, id, payload);
        self.write(&bytes).await
    }

    pub async fn settings(&mut self, settings: &[(u16, u32)]) {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        self.frame(SETTINGS, 0, 0, &payload).await;
    }

    pub fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        self.encoder.encode(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    pub async fn headers(&mut self, id: u32, fields: &[(&str, &str)], end: bool) {
        let block = self.block(fields);
        self.frame(HEADERS, END_HEADERS | u8::from(end), id, &block).await;
    }

    pub async fn data(&mut self, id: u32, content: &[u8], end: bool) -> bool {
        self.frame(DATA, u8::from(end), id, content).await
    }

    pub async fn reset(&mut self, id: u32, code: u32) {
        self.frame(RST_STREAM, 0, id, &code.to_be_bytes()).await;
    }

    pub async fn goaway(&mut self, last: u32, code: u32) {
        self.frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat()).await;
    }

    pub async fn window(&mut self, id: u32, increment: u32) {
        self.frame(WINDOW_UPDATE, 0, id, &increment.to_be_bytes()).await;
    }

    /// Sends a request's head on a new stream.
    pub async fn request(&mut self, method: &str, path: &str, more: &[(&str, &str)], end: bool) -> u32 {
        let mut fields =
            vec![(":method", method), (":scheme", "http"), (":authority", "cart"), (":path", path)];
        fields.extend_from_slice(more);
        let id = self.next;
        self.next += 2;
        self.headers(id, &fields, end).await;
        id
    }

    /// The next stream's identifier, used up.
    pub fn take_id(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// Sends a GET and waits for the response.
    pub async fn get(&mut self, path: &str, more: &[(&str, &str)]) -> Response {
        let id = self.request("GET", path, more, true).await;
        self.response(id).await
    }

    /// Sends a request with this body in one piece and waits for the response.
    pub async fn send(&mut self, method: &str, body: &[u8], more: &[(&str, &str)]) -> Response {
        let id = self.request_whole(method, body, more).await;
        self.response(id).await
    }

    /// Sends head and body in one write, so that the proxy has all of the request at once.
    pub async fn request_whole(&mut self, method: &str, body: &[u8], more: &[(&str, &str)]) -> u32 {
        let mut fields =
            vec![(":method", method), (":scheme", "http"), (":authority", "cart"), (":path", "/")];
        fields.extend_from_slice(more);
        let id = self.take_id();
        let block = self.block(&fields);
        let bytes = [frame(HEADERS, END_HEADERS, id, &block), frame(DATA, END_STREAM, id, body)].concat();
        self.write(&bytes).await;
        id
    }

    async fn fill(&mut self, count: usize) -> Result<(), Frame> {
        let mut piece = [0; 16 * 1024];
        while self.read.len() < count {
            match self.stream.read(&mut piece).await {
                Ok(0) => return Err(Frame::Closed),
                Ok(read) => self.read.extend_from_slice(&piece[..read]),
                Err(_) => return Err(Frame::Aborted),
            }
        }
        Ok(())
    }

    async fn bytes(&mut self, count: usize) -> Result<Vec<u8>, Frame> {
        self.fill(count).await?;
        Ok(self.read.drain(..count).collect())
    }

    /// The next frame, whatever it is. Cancelling this between frames loses nothing.
    pub async fn any(&mut self) -> Frame {
        timeout(PATIENCE, self.wait_any()).await.expect("a frame in time")
    }

    /// The same, for as long as it takes.
    pub async fn wait_any(&mut self) -> Frame {
        loop {
            match self.one().await {
                Ok(Some(frame)) => return frame,
                Ok(None) => {}
                Err(end) => return end,
            }
        }
    }

    async fn one(&mut self) -> Result<Option<Frame>, Frame> {
        self.fill(9).await?;
        let length =
            usize::from(self.read[0]) << 16 | usize::from(self.read[1]) << 8 | usize::from(self.read[2]);
        let all = self.bytes(9 + length).await?;
        let (kind, flags, payload) = (all[3], all[4], &all[9..]);
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
        let id = u32::from_be_bytes(all[5..9].try_into().expect("four bytes"));
        let eight = || payload.try_into().expect("eight bytes");
        let end = flags & END_STREAM != 0;
        Ok(Some(match kind {
            HEADERS => {
                let mut block = payload.to_vec();
                let mut last = flags & END_HEADERS != 0;
                while !last {
                    let head = self.bytes(9).await?;
                    assert_eq!(head[3], CONTINUATION);
                    last = head[4] & END_HEADERS != 0;
                    let length = usize::from(head[1]) << 8 | usize::from(head[2]);
                    block.extend(self.bytes(length).await?);
                }
                let fields = self.decoder.decode(&block).expect("a valid header block");
                let text = |bytes| String::from_utf8(bytes).expect("text");
                let fields = fields.into_iter().map(|(name, value)| (text(name), text(value))).collect();
                Frame::Headers { id, fields, end }
            }
            DATA => {
                let content = payload.to_vec();
                if self.gives_back && !content.is_empty() {
                    let count = content.len() as u32;
                    self.window(0, count).await;
                    if !end {
                        self.window(id, count).await;
                    }
                }
                Frame::Data { id, content, end }
            }
            RST_STREAM => Frame::Reset { id, code: number(0) },
            SETTINGS if flags & ACK != 0 => Frame::SettingsAck,
            SETTINGS => {
                let all = payload.chunks(6).map(|item| {
                    let value = u32::from_be_bytes(item[2..].try_into().expect("four bytes"));
                    (u16::from_be_bytes([item[0], item[1]]), value)
                });
                let all = all.collect();
                self.frame(SETTINGS, ACK, 0, &[]).await;
                Frame::Settings(all)
            }
            PING if flags & ACK != 0 => Frame::Pong(eight()),
            PING => {
                let ping = eight();
                if self.answers_pings {
                    self.frame(PING, ACK, 0, &ping).await;
                }
                Frame::Ping(ping)
            }
            GOAWAY => Frame::GoAway {
                last: number(0),
                code: number(4),
                debug: String::from_utf8_lossy(&payload[8..]).into_owned(),
            },
            WINDOW_UPDATE => Frame::WindowUpdate { id, increment: number(0) },
            _ => return Ok(None),
        }))
    }

    /// The next frame that concerns a message or ends something.
    pub async fn next(&mut self) -> Frame {
        loop {
            let frame = self.any().await;
            let aside = matches!(
                frame,
                Frame::Settings(_)
                    | Frame::SettingsAck
                    | Frame::Ping(_)
                    | Frame::Pong(_)
                    | Frame::WindowUpdate { .. }
            );
            if !aside {
                return frame;
            }
        }
    }

    /// Like [`Peer::next`], but waits for as long as it takes.
    pub async fn next_ever(&mut self) -> Frame {
        loop {
            let frame = self.wait_any().await;
            if matches!(frame, Frame::Headers { .. } | Frame::Data { .. } | Frame::Reset { .. })
                || matches!(frame, Frame::GoAway { .. } | Frame::Closed | Frame::Aborted)
            {
                return frame;
            }
        }
    }

    /// Waits for a PING and answers it.
    pub async fn expect_ping(&mut self) {
        loop {
            if let Frame::Ping(ping) = self.any().await {
                self.frame(PING, ACK, 0, &ping).await;
                return;
            }
        }
    }

    /// Whatever comes until something ends the connection; then that, the GOAWAY preferred.
    pub async fn end(&mut self) -> Frame {
        let mut goaway = None;
        loop {
            match self.next().await {
                frame @ Frame::GoAway { .. } => goaway = Some(frame),
                frame @ (Frame::Closed | Frame::Aborted) => return goaway.unwrap_or(frame),
                _ => {}
            }
        }
    }

    /// Waits for the response on a stream, to its end; other streams' frames are dropped.
    pub async fn response(&mut self, id: u32) -> Response {
        let mut response = Response::default();
        loop {
            match self.next().await {
                Frame::Headers { id: of, fields, end } if of == id => {
                    let status = fields.iter().find(|(name, _)| name == ":status").map(|(_, value)| value);
                    match status {
                        Some(status) if status.starts_with('1') => response.interim.push(status.clone()),
                        Some(status) => {
                            response.status = status.parse().expect("a status");
                            response.fields = fields;
                        }
                        None => response.trailers = fields,
                    }
                    if end {
                        response.complete = true;
                        return response;
                    }
                }
                Frame::Data { id: of, content, end } if of == id => {
                    response.body.extend_from_slice(&content);
                    if end {
                        response.complete = true;
                        return response;
                    }
                }
                Frame::Reset { id: of, code } if of == id => {
                    response.reset = Some(code);
                    return response;
                }
                Frame::Closed | Frame::Aborted => {
                    response.gone = true;
                    return response;
                }
                _ => {}
            }
        }
    }
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    [&length[1..], &[kind, flags], &id.to_be_bytes(), payload].concat()
}

/// What a client has got.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub interim: Vec<String>,
    pub status: u16,
    pub fields: List,
    pub body: Vec<u8>,
    pub trailers: List,
    pub complete: bool,
    pub reset: Option<u32>,
    pub gone: bool,
}

impl Response {
    pub fn field(&self, name: &str) -> &str {
        value(&self.fields, name)
    }

    pub fn trailer(&self, name: &str) -> &str {
        value(&self.trailers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The value of a field, nothing if it is not there.
pub fn value<'a>(fields: &'a [(String, String)], name: &str) -> &'a str {
    fields.iter().find(|(each, _)| each == name).map_or("", |(_, value)| value)
}

/// An endpoint: what it does is up to the test.
#[derive(Clone)]
pub struct Endpoint {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Endpoint {
    /// `serve` is given each connection, with its number from 0.
    pub async fn raw<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(TcpStream, usize) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = counted.fetch_add(1, SeqCst);
                tokio::spawn(serve(stream, number));
            }
        });
        Self { address, connections }
    }

    /// The same, with the greetings exchanged.
    pub async fn new<F: Future<Output = ()> + Send + 'static>(
        settings: &'static [(u16, u32)],
        serve: impl Fn(Peer, usize) -> F + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::raw(move |stream, number| {
            let serve = serve.clone();
            async move {
                if let Some(peer) = Peer::server(stream, settings).await {
                    serve(peer, number).await;
                }
            }
        })
        .await
    }

    /// Answers every request, when it has come to its end, with this name, and in fields what was received.
    pub async fn named(name: &'static str) -> Self {
        Self::new(&[], move |peer, _| answer_all(peer, name)).await
    }

    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

/// Answers every request with a body that names the server, the request's head and its body.
pub async fn answer_all(mut peer: Peer, name: &'static str) {
    let mut open: Vec<(u32, List, Vec<u8>)> = Vec::new();
    loop {
        let done = match peer.next_ever().await {
            Frame::Headers { id, fields, end } => {
                match open.iter_mut().find(|(of, ..)| *of == id) {
                    Some((_, all, _)) => all.extend(fields),
                    None => open.push((id, fields, Vec::new())),
                }
                end.then_some(id)
            }
            Frame::Data { id, content, end } => {
                if let Some((.., body)) = open.iter_mut().find(|(of, ..)| *of == id) {
                    body.extend_from_slice(&content);
                }
                end.then_some(id)
            }
            Frame::Reset { id, .. } => {
                open.retain(|(of, ..)| *of != id);
                None
            }
            Frame::Closed | Frame::Aborted => return,
            _ => None,
        };
        let Some(done) = done else { continue };
        let at = open.iter().position(|(of, ..)| *of == done).expect("it was opened");
        let (id, fields, body) = open.remove(at);
        let mut text = format!("{name}\n");
        for (name, value) in &fields {
            text += &format!("{name}: {value}\n");
        }
        text += &format!("\n{}", String::from_utf8_lossy(&body));
        peer.headers(id, &[(":status", "200"), ("x-server", name)], false).await;
        peer.data(id, text.as_bytes(), true).await;
    }
}

/// The value of a metric, summed over the labels that are not given; 0 while it is not there.
pub async fn metric(app: &App, name: &str) -> u64 {
    let metrics = talk(app.admin, &get("/metrics", "")).await;
    crate::support::counted(&metrics, name)
}

/// How often a limit was exceeded by clients of the outbound side.
pub async fn exceeded(app: &App, limit: &str) -> u64 {
    metric(app, &format!("ferrule_limit_exceeded_total{{direction=\"outbound\",limit=\"{limit}\"}}")).await
}
