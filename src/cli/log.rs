//! Where log lines go and which of them.

use anyhow::Context as _;
use tracing_subscriber::{EnvFilter, fmt};

/// Logs to standard error, as `FERRULE_LOG` (filter in the syntax of tracing's `EnvFilter`, default `info`) and
/// `FERRULE_LOG_FORMAT` (`text`, the default, or `json`) say.
///
/// # Errors
/// When one of the variables can't be understood.
pub fn init() -> anyhow::Result<()> {
    let filter = std::env::var("FERRULE_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter =
        EnvFilter::try_new(&filter).with_context(|| format!("FERRULE_LOG={filter:?} is not a log filter"))?;
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match std::env::var("FERRULE_LOG_FORMAT").as_deref() {
        Ok("json") => lines.json().flatten_event(true).init(),
        Ok("text") | Err(_) => lines.init(),
        Ok(other) => anyhow::bail!("FERRULE_LOG_FORMAT={other:?} is neither text nor json"),
    }
    Ok(())
}
