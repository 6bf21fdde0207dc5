//! The servers behind the proxy: one thread, canned answers, next to no work.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::{
    connection::{Connection, Received},
    http1, http2,
    poll::{Poller, Ready},
    session::{After, Server},
};

/// Where the backend listens: for each protocol as many endpoints as a proxy balances over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Addresses {
    /// HTTP/1.1, [`http1::server`].
    pub http1: [SocketAddr; 2],
    /// HTTP/2 with prior knowledge, small bodies.
    pub http2: [SocketAddr; 2],
    /// HTTP/2 with prior knowledge, unary gRPC.
    pub grpc: [SocketAddr; 2],
    /// After the client's first byte, bytes without end.
    pub tcp: [SocketAddr; 2],
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Http1,
    Http2(http2::Shape),
    Tcp,
}

/// Sent again and again on a TCP connection.
const PIECE: usize = 256 * 1024;
const READ: usize = 64 * 1024;

/// Listens, prints the [`Addresses`] as one line of JSON, and serves for ever.
///
/// # Errors
/// When it cannot listen, or polling fails.
pub fn run() -> anyhow::Result<()> {
    let mut listeners = Vec::new();
    let mut pair = |kind: Kind| -> io::Result<[SocketAddr; 2]> {
        let mut one = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            rustix::net::listen(&listener, 4096)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            listeners.push((listener, kind));
            io::Result::Ok(address)
        };
        Ok([one()?, one()?])
    };
    let addresses = Addresses {
        http1: pair(Kind::Http1)?,
        http2: pair(Kind::Http2(http2::Shape::Get))?,
        grpc: pair(Kind::Http2(http2::Shape::Unary))?,
        tcp: pair(Kind::Tcp)?,
    };
    println!("{}", serde_json::to_string(&addresses)?);
    io::stdout().flush()?;
    serve(&listeners).context("the backend")
}

fn serve(listeners: &[(TcpListener, Kind)]) -> io::Result<()> {
    let mut poller = Poller::new()?;
    for (index, (listener, _)) in listeners.iter().enumerate() {
        poller.add(listener, index)?;
    }
    let base = listeners.len();
    let mut open: Vec<Option<Served>> = Vec::new();
    let mut free = Vec::new();
    let (mut ready, mut buffer) = (Vec::new(), vec![0; READ]);
    loop {
        poller.wait(None, &mut ready)?;
        for &Ready { token, ended } in &ready {
            if let Some((listener, kind)) = listeners.get(token) {
                while let Ok((stream, _)) = listener.accept() {
                    let index = free.pop().unwrap_or_else(|| {
                        open.push(None);
                        open.len() - 1
                    });
                    let served = Served::new(stream, *kind)?;
                    poller.add(served.connection.stream(), base + index)?;
                    open[index] = Some(served);
                }
                continue;
            }
            let index = token - base;
            let Some(served) = open.get_mut(index).and_then(Option::as_mut) else { continue };
            if served.turn(&mut buffer, ended) == After::Close {
                open[index] = None;
                free.push(index);
            }
        }
    }
}

struct Served {
    connection: Connection,
    protocol: Protocol,
    after: After,
}

enum Protocol {
    Http1(http1::server::Server),
    Http2(Box<http2::server::Server>),
    Tcp { begun: bool },
}

impl Served {
    fn new(stream: TcpStream, kind: Kind) -> io::Result<Self> {
        let protocol = match kind {
            Kind::Http1 => Protocol::Http1(http1::server::Server::default()),
            Kind::Http2(shape) => Protocol::Http2(Box::new(http2::server::Server::new(shape))),
            Kind::Tcp => Protocol::Tcp { begun: false },
        };
        Ok(Self { connection: Connection::new(stream)?, protocol, after: After::Open })
    }

    /// Reads, answers and sends as far as the socket goes.
    fn turn(&mut self, buffer: &mut [u8], ended: bool) -> After {
        loop {
            let (count, last) = match self.connection.receive(buffer) {
                Ok(Received::Some(count)) => (count, false),
                Ok(Received::Last(count)) => (count, true),
                // Clients here never close one side alone.
                Ok(Received::End) | Err(_) => return After::Close,
            };
            let out = &mut self.connection.out;
            let after = match &mut self.protocol {
                Protocol::Http1(server) => server.receive(&buffer[..count], out),
                Protocol::Http2(server) => server.receive(&buffer[..count], out),
                Protocol::Tcp { begun } => {
                    *begun |= count > 0;
                    Ok(After::Open)
                }
            };
            match after {
                Ok(after) => self.after = after,
                Err(error) => {
                    eprintln!("backend: {error}");
                    return After::Close;
                }
            }
            if (last && !ended) || self.after == After::Close {
                break;
            }
        }
        if matches!(self.protocol, Protocol::Tcp { begun: true }) {
            return self.pour();
        }
        match self.connection.flush() {
            Ok(true) => self.after,
            Ok(false) => After::Open,
            Err(_) => After::Close,
        }
    }

    /// Sends until the socket is full.
    fn pour(&self) -> After {
        static BYTES: [u8; PIECE] = [b'x'; PIECE];
        let mut stream = self.connection.stream();
        loop {
            match stream.write(&BYTES) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return After::Open,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return After::Close,
            }
        }
    }
}
