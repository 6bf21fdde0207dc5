//! Why a TLS connection did not come about.

use std::{fmt, io};

use thiserror::Error as ThisError;

use super::expected::PlainReason;
use crate::cause::Cause;

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[error("{detail}")]
pub struct Failed {
    /// Its kind.
    pub cause: Cause,
    /// What happened, for people.
    pub detail: String,
    /// The peer has proved nothing, neither a right nor a wrong identity: in permissive mode it is spoken to plain.
    pub unproved: Option<PlainReason>,
}

impl Failed {
    /// A failure that nothing follows from but itself.
    pub(super) fn new(cause: Cause, detail: impl fmt::Display) -> Self {
        Self { cause, detail: detail.to_string(), unproved: None }
    }

    /// The one in an error of a connection, if that is what it is about.
    #[must_use]
    pub fn within(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> Self {
        Self::other(failed)
    }
}
