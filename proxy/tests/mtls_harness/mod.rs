//! Sidecars with identities from a small authority.

#![allow(dead_code, reason = "each test binary uses a part of it")]

#[path = "../../src/identity/testing.rs"]
pub mod testing;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use ferrule_config::{Modes, Peers, Service, identity::Issued, trust};
use ferrule_proxy::app::App;
use testing::{Answer, Authority, HOST};

use crate::support::{World, eventually, get, talk};

/// An authority and its identity service.
pub struct Lab {
    pub authority: Arc<Authority>,
    service: SocketAddr,
    /// What it gives as trust bundle now, and for how long certificates live.
    gives: Arc<Mutex<Gives>>,
}

struct Gives {
    signer: Arc<Authority>,
    bundle: String,
    generation: u64,
    life: u64,
}

/// The identity of a service account of namespace `shop`.
pub fn id(account: &str) -> String {
    format!("spiffe://cluster.local/ns/shop/sa/{account}")
}

/// A sidecar and the files of its identity.
pub struct Sidecar {
    pub app: App,
    pub files: tempfile::TempDir,
}

impl Lab {
    pub async fn new() -> Self {
        let authority = Arc::new(Authority::new());
        let bundle = trust::write(1, [authority.pem()]);
        let gives = Gives { signer: Arc::clone(&authority), bundle, generation: 1, life: 3600 };
        let gives = Arc::new(Mutex::new(gives));
        let giver = Arc::clone(&gives);
        // The token says whose it is.
        let answer = move |head: &str, csr: &[u8]| {
            let token = head.lines().find_map(|line| line.strip_prefix("authorization: bearer "));
            let gives = giver.lock().expect("sound");
            let issued = Issued {
                certificate: gives.signer.issue(
                    csr,
                    &[&id(token.expect("a token"))],
                    Duration::from_secs(gives.life),
                ),
                bundle: gives.bundle.clone(),
                renew_after_seconds: gives.life / 2,
            };
            Answer("200 OK", serde_json::to_string(&issued).expect("JSON"))
        };
        let service = testing::service(&authority, HOST, answer).await;
        Self { authority, service, gives }
    }

    /// From now on this one signs, certificates live for so many seconds, and these are trusted.
    pub fn give(&self, signer: &Arc<Authority>, trusted: &[&Arc<Authority>], life: u64) {
        let mut gives = self.gives.lock().expect("sound");
        gives.generation += 1;
        gives.signer = Arc::clone(signer);
        gives.bundle = trust::write(gives.generation, trusted.iter().map(|each| each.pem()));
        gives.life = life;
    }

    /// Has a sidecar see the trust bundle as it is given now.
    pub fn mount(&self, sidecar: &Sidecar) {
        let bundle = self.gives.lock().expect("sound").bundle.clone();
        std::fs::write(sidecar.files.path().join("ca.crt"), bundle).expect("written");
    }

    /// A sidecar that runs as this account; it has its identity.
    pub async fn sidecar(
        &self,
        account: &str,
        world: &World,
        services: &[&str],
        applications: &[SocketAddr],
        more: &[(&str, &str)],
    ) -> Sidecar {
        let files = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| std::fs::write(files.path().join(name), text).expect("written");
        write("token", account);
        write("ca.crt", &self.gives.lock().expect("sound").bundle);
        write("address", &self.service.to_string());
        let path = files.path().to_str().expect("text").to_owned();
        let service = format!("{HOST}:1");
        let mut variables = vec![
            ("FERRULE_IDENTITY", &*service),
            ("FERRULE_IDENTITY_FILES", &*path),
            ("POD_NAMESPACE", "shop"),
            ("SERVICE_ACCOUNT", account),
        ];
        variables.extend_from_slice(more);
        let app = world.proxy_with(services, applications, &variables).await;
        let admin = app.admin;
        eventually("it has an identity", async || {
            talk(admin, &get("/identity", "")).await.contains(&id(account))
        })
        .await;
        Sidecar { app, files }
    }
}

/// A Service whose pods run as these accounts and accept this.
pub fn peers(accounts: &[&str], modes: Modes) -> Service {
    let accounts = accounts.iter().map(|&name| name.to_owned()).collect();
    Service { peers: Some(Peers { accounts, plain: Vec::new(), modes }), ..Service::default() }
}

/// The metrics of a proxy.
pub async fn metrics(app: &App) -> String {
    talk(app.admin, &get("/metrics", "")).await
}
