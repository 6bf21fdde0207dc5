//! Connections that carry no requests we know of: bytes both ways, each way closed on its own.

use std::io;

use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

use crate::buffer::Buffer;

/// Bytes that went through a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// From the client to the endpoint.
    pub sent: u64,
    /// From the endpoint to the client.
    pub received: u64,
}

/// Carries bytes both ways until both sides have ended. `read` and `pending`: what was already read from the
/// client and from the endpoint. The end of one direction is passed on and the other goes on (half-close).
///
/// # Errors
/// The first that either side meets; both connections end with it.
pub async fn relay(
    mut client: TcpStream,
    read: Buffer,
    mut upstream: TcpStream,
    pending: Buffer,
) -> io::Result<Relayed> {
    let (mut client_read, mut client_write) = client.split();
    let (mut upstream_read, mut upstream_write) = upstream.split();
    let result = tokio::try_join!(
        carry(&mut client_read, read, &mut upstream_write),
        carry(&mut upstream_read, pending, &mut client_write),
    );
    match result {
        Ok((sent, received)) => Ok(Relayed { sent, received }),
        Err(error) => {
            // The other side is to see a failure as well, not a regular end.
            crate::net::reset(client);
            crate::net::reset(upstream);
            Err(error)
        }
    }
}

async fn carry(from: &mut ReadHalf<'_>, mut buffer: Buffer, to: &mut WriteHalf<'_>) -> io::Result<u64> {
    let mut total = 0;
    loop {
        if buffer.is_empty() {
            buffer.release();
            from.readable().await?;
            if buffer.fill(from).await? == 0 {
                to.shutdown().await?;
                return Ok(total);
            }
        }
        to.write_all(buffer.data()).await?;
        total += buffer.data().len() as u64;
        buffer.consume(buffer.data().len());
    }
}
