//! Shares as users write them: `50%`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A share from `0%` to `100%`, with at most two decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent {
    /// Hundredths of a percent: 10,000 is the whole.
    hundredths: u16,
}

/// Why a text is not a [`Percent`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a share; write it like 50% or 0.5%, from 0% to 100%")]
pub struct PercentError {
    text: String,
}

impl Percent {
    /// Regular expression of the textual form.
    pub const PATTERN: &'static str = r"^(100|[1-9]?[0-9](\.[0-9]{1,2})?)%$";

    /// So many whole percent; more than 100 is the whole.
    #[must_use]
    pub const fn whole(percent: u8) -> Self {
        let percent = if percent > 100 { 100 } else { percent };
        Self { hundredths: percent as u16 * 100 }
    }

    /// As a number from 0 to 100; `None` if it has decimals.
    #[must_use]
    pub fn as_whole(self) -> Option<u8> {
        if self.hundredths.is_multiple_of(100) { u8::try_from(self.hundredths / 100).ok() } else { None }
    }

    /// In hundredths of a percent, from 0 to 10,000.
    #[must_use]
    pub fn hundredths(self) -> u16 {
        self.hundredths
    }

    /// As a number from 0 to 1.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.hundredths) / 10_000.0
    }
}

impl FromStr for Percent {
    type Err = PercentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text)
            .map(|hundredths| Self { hundredths })
            .ok_or_else(|| PercentError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<u16> {
    let number = text.strip_suffix('%')?;
    let (whole, decimals) = match number.split_once('.') {
        Some((whole, decimals)) => (whole, Some(decimals)),
        None => (number, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical =
        (1..=3).contains(&whole.len()) && digits(whole) && (whole.len() == 1 || !whole.starts_with('0'));
    if !canonical {
        return None;
    }
    let whole: u16 = whole.parse().ok()?;
    let part = match decimals {
        None => 0,
        Some(_) if whole == 100 => return None,
        Some(decimals) if (1..=2).contains(&decimals.len()) && digits(decimals) => {
            let number: u16 = decimals.parse().ok()?;
            if decimals.len() == 1 { number * 10 } else { number }
        }
        Some(_) => return None,
    };
    let hundredths = whole * 100 + part;
    (hundredths <= 10_000).then_some(hundredths)
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.hundredths / 100, self.hundredths % 100);
        match part {
            0 => write!(f, "{whole}%"),
            part if part % 10 == 0 => write!(f, "{whole}.{}%", part / 10),
            part => write!(f, "{whole}.{part:02}%"),
        }
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": 6, "pattern": Self::PATTERN })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn anything_but_a_share_is_refused() {
        for text in ["", "%", "50", "101%", "100.5%", "-1%", "05%", "1.234%", "1.%", ".5%", "5 %"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_whole_per_cents_are_whole() {
        for (text, whole) in [("0%", Some(0)), ("50.00%", Some(50)), ("100%", Some(100)), ("0.5%", None)] {
            assert_eq!(text.parse::<Percent>().map(Percent::as_whole), Ok(whole), "{text}");
        }
    }

    proptest! {
        #[test]
        fn survives_a_round_trip(hundredths in 0..=10_000u16) {
            let percent = Percent { hundredths };
            prop_assert_eq!(percent.to_string().parse(), Ok(percent));
        }
    }
}
