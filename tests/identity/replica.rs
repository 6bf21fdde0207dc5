//! A replica of the identity service, and a sidecar as it sees one.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use ferrule::{
    controller::Lead,
    identity::{self, Metrics, Settings},
};
use ferrule_config::{identity::Issued, names::CERTIFICATES_PATH};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{AUTHORIZATION, HOST, RETRY_AFTER},
};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType, string::Ia5String};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
};
use tokio_rustls::TlsConnector;

use crate::api::{Api, PATIENCE};

pub const SECRET: &str = "/api/v1/namespaces/ferrule-system/secrets/ferrule-identity-ca";
pub const SERVER: &str = "ferrule-identity.ferrule-system.svc";

/// A replica that runs until it is dropped.
pub struct Replica {
    pub address: SocketAddr,
    pub metrics: Metrics,
    _stop: watch::Sender<bool>,
}

impl Replica {
    /// One that leads, with settings as in the chart.
    pub async fn leader(client: &kube::Client) -> Self {
        Self::with(client, true, |_| {}).await
    }

    pub async fn with(client: &kube::Client, leads: bool, change: impl FnOnce(&mut Settings)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut settings = Settings::new("replica");
        change(&mut settings);
        let metrics = settings.metrics.clone();
        let (stop, stopped) = watch::channel(false);
        let lead = match leads {
            true => Lead::without_rivals(Instant::now() + Duration::from_secs(3600)),
            false => Lead::default(),
        };
        let client = client.clone();
        tokio::spawn(async move {
            identity::serve(listener, client, settings, lead, stopped).await.expect("serves");
        });
        Self { address, metrics, _stop: stop }
    }
}

/// What the identity service answered.
pub struct Answer {
    pub status: StatusCode,
    pub retry_after: Option<u64>,
    pub body: Value,
}

impl Answer {
    pub fn cause(&self) -> &str {
        self.body["cause"].as_str().unwrap_or_default()
    }

    pub fn issued(&self) -> Issued {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        serde_json::from_value(self.body.clone()).expect("a certificate")
    }
}

/// Trusts what the ConfigMap of its namespace holds.
pub struct Sidecar<'a> {
    pub api: &'a Api,
    /// Loopback has many addresses; a pod has one of its own.
    pub address: IpAddr,
}

impl Sidecar<'_> {
    pub async fn ask(&self, replica: &Replica, token: Option<&str>, body: impl Into<Bytes>) -> Answer {
        let ask = self.try_ask(replica, token, body.into());
        tokio::time::timeout(PATIENCE, ask).await.expect("in time").expect("an answer")
    }

    async fn try_ask(&self, replica: &Replica, token: Option<&str>, body: Bytes) -> anyhow::Result<Answer> {
        let stream = loop {
            if let Ok(stream) = self.tls(replica).await {
                break stream;
            }
            // The server has its own certificate a moment after it listens.
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::post(CERTIFICATES_PATH).header(HOST, SERVER);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = sender.send_request(request.body(Full::new(body))?).await?;
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER);
        let retry_after = retry_after.map(|value| value.to_str()?.parse().map_err(anyhow::Error::from));
        let retry_after = retry_after.transpose()?;
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Answer { status, retry_after, body: serde_json::from_slice(&body).unwrap_or_default() })
    }

    async fn tls(
        &self,
        replica: &Replica,
    ) -> anyhow::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
        let trust = self.api.object(&trust("shop")).unwrap_or_default();
        let mut roots = RootCertStore::empty();
        for root in
            CertificateDer::pem_slice_iter(trust["data"]["ca.crt"].as_str().unwrap_or_default().as_bytes())
        {
            roots.add(root?)?;
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.address, 0))?;
        let stream = socket.connect(replica.address).await?;
        Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(SERVER)?, stream).await?)
    }
}

/// Path of a namespace's trust bundle.
pub fn trust(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/ferrule-trust")
}

pub fn add_namespace(api: &Api, name: &str) {
    let labels = json!({ "ferrule.dev/inject": "enabled" });
    api.put(&format!("/api/v1/namespaces/{name}"), json!({ "metadata": { "labels": labels } }));
}

/// A pod of the service account `cart` in `shop`, and its token.
pub fn add_pod(api: &Api, name: &str, address: &str) -> String {
    let uid = format!("uid-of-{name}");
    api.put(
        &format!("/api/v1/namespaces/shop/pods/{name}"),
        json!({
            "metadata": { "uid": uid, "annotations": { "ferrule.dev/injected": "test" } },
            "spec": { "serviceAccountName": "cart", "containers": [] },
            "status": {
                "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
                "initContainerStatuses": [{
                    "name": "ferrule-proxy", "ready": true, "restartCount": 0, "image": "", "imageID": "",
                    "state": { "running": {} },
                }],
            },
        }),
    );
    let token = format!("token-of-{name}");
    api.token(&token, review("system:serviceaccount:shop:cart", name, &uid));
    token
}

pub fn review(user: &str, pod: &str, uid: &str) -> Value {
    json!({
        "authenticated": true,
        "audiences": ["ferrule.dev/identity"],
        "user": {
            "username": user,
            "extra": {
                "authentication.kubernetes.io/pod-name": [pod],
                "authentication.kubernetes.io/pod-uid": [uid],
            },
        },
    })
}

/// A signing request for these names.
pub fn csr(key: &KeyPair, names: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names =
        names.iter().map(|name| SanType::URI(Ia5String::try_from(*name).expect("ASCII"))).collect();
    params.serialize_request(key).expect("a request").der().to_vec()
}

pub fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}
