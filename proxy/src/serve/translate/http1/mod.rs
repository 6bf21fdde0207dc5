//! HTTP/1 at one side of an exchange, translated at the edge (RFC 9113 §8, RFC 9112 §6 and §7).

mod client;
mod incoming;
mod upstream;

use std::io;

use tokio::io::AsyncWriteExt;

pub use client::{Client, request_fields, run};
pub use upstream::Upstream;

use crate::{
    buffer,
    http2::{fields::Fields, streams::Ended},
    stream::Shared,
};

/// Content of up to so many bytes is copied so that it goes out in one piece with what frames it.
const SMALL: usize = 4 * 1024;

/// How content is delimited when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    /// There is none.
    None,
    /// By `Content-Length`: so much is still to come.
    Length(u64),
    /// By `Transfer-Encoding: chunked`.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// Writes a message's content.
#[derive(Debug)]
struct Writer<'a> {
    to: Shared<'a>,
    coding: Coding,
    done: bool,
    /// What goes out with the next that is written; from the thread's store.
    held: Vec<u8>,
    /// A write has begun and did not end: nothing can follow it any more.
    cut: bool,
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        buffer::give_back(std::mem::take(&mut self.held));
    }
}

impl<'a> Writer<'a> {
    fn new(to: Shared<'a>, coding: Coding, done: bool) -> Self {
        Self { to, coding, done, held: Vec::new(), cut: false }
    }

    /// Where to put what is to go out with the next that is written.
    fn held(&mut self) -> &mut Vec<u8> {
        if self.held.capacity() == 0 {
            self.held = buffer::take();
        }
        &mut self.held
    }

    /// Writes what is held.
    async fn flush(&mut self) -> Result<(), Ended> {
        if self.held.is_empty() {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        let written = self.whole(&[&held]).await;
        buffer::give_back(held);
        written.map_err(|_| Ended::Gone)
    }

    /// Writes all of these, or nothing more ever.
    async fn whole(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        if std::mem::replace(&mut self.cut, true) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match pieces {
            [piece] => self.to.write_all(piece).await?,
            _ => write_vectored(&mut self.to, pieces).await?,
        }
        self.cut = false;
        Ok(())
    }

    /// Writes these after what is held.
    async fn pieces(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        let all: usize = pieces.iter().map(|piece| piece.len()).sum();
        if all <= SMALL && (pieces.len() > 1 || !self.held.is_empty()) {
            let held = self.held();
            for piece in pieces {
                held.extend_from_slice(piece);
            }
            return self.flush().await.map_err(|_| io::ErrorKind::BrokenPipe.into());
        }
        if self.held.is_empty() {
            return self.whole(pieces).await;
        }
        let held = std::mem::take(&mut self.held);
        let slices: Vec<&[u8]> = [&*held].into_iter().chain(pieces.iter().copied()).collect();
        let written = self.whole(&slices).await;
        buffer::give_back(held);
        written
    }

    async fn content(&mut self, content: &[u8], end: bool) -> Result<(), Ended> {
        self.write(content, end).await.map_err(|_| Ended::Gone)?;
        self.done |= end;
        Ok(())
    }

    async fn write(&mut self, content: &[u8], end: bool) -> io::Result<()> {
        match &mut self.coding {
            Coding::None if content.is_empty() => self.pieces(&[]).await,
            Coding::None => Err(io::ErrorKind::InvalidData.into()),
            Coding::Length(left) => {
                let after = left.checked_sub(content.len() as u64).filter(|left| !end || *left == 0);
                *left = after.ok_or(io::ErrorKind::InvalidData)?;
                self.pieces(&[content]).await
            }
            Coding::Chunked => {
                let head = format!("{:x}\r\n", content.len());
                let (tail, last): (&[u8], &[u8]) = (b"\r\n", b"0\r\n\r\n");
                let pieces: &[&[u8]] = match (content.is_empty(), end) {
                    (true, false) => return Ok(()),
                    (true, true) => &[last],
                    (false, false) => &[head.as_bytes(), content, tail],
                    (false, true) => &[head.as_bytes(), content, tail, last],
                };
                self.pieces(pieces).await
            }
            Coding::Close => {
                self.pieces(&[content]).await?;
                if end { self.to.shutdown().await } else { Ok(()) }
            }
        }
    }

    /// Trailers go where there is a place for them; elsewhere they are dropped, as RFC 9110 §6.5.1 allows.
    async fn trailers(&mut self, trailers: &Fields) -> Result<(), Ended> {
        if self.coding != Coding::Chunked {
            return self.content(&[], true).await;
        }
        let out = self.held();
        out.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.regular() {
            field(out, name, value);
        }
        out.extend_from_slice(b"\r\n");
        self.flush().await?;
        self.done = true;
        Ok(())
    }
}

async fn write_vectored(to: &mut Shared<'_>, pieces: &[&[u8]]) -> io::Result<()> {
    let pieces = pieces.iter().filter(|piece| !piece.is_empty());
    let mut slices: Vec<_> = pieces.map(|piece| io::IoSlice::new(piece)).collect();
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

fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
