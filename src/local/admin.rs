//! A question to a proxy's admin port.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

/// Waits until the proxy says that it is ready; `false` if it does not within `patience`.
pub(super) async fn ready(admin: SocketAddr, patience: Duration) -> bool {
    let asked = async {
        while !get(admin, "/ready").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(patience, asked).await.is_ok()
}

/// The whole answer to a GET request.
async fn get(admin: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
