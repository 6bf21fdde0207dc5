//! The real proxy between raw sockets: every byte on both sides is the test's own.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use ferrule_proxy::{
    app::{self, App},
    settings::Settings,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Longer than anything here takes, and short enough that a hanging test is noticed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an endpoint does on a connection once it has the end of a request's head.
#[derive(Clone, Debug)]
pub enum Script {
    /// Sends these bytes and goes on with the next request.
    Answer(Vec<u8>),
    /// Sends these bytes and closes.
    AnswerAndClose(Vec<u8>),
    /// Sends these bytes and resets the connection.
    AnswerAndReset(Vec<u8>),
    /// Closes as soon as the connection is there.
    CloseAtOnce,
    /// Says nothing.
    Silent,
}

/// An endpoint that keeps what it was sent.
#[derive(Clone)]
pub struct Endpoint {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    script: Script,
    seen: Vec<u8>,
    connections: usize,
    open: usize,
}

impl Endpoint {
    pub async fn new(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State { script, seen: Vec::new(), connections: 0, open: 0 }));
        let endpoint = Self { address, state };
        let accepting = endpoint.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let one = accepting.clone();
                tokio::spawn(async move {
                    one.change(|state| {
                        state.connections += 1;
                        state.open += 1;
                    });
                    one.serve(stream).await;
                    one.change(|state| state.open -= 1);
                });
            }
        });
        endpoint
    }

    async fn serve(&self, mut stream: TcpStream) {
        if matches!(self.change(|state| state.script.clone()), Script::CloseAtOnce) {
            return;
        }
        let mut head = Vec::new();
        let mut piece = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut piece).await {
            self.change(|state| state.seen.extend_from_slice(&piece[..count]));
            head.extend_from_slice(&piece[..count]);
            while let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                head.drain(..end + 4);
                let (bytes, then) = match self.change(|state| state.script.clone()) {
                    Script::Answer(bytes) => (bytes, 0),
                    Script::AnswerAndClose(bytes) => (bytes, 1),
                    Script::AnswerAndReset(bytes) => (bytes, 2),
                    Script::CloseAtOnce => return,
                    Script::Silent => continue,
                };
                if stream.write_all(&bytes).await.is_err() || then == 1 {
                    return;
                }
                if then == 2 {
                    // What was sent is to arrive before the reset.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    let _ = stream.set_zero_linger();
                    return;
                }
            }
        }
    }

    pub fn script(&self, script: Script) {
        self.change(|state| state.script = script);
    }

    /// All that was received since this was last asked.
    pub fn take_seen(&self) -> Vec<u8> {
        self.change(|state| std::mem::take(&mut state.seen))
    }

    pub fn seen(&self) -> Vec<u8> {
        self.change(|state| state.seen.clone())
    }

    /// Connections that were made so far.
    pub fn connections(&self) -> usize {
        self.change(|state| state.connections)
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.change(|state| state.open)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().expect("no test panics while it holds this"))
    }
}

/// A proxy with an outbound listener for the Service `shop/cart`, that has these endpoints and is said to speak
/// HTTP/1, and with these other variables.
pub async fn outbound(endpoints: &[SocketAddr], variables: &[(&str, &str)]) -> Proxy {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let service = serde_json::json!({
        "kind": "Service",
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"ports": [{"name": "http", "port": 80, "appProtocol": "http"}]},
    });
    std::fs::write(directory.path().join("service.json"), service.to_string()).expect("writable");
    for (index, endpoint) in endpoints.iter().enumerate() {
        let slice = serde_json::json!({
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("cart-{index}"),
                "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "cart"},
            },
            "endpoints": [{"addresses": [endpoint.ip()]}],
            "ports": [{"name": "http", "port": endpoint.port()}],
        });
        std::fs::write(directory.path().join(format!("slice-{index}.json")), slice.to_string())
            .expect("writable");
    }
    let settings = Settings::from_env(|variable| {
        let set = variables.iter().find(|(name, _)| *name == variable);
        Some(match variable {
            _ if set.is_some() => set?.1.to_owned(),
            "FERRULE_DISCOVERY" => format!("dir:{}", directory.path().display()),
            "FERRULE_REDIRECTED" => "false".into(),
            "FERRULE_OUTBOUND_LISTENERS" => "127.0.0.1:0=shop/cart:80".into(),
            "FERRULE_ADMIN" => "127.0.0.1:0".into(),
            "FERRULE_WORKERS" => "1".into(),
            _ => return None,
        })
    });
    let app = app::build(&settings.expect("settings")).await.expect("the proxy starts");
    Proxy { app, _directory: directory }
}

/// A proxy that runs.
pub struct Proxy {
    app: App,
    _directory: tempfile::TempDir,
}

impl Proxy {
    /// Where it takes connections.
    pub fn address(&self) -> SocketAddr {
        self.app.listeners[0]
    }

    pub async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.app.listeners[0]).await.expect("the proxy listens"))
    }

    /// The value of a metric, summed over the labels that are not given; 0 while it is not there.
    pub async fn metric(&self, name: &str) -> u64 {
        let stream = TcpStream::connect(self.app.admin).await.expect("the admin port listens");
        let mut client = Client(stream);
        client.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let metrics = client.until_end().await.0;
        let metrics = String::from_utf8(metrics).expect("text");
        crate::support::counted(&metrics, name)
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// In order.
    Closed,
    /// By a reset.
    Reset,
    /// Not at all, in the time that was waited.
    Open,
}

/// A client's connection.
pub struct Client(pub TcpStream);

impl Client {
    /// Sends bytes; that the proxy has closed by then is no failure here.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// Everything until the end of the connection, and how it ended.
    pub async fn until_end(&mut self) -> (Vec<u8>, Ended) {
        self.for_a_while(PATIENCE).await
    }

    /// Everything until the end of the connection or a pause of this length.
    pub async fn for_a_while(&mut self, pause: Duration) -> (Vec<u8>, Ended) {
        let mut seen = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match timeout(pause, self.0.read(&mut piece)).await {
                Ok(Ok(0)) => return (seen, Ended::Closed),
                Ok(Ok(count)) => seen.extend_from_slice(&piece[..count]),
                Ok(Err(_)) => return (seen, Ended::Reset),
                Err(_) => return (seen, Ended::Open),
            }
        }
    }

    /// Reads until these bytes have come.
    pub async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(end) {
            let read = timeout(PATIENCE, self.0.read(&mut byte)).await;
            match read {
                Ok(Ok(1)) => seen.push(byte[0]),
                other => panic!("{other:?} after {}", seen.escape_ascii()),
            }
        }
        seen
    }
}

/// Repeats until it holds, for at most five seconds.
pub async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    for _ in 0..500 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// Bytes as a reader likes to see them.
pub fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
