//! Why a call to the API server failed.

use std::{io, time::Duration};

use http::StatusCode;
use thiserror::Error;

use super::list::ListError;

/// Why a call failed.
#[derive(Debug, Error)]
pub(in crate::discovery) enum ApiError {
    #[error("API server not reached: {0}")]
    Io(#[from] io::Error),
    #[error("API server: {0}")]
    Http(#[from] hyper::Error),
    #[error("API server did not answer in time")]
    Slow,
    /// The last attempt to connect failed and the next one is on its way.
    #[error("API server is not reached at present")]
    Away,
    #[error("API server answered {status} to {path}: {message}")]
    Status {
        status: StatusCode,
        path: String,
        message: String,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The version is too old to go on from; list again.
    #[error("resource version is too old")]
    Gone,
    #[error("watch ended with {code}: {message}")]
    Watch { code: u16, message: String },
    #[error("watch ended as soon as it began")]
    Brief,
    #[error("API server sent something unexpected: {0}")]
    Json(#[from] serde_json::Error),
    #[error("addresses of pods can't be read: {0}")]
    Peers(#[from] ferrule_config::peers::PeersError),
    #[error("API server sent an unexpected list: {0}")]
    List(#[from] ListError),
    #[error("API server sent {0:?} as a resource version; expected a number (KEP-5504)")]
    Version(String),
    #[error("API server sent more than the proxy takes")]
    TooLarge,
    /// A list is older than what a watch told already.
    #[error("list is older than the watch")]
    Behind,
}

impl ApiError {
    /// How long the server asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
