//! `ferrule local`: the mesh on one machine, from a directory of files.

use std::{ffi::OsString, path::PathBuf};

use anyhow::Context as _;

use crate::local::{self, Settings, child};

/// Arguments of `ferrule local`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory with Services, EndpointSlices, Routes and other objects as YAML or JSON, and with
    /// processes.yaml, which lists what to start; see docs/local.md.
    #[arg(value_name = "DIR", required_unless_present = "exec")]
    pub directory: Option<PathBuf>,
    /// Program of the sidecar. Default: ferrule-proxy beside this program.
    #[arg(long, env = "FERRULE_PROXY_BIN", value_name = "FILE")]
    pub proxy: Option<PathBuf>,
    /// Turn into the program that follows; how `ferrule local` starts its processes.
    #[arg(long = "exec", hide = true)]
    pub exec: bool,
    /// The program and its arguments.
    #[arg(last = true, hide = true)]
    pub command: Vec<OsString>,
}

/// Runs it until Ctrl-C.
///
/// # Errors
/// When it can't start, or a proxy ends.
pub fn run(args: Args) -> anyhow::Result<()> {
    let Args { directory, proxy, exec, command } = args;
    if exec {
        return child::exec(&command).context("cannot start");
    }
    let proxy = match proxy {
        Some(proxy) => proxy,
        None => std::env::current_exe()
            .context("cannot tell where this program is")?
            .with_file_name("ferrule-proxy"),
    };
    let directory = directory.context("DIR is missing")?;
    // One thread: what it starts ends with the thread that started it.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(local::run(Settings { directory, proxy }))?;
    Ok(())
}
