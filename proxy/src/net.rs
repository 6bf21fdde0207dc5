//! Sockets: listening, dialling, and where a redirected connection was meant to go.

use std::{
    future::{Future, poll_fn},
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::pin,
    task::{Context, Waker},
    time::Duration,
};

use futures::future::{Either, select};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Listens on an address that other threads of this process listen on too: the kernel shares the
/// connections out (`SO_REUSEPORT`). `[::]` takes IPv4 as well, and where the machine has no IPv6 it becomes
/// `0.0.0.0`.
///
/// # Errors
/// Those of the system, with the address.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match bind(address) {
        Err(_) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            bind(([0, 0, 0, 0], address.port()).into())
        }
        result => result,
    }
    .map_err(|error| io::Error::new(error.kind(), format!("listening on {address}: {error}")))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Connects, at most for this long.
///
/// # Errors
/// Those of the system, or `TimedOut`.
pub async fn connect(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = timeout(limit, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}")))??;
    prepare(&stream);
    Ok(stream)
}

/// How long the first address of an endpoint is tried alone (RFC 8305 §5, Connection Attempt Delay).
const ALONE: Duration = Duration::from_millis(250);

/// Connects to whichever of an endpoint's two addresses answers, the first if it is not much slower; at most for this
/// long ("Happy Eyeballs", RFC 8305).
///
/// # Errors
/// Those of the system for the first address, or `TimedOut`.
pub async fn connect_either(
    first: SocketAddr,
    second: Option<SocketAddr>,
    limit: Duration,
) -> io::Result<TcpStream> {
    let Some(second) = second else { return connect(first, limit).await };
    either(connect(first, limit), async || connect(second, limit).await).await
}

async fn either<T>(
    first: impl Future<Output = io::Result<T>>,
    second: impl AsyncFnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let mut first = pin!(first);
    let error = match timeout(ALONE, first.as_mut()).await {
        Ok(Ok(connected)) => return Ok(connected),
        Ok(Err(error)) => error,
        Err(_) => {
            return match select(first, pin!(second())).await {
                Either::Left((Ok(connected), _)) | Either::Right((Ok(connected), _)) => Ok(connected),
                Either::Left((Err(error), second)) => second.await.map_err(|_| error),
                Either::Right((Err(_), first)) => first.await,
            };
        }
    };
    second().await.map_err(|_| error)
}

/// Sets the options that every connection has: no Nagle delay, keep-alive probes that find a dead peer.
pub fn prepare(stream: &TcpStream) {
    // A socket whose peer is gone already refuses options; reading it will tell.
    let _ = stream.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10));
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Where a redirected connection was meant to go (`SO_ORIGINAL_DST`); `None` if it was not redirected.
#[must_use]
pub fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    // A peer that reached a [::] listener over IPv4 is asked about as IPv4.
    let v4 = stream.local_addr().ok()?.ip().to_canonical().is_ipv4();
    let original = if v4 { socket.original_dst_v4() } else { socket.original_dst_v6() };
    original.ok()?.as_socket().map(canonical)
}

/// The address without the IPv4-in-IPv6 mapping of a `[::]` listener.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Waits until the client has closed its side: it wants no response any more, as nginx, Envoy and Go's server take
/// it too. For ever if it sends another request instead, for that is read later.
pub async fn client_gone(client: &TcpStream) {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    loop {
        if poll_fn(|context| client.poll_read_ready(context)).await.is_err() {
            return;
        }
        match client.try_io(Interest::READABLE, || SockRef::from(client).peek(&mut byte)) {
            Ok(1..) => std::future::pending().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
        }
    }
}

/// Says that a read has left nothing: it got less than it had room for. What comes is told by an event, so nobody has to ask
/// the system in vain. Tokio does the same for its own reads.
pub fn drained(stream: &TcpStream) {
    let _ = stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
}

/// Whether the peer of an idle connection has neither closed it nor sent anything.
#[must_use]
pub fn is_quiet(stream: &TcpStream) -> bool {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    matches!(SockRef::from(stream).peek(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// The same as far as the runtime has heard, without asking the system.
#[must_use]
pub fn seems_quiet(stream: &TcpStream) -> bool {
    stream.poll_read_ready(&mut Context::from_waker(Waker::noop())).is_pending() || is_quiet(stream)
}

/// Makes the connection end in a reset when it is dropped, so that the client sees a failure and no short answer.
pub fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::{Instant, sleep};

    use super::*;

    async fn after(wait: u64, result: Result<u8, io::ErrorKind>) -> io::Result<u8> {
        sleep(Duration::from_millis(wait)).await;
        result.map_err(io::Error::from)
    }

    /// What comes of it, after how many milliseconds, and whether the second was tried.
    async fn race(
        first: (u64, Result<u8, io::ErrorKind>),
        second: (u64, Result<u8, io::ErrorKind>),
    ) -> (Result<u8, io::ErrorKind>, u128, bool) {
        let (begun, tried) = (Instant::now(), Cell::new(false));
        let result = either(after(first.0, first.1), async || {
            tried.set(true);
            after(second.0, second.1).await
        });
        let result = result.await.map_err(|error| error.kind());
        (result, begun.elapsed().as_millis(), tried.get())
    }

    const REFUSED: Result<u8, io::ErrorKind> = Err(io::ErrorKind::ConnectionRefused);
    const LOST: Result<u8, io::ErrorKind> = Err(io::ErrorKind::TimedOut);

    #[tokio::test(start_paused = true)]
    async fn the_second_address_is_tried_only_when_the_first_fails_or_is_slow() {
        assert_eq!(race((100, Ok(1)), (0, Ok(2))).await, (Ok(1), 100, false));
        assert_eq!(race((10, REFUSED), (5, Ok(2))).await, (Ok(2), 15, true));
        assert_eq!(race((5000, LOST), (5, Ok(2))).await, (Ok(2), 255, true));
        assert_eq!(race((300, Ok(1)), (5000, LOST)).await, (Ok(1), 300, true));
        assert_eq!(race((300, REFUSED), (100, Ok(2))).await, (Ok(2), 350, true));
        assert_eq!(race((400, Ok(1)), (10, REFUSED)).await, (Ok(1), 400, true));
    }

    #[tokio::test(start_paused = true)]
    async fn when_both_fail_the_first_one_s_failure_is_told() {
        assert_eq!(race((10, REFUSED), (10, LOST)).await.0, REFUSED);
        assert_eq!(race((300, REFUSED), (10, LOST)).await.0, REFUSED);
        assert_eq!(race((300, REFUSED), (1000, LOST)).await.0, REFUSED);
    }

    #[tokio::test]
    async fn an_endpoint_that_listens_on_one_family_is_reached() {
        let listener = listen("[::1]:0".parse().expect("an address")).expect("IPv6 on loopback");
        let second = listener.local_addr().expect("bound");
        let first = SocketAddr::from(([127, 0, 0, 1], second.port()));
        let stream = connect_either(first, Some(second), Duration::from_secs(5)).await.expect("reached");
        assert_eq!(stream.peer_addr().expect("connected"), second);
    }
}
