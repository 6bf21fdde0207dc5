//! A service that answers with its version.

use axum::{Router, routing::get};
use ferrule_demo::service::{serve, setting};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let version = setting("VERSION")?;
    serve(Router::new().route("/", get(async move || version.clone()))).await
}
