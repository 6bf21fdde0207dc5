//! What the two services have in common.

use std::{env, net::SocketAddr};

use anyhow::Context as _;
use axum::{Router, serve::ListenerExt as _};
use tokio::net::TcpListener;

/// The value of a variable of the environment.
///
/// # Errors
/// When it is not set.
pub fn setting(variable: &str) -> anyhow::Result<String> {
    env::var(variable).with_context(|| format!("{variable} is not set"))
}

/// Serves at the address in LISTEN.
///
/// # Errors
/// When that is none, or not free.
pub async fn serve(router: Router) -> anyhow::Result<()> {
    let address: SocketAddr = setting("LISTEN")?.parse().context("LISTEN is not an address and port")?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
    // Without it the small answers would wait for the acknowledgement of the ones before.
    let listener = listener.tap_io(|stream| {
        stream.set_nodelay(true).ok();
    });
    axum::serve(listener, router).await.context("cannot serve")
}
