//! The bytes that were read from a connection and not yet used.

use std::{cell::RefCell, io};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Space for a read: a usual head, or a good piece of a body.
const SIZE: usize = 16 * 1024;
/// Buffers that a thread keeps for the next connection, so that a new one does not allocate.
const KEPT: usize = 64;
/// Space for a read when the last one has filled all there was: a long body in fewer calls.
const BULK: usize = 64 * 1024;
/// The same for large ones.
const KEPT_BULK: usize = 4;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static FREE_BULK: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A queue of bytes: filled at the end by reads, used up from the front.
///
/// Its memory comes from the thread's store when the first byte is read and goes back when it is dropped or
/// [released](Buffer::release), so an idle connection holds none.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    /// The last read has filled all the room.
    filled: bool,
}

impl Buffer {
    /// Bytes that are there.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Whether no byte is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Drops the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.bytes.len(), "consumed more than there was");
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Reads once from `source`, for up to as many bytes as there is room for; makes room when there is none.
    ///
    /// # Errors
    /// Those of the source.
    pub async fn fill(&mut self, source: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        self.make_room();
        let room = self.bytes.capacity() - self.bytes.len();
        let count = source.read_buf(&mut (&mut self.bytes).limited()).await?;
        self.filled = count == room;
        Ok(count)
    }

    /// Gives the memory back when nothing is held.
    pub fn release(&mut self) {
        if !self.is_empty() || self.bytes.capacity() == 0 {
            return;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        self.start = 0;
        bytes.clear();
        give_back(bytes);
    }

    fn make_room(&mut self) {
        if self.bytes.capacity() == 0 {
            self.bytes = take();
        }
        if self.filled && self.bytes.is_empty() && self.bytes.capacity() == SIZE {
            let bulk = FREE_BULK.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(BULK));
            give_back(std::mem::replace(&mut self.bytes, bulk));
        }
        if self.start > 0 && self.bytes.capacity() - self.bytes.len() < SIZE / 4 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        if self.bytes.len() == self.bytes.capacity() {
            self.bytes.reserve(self.bytes.capacity());
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.capacity() > 0 {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            give_back(bytes);
        }
    }
}

/// A vector of bytes from the thread's store, empty.
#[must_use]
pub fn take() -> Vec<u8> {
    FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(SIZE))
}

/// Puts a vector into the thread's store, unless it is of another size than those there or there are enough.
pub fn give_back(mut bytes: Vec<u8>) {
    bytes.clear();
    let (store, most) = match bytes.capacity() {
        SIZE => (&FREE, KEPT),
        BULK => (&FREE_BULK, KEPT_BULK),
        _ => return,
    };
    // The store is gone while the thread ends: then the memory is simply freed.
    let _ = store.try_with(|free| {
        if let Ok(mut free) = free.try_borrow_mut()
            && free.len() < most
        {
            free.push(bytes);
        }
    });
}

/// A view of a vector that a read fills up to its capacity, never beyond: `read_buf` alone would grow it.
trait Limited {
    fn limited(&mut self) -> bytes::buf::Limit<&mut Vec<u8>>;
}

impl Limited for &mut Vec<u8> {
    fn limited(&mut self) -> bytes::buf::Limit<&mut Vec<u8>> {
        let room = self.capacity() - self.len();
        bytes::BufMut::limit(*self, room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in() {
        let content: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let mut source = content.as_slice();
        let (mut buffer, mut seen) = (Buffer::default(), Vec::new());
        while buffer.fill(&mut source).await.expect("a slice never fails") > 0 {
            let count = buffer.data().len().div_ceil(2);
            seen.extend_from_slice(&buffer.data()[..count]);
            buffer.consume(count);
        }
        seen.extend_from_slice(buffer.data());
        assert_eq!(seen, content);
    }

    #[tokio::test]
    async fn long_bodies_are_read_in_larger_pieces_and_short_ones_are_not() {
        let content = vec![1; 1_000_000];
        let mut source = content.as_slice();
        let mut buffer = Buffer::default();
        let mut sizes = Vec::new();
        while buffer.fill(&mut source).await.expect("a slice never fails") > 0 {
            sizes.push(buffer.data().len());
            buffer.consume(buffer.data().len());
        }
        assert_eq!(sizes[..3], [SIZE, BULK, BULK]);
        let mut buffer = Buffer::default();
        for _ in 0..3 {
            buffer.fill(&mut &content[..SIZE - 1]).await.expect("a slice never fails");
            buffer.consume(SIZE - 1);
            assert_eq!(buffer.bytes.capacity(), SIZE);
        }
    }

    #[tokio::test]
    async fn an_empty_buffer_holds_no_memory_after_release() {
        let mut buffer = Buffer::default();
        buffer.fill(&mut b"abc".as_slice()).await.expect("a slice never fails");
        buffer.release();
        assert_eq!(buffer.data(), b"abc");
        buffer.consume(3);
        buffer.release();
        assert_eq!(buffer.bytes.capacity(), 0);
    }
}
