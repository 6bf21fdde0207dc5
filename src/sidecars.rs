//! Asks sidecars at their admin port, in plain HTTP and by the addresses of their pods. What they answer is no secret;
//! whoever forges it can hasten or hold up a step that waits for it, and nothing else.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::TcpStream, time::timeout};

/// Sidecars that one asker asks at a time.
pub(crate) const CONCURRENCY: usize = 64;
/// How long an answer is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer that is read. A report of plaintext clients has 30 KiB at most, one of an identity 500 bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Gets what a sidecar tells at a path of its admin port; `None` from one that knows nothing of the path, for it is of
/// an older version.
pub(crate) async fn ask<T: DeserializeOwned>(
    address: IpAddr,
    port: u16,
    path: &str,
) -> io::Result<Option<T>> {
    timeout(ANSWER_TIMEOUT, get(SocketAddr::new(address, port), path))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn get<T: DeserializeOwned>(address: SocketAddr, path: &str) -> io::Result<Option<T>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let connection = Connection(tokio::spawn(connection));
    let request = Request::get(path).header(header::HOST, address.to_string());
    let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let answer = match response.status() {
        StatusCode::OK => {
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(io::Error::other)?.to_bytes();
            serde_json::from_slice(&body).map(Some).map_err(io::Error::from)
        }
        StatusCode::NOT_FOUND => Ok(None),
        other => Err(io::Error::other(format!("it answered {other}"))),
    };
    drop(connection);
    answer
}

/// Ends with whoever asked, whether or not the answer came.
struct Connection(tokio::task::JoinHandle<hyper::Result<()>>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use ferrule_config::PlaintextReport;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// A sidecar that answers one question with this.
    async fn answered(response: String) -> io::Result<Option<PlaintextReport>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.expect("a request");
            assert!(request[..read].starts_with(b"GET /tls HTTP/1.1\r\n"));
            // Whoever has read enough hangs up.
            let _ = stream.write_all(response.as_bytes()).await;
        });
        ask(address.ip(), address.port(), "/tls").await
    }

    fn response(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn an_answer_is_read_whole() {
        let report = answered(response("200 OK", r#"{"accepts":{},"observedSeconds":7}"#)).await;
        assert_eq!(report.expect("an answer").expect("known").observed_seconds, Some(7));
    }

    #[tokio::test]
    async fn a_sidecar_that_does_not_know_the_path_is_told_apart_from_one_that_fails() {
        assert_eq!(answered(response("404 Not Found", "")).await.expect("an answer"), None);
        assert!(answered(response("500 Internal Server Error", "")).await.is_err());
        assert!(answered(response("200 OK", "no JSON")).await.is_err());
    }

    #[tokio::test]
    async fn an_answer_without_end_is_given_up() {
        let endless = format!(r#"{{"plaintextClients":[],"x":"{}"}}"#, "x".repeat(2 * MAX_ANSWER));
        assert!(answered(response("200 OK", &endless)).await.is_err());
    }
}
