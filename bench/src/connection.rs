//! A connection and the bytes that wait to be sent on it.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

/// A connection that is never waited for.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// What is to be sent; [`Connection::flush`] sends it.
    pub out: Vec<u8>,
    sent: usize,
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes, and there may be more.
    Some(usize),
    /// So many bytes, and no more are there now.
    Last(usize),
    /// The peer has closed its side.
    End,
}

/// Above this an empty buffer is given back to the system, so that idle connections are cheap.
const KEEP: usize = 256 * 1024;

impl Connection {
    /// Takes a stream over.
    ///
    /// # Errors
    /// Those of setting its options.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, out: Vec::new(), sent: 0 })
    }

    /// The socket.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads once.
    ///
    /// # Errors
    /// Those of the system.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            return match (&self.stream).read(buffer) {
                Ok(0) => Ok(Received::End),
                Ok(count) if count < buffer.len() => Ok(Received::Last(count)),
                Ok(count) => Ok(Received::Some(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Last(0)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Sends what waits, as far as the socket takes it. Whether all is sent.
    ///
    /// # Errors
    /// Those of the system.
    pub fn flush(&mut self) -> io::Result<bool> {
        while self.sent < self.out.len() {
            match (&self.stream).write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.sent = 0;
        self.out.clear();
        if self.out.capacity() > KEEP {
            self.out = Vec::new();
        }
        Ok(true)
    }
}
