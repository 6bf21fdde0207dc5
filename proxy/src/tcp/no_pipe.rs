//! Where the system has no `splice` there are no pipes, and bytes are copied.

use std::{convert::Infallible, io};

use tokio::net::TcpStream;

/// A long transfer.
#[derive(Debug)]
pub(super) struct Transfer(());

impl Transfer {
    pub(super) fn begin() -> Self {
        Self(())
    }
}

/// There is none.
pub(super) struct Pipe(Infallible);

impl Pipe {
    pub(super) fn take() -> Option<Self> {
        None
    }

    pub(super) fn held(&self) -> usize {
        match self.0 {}
    }

    pub(super) fn fill(&mut self, _: &TcpStream) -> io::Result<usize> {
        match self.0 {}
    }

    pub(super) fn drain(&mut self, _: &TcpStream) -> io::Result<usize> {
        match self.0 {}
    }
}

pub(super) fn is_refusal(_: &io::Error) -> bool {
    false
}

pub(super) fn refuse() {}
