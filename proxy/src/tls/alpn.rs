//! What a TLS connection between two sidecars carries, said in its handshake (ALPN, RFC 7301): nobody has to look at
//! the first bytes, and nobody has to wait for them.

/// What every such name begins with. A ClientHello that offers one is for the sidecar, any other for the application.
pub const PREFIX: &[u8] = b"ferrule/";

/// What a connection between sidecars carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// HTTP/2, for an application that speaks HTTP/2.
    Http2,
    /// HTTP/2, for an application that speaks HTTP/1: many requests share a connection.
    Http2ForHttp1,
    /// HTTP/1.1, for what HTTP/2 has no place for: `Upgrade`, and CONNECT of HTTP/1.
    Http1,
    /// Bytes.
    Tcp,
}

impl Alpn {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Http2, Self::Http2ForHttp1, Self::Http1, Self::Tcp];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"ferrule/h2",
            Self::Http2ForHttp1 => b"ferrule/h2-http1",
            Self::Http1 => b"ferrule/http1",
            Self::Tcp => b"ferrule/tcp",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn of(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_the_sidecars_and_found_again() {
        for each in Alpn::ALL {
            assert!(each.name().starts_with(PREFIX));
            assert_eq!(Alpn::of(each.name()), Some(each));
        }
        assert_eq!(Alpn::of(b"h2"), None);
    }
}
