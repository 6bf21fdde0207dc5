//! `POST /v1/certificates`: a token and a signing request in, a certificate out.
//!
//! ```text
//!   peer's rate ─▶ permit ─▶ token, body ─▶ CSR ─▶ rate of all ─▶ TokenReview ─▶ pod's rate ─▶ pod ─▶ names ─▶ sign
//!   └────────────────────── costs us little ───────────────────┘ └────────────── costs the API server ────────────┘
//! ```

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::State,
    http::{HeaderMap, header},
    routing::{get, post},
};
use ferrule_config::{
    identity::{Issued, SpiffeId},
    names::CERTIFICATES_PATH,
};
use tokio::{sync::Semaphore, time::timeout};
use tracing::{info, warn};

use super::{
    Settings,
    csr::{Csr, MAX_BYTES},
    issue,
    keeper::Keeper,
    limit::{Buckets, Rate},
    refusal::Refusal,
    review::{Owner, Reviewer},
};
use crate::https::Peer;

/// Requests that are looked at at a time; each holds a body and waits for the API server.
const PERMITS: usize = 64;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest token; usual ones have 1 KiB.
const MAX_TOKEN: usize = 8 * 1024;
/// A pod sends one request in half the life of its certificate, from an address of its own.
const PEER_RATE: Rate = Rate { burst: 20.0, every: Duration::from_secs(2) };
const POD_RATE: Rate = Rate { burst: 5.0, every: Duration::from_secs(20) };
/// Of a replica: a rollout of a thousand pods gets through within ten seconds.
const TOTAL_RATE: Rate = Rate { burst: 200.0, every: Duration::from_millis(10) };
/// Peers and pods whose rates are remembered; about 100 bytes each.
const REMEMBERED: usize = 16 * 1024;

/// What requests are answered from.
pub(super) struct App {
    keeper: Arc<Keeper>,
    reviewer: Reviewer,
    settings: Settings,
    permits: Semaphore,
    peers: Mutex<Buckets<IpAddr>>,
    pods: Mutex<Buckets<String>>,
    total: Mutex<Buckets<()>>,
}

impl App {
    pub(super) fn new(keeper: Arc<Keeper>, reviewer: Reviewer, settings: Settings) -> Self {
        Self {
            keeper,
            reviewer,
            settings,
            permits: Semaphore::new(PERMITS),
            peers: Mutex::new(Buckets::new(PEER_RATE, REMEMBERED)),
            pods: Mutex::new(Buckets::new(POD_RATE, REMEMBERED)),
            total: Mutex::new(Buckets::new(TOTAL_RATE, 1)),
        }
    }
}

pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route(CERTIFICATES_PATH, post(certificate))
        .route("/healthz", get(async || "ok\n"))
        .with_state(app)
}

async fn certificate(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Issued>, Refusal> {
    let began = Instant::now();
    let result = app.issue(peer, &headers, body).await;
    app.settings.metrics.answered(&result, began.elapsed());
    match result {
        Ok((owner, issued)) => {
            let Owner { namespace, service_account, pod, .. } = owner;
            info!(namespace, pod, service_account, "certificate issued");
            Ok(Json(issued))
        }
        Err(refusal) => {
            warn!(%peer, cause = refusal.cause(), %refusal, "certificate refused");
            Err(refusal)
        }
    }
}

impl App {
    async fn issue(&self, peer: IpAddr, headers: &HeaderMap, body: Body) -> Result<(Owner, Issued), Refusal> {
        take(&self.peers, &peer)?;
        let _permit = self.permits.try_acquire().map_err(|_| Refusal::Busy)?;
        let token = bearer(headers)?;
        let csr = Csr::parse(&read(body).await?)?;
        take(&self.total, &())?;
        let owner = self.reviewer.owner(token).await?;
        take(&self.pods, &owner.uid)?;
        let address = self.settings.check_address.then_some(peer);
        self.reviewer.check(&owner, address).await?;
        let id = SpiffeId::new(self.settings.trust_domain.clone(), &owner.namespace, &owner.service_account)
            .map_err(|error| Refusal::NotServiceAccount(error.to_string()))?;
        csr.asks_only_for(&id)?;
        let issued = self.sign(&csr, &id).await?;
        Ok((owner, issued))
    }

    async fn sign(&self, csr: &Csr, id: &SpiffeId) -> Result<Issued, Refusal> {
        let state = self.keeper.fresh().await.map_err(|error| Refusal::NoAuthority(error.to_string()))?;
        let now = SystemTime::now();
        // No longer than the state knows: the end of a rotation is reckoned by it.
        let life = self.settings.life.get().min(state.longest);
        let leaf = issue::workload(&state.current, csr.key(), id, life, now)
            .map_err(|error| Refusal::NoAuthority(error.to_string()))?;
        let life = leaf.not_after.duration_since(now).unwrap_or_default();
        Ok(Issued {
            certificate: leaf.chain,
            bundle: state.bundle(),
            renew_after_seconds: renewal(life, fastrand::f64()).as_secs(),
        })
    }
}

/// Before half of the life, so that more than half is left when the operator is gone just then; spread, so that what started
/// together does not stay together.
fn renewal(life: Duration, chance: f64) -> Duration {
    life.mul_f64(0.3 + 0.15 * chance.clamp(0.0, 1.0))
}

fn take<K: Clone + Eq + std::hash::Hash>(buckets: &Mutex<Buckets<K>>, key: &K) -> Result<(), Refusal> {
    let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
    buckets.take(key, Instant::now()).map_err(Refusal::RateLimited)
}

/// The scheme is written in any case (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, token) = value.and_then(|value| value.split_once(' ')).ok_or(Refusal::NoToken)?;
    let token = token.trim();
    let usable = scheme.eq_ignore_ascii_case("bearer") && (1..=MAX_TOKEN).contains(&token.len());
    if usable { Ok(token) } else { Err(Refusal::NoToken) }
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    match timeout(BODY_TIMEOUT, to_bytes(body, MAX_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        // The limit is the only error that leaves someone to answer.
        Ok(Err(_)) => Err(Refusal::TooLarge),
        Err(_) => Err(Refusal::Slow),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn renewals_are_spread_and_leave_more_than_half_of_the_life() {
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(renewal(day, 0.0), day.mul_f64(0.3));
        assert_eq!(renewal(day, 0.5), day.mul_f64(0.375));
        assert_eq!(renewal(day, 1.0), day.mul_f64(0.45));
    }

    #[test]
    fn a_token_is_a_bearers() {
        let with = |value: &str| {
            let value = HeaderValue::from_str(value).expect("a value");
            bearer(&[(header::AUTHORIZATION, value)].into_iter().collect()).map(str::to_owned)
        };
        assert_eq!(with("Bearer abc"), Ok("abc".to_owned()));
        assert_eq!(with("bearer  abc"), Ok("abc".to_owned()));
        let long = format!("Bearer {}", "x".repeat(MAX_TOKEN + 1));
        for value in ["Basic abc", "Bearer", "Bearer ", "abc", "", &long] {
            assert_eq!(with(value), Err(Refusal::NoToken), "{value}");
        }
    }
}
