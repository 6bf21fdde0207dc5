//! A client of the API server, as small as a sidecar needs: lists and watches with the pod's projected token.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::{
    connect::{Address, Connections, Stream, bearer},
    error::ApiError,
    list::{Envelope, Splitter},
};
use crate::{
    discovery::Times,
    telemetry::{Happened, Telemetry},
};

/// Largest object that is read whole: etcd takes no larger one.
const MAX_OBJECT: usize = 2 * 1024 * 1024;
/// Largest list, in bytes. Nothing of it is held but what is wanted.
const MAX_LIST: usize = 256 * 1024 * 1024;
/// Longest pause that a server can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

pub(super) struct Client {
    connections: Connections,
    times: Times,
    telemetry: Arc<Telemetry>,
}

/// An answer's body; its stream is counted until it is dropped.
pub(super) struct Body {
    incoming: Incoming,
    heard: Happened,
    _stream: Stream,
}

impl Body {
    /// The next bytes; none at the end.
    pub async fn data(&mut self) -> Result<Option<Bytes>, ApiError> {
        while let Some(frame) = self.incoming.frame().await {
            if let Ok(data) = frame?.into_data() {
                self.heard.inc();
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

impl Client {
    /// A client that has no connection yet.
    ///
    /// # Errors
    /// When the address or the certificates can't be used.
    pub fn new(address: Address, times: Times, telemetry: Arc<Telemetry>) -> anyhow::Result<Self> {
        Ok(Self { connections: Connections::new(address, times)?, times, telemetry })
    }

    /// Reads a list and gives each of its items while it arrives.
    pub async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        patient: bool,
        mut item: impl FnMut(T) -> Result<(), ApiError>,
    ) -> Result<Envelope, ApiError> {
        let mut body = self.get(path, patient).await?;
        let mut splitter = Splitter::default();
        let mut size = 0;
        loop {
            let data = tokio::time::timeout(self.times.answer, body.data()).await;
            let Some(data) = data.map_err(|_| ApiError::Slow)?? else { break };
            size += data.len();
            if size > MAX_LIST {
                return Err(ApiError::TooLarge);
            }
            splitter.feed(&data, |bytes| item(serde_json::from_slice(bytes)?))?;
        }
        Ok(splitter.finish()?)
    }

    /// Reads a single object, which is asked for by a connection that waits.
    pub async fn object<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let mut body = self.get(path, false).await?;
        let mut bytes = Vec::new();
        loop {
            let data = tokio::time::timeout(self.times.answer, body.data()).await;
            let Some(data) = data.map_err(|_| ApiError::Slow)?? else { break };
            if bytes.len() + data.len() > MAX_OBJECT {
                return Err(ApiError::TooLarge);
            }
            bytes.extend_from_slice(&data);
        }
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// The answer's body as it comes. Who is not patient is refused at once while the API server is away.
    pub async fn get(&self, path: &str, patient: bool) -> Result<Body, ApiError> {
        let result = self.try_get(path, patient).await;
        match &result {
            Ok(_) => self.telemetry.api_contacts.inc(),
            Err(_) => self.telemetry.api_errors.inc(),
        }
        result
    }

    async fn try_get(&self, path: &str, patient: bool) -> Result<Body, ApiError> {
        let (mut sender, stream) = self.connections.take(patient).await?;
        let address = self.connections.address();
        let request = Request::get(format!("https://{}{path}", address.authority()))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("ferrule-proxy/", env!("CARGO_PKG_VERSION")))
            .header(header::AUTHORIZATION, bearer(address)?)
            .body(Empty::new())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let answer = tokio::time::timeout(self.times.answer, sender.send_request(request)).await;
        let answer = answer.map_err(|_| ApiError::Slow)??;
        if answer.status().is_success() {
            return Ok(Body {
                incoming: answer.into_body(),
                heard: self.telemetry.api_contacts.clone(),
                _stream: stream,
            });
        }
        Err(tokio::time::timeout(self.times.answer, refused(path, answer))
            .await
            .map_err(|_| ApiError::Slow)?)
    }
}

async fn refused(path: &str, answer: Response<Incoming>) -> ApiError {
    let status = answer.status();
    if status == StatusCode::GONE {
        return ApiError::Gone;
    }
    let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    let retry_after = retry_after.map(|pause| pause.min(MAX_RETRY_AFTER));
    let body = Limited::new(answer.into_body(), 64 * 1024).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    let parsed: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let message = parsed.and_then(|parsed| Some(parsed.get("message")?.as_str()?.to_owned())).unwrap_or(text);
    if status == StatusCode::FORBIDDEN || status == StatusCode::UNAUTHORIZED {
        tracing::warn!(%status, path, message, "the API server refuses; is the namespace labelled for injection?");
    }
    ApiError::Status { status, path: path.to_owned(), message, retry_after }
}
