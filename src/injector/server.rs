//! What the webhook's HTTPS server answers.
//!
//! ```text
//!   POST /mutate ─(at most 64 bodies)─▶ review
//! ```
//!
//! Bodies are bounded in number, size and time; connections by [`crate::https`].

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tracing::{info, warn};

use super::{ReviewResult, Settings, namespaces::Namespaces, review};

/// etcd takes objects of 1.5 MiB, and the review of an update holds two.
const BODY_LIMIT: usize = 4 << 20;
const BODIES: usize = 64;
/// The chart's webhook times out after 5 s; nobody waits for an answer to a body that took longer.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// What a review is answered from.
pub(super) struct App {
    pub(super) settings: Settings,
    pub(super) namespaces: Namespaces,
    pub(super) bodies: Semaphore,
}

impl App {
    pub(super) fn new(settings: Settings, namespaces: Namespaces) -> Self {
        Self { settings, namespaces, bodies: Semaphore::new(BODIES) }
    }
}

pub(super) fn router(app: Arc<App>) -> Router {
    Router::new().route("/mutate", post(mutate)).route("/healthz", get(async || "ok\n")).with_state(app)
}

async fn mutate(State(app): State<Arc<App>>, request: Request) -> Response {
    let body = match read(&app, request.into_body()).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let start = Instant::now();
    let answer = review::answer(&body, &app.settings, |name| app.namespaces.enforced(name));
    let metrics = &app.settings.metrics;
    match answer {
        Ok(answer) => {
            metrics.observe(answer.result, start.elapsed());
            if let Some((namespace, refusal)) = answer.refusal {
                info!(namespace, %refusal, "pod refused");
            }
            ([(header::CONTENT_TYPE, "application/json")], answer.body).into_response()
        }
        Err(error) => {
            metrics.observe(ReviewResult::Malformed, start.elapsed());
            warn!(%error, "malformed admission review");
            (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response()
        }
    }
}

async fn read(app: &App, body: Body) -> Result<Bytes, Response> {
    let _permit = app.bodies.acquire().await.expect("the semaphore is never closed");
    match timeout(BODY_TIMEOUT, to_bytes(body, BODY_LIMIT)).await {
        Ok(Ok(body)) => Ok(body),
        // The limit is the only error that leaves someone to answer; a broken connection drops the answer.
        Ok(Err(error)) => Err((StatusCode::PAYLOAD_TOO_LARGE, format!("{error}\n")).into_response()),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body took too long\n").into_response()),
    }
}
