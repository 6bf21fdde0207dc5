//! Pipes through which the kernel hands bytes from one socket to another without copying them (`splice`). Linux only;
//! elsewhere, and where the kernel refuses, there are none and bytes are copied.
//!
//! A connection has a pipe only while bytes are in it, so a thread needs few: usually one. All sidecars of a node may
//! count as one user, and what a user's pipes may hold is limited (64 MiB, `fs.pipe-user-pages-soft`): hence their
//! size, their number, and that the last transfer to end closes them.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream};

/// What a pipe holds. The more a call moves, the cheaper: 256 KiB cost hardly less than copying, 512 KiB about half of it
/// (`bench/NOTES.md`).
const SIZE: usize = 512 * 1024;
/// Pipes of a thread that may be in use: slow readers may keep so many, connections beyond copy.
const MOST: usize = 16;
/// Empty pipes that a thread keeps while a transfer is under way.
const KEPT: usize = 2;
/// How long no pipe is asked for after the system has refused one.
const REFUSED: Duration = Duration::from_secs(10);

thread_local! {
    static STORE: RefCell<Store> = const { RefCell::new(Store { free: Vec::new(), lent: 0, transfers: 0, refused: None }) };
}

struct Store {
    free: Vec<Ends>,
    lent: usize,
    transfers: usize,
    refused: Option<Instant>,
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A long transfer; when a thread's last one ends, its pipes are closed.
#[derive(Debug)]
pub(super) struct Transfer(());

impl Transfer {
    pub(super) fn begin() -> Self {
        STORE.with_borrow_mut(|store| store.transfers += 1);
        Self(())
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // The store is gone while the thread ends, and its pipes with it.
        let _ = STORE.try_with(|store| {
            let mut store = store.borrow_mut();
            store.transfers -= 1;
            if store.transfers == 0 {
                store.free.clear();
            }
        });
    }
}

/// A pipe and the number of bytes that are in it.
pub(super) struct Pipe {
    /// Always there but in `drop`.
    ends: Option<Ends>,
    held: usize,
}

impl Pipe {
    /// An empty pipe of the thread's; `None` when so many are in use, or none is to be had.
    pub(super) fn take() -> Option<Self> {
        STORE.with_borrow_mut(|store| {
            let ends = match store.free.pop() {
                Some(ends) => ends,
                None if store.lent >= MOST => return None,
                None if store.refused.is_some_and(|when| when.elapsed() < REFUSED) => return None,
                None => match open() {
                    Ok(ends) => ends,
                    Err(error) => {
                        tracing::debug!(%error, "no pipe for splice: copying (fs.pipe-user-pages-soft, open files)");
                        store.refused = Some(Instant::now());
                        return None;
                    }
                },
            };
            store.lent += 1;
            Some(Self { ends: Some(ends), held: 0 })
        })
    }

    /// Bytes that are in it.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Takes the bytes that have come on a socket, as far as there is room. The pipe has to be empty: with bytes in it `WouldBlock`
    /// might mean that it is full, and the socket would wrongly be taken for drained.
    ///
    /// # Errors
    /// Those of the socket, `WouldBlock` among them; [`is_refusal`] tells those of `splice` itself.
    pub(super) fn fill(&mut self, from: &TcpStream) -> io::Result<usize> {
        debug_assert_eq!(self.held, 0, "filled only when empty");
        let count = from.try_io(Interest::READABLE, || move_bytes(from, &self.ends().write, SIZE))?;
        self.held += count;
        Ok(count)
    }

    /// Gives what the socket takes.
    ///
    /// # Errors
    /// Those of the socket, `WouldBlock` among them.
    pub(super) fn drain(&mut self, to: &TcpStream) -> io::Result<usize> {
        let count = to.try_io(Interest::WRITABLE, || move_bytes(&self.ends().read, to, self.held))?;
        self.held -= count;
        Ok(count)
    }

    fn ends(&self) -> &Ends {
        self.ends.as_ref().expect("taken only in drop")
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        let _ = STORE.try_with(|store| {
            let mut store = store.borrow_mut();
            store.lent -= 1;
            // Bytes of a connection that has failed must not reach another one.
            if self.held == 0 && store.transfers > 0 && store.free.len() < KEPT {
                store.free.push(ends);
            }
        });
    }
}

/// Whether the system does not splice here at all: by its kernel, or by a filter of system calls.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
    )
}

/// Remembers that it does not.
pub(super) fn refuse() {
    STORE.with_borrow_mut(|store| store.refused = Some(Instant::now()));
}

fn open() -> io::Result<Ends> {
    let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
    fcntl_setpipe_size(&write, SIZE)?;
    Ok(Ends { read, write })
}

fn move_bytes(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    loop {
        match splice(&from, None, &to, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_has_a_bounded_number_of_pipes_and_closes_them_after_the_last_transfer() {
        let transfer = Transfer::begin();
        let pipes: Vec<_> = std::iter::from_fn(Pipe::take).collect();
        assert_eq!(pipes.len(), MOST);
        drop(pipes);
        assert_eq!(STORE.with_borrow(|store| (store.free.len(), store.lent)), (KEPT, 0));
        drop(transfer);
        assert_eq!(STORE.with_borrow(|store| store.free.len()), 0);
    }

    #[tokio::test]
    async fn a_pipe_with_bytes_left_in_it_is_never_used_again() {
        let _transfer = Transfer::begin();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("listening");
        let (server, _) = listener.accept().await.expect("connected");
        server.writable().await.expect("open");
        server.try_write(b"secret").expect("room");
        client.readable().await.expect("open");
        let mut pipe = Pipe::take().expect("a pipe");
        assert_eq!(pipe.fill(&client).expect("bytes"), 6);
        drop(pipe);
        assert_eq!(STORE.with_borrow(|store| (store.free.len(), store.lent)), (0, 0));
    }
}
