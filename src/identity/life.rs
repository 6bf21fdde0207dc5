//! How long certificates of sidecars live.

use std::{fmt, str::FromStr, time::Duration};

use ferrule_config::Duration as Text;
use thiserror::Error;

/// Shorter, and a sidecar would do little but renew; clocks are seldom nearer to each other than this.
pub const SHORTEST: Duration = Duration::from_secs(2 * 60);
/// Longer, and the root of a mesh could not be changed within a week.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The life of a certificate: from two minutes to seven days, 24 h unless something else is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life(Duration);

/// A life that is too short, too long, or no duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not the life of a certificate; expected 2m to 168h, for example 24h")]
pub struct LifeError(String);

impl Life {
    /// The duration.
    #[must_use]
    pub fn get(self) -> Duration {
        self.0
    }
}

impl Default for Life {
    fn default() -> Self {
        Self(Duration::from_secs(24 * 60 * 60))
    }
}

impl TryFrom<Duration> for Life {
    type Error = LifeError;

    fn try_from(duration: Duration) -> Result<Self, LifeError> {
        let allowed = (SHORTEST..=LONGEST).contains(&duration);
        if allowed { Ok(Self(duration)) } else { Err(LifeError(format!("{duration:?}"))) }
    }
}

impl FromStr for Life {
    type Err = LifeError;

    fn from_str(text: &str) -> Result<Self, LifeError> {
        let error = || LifeError(text.to_owned());
        let duration: Text = text.parse().map_err(|_| error())?;
        Self::try_from(duration.get()).map_err(|_| error())
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_bounded() {
        assert_eq!("24h".parse(), Ok(Life::default()));
        assert_eq!("2m".parse::<Life>().map(Life::get), Ok(SHORTEST));
        for text in ["", "1m59s", "168h1s", "24", "forever"] {
            assert!(text.parse::<Life>().is_err(), "{text}");
        }
    }
}
