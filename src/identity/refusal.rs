//! Why a request for a certificate is refused, and how that is answered.

use std::{net::IpAddr, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use ferrule_config::{identity::Refused, names::IDENTITY_AUDIENCE};
use thiserror::Error;

use super::csr::{CsrError, MAX_BYTES};

/// Why a request for a certificate is refused. No message holds a token or a key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// More than this peer, this pod or all together may ask.
    #[error("too many requests for certificates; ask again in {} s", .0.as_secs().max(1))]
    RateLimited(Duration),
    /// As many requests as are looked at at a time are under way.
    #[error("too many requests for certificates are under way; ask again in a second")]
    Busy,
    /// The body is too long.
    #[error("the body is longer than {MAX_BYTES} bytes, more than any signing request needs")]
    TooLarge,
    /// The body took too long.
    #[error("the body took too long")]
    Slow,
    /// There is no token.
    #[error(
        "the request has no bearer token; the sidecar's is a projected one of audience {IDENTITY_AUDIENCE}"
    )]
    NoToken,
    /// The API server does not accept the token, not for this audience at least.
    #[error("the API server does not accept the token for the audience {IDENTITY_AUDIENCE}: {0}")]
    Token(String),
    /// It is nobody's who could have a certificate.
    #[error("the token is of {0:?}, which is no service account")]
    NotServiceAccount(String),
    /// It is not a pod's.
    #[error("the token is not bound to a pod; only projected tokens of pods are")]
    Unbound,
    /// Its pod does not exist any more, or is another one of the same name.
    #[error("the pod that the token is bound to is gone")]
    PodGone,
    /// The pod runs under another service account.
    #[error("the pod that the token is bound to runs under another service account")]
    OtherAccount,
    /// The request comes from somewhere else.
    #[error(
        "the request comes from {0}, which is no address of the pod that the token is bound to; was the token stolen, or does the network replace source addresses (docs/identity.md)?"
    )]
    OtherAddress(IpAddr),
    /// The API server does not know the pod's address yet.
    #[error("the API server does not know the pod's address yet")]
    NoAddress,
    /// The signing request.
    #[error("{0}")]
    Csr(#[from] CsrError),
    /// There is nothing to sign with.
    #[error("there is no authority to sign with: {0}")]
    NoAuthority(String),
    /// The API server does not answer as it should.
    #[error("the API server can't be asked: {0}")]
    ApiServer(String),
}

impl Refusal {
    /// One word of a fixed set: the label of metrics and what sidecars report.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::RateLimited(_) => "rate-limited",
            Self::Busy => "busy",
            Self::TooLarge => "too-large",
            Self::Slow => "slow",
            Self::NoToken => "no-token",
            Self::Token(_) => "token",
            Self::NotServiceAccount(_) => "not-service-account",
            Self::Unbound => "unbound",
            Self::PodGone => "pod-gone",
            Self::OtherAccount => "other-account",
            Self::OtherAddress(_) => "other-address",
            Self::NoAddress => "no-address",
            Self::Csr(CsrError::Malformed) => "csr-malformed",
            Self::Csr(CsrError::Key) => "csr-key",
            Self::Csr(CsrError::Signature) => "csr-signature",
            Self::Csr(CsrError::Names(_)) => "csr-names",
            Self::NoAuthority(_) => "no-authority",
            Self::ApiServer(_) => "api-server",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy | Self::NoAddress | Self::NoAuthority(_) | Self::ApiServer(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::NoToken | Self::Token(_) => StatusCode::UNAUTHORIZED,
            Self::NotServiceAccount(_)
            | Self::Unbound
            | Self::PodGone
            | Self::OtherAccount
            | Self::OtherAddress(_)
            | Self::Csr(CsrError::Names(_)) => StatusCode::FORBIDDEN,
            Self::Csr(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// When it is worth while to ask again, in whole seconds.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::RateLimited(wait) => {
                Some(wait.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX))
            }
            Self::Busy | Self::NoAddress => Some(1),
            Self::NoAuthority(_) | Self::ApiServer(_) => Some(5),
            _ => None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Refused { cause: self.cause().to_owned(), message: self.to_string() };
        let mut response = (self.status(), Json(body)).into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
