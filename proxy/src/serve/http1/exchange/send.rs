//! The request's body on its way to the endpoint.

use std::{cell::Cell, io};

use tokio::io::AsyncWriteExt;

use crate::{
    buffer::Buffer,
    http1::body::{Body, BodyError, Framing},
    retry::Replay,
    stream::{ReadHalf, WriteHalf},
    telemetry::Notes,
};

/// The request's body. As long as all of it lies in the client's buffer, nothing of that is used up and the
/// request can be sent again.
pub(super) struct Outgoing {
    body: Body,
    /// Bytes of the buffer that are the whole body.
    pub buffered: Option<usize>,
    /// Bytes were taken from the client and are gone.
    pub streamed: bool,
}

impl Outgoing {
    /// Looks at what of the body is at hand.
    ///
    /// # Errors
    /// When that is malformed already, so that no endpoint sees any of it.
    pub fn new(framing: Framing, read: &Buffer) -> Result<Self, BodyError> {
        let body = Body::new(framing);
        let mut look = body.clone();
        let length = look.advance(read.data())?;
        Ok(Self { body, buffered: look.is_done().then_some(length), streamed: false })
    }

    pub fn replay(&self, idempotent: bool) -> Replay {
        Replay { idempotent, complete: !self.streamed }
    }
}

/// What an exchange does at the moment, for the one who watches it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes have moved since this was last looked at.
    pub moved: Cell<bool>,
    /// More of the body is awaited from the client.
    pub reads_client: Cell<bool>,
    /// The client has yet to take some of the response.
    pub writes_client: Cell<bool>,
    /// Some of the body has come after the head.
    pub begun: Cell<bool>,
    /// The endpoint was sent the whole request.
    pub sent: Cell<bool>,
}

/// Why sending ended early.
pub(super) enum SendError {
    /// The client closed within its request.
    Client,
    /// The endpoint takes no more; it may have responded all the same.
    Upstream,
    /// The body's framing can't be followed.
    Malformed(BodyError),
}

/// Sends head and body from the buffer, in one call if the system takes it so.
pub(super) async fn write_both(to: &mut WriteHalf<'_>, head: &[u8], body: &[u8]) -> io::Result<()> {
    if body.is_empty() {
        return to.write_all(head).await;
    }
    let mut slices = [io::IoSlice::new(head), io::IoSlice::new(body)];
    let mut slices = slices.as_mut_slice();
    while !slices.is_empty() {
        let written = to.write_vectored(slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        io::IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}

/// Sends the body as it comes. Only when this has returned without an error are body and buffer in step: then what
/// lies in the buffer is the next request.
pub(super) async fn stream_body(
    request: &mut Outgoing,
    read: &mut Buffer,
    client: &mut ReadHalf<'_>,
    (upstream, notes): (&mut WriteHalf<'_>, &Notes),
    progress: &Progress,
) -> Result<(), SendError> {
    request.streamed = true;
    let body = &mut request.body;
    loop {
        let used = body.advance(read.data()).map_err(SendError::Malformed)?;
        if used > 0 {
            progress.begun.set(true);
            upstream.write_all(&read.data()[..used]).await.map_err(|_| SendError::Upstream)?;
            progress.moved.set(true);
            notes.sent(used);
            read.consume(used);
        }
        if body.is_done() {
            return Ok(());
        }
        progress.reads_client.set(true);
        let filled = read.fill(client).await;
        progress.reads_client.set(false);
        match filled {
            Ok(0) | Err(_) => return Err(SendError::Client),
            Ok(_) => progress.moved.set(true),
        }
    }
}
