//! Opening connections without waiting for each.

use std::{io, net::SocketAddr, net::TcpStream};

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with};

use crate::connection::Connection;

/// Begins a connection; what is sent on it goes out when it stands.
pub(super) fn begin(target: SocketAddr) -> io::Result<Connection> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match connect(&socket, &target) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    Connection::new(TcpStream::from(socket))
}

/// Waits until the connection stands.
pub(super) fn wait(target: SocketAddr) -> io::Result<Connection> {
    Connection::new(TcpStream::connect(target)?)
}
