//! What is no TCP: an echo over UDP, and ICMP's.

use std::{
    io::{Error, ErrorKind, Read, Result, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::UdpSocket, time::timeout};

use super::report::DatagramReport;

const LIMIT: Duration = Duration::from_secs(5);
/// Type, code, checksum, identifier, sequence number (RFC 792, RFC 4443).
const ICMP_HEADER: usize = 8;

/// Sends back every datagram.
///
/// # Errors
/// Those of the socket.
pub async fn echo(socket: UdpSocket) -> Result<()> {
    let mut datagram = [0; 2048];
    loop {
        let (length, peer) = socket.recv_from(&mut datagram).await?;
        socket.send_to(&datagram[..length], peer).await?;
    }
}

/// Sends a datagram over UDP and waits for one to come back.
///
/// # Errors
/// When none comes within 5 s.
pub async fn udp(address: SocketAddr, text: &str) -> Result<DatagramReport> {
    let socket = UdpSocket::bind(SocketAddr::new(unspecified(address.ip()), 0)).await?;
    socket.send_to(text.as_bytes(), address).await?;
    let mut datagram = [0; 2048];
    let received = timeout(LIMIT, socket.recv_from(&mut datagram)).await;
    let (length, from) = received.map_err(|_| Error::new(ErrorKind::TimedOut, "no datagram came back"))??;
    Ok(report(&datagram[..length], from))
}

/// Sends an ICMP echo request and waits for its reply; by the kernel's ping sockets, which need no privilege.
///
/// # Errors
/// When such sockets are not allowed, or nothing comes within 5 s.
pub fn ping(address: IpAddr, text: &str) -> Result<DatagramReport> {
    let (domain, protocol, request, reply) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let mut socket = Socket::new(domain, Type::DGRAM, Some(protocol)).map_err(|error| {
        Error::new(error.kind(), format!("ping socket: {error}; see net.ipv4.ping_group_range"))
    })?;
    let peer = SocketAddr::new(address, 0);
    socket.connect(&peer.into())?;
    // The kernel fills in checksum and identifier.
    socket.write_all(&[&[request, 0, 0, 0, 0, 0, 0, 1], text.as_bytes()].concat())?;
    let deadline = Instant::now() + LIMIT;
    let mut packet = [0; 2048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let length = socket.read(&mut packet)?;
        if length >= ICMP_HEADER && packet[0] == reply {
            return Ok(report(&packet[ICMP_HEADER..length], peer));
        }
    }
}

fn report(datagram: &[u8], from: SocketAddr) -> DatagramReport {
    DatagramReport { received: String::from_utf8_lossy(datagram).into_owned(), from: from.ip().to_string() }
}

fn unspecified(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_datagram_comes_back_from_whom_it_went_to() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("bound");
        tokio::spawn(echo(socket));
        let report = udp(address, "hello").await.expect("an echo");
        assert_eq!((report.received.as_str(), report.from.as_str()), ("hello", "127.0.0.1"));
    }
}
