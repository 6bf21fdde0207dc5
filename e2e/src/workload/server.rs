//! The HTTP/1.1 server of `testserver`.
//!
//! Answers every request with an [`Echo`] of it. Query parameters change the answer: `delay=50ms` waits first,
//! `status=503` sets the status, `bytes=1000` sends that many bytes instead, `chunked=1` sends it in chunks.
//!
//! On shutdown it behaves as Go's `http.Server.Shutdown`, the most common behaviour in a cluster: no more
//! connections are accepted, idle ones are ended at once, requests under way are finished and answered with
//! `Connection: close`. It does not wait for anybody to notice.

use std::{collections::BTreeMap, io::Result, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::{
    digest,
    http1::{Connection, Framing, RequestHead, closes},
    report::Echo,
};

/// A connection that has not carried a request yet may have one on its way; Go grants it as much.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(5);

/// Who answers.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Sent as `X-Version` and in the body.
    pub version: String,
    /// Sent as `X-Pod` and in the body.
    pub pod: String,
}

/// Accepts connections until `shutdown` turns true, and returns once all are finished.
///
/// # Errors
/// Those of the listener.
pub async fn serve(listener: TcpListener, identity: Identity, shutdown: watch::Receiver<bool>) -> Result<()> {
    let identity = Arc::new(identity);
    // Every connection holds a sender: when the last is gone, `recv` returns.
    let (alive, mut finished) = mpsc::channel::<()>(1);
    let mut stop = shutdown.clone();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            _ = stop.wait_for(|&stop| stop) => break,
        };
        stream.set_nodelay(true)?;
        let (identity, shutdown, alive) = (Arc::clone(&identity), shutdown.clone(), alive.clone());
        tokio::spawn(async move {
            // An error here is the client's: it went away. It sees that for itself.
            let _ = converse(Connection::new(stream), &identity, shutdown).await;
            drop(alive);
        });
    }
    drop(listener);
    drop(alive);
    finished.recv().await;
    Ok(())
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut connection: Connection<S>,
    identity: &Identity,
    mut shutdown: watch::Receiver<bool>,
) -> Result<()> {
    let mut fresh = true;
    loop {
        if connection.is_idle() {
            let stopping = tokio::select! {
                biased;
                read = connection.fill() => if read? == 0 { return Ok(()) } else { false },
                _ = shutdown.wait_for(|&stop| stop) => true,
            };
            let grace = if fresh { FIRST_REQUEST_GRACE } else { Duration::ZERO };
            if stopping && !matches!(timeout(grace, connection.fill()).await, Ok(Ok(1..))) {
                return Ok(());
            }
        }
        let Some(head) = connection.request_head().await? else { return Ok(()) };
        fresh = false;
        let body = connection.body(Framing::of_request(&head.headers)?).await?;
        let answer = Answer::to(&head, &body, identity);
        // A sleep of nothing takes until the timer's next tick, a millisecond.
        if !answer.delay.is_zero() {
            sleep(answer.delay).await;
        }
        let close = *shutdown.borrow() || closes(&head.headers);
        connection.send(&answer.encode(&head.method, close)).await?;
        if close {
            return Ok(());
        }
    }
}

struct Answer {
    status: u16,
    delay: Duration,
    chunked: bool,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn to(head: &RequestHead, body: &[u8], identity: &Identity) -> Self {
        let query = head.target.split_once('?').map_or("", |(_, query)| query);
        let query: BTreeMap<_, _> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let echo = || {
            let echo = Echo {
                version: identity.version.clone(),
                pod: identity.pod.clone(),
                method: head.method.clone(),
                target: head.target.clone(),
                headers: head.headers.clone(),
                body_length: body.len(),
                body_checksum: digest::checksum(body),
            };
            serde_json::to_vec(&echo).unwrap_or_default()
        };
        let bytes = query.get("bytes").and_then(|bytes| bytes.parse().ok());
        Self {
            status: query.get("status").and_then(|status| status.parse().ok()).unwrap_or(200),
            delay: query.get("delay").and_then(|delay| millis(delay)).unwrap_or_default(),
            chunked: query.contains_key("chunked"),
            // Odd case and a repeated name, so that a proxy that tidies up is noticed.
            headers: vec![
                ("Content-Type", "application/json".to_owned()),
                ("X-Version", identity.version.clone()),
                ("X-Pod", identity.pod.clone()),
                ("x-lower", "kept".to_owned()),
                ("X-oDD-caSE", "kept".to_owned()),
                ("Set-Cookie", "a=1".to_owned()),
                ("Set-Cookie", "b=2".to_owned()),
            ],
            body: bytes.map_or_else(echo, digest::pattern),
        }
    }

    fn encode(&self, method: &str, close: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.chunked {
            head.push_str("Transfer-Encoding: chunked\r\n");
        } else if !matches!(self.status, 100..=199 | 204 | 304) {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str(if close { "Connection: close\r\n\r\n" } else { "\r\n" });
        let mut wire = head.into_bytes();
        if method == "HEAD" || matches!(self.status, 100..=199 | 204 | 304) {
            return wire;
        }
        if !self.chunked {
            wire.extend(&self.body);
            return wire;
        }
        for chunk in self.body.chunks(1000) {
            wire.extend(format!("{:x}\r\n", chunk.len()).bytes());
            wire.extend(chunk);
            wire.extend(b"\r\n");
        }
        wire.extend(b"0\r\n\r\n");
        wire
    }
}

fn millis(text: &str) -> Option<Duration> {
    text.strip_suffix("ms")?.parse().ok().map(Duration::from_millis)
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Unknown")
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{net::TcpStream, task::JoinHandle};

    use super::*;
    use crate::workload::http1::ResponseHead;

    struct Running {
        address: SocketAddr,
        stop: watch::Sender<bool>,
        server: JoinHandle<Result<()>>,
    }

    async fn start() -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = watch::channel(false);
        let identity = Identity { version: "v1".into(), pod: "pod".into() };
        Running { address, stop, server: tokio::spawn(serve(listener, identity, stopped)) }
    }

    async fn connect(running: &Running) -> Connection<TcpStream> {
        Connection::new(TcpStream::connect(running.address).await.expect("listening"))
    }

    async fn ask(connection: &mut Connection<TcpStream>, request: &str) -> (ResponseHead, Vec<u8>) {
        connection.send(request.as_bytes()).await.expect("open");
        let head = connection.response_head().await.expect("a response");
        let framing = Framing::of_response("GET", &head).expect("framed");
        let body = connection.body(framing).await.expect("whole");
        (head, body)
    }

    #[tokio::test]
    async fn a_request_is_echoed_with_its_body() {
        let running = start().await;
        let mut connection = connect(&running).await;
        let (_, body) =
            ask(&mut connection, "POST /a HTTP/1.1\r\nX-a: b\r\nContent-Length: 3\r\n\r\nabc").await;
        let echo: Echo = serde_json::from_slice(&body).expect("an echo");
        assert_eq!((echo.method.as_str(), echo.body_length), ("POST", 3));
        assert_eq!(echo.body_checksum, digest::checksum(b"abc"));
        assert_eq!(echo.headers[0], ("X-a".to_owned(), "b".to_owned()));
    }

    #[tokio::test]
    async fn the_query_changes_the_answer() {
        let running = start().await;
        let mut connection = connect(&running).await;
        for framing in ["", "&chunked=1"] {
            let request = format!("GET /?status=503&bytes=2500{framing} HTTP/1.1\r\n\r\n");
            let (head, body) = ask(&mut connection, &request).await;
            assert_eq!((head.status, body), (503, digest::pattern(2500)));
        }
    }

    #[tokio::test]
    async fn shutdown_ends_idle_connections_and_finishes_requests_under_way() {
        let running = start().await;
        let mut idle = connect(&running).await;
        ask(&mut idle, "GET / HTTP/1.1\r\n\r\n").await;
        let mut busy = connect(&running).await;
        let request = tokio::spawn(async move { ask(&mut busy, "GET /?delay=300ms HTTP/1.1\r\n\r\n").await });
        sleep(Duration::from_millis(100)).await;
        running.stop.send(true).expect("server runs");
        assert_eq!(idle.fill().await.expect("a clean end"), 0);
        assert!(!request.is_finished());
        let (head, _) = request.await.expect("answered");
        assert!(closes(&head.headers));
        timeout(Duration::from_secs(1), running.server)
            .await
            .expect("ended")
            .expect("joined")
            .expect("no error");
    }
}
