//! One direction of a relayed connection.
//!
//! Bytes are copied through a buffer that all connections of the thread share, so one that waits holds none, and are
//! spliced through a pipe while a long transfer lasts. Only what the sink has not taken is kept, and nothing more is
//! read before it has: that is the back-pressure.

use std::{cell::RefCell, future::poll_fn, io, pin::Pin, task::ready, time::Duration};

use tokio::{
    io::{AsyncRead as _, AsyncWriteExt as _, Interest, ReadBuf},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::timeout,
};

use super::{
    pace::Pace,
    pipe::{self, Pipe, Transfer},
};
use crate::buffer::Buffer;

/// The thread's buffer: larger gains nothing, 64 KiB cost a third more CPU time and 16 KiB twice as much. Only pages
/// that a read has reached are real.
const SCRATCH: usize = 256 * 1024;
/// Bytes after which other connections have their turn.
const TURN: usize = 64 * 1024;
/// How long a sink that takes nothing is waited for when the source is gone: what came before is still to arrive.
const LAST_WORDS: Duration = Duration::from_secs(30);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Which side has failed.
#[derive(Debug)]
pub(super) enum Broken {
    Source(io::Error),
    Sink(io::Error),
}

/// A direction: from where, to where, and who looks on.
pub(super) struct Direction<'a, Seen> {
    pub(super) from: ReadHalf<'a>,
    pub(super) to: WriteHalf<'a>,
    /// Is told how many bytes the sink has taken.
    pub(super) seen: Seen,
}

/// What looks on while bytes pass.
pub(super) trait Look {
    /// Bytes that were read and will be passed on.
    fn bytes(&mut self, _bytes: &[u8]) {}
    /// So many bytes were taken by the sink.
    fn passed(&mut self, count: usize);
}

impl<Seen: Look> Direction<'_, Seen> {
    /// Carries bytes until the source ends, then ends the sink. `first`: what was already read.
    pub(super) async fn carry(mut self, first: Buffer) -> Result<Self, Broken> {
        self.seen.bytes(first.data());
        self.write(first.data()).await?;
        drop(first);
        let (mut pace, mut transfer, mut blocked) = (Pace::default(), None, false);
        loop {
            let pipe = if pace.is_bulk() {
                transfer.get_or_insert_with(Transfer::begin);
                self.from.readable().await.map_err(Broken::Source)?;
                Pipe::take()
            } else {
                transfer = None;
                None
            };
            let count = match pipe {
                Some(pipe) => match self.splice(pipe, &mut blocked).await? {
                    Some(count) => count,
                    None => continue,
                },
                None => self.copy(pace.piece(SCRATCH, blocked), &mut blocked).await?,
            };
            if count == 0 {
                self.to.shutdown().await.map_err(Broken::Sink)?;
                return Ok(self);
            }
            pace.moved(count);
            if count >= TURN {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Moves what has come; `None` if nothing has, or if it has to be copied.
    async fn splice(&mut self, mut pipe: Pipe, blocked: &mut bool) -> Result<Option<usize>, Broken> {
        let count = match pipe.fill(self.from.as_ref()) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if pipe::is_refusal(&error) => {
                pipe::refuse();
                return Ok(None);
            }
            Err(error) => return Err(Broken::Source(error)),
        };
        *blocked = false;
        while pipe.held() > 0 {
            match pipe.drain(self.to.as_ref()) {
                Ok(passed) => self.seen.passed(passed),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    *blocked = true;
                    self.room().await?;
                }
                Err(error) => return Err(Broken::Sink(error)),
            }
        }
        Ok(Some(count))
    }

    /// Waits for bytes and copies at most so many.
    async fn copy(&mut self, most: usize, blocked: &mut bool) -> Result<usize, Broken> {
        let (from, to, seen) = (&mut self.from, self.to.as_ref(), &mut self.seen);
        let (count, rest) = poll_fn(|context| {
            BUFFER.with_borrow_mut(|buffer| {
                buffer.resize(SCRATCH, 0);
                let mut read = ReadBuf::new(&mut buffer[..most]);
                ready!(Pin::new(&mut *from).poll_read(context, &mut read)).map_err(Broken::Source)?;
                let bytes = read.filled();
                if bytes.is_empty() {
                    return Ok((0, Vec::new())).into();
                }
                seen.bytes(bytes);
                let taken = match to.try_write(bytes) {
                    Ok(taken) => taken,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    Err(error) => return Err(Broken::Sink(error)).into(),
                };
                seen.passed(taken);
                Ok((bytes.len(), bytes[taken..].to_vec())).into()
            })
        })
        .await?;
        *blocked = !rest.is_empty();
        self.write(&rest).await?;
        Ok(count)
    }

    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        while !bytes.is_empty() {
            match self.to.try_write(bytes) {
                Ok(count) => {
                    self.seen.passed(count);
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.room().await?,
                Err(error) => return Err(Broken::Sink(error)),
            }
        }
        Ok(())
    }

    /// Waits until the sink takes bytes; not for ever when the source is gone.
    async fn room(&self) -> Result<(), Broken> {
        let source: &TcpStream = self.from.as_ref();
        tokio::select! {
            biased;
            writable = self.to.writable() => return writable.map_err(Broken::Sink),
            () = failed(source) => {}
        }
        match timeout(LAST_WORDS, self.to.writable()).await {
            Ok(writable) => writable.map_err(Broken::Sink),
            Err(_) => Err(Broken::Source(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

/// Waits until a connection has failed, whether or not it is read or written; its end alone is no failure.
pub(super) async fn failed(stream: &TcpStream) {
    // An error here is the runtime's end, and that of the connection too.
    let _ = stream.ready(Interest::ERROR).await;
}
