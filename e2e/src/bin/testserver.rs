//! The server of the end-to-end tests; see [`ferrule_e2e::workload::server`].
//!
//! Environment: `VERSION` (default v1), `POD_NAME` (default: the host's name), `PORT` (HTTP, default 8080),
//! `ECHO_PORT` (TCP echo, default 9000), `GREETING_PORT` (TCP, the server speaks first, default 9001),
//! `DATAGRAM_PORT` (UDP echo, default 9002), `LINES_PORT` (see [`ferrule_e2e::workload::lines`], default 9003),
//! `GRACE_SECONDS` (how long that goes on after SIGTERM, default 0).

use std::{env, net::Ipv6Addr, process::ExitCode, time::Duration};

use ferrule_e2e::workload::{
    datagram, lines,
    server::{Identity, serve},
    tcp::{echo, greet},
};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    signal::unix::{SignalKind, signal},
    sync::watch,
};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testserver: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> std::io::Result<()> {
    let variable = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let identity = Identity { version: variable("VERSION", "v1"), pod: variable("POD_NAME", host.trim()) };

    let http = listen(&variable("PORT", "8080")).await?;
    let echoes = listen(&variable("ECHO_PORT", "9000")).await?;
    let greetings = listen(&variable("GREETING_PORT", "9001")).await?;
    tokio::spawn(accept(echoes, |stream| drop(tokio::spawn(echo(stream)))));
    tokio::spawn(accept(greetings, |stream| drop(tokio::spawn(greet(stream)))));

    let datagrams =
        UdpSocket::bind((Ipv6Addr::UNSPECIFIED, number(&variable("DATAGRAM_PORT", "9002"))?)).await?;
    tokio::spawn(datagram::echo(datagrams));

    let conversations = listen(&variable("LINES_PORT", "9003")).await?;
    let grace = Duration::from_secs(number(&variable("GRACE_SECONDS", "0"))?.into());

    let (stop, stopped) = watch::channel(false);
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        terminated.recv().await;
        stop.send_replace(true);
    });
    let pod = identity.pod.clone();
    let (requests, conversations) = tokio::join!(
        serve(http, identity, stopped.clone()),
        lines::serve(conversations, &pod, grace, stopped)
    );
    requests.and(conversations)
}

async fn listen(port: &str) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, number(port)?)).await
}

fn number(text: &str) -> std::io::Result<u16> {
    text.parse().map_err(|_| std::io::Error::other(format!("{text:?} is not a number")))
}

async fn accept(listener: TcpListener, handle: impl Fn(TcpStream)) {
    while let Ok((stream, _)) = listener.accept().await {
        handle(stream);
    }
}
