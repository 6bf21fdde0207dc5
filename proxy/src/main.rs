//! The `ferrule-proxy` binary: without an argument the sidecar; with `redirect` the init container.

use std::process::ExitCode;

use anyhow::Context as _;
use ferrule_proxy::{app, memory, redirect, secrecy, settings::Settings};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    memory::prepare();
    start_log();
    let argument = std::env::args().nth(1);
    let result = match argument.as_deref() {
        None => run(),
        Some("redirect") => set_redirect(),
        Some("--version") => {
            println!("ferrule-proxy {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Some(other) => {
            Err(anyhow::anyhow!("unknown argument {other:?}; there is `redirect`, or none for the sidecar"))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ferrule-proxy failed");
            ExitCode::FAILURE
        }
    }
}

fn start_log() {
    let filter = EnvFilter::try_from_env("FERRULE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    if std::env::var("FERRULE_LOG_FORMAT").is_ok_and(|format| format == "json") {
        log.json().init();
    } else {
        log.init();
    }
}

fn set_redirect() -> anyhow::Result<()> {
    let config = redirect::Config::from_env(|variable| std::env::var(variable).ok())?;
    Ok(redirect::run(&config)?)
}

fn run() -> anyhow::Result<()> {
    if let Err(error) = secrecy::keep() {
        tracing::warn!(%error, "a core dump of this process would hold its key");
    }
    let settings = Settings::from_env(|variable| std::env::var(variable).ok())?;
    // Discovery, admin port and signals; traffic has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let app = app::build(&settings).await?;
        tracing::info!(admin = %app.admin, listeners = ?app.listeners, "ready");
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("draining");
        app.end().await;
        Ok(())
    })
}
