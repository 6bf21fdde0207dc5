//! The kubelet's probes of an application, as the injector sends them to the sidecar's admin port.
//!
//! The path there says all: `/probe/http/8080/healthz?full=1` is `GET /healthz?full=1` on the application's port 8080. So a
//! pod that was injected before can be read again, and whoever describes the pod sees what is probed.

use std::{fmt, num::NonZeroU16, str::FromStr};

use thiserror::Error;

const PREFIX: &str = "/probe/";

/// How the application is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// A connection.
    Tcp,
    /// A GET.
    Http,
    /// A GET over TLS; the certificate is not verified, as the kubelet does not.
    Https,
    /// `grpc.health.v1.Health/Check`.
    Grpc,
}

impl Check {
    const ALL: [Self; 4] = [Self::Tcp, Self::Http, Self::Https, Self::Grpc];

    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Https => "https",
            Self::Grpc => "grpc",
        }
    }
}

/// One probe of one application. Its text is its path at the admin port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// How.
    pub check: Check,
    /// The application's port.
    pub port: NonZeroU16,
    /// HTTP: path and query, beginning with `/`. gRPC: the service's name, percent-encoded, or nothing. TCP: nothing.
    pub target: String,
}

/// The text names no probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "not a probe: expected /probe/tcp/PORT, /probe/http/PORT/PATH, /probe/https/PORT/PATH or /probe/grpc/PORT[/SERVICE]"
)]
pub struct ProbeError;

impl Probe {
    /// A connection to a port.
    #[must_use]
    pub fn tcp(port: NonZeroU16) -> Self {
        Self { check: Check::Tcp, port, target: String::new() }
    }

    /// A GET. `path`: as a pod spells it; what a URL can't hold is percent-encoded, a fragment is left out.
    #[must_use]
    pub fn http(port: NonZeroU16, path: &str, tls: bool) -> Self {
        let path = path.split('#').next().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        let check = if tls { Check::Https } else { Check::Http };
        Self { check, port, target: format!("{slash}{}", encoded(path, true)) }
    }

    /// A gRPC health check of a service; an empty name stands for the whole server.
    #[must_use]
    pub fn grpc(port: NonZeroU16, service: &str) -> Self {
        Self { check: Check::Grpc, port, target: encoded(service, false) }
    }

    /// The service that a gRPC health check names.
    #[must_use]
    pub fn service(&self) -> String {
        let mut bytes = Vec::new();
        let mut rest = self.target.as_bytes();
        while let [first, after @ ..] = rest {
            let digit = |at: usize| after.get(at).and_then(|&byte| (byte as char).to_digit(16));
            match (first, digit(0), digit(1)) {
                (b'%', Some(high), Some(low)) => {
                    bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                    rest = &after[2..];
                }
                _ => {
                    bytes.push(*first);
                    rest = after;
                }
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// `text` with all percent-encoded that may not stand in a path; with `url`, its delimiters and what is encoded already stay.
fn encoded(text: &str, url: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for (at, &byte) in text.as_bytes().iter().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let is_escape = || {
            let digits = text.as_bytes().get(at + 1..at + 3);
            byte == b'%' && digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        };
        if plain || url && (b"!$&'()*+,;=:@/?".contains(&byte) || is_escape()) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, port, target } = self;
        let slash = if *check == Check::Grpc && !target.is_empty() { "/" } else { "" };
        write!(f, "{PREFIX}{}/{port}{slash}{target}", check.name())
    }
}

impl FromStr for Probe {
    type Err = ProbeError;

    fn from_str(text: &str) -> Result<Self, ProbeError> {
        let rest = text.strip_prefix(PREFIX).ok_or(ProbeError)?;
        let (check, rest) = rest.split_once('/').ok_or(ProbeError)?;
        let check = Check::ALL.into_iter().find(|each| each.name() == check).ok_or(ProbeError)?;
        let end = rest.find('/').unwrap_or(rest.len());
        let (port, target) = rest.split_at(end);
        let port = port.parse().map_err(|_| ProbeError)?;
        let target = match check {
            Check::Tcp if target.is_empty() => target,
            Check::Http | Check::Https if !target.is_empty() => target,
            Check::Grpc => target.strip_prefix('/').unwrap_or_default(),
            _ => return Err(ProbeError),
        };
        let probe = Self { check, port, target: target.to_owned() };
        // One spelling each: what is compared as text is the same probe.
        (probe.to_string() == text).then_some(probe).ok_or(ProbeError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: NonZeroU16 = NonZeroU16::new(8080).unwrap();

    #[test]
    fn a_probe_is_its_path() {
        let texts = [
            (Probe::tcp(PORT), "/probe/tcp/8080"),
            (Probe::http(PORT, "/healthz?full=1&x=a%20b", false), "/probe/http/8080/healthz?full=1&x=a%20b"),
            (Probe::http(PORT, "", false), "/probe/http/8080/"),
            (Probe::http(PORT, "live#part", true), "/probe/https/8080/live"),
            (Probe::http(PORT, "/a b/100%/ü", false), "/probe/http/8080/a%20b/100%25/%C3%BC"),
            (Probe::grpc(PORT, ""), "/probe/grpc/8080"),
            (Probe::grpc(PORT, "shop.Cart/x y"), "/probe/grpc/8080/shop.Cart%2Fx%20y"),
        ];
        for (probe, text) in texts {
            assert_eq!(probe.to_string(), text);
            assert_eq!(text.parse(), Ok(probe));
        }
        assert_eq!(Probe::grpc(PORT, "shop.Cart/x y").service(), "shop.Cart/x y");
    }

    #[test]
    fn nothing_else_is_one() {
        for text in [
            "",
            "/ready",
            "/probe/tcp/0",
            "/probe/tcp/8080/",
            "/probe/tcp/+8080",
            "/probe/tcp/65536",
            "/probe/udp/8080",
            "/probe/http/8080",
            "/probe/http/08080/",
            "/probe/grpc/8080/",
        ] {
            assert_eq!(text.parse::<Probe>(), Err(ProbeError), "{text}");
        }
    }
}
