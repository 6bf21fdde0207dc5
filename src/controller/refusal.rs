//! What the API server said, in words: kube's own text of an error carries its whole structure.

use std::fmt;

/// An error of the API server or of the way there.
#[derive(Debug)]
pub struct Refusal(pub kube::Error);

impl Refusal {
    /// The status code, if the API server answered.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match &self.0 {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        }
    }
}

impl From<kube::Error> for Refusal {
    fn from(error: kube::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            kube::Error::Api(status) => {
                write!(f, "the API server answered {}: {}", status.code, status.message)?;
                if status.code == 403 {
                    f.write_str("; is the operator's ClusterRole that of this version?")?;
                }
                Ok(())
            }
            other => write!(f, "cannot reach the API server: {other}"),
        }
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}
