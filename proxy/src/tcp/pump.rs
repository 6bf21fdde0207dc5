//! Both directions of a connection of which a side is in TLS: read, decrypted or encrypted, and written.
//!
//! One task does all of it. A direction holds a buffer only while bytes are in it, and reads nothing before they are gone.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::{FromClient, FromEndpoint, carry::Look};
use crate::{
    buffer::Buffer,
    stream::{Shared, Stream},
    telemetry::Flows,
};

/// Bytes that are carried at once: four full records.
const PIECE: usize = 64 * 1024;
/// Pieces in a row before the thread's other tasks get their turn.
const TURN: usize = 4;
/// Free buffers that a thread keeps.
const KEPT: usize = 8;

thread_local! {
    static FREE: std::cell::RefCell<Vec<Box<[u8]>>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Carries bytes both ways as [`super::relay`] does.
pub(super) async fn relay(
    client: Stream,
    read: Buffer,
    upstream: Stream,
    pending: Buffer,
    flows: &Flows<'_>,
    revoked: impl Future<Output = ()>,
) {
    let mut there = Way::new(&read, FromClient { flows, greeting: Some(Vec::new()) });
    let mut back = Way::new(&pending, FromEndpoint { flows });
    drop((read, pending));
    let carried = poll_fn(|cx| {
        // Each is given its turn, whatever the other does.
        let one = there.poll(cx, Shared(&client), Shared(&upstream));
        let other = back.poll(cx, Shared(&upstream), Shared(&client));
        match (one, other) {
            // What the endpoint has sent before it failed is still to arrive.
            (Poll::Ready(Err(error)), Poll::Ready(_)) | (Poll::Ready(Ok(())), Poll::Ready(Err(error))) => {
                Poll::Ready(Err(error))
            }
            (Poll::Ready(Err(Broken { source: true, error })), _)
            | (_, Poll::Ready(Err(Broken { source: true, error }))) => {
                Poll::Ready(Err(Broken { source: true, error }))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    });
    if let Err(Broken { error, .. }) = super::unless(revoked, carried).await {
        tracing::debug!(%error, "a connection that carries bytes was broken by one side: both are reset");
        flows.broken();
        client.reset();
        upstream.reset();
    }
}

struct Broken {
    /// It was the one that is read from.
    source: bool,
    error: io::Error,
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self { source: true, error }
    }
}

enum State {
    Carries,
    /// The source has ended; the sink is to be told.
    Ends,
    Done,
    /// The sink takes nothing any more.
    Failed(io::ErrorKind),
}

/// One direction.
struct Way<Seen> {
    piece: Option<Box<[u8]>>,
    start: usize,
    end: usize,
    state: State,
    seen: Seen,
}

impl<Seen: Look> Way<Seen> {
    fn new(first: &Buffer, mut seen: Seen) -> Self {
        seen.bytes(first.data());
        let mut way = Self { piece: None, start: 0, end: 0, state: State::Carries, seen };
        if !first.is_empty() {
            way.end = first.data().len();
            let mut piece = if way.end > PIECE { vec![0; way.end].into() } else { take() };
            piece[..way.end].copy_from_slice(first.data());
            way.piece = Some(piece);
        }
        way
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut from: Shared<'_>,
        mut to: Shared<'_>,
    ) -> Poll<Result<(), Broken>> {
        let sink = |error| Broken { source: false, error };
        for _ in 0..TURN {
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Failed(kind) => return Poll::Ready(Err(sink(kind.into()))),
                State::Ends if self.start == self.end => {
                    let ended = ready!(Pin::new(&mut to).poll_shutdown(cx));
                    self.state = ended.map_or_else(|error| State::Failed(error.kind()), |()| State::Done);
                    continue;
                }
                _ => {}
            }
            if self.start < self.end {
                let piece = self.piece.as_deref().unwrap_or_default();
                match ready!(Pin::new(&mut to).poll_write(cx, &piece[self.start..self.end])) {
                    Ok(0) => self.state = State::Failed(io::ErrorKind::WriteZero),
                    Ok(count) => {
                        self.start += count;
                        self.seen.passed(count);
                    }
                    Err(error) => self.state = State::Failed(error.kind()),
                }
                continue;
            }
            let mut piece = self.piece.take().unwrap_or_else(take);
            let mut read = ReadBuf::new(&mut piece);
            let result = Pin::new(&mut from).poll_read(cx, &mut read);
            let count = read.filled().len();
            match result {
                Poll::Pending => {
                    give_back(piece);
                    // What TLS has taken lies encrypted until the socket takes it.
                    return match Pin::new(&mut to).poll_flush(cx) {
                        Poll::Ready(Err(error)) => {
                            self.state = State::Failed(error.kind());
                            Poll::Ready(Err(sink(error)))
                        }
                        _ => Poll::Pending,
                    };
                }
                Poll::Ready(Err(error)) => {
                    give_back(piece);
                    return Poll::Ready(Err(Broken { source: true, error }));
                }
                Poll::Ready(Ok(())) if count == 0 => {
                    give_back(piece);
                    (self.start, self.end) = (0, 0);
                    self.state = State::Ends;
                }
                Poll::Ready(Ok(())) => {
                    self.seen.bytes(&piece[..count]);
                    (self.start, self.end) = (0, count);
                    self.piece = Some(piece);
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn take() -> Box<[u8]> {
    FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; PIECE].into_boxed_slice())
}

fn give_back(piece: Box<[u8]>) {
    // The store is gone while the thread ends.
    let _ = FREE.try_with(|free| {
        let mut free = free.borrow_mut();
        if piece.len() == PIECE && free.len() < KEPT {
            free.push(piece);
        }
    });
}
