//! A text, or the beginning of one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Written as the text itself, or as its beginning and `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Pattern {
    /// This text.
    Exact(String),
    /// Whatever begins with this.
    Prefix(String),
}

impl Pattern {
    /// Whether it is met by the text that these pieces make up.
    #[must_use]
    pub fn matches(&self, pieces: &[&str]) -> bool {
        let (Self::Exact(wanted) | Self::Prefix(wanted)) = self;
        let mut rest = wanted.as_str();
        for piece in pieces {
            if let Some(after) = rest.strip_prefix(piece) {
                rest = after;
            } else {
                return matches!(self, Self::Prefix(_)) && piece.starts_with(rest);
            }
        }
        rest.is_empty()
    }
}

impl From<String> for Pattern {
    fn from(mut text: String) -> Self {
        if text.ends_with('*') {
            text.pop();
            Self::Prefix(text)
        } else {
            Self::Exact(text)
        }
    }
}

impl From<&str> for Pattern {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
        }
    }
}
