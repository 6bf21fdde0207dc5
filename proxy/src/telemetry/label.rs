//! Values of labels. Each comes from a set that is known, or is counted against a cap.

use std::{borrow::Cow, sync::Arc};

/// What stands for everything beyond a bound.
pub const OTHER: &str = "other";

/// A label's value.
#[derive(Clone, Debug)]
pub enum Text {
    /// One of a set that the source code names.
    Fixed(&'static str),
    /// A name from outside. How many of them there are is bounded by whoever counts under it.
    Open(Arc<str>),
}

impl Text {
    /// The value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Fixed(text) => text,
            Self::Open(text) => text,
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self::Fixed(text)
    }
}

impl From<&Arc<str>> for Text {
    fn from(text: &Arc<str>) -> Self {
        Self::Open(Arc::clone(text))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Open(text.into())
    }
}

/// A request's method: one that RFC 9110 §9 or RFC 5789 defines, or something else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// The request was not understood, so there is none.
    #[default]
    Unknown,
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// CONNECT
    Connect,
    /// OPTIONS
    Options,
    /// TRACE
    Trace,
    /// PATCH
    Patch,
    /// Any other.
    Other,
}

impl Method {
    /// Of a request; `Unknown` if it has none.
    #[must_use]
    pub fn of(method: &str) -> Self {
        match method {
            "" => Self::Unknown,
            "GET" => Self::Get,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "HEAD" => Self::Head,
            "DELETE" => Self::Delete,
            "CONNECT" => Self::Connect,
            "OPTIONS" => Self::Options,
            "TRACE" => Self::Trace,
            "PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// Label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other => OTHER,
        }
    }
}

/// Status of a gRPC call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GrpcStatus {
    /// The response had none: it is not gRPC's, or broke off.
    #[default]
    None,
    /// One of gRPC's codes, 0 to 16.
    Code(u8),
    /// Something that is no code of gRPC's.
    Other,
}

impl GrpcStatus {
    /// From a `grpc-status` field.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        let code = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
        code.filter(|code| *code <= 16).map_or(Self::Other, Self::Code)
    }

    /// Label in metrics.
    #[must_use]
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Self::None => "".into(),
            Self::Code(code) => code.to_string().into(),
            Self::Other => OTHER.into(),
        }
    }
}

/// Status code as a label: codes that no registry can hold are one.
#[must_use]
pub fn status(code: u16) -> Text {
    if code < 600 { code.to_string().into() } else { OTHER.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_may_choose_freely_has_few_values() {
        assert_eq!(Method::of("GET").name(), "GET");
        assert_eq!(Method::of(""), Method::Unknown);
        assert_eq!(Method::of("get").name(), "other");
        assert_eq!(Method::of("PROPFIND").name(), "other");
        assert_eq!(GrpcStatus::of(b"0").name(), "0");
        assert_eq!(GrpcStatus::of(b"16").name(), "16");
        for odd in [&b"17"[..], b"-1", b"", b"00000000000000000000", b"\xff", b"1 "] {
            assert!(matches!(GrpcStatus::of(odd), GrpcStatus::Other | GrpcStatus::Code(0)), "{odd:?}");
        }
        assert_eq!(status(599).as_str(), "599");
        assert_eq!(status(999).as_str(), "other");
    }
}
