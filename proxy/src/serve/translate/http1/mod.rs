//! HTTP/1 at one side of an exchange, translated at the edge (RFC 9113 §8, RFC 9112 §6 and §7).

mod client;
mod incoming;
mod upstream;

use std::io;

use tokio::io::AsyncWriteExt;

pub use client::{Client, request_fields, run};
pub use upstream::Upstream;

use crate::{
    http2::{fields::Fields, streams::Ended},
    stream::Shared,
};

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
}

impl Writer<'_> {
    async fn content(&mut self, content: &[u8], end: bool) -> Result<(), Ended> {
        self.write(content, end).await.map_err(|_| Ended::Gone)?;
        self.done |= end;
        Ok(())
    }

    async fn write(&mut self, content: &[u8], end: bool) -> io::Result<()> {
        match &mut self.coding {
            Coding::None if content.is_empty() => Ok(()),
            Coding::None => Err(io::ErrorKind::InvalidData.into()),
            Coding::Length(left) => {
                let after = left.checked_sub(content.len() as u64).filter(|left| !end || *left == 0);
                *left = after.ok_or(io::ErrorKind::InvalidData)?;
                self.to.write_all(content).await
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
                write_vectored(&mut self.to, pieces).await
            }
            Coding::Close => {
                self.to.write_all(content).await?;
                if end { self.to.shutdown().await } else { Ok(()) }
            }
        }
    }

    /// Trailers go where there is a place for them; elsewhere they are dropped, as RFC 9110 §6.5.1 allows.
    async fn trailers(&mut self, trailers: &Fields) -> Result<(), Ended> {
        if self.coding != Coding::Chunked {
            return self.content(&[], true).await;
        }
        let mut out = b"0\r\n".to_vec();
        for (name, value) in trailers.regular() {
            field(&mut out, name, value);
        }
        out.extend_from_slice(b"\r\n");
        self.to.write_all(&out).await.map_err(|_| Ended::Gone)?;
        self.done = true;
        Ok(())
    }
}

async fn write_vectored(to: &mut Shared<'_>, pieces: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<_> = pieces.iter().map(|piece| io::IoSlice::new(piece)).collect();
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
