//! Strict waits for those whom it would shut out: with sidecars that are asked over real connections.

use std::sync::{Arc, Mutex};

use axum::{Json, Router, http::StatusCode, response::IntoResponse as _, routing::get};
use ferrule_config::TlsMode;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Api, Replica, add_selecting, mesh, pod};

const CLOSED: &str = "/apis/ferrule.dev/v1alpha1/namespaces/shop/meshtlses/closed";

/// A sidecar at 127.0.0.1 that answers with this; with an error while there is nothing.
type Report = Arc<Mutex<Option<Value>>>;

async fn sidecar() -> (Report, u16) {
    let report = Report::default();
    let told = Arc::clone(&report);
    let answer = move || {
        let report = told.lock().expect("nobody panics with the lock").clone();
        async move { report.map(Json).ok_or(StatusCode::SERVICE_UNAVAILABLE).into_response() }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let router = Router::new().route("/tls", get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (report, port)
}

fn tell(report: &Report, clients: Value) {
    let said = json!({ "accepts": {}, "plaintextClients": clients, "observedSeconds": 9000 });
    *report.lock().expect("nobody panics with the lock") = Some(said);
}

fn client(seconds_ago: u64) -> Value {
    json!([{ "address": "10.0.0.9", "port": 8080, "secondsAgo": seconds_ago }])
}

fn closed(mode: &str) -> Value {
    json!({
        "metadata": { "name": "closed", "namespace": "shop", "uid": "7" },
        "spec": { "mode": mode, "quietFor": "10s" },
    })
}

fn status(api: &Api) -> Option<Value> {
    Some(api.object(CLOSED)?["status"].take())
}

fn reason(api: &Api) -> Option<String> {
    let conditions = status(api)?["conditions"].as_array()?.clone();
    let enforced = conditions.into_iter().find(|condition| condition["type"] == "Enforced")?;
    Some(enforced["reason"].as_str()?.to_owned())
}

fn mode(api: &Api) -> Option<TlsMode> {
    Some(mesh(api, "shop")?.tls.first()?.modes.mode)
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_waits_takes_hold_and_stays_through_a_restart() {
    let (api, kubernetes) = Api::start().await;
    let (report, port) = sidecar().await;
    add_selecting(&api);
    let mut cart = pod("cart-1", "cart", "127.0.0.1");
    cart["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
    api.put("/api/v1/namespaces/shop/pods/cart-1", cart);
    let mut stranger = pod("stranger", "default", "10.0.0.9");
    stranger["spec"]["initContainers"] = json!([]);
    api.put("/api/v1/namespaces/shop/pods/stranger", stranger);
    api.put(CLOSED, closed("Strict"));

    let first = Replica::start_among(kubernetes.clone(), "a", port);
    api.until("a sidecar that says nothing is waited for", |api| {
        reason(api).as_deref() == Some("ReportsMissing")
    })
    .await;
    tell(&report, client(7));
    api.until("its client is waited for", |api| reason(api).as_deref() == Some("PlaintextClients")).await;
    assert_eq!(mode(&api), Some(TlsMode::Permissive));
    let told = status(&api).expect("told");
    assert_eq!((&told["mode"], &told["plaintextClientCount"]), (&json!("Permissive"), &json!(1)));
    let listed = &told["plaintextClients"][0];
    assert_eq!((&listed["pod"], &listed["workload"]), (&json!("shop/stranger"), &json!("shop/cart-1")));
    tell(&report, json!([]));
    api.until("it takes hold by itself", |api| mode(api) == Some(TlsMode::Strict)).await;
    assert_eq!(status(&api).expect("told")["mode"], "Strict");
    assert_eq!(reason(&api).as_deref(), Some("Enforced"));
    api.until("and an Event says so", |api| api.writes("/events").len() >= 2).await;
    first.stop().await;

    tell(&report, client(0));
    let writes = api.writes("/namespaces/shop/configmaps/ferrule").len();
    let second = Replica::start_among(kubernetes, "b", port);
    api.until("who is refused is told", |api| {
        let listed = status(api).map(|status| status["plaintextClients"][0]["lastSeen"].clone());
        listed.is_some_and(|seen| seen != told["plaintextClients"][0]["lastSeen"])
    })
    .await;
    assert_eq!((mode(&api), reason(&api).as_deref()), (Some(TlsMode::Strict), Some("Enforced")));
    assert_eq!(api.writes("/namespaces/shop/configmaps/ferrule").len(), writes, "it was never open");

    api.put(CLOSED, {
        let mut open = closed("Permissive");
        open["status"] = status(&api).expect("told");
        open
    });
    api.until("a user opens it", |api| mode(api) == Some(TlsMode::Permissive)).await;
    // A put replaces the status in this API server: what is put back must be the last one.
    api.until("and is told", |api| status(api).is_some_and(|status| status["mode"] == "Permissive")).await;
    api.put(CLOSED, {
        let mut again = closed("Strict");
        again["status"] = status(&api).expect("told");
        again
    });
    api.until("and it waits anew", |api| reason(api).as_deref() == Some("PlaintextClients")).await;
    assert_eq!(mode(&api), Some(TlsMode::Permissive));
    second.stop().await;
}
