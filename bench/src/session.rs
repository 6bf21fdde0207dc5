//! One connection's protocol without its socket: bytes in, bytes out.

/// The side that asks.
pub trait Client {
    /// What goes before the first request.
    fn open(&mut self, out: &mut Vec<u8>);

    /// Begins a request.
    fn start(&mut self, out: &mut Vec<u8>);

    /// Takes bytes from the peer. How many responses are complete now; each was checked.
    ///
    /// # Errors
    /// What is wrong with a response.
    fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, String>;
}

/// The side that answers.
pub trait Server {
    /// Takes bytes from the peer and answers what they complete.
    ///
    /// # Errors
    /// What the peer did wrong; the connection is closed.
    fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<After, String>;
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It stays open.
    Open,
    /// It is closed as soon as the answer is sent.
    Close,
}
