//! Where an identity comes from, and which one it is.

use std::{fmt, path::PathBuf, str::FromStr};

use ferrule_config::identity::SpiffeId;

/// The identity service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name in its certificate, and in DNS where no address is mounted.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl FromStr for Service {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (host, port) = text.rsplit_once(':').ok_or(())?;
        let port = port.parse().map_err(|_| ())?;
        let named = !host.is_empty() && !host.contains([':', '/']);
        if named { Ok(Self { host: host.to_owned(), port }) } else { Err(()) }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Everything that is needed to get an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Who gives it.
    pub service: Service,
    /// Which one it is.
    pub id: SpiffeId,
    /// Directory with the files `token`, `ca.crt` and `address`.
    pub files: PathBuf,
}
