//! Why the proxy answers in the place of an endpoint.

use crate::retry::Failure;

/// Why the proxy answers by itself. The names are an interface: clients, dashboards and other proxies read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The request is malformed or its framing ambiguous.
    BadRequest,
    /// Its head has too many fields or bytes.
    HeadTooLarge,
    /// Its request line is too long.
    UriTooLong,
    /// It uses a transfer coding other than chunked.
    UnknownCoding,
    /// It is of an HTTP version that is not spoken here.
    UnknownVersion,
    /// Its head did not arrive in time.
    HeadTimeout,
    /// Nothing more of its body arrived for too long.
    BodyTimeout,
    /// The Service has Routes and none matches.
    NoRoute,
    /// The Route names no backend, or only ones of weight 0.
    NoBackend,
    /// The Route's backend is no Service or not a port of it.
    BackendNotFound,
    /// The Service has no endpoint that is ready.
    NoEndpoints,
    /// No endpoint could be connected to. Nothing was processed.
    Connect,
    /// The endpoint's certificate leads to no trusted root, or ours to none that it trusts. Nothing was processed.
    TlsUntrusted,
    /// The endpoint is not who it should be, or does not accept who we are. Nothing was processed.
    TlsIdentity,
    /// The endpoint's certificate has expired, or it takes ours for expired. Nothing was processed.
    TlsExpired,
    /// The endpoint's certificate is not valid yet. Nothing was processed.
    TlsNotYetValid,
    /// There was no handshake for another reason. Nothing was processed.
    TlsHandshake,
    /// Only encrypted connections are taken, and one side has no certificate yet. Nothing was processed.
    TlsNoIdentity,
    /// An AccessPolicy does not let this caller do this here. Nothing was processed.
    AccessDenied,
    /// The application behind this sidecar takes no connections. Nothing was processed.
    AppConnect,
    /// The endpoint broke the connection before it responded.
    Reset,
    /// What the endpoint sent is not an HTTP response, or its framing is ambiguous.
    BadResponse,
    /// The Route's time limit has passed.
    Timeout,
    /// The deadline that the request came with has passed.
    Deadline,
    /// The endpoint answered with a status that the Route wants another attempt after. Never told to a client.
    Answered,
    /// Nothing of the response arrived for too long.
    ResponseTimeout,
}

impl Cause {
    /// Value of the `ferrule-error` header, and label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::HeadTooLarge => "head-too-large",
            Self::UnknownCoding => "unknown-coding",
            Self::UnknownVersion => "unknown-version",
            Self::UriTooLong => "uri-too-long",
            Self::HeadTimeout => "head-timeout",
            Self::BodyTimeout => "body-timeout",
            Self::NoRoute => "no-route",
            Self::NoBackend => "no-backend",
            Self::BackendNotFound => "backend-not-found",
            Self::NoEndpoints => "no-endpoints",
            Self::Connect => "connect",
            Self::TlsUntrusted => "tls-untrusted",
            Self::TlsIdentity => "tls-identity",
            Self::TlsExpired => "tls-expired",
            Self::TlsNotYetValid => "tls-not-yet-valid",
            Self::TlsHandshake => "tls-handshake",
            Self::TlsNoIdentity => "tls-no-identity",
            Self::AccessDenied => "access-denied",
            Self::AppConnect => "app-connect",
            Self::Reset => "reset",
            Self::BadResponse => "bad-response",
            Self::Timeout => "timeout",
            Self::Deadline => "deadline",
            Self::Answered => "status",
            Self::ResponseTimeout => "response-timeout",
        }
    }

    /// Status code and reason phrase.
    #[must_use]
    pub fn status(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "Bad Request"),
            Self::HeadTooLarge => (431, "Request Header Fields Too Large"),
            Self::AccessDenied => (403, "Forbidden"),
            Self::UnknownCoding => (501, "Not Implemented"),
            Self::UnknownVersion => (505, "HTTP Version Not Supported"),
            Self::UriTooLong => (414, "URI Too Long"),
            Self::HeadTimeout | Self::BodyTimeout => (408, "Request Timeout"),
            Self::NoRoute => (404, "Not Found"),
            Self::NoBackend | Self::BackendNotFound => (500, "Internal Server Error"),
            Self::NoEndpoints
            | Self::Connect
            | Self::AppConnect
            | Self::TlsUntrusted
            | Self::TlsIdentity
            | Self::TlsExpired
            | Self::TlsNotYetValid
            | Self::TlsHandshake
            | Self::TlsNoIdentity => (503, "Service Unavailable"),
            Self::Reset | Self::BadResponse | Self::Answered => (502, "Bad Gateway"),
            Self::Timeout | Self::Deadline | Self::ResponseTimeout => (504, "Gateway Timeout"),
        }
    }

    /// The same as a status of gRPC: PERMISSION_DENIED, UNIMPLEMENTED, UNAVAILABLE, DEADLINE_EXCEEDED or INTERNAL, from the gRPC project's
    /// mapping of HTTP's.
    #[must_use]
    pub fn grpc_status(self) -> u8 {
        match self.status().0 {
            403 => 7,
            404 => 12,
            429 | 502 | 503 => 14,
            504 => 4,
            _ => 13,
        }
    }

    /// How an attempt failed, if the endpoint's own sidecar says that it did: with this status, or that of gRPC which
    /// stands for it, and this name in the `ferrule-error` field.
    #[must_use]
    pub fn told(status: u16, grpc: Option<&[u8]>, name: &[u8]) -> Option<(Self, Failure)> {
        let says = |cause: Self| match grpc {
            Some(code) => status == 200 && code == cause.grpc_status().to_string().as_bytes(),
            None => status == cause.status().0,
        };
        let is = |cause: Self| says(cause) && name == cause.name().as_bytes();
        if is(Self::AppConnect) {
            Some((Self::Connect, Failure::NotConnected))
        } else if is(Self::Reset) {
            Some((Self::Reset, Failure::Reset))
        } else {
            None
        }
    }
}
