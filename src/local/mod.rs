//! The mesh on one machine, from a directory of files: no Kubernetes, no root.
//!
//! ```text
//!   DIR/*.yaml ──watch──▶ directory ──▶ state: compile, endpoints (pure) ──▶ publish ──▶ one file
//!   DIR/processes.yaml ──▶ plan: a place for each                              │       │ watched by
//!                            └──▶ child: for each process a proxy and itself ◀─┘◀──────┘
//! ```
//!
//! The directory stands in for the API server, `processes.yaml` for the pods, and explicit listeners of the
//! proxies for the redirect. Compiler and proxy are those of the cluster.

mod admin;
pub mod child;
pub mod directory;
pub mod endpoints;
pub mod manifest;
pub mod plan;
pub mod processes;
pub mod publish;
pub mod report;
mod session;
pub mod state;
pub mod watch;

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};

use session::Session;

/// What `ferrule local` is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory with the objects and `processes.yaml`.
    pub directory: PathBuf,
    /// The proxy's program.
    pub proxy: PathBuf,
}

/// Why `ferrule local` ends.
#[derive(Debug, Error)]
pub enum Error {
    /// The directory can't be used.
    #[error("cannot use directory {}: {source}", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is nothing to start.
    #[error(transparent)]
    Processes(#[from] processes::ProcessesError),
    /// Changes of the directory would go unnoticed.
    #[error("cannot watch {}: {source}", directory.display())]
    Watch {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        source: notify::Error,
    },
    /// The system refuses a port, a signal or a temporary file.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The objects can't be compiled at all.
    #[error(transparent)]
    State(#[from] state::StateError),
    /// A program can't be started.
    #[error("cannot start {name}: {source}")]
    Start {
        /// Its name.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// The proxy's program is not where it should be.
    #[error("there is no proxy at {}; build it (cargo build -p ferrule-proxy) or name it in FERRULE_PROXY_BIN", program.display())]
    NoProxy {
        /// Where it was looked for.
        program: PathBuf,
    },
    /// A proxy does not start or does not go on.
    #[error("the proxy of {process} {what}; its log is above (FERRULE_LOG=debug says more)")]
    Proxy {
        /// Whose proxy.
        process: String,
        /// What it did.
        what: String,
    },
}

/// Runs the mesh until Ctrl-C, SIGTERM, or the end of all processes.
///
/// # Errors
/// [`Error`]. Everything that was started has then been stopped.
pub async fn run(settings: Settings) -> Result<(), Error> {
    let mut signals = Signals::listen()?;
    let session = tokio::select! {
        session = Session::start(&settings) => session?,
        () = signals.any() => return Ok(()),
    };
    session.run(signals).await
}

/// Requests to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Error> {
        let listen =
            |kind| signal(kind).map_err(|source| Error::System { what: "listen for signals", source });
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Prints a line. Nobody may be reading any more; that is no reason to stop.
fn say(line: &str) {
    writeln!(io::stdout(), "{line}").ok();
}
