//! A build without TLS has no API server: it reads files.

use std::{convert::Infallible, io};

use tokio::net::TcpStream;

/// There is none.
pub(super) struct Tls(Infallible);

impl Tls {
    pub fn new(_: &str, _: &[u8]) -> anyhow::Result<Self> {
        anyhow::bail!(
            "this build of the proxy has no TLS; use FERRULE_DISCOVERY=dir:PATH, or build it with its default features"
        )
    }

    #[expect(clippy::unused_async, reason = "as the one that there is with TLS")]
    pub async fn connect(&self, _: TcpStream) -> io::Result<TcpStream> {
        match self.0 {}
    }
}
