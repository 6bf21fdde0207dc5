//! List, then watch from there; again from where it broke off; from the start when that is too long ago.

use std::{future::Future, time::Duration};

use serde::{Deserialize, de::DeserializeOwned};

use super::client::{ApiError, Client};

/// Largest line of a watch, in bytes: an object is at most about 1.5 MiB, etcd's limit.
const MAX_LINE: usize = 4 * 1024 * 1024;
/// First and longest pause after an error.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// News of a collection.
pub(super) enum Event<T> {
    /// All that is there.
    All(Vec<T>),
    /// One was added or changed.
    Put(T),
    /// One is gone.
    Gone(T),
}

/// A list of objects.
#[derive(Debug, Deserialize)]
pub(super) struct List<T> {
    pub metadata: ListMetadata,
    #[serde(default = "Vec::new")]
    pub items: Vec<T>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListMetadata {
    pub resource_version: String,
    #[serde(rename = "continue")]
    pub continue_token: String,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    object: serde_json::Value,
}

/// Follows a collection for ever. `path` has a selector already.
pub(super) async fn follow<T, F>(client: &Client, path: &str, mut on: impl FnMut(Event<T>) -> F)
where
    T: DeserializeOwned,
    F: Future<Output = ()>,
{
    let mut backoff = BACKOFF.0;
    // Where the next watch goes on; none: list first.
    let mut version = String::new();
    loop {
        let result = if version.is_empty() {
            list(client, path, &mut version, &mut on).await
        } else {
            watch(client, path, &mut version, &mut on).await
        };
        match result {
            Ok(()) => backoff = BACKOFF.0,
            Err(error) => {
                tracing::debug!(%error, path, "watch failed; trying again");
                if matches!(error, ApiError::Gone) {
                    version.clear();
                }
                // Jitter: sidecars that lost the API server together come back spread out.
                tokio::time::sleep(backoff.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                backoff = (backoff * 2).min(BACKOFF.1);
            }
        }
    }
}

async fn list<T: DeserializeOwned, F: Future<Output = ()>>(
    client: &Client,
    path: &str,
    version: &mut String,
    on: &mut impl FnMut(Event<T>) -> F,
) -> Result<(), ApiError> {
    let list: List<T> = client.json(path).await?;
    on(Event::All(list.items)).await;
    *version = list.metadata.resource_version;
    Ok(())
}

/// One watch until its end; `version` moves on with every line.
async fn watch<T: DeserializeOwned, F: Future<Output = ()>>(
    client: &Client,
    path: &str,
    version: &mut String,
    on: &mut impl FnMut(Event<T>) -> F,
) -> Result<(), ApiError> {
    let seconds = 240 + fastrand::u32(0..120);
    let path =
        format!("{path}&watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}");
    let mut body = client.get(&path).await?;
    let mut lines = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        lines.extend_from_slice(&data);
        while let Some(end) = lines.iter().position(|&byte| byte == b'\n') {
            let line: Line = serde_json::from_slice(&lines[..end])?;
            lines.drain(..=end);
            take_in(line, version, on).await?;
        }
        if lines.len() > MAX_LINE {
            return Err(ApiError::TooLarge);
        }
    }
    Ok(())
}

async fn take_in<T: DeserializeOwned, F: Future<Output = ()>>(
    line: Line,
    version: &mut String,
    on: &mut impl FnMut(Event<T>) -> F,
) -> Result<(), ApiError> {
    let Line { kind, object } = line;
    if kind == "ERROR" {
        let code = object.get("code").and_then(serde_json::Value::as_u64);
        return Err(if code == Some(410) { ApiError::Gone } else { ApiError::Watch(object.to_string()) });
    }
    let next =
        object.pointer("/metadata/resourceVersion").and_then(|version| version.as_str()).map(str::to_owned);
    match kind.as_str() {
        "ADDED" | "MODIFIED" => on(Event::Put(serde_json::from_value(object)?)).await,
        "DELETED" => on(Event::Gone(serde_json::from_value(object)?)).await,
        // A bookmark brings nothing but its version.
        _ => {}
    }
    if let Some(next) = next {
        *version = next;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::objects::ConfigMap;

    async fn after(line: &str) -> (Result<(), ApiError>, String, usize) {
        let (mut version, mut seen) = ("1".to_owned(), 0);
        let line: Line = serde_json::from_str(line).expect("a line");
        let result = take_in(line, &mut version, &mut |_: Event<ConfigMap>| {
            seen += 1;
            std::future::ready(())
        })
        .await;
        (result, version, seen)
    }

    #[tokio::test]
    async fn every_line_moves_the_version_on() {
        let put = r#"{"type":"MODIFIED","object":{"metadata":{"name":"a","resourceVersion":"7"}}}"#;
        let bookmark = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#;
        assert!(matches!(after(put).await, (Ok(()), version, 1) if version == "7"));
        assert!(matches!(after(bookmark).await, (Ok(()), version, 0) if version == "9"));
    }

    #[tokio::test]
    async fn a_version_that_is_too_old_starts_anew() {
        let line = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#;
        assert!(matches!(after(line).await, (Err(ApiError::Gone), ..)));
    }
}
