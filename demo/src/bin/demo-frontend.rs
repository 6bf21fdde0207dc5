//! A service that asks another one, and passes its answer on.

use anyhow::Context as _;
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse as _, Response},
    routing::get,
};
use ferrule_demo::service::{serve, setting};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

#[derive(Clone)]
struct Backend {
    client: Client<HttpConnector, Body>,
    uri: Uri,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let uri = setting("BACKEND")?.parse().context("BACKEND is not a URL")?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    serve(Router::new().route("/", get(ask)).with_state(Backend { client, uri })).await
}

async fn ask(State(Backend { client, uri }): State<Backend>) -> Response {
    match client.get(uri).await {
        Ok(response) => response.map(Body::new),
        Err(error) => {
            (StatusCode::BAD_GATEWAY, format!("no answer from the backend: {error:?}\n")).into_response()
        }
    }
}
