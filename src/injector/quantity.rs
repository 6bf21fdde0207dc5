//! Amounts of CPU and memory as Kubernetes writes them: `10m`, `0.5`, `64Mi`.

use std::{cmp::Ordering, fmt, str::FromStr};

use thiserror::Error;

/// An amount of a resource. It keeps the text it was written as and compares by its value.
#[derive(Clone, Debug)]
pub struct Quantity {
    text: String,
    nanos: i128,
}

/// Why a text is not a [`Quantity`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a quantity; write it like 100m, 0.5 or 64Mi")]
pub struct QuantityError {
    /// The refused text.
    pub text: String,
}

/// Powers by suffix, as apimachinery's `resource.Quantity` knows them.
const SUFFIXES: [(&str, i128, i128); 16] = [
    ("Ki", 1 << 10, 1),
    ("Mi", 1 << 20, 1),
    ("Gi", 1 << 30, 1),
    ("Ti", 1 << 40, 1),
    ("Pi", 1 << 50, 1),
    ("Ei", 1 << 60, 1),
    ("n", 1, 1_000_000_000),
    ("u", 1, 1_000_000),
    ("m", 1, 1_000),
    ("k", 1_000, 1),
    ("M", 1_000_000, 1),
    ("G", 1_000_000_000, 1),
    ("T", 1_000_000_000_000, 1),
    ("P", 1_000_000_000_000_000, 1),
    ("E", 1_000_000_000_000_000_000, 1),
    ("", 1, 1),
];
const NANOS: i128 = 1_000_000_000;

impl Quantity {
    /// Whether it is less than `1Mi` when read as bytes: too little for any process, and a sign that the
    /// unit was forgotten.
    #[must_use]
    pub fn is_under_a_mebibyte(&self) -> bool {
        self.nanos < (NANOS << 20)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let nanos = parse(text).ok_or_else(|| QuantityError { text: text.to_owned() })?;
        Ok(Self { text: text.to_owned(), nanos })
    }
}

/// Non-negative quantities of at most 18 digits; `12e6` is left to those who need it, none was seen.
fn parse(text: &str) -> Option<i128> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, suffix) = text.split_at(digits);
    let (_, multiply, divide) = SUFFIXES.into_iter().find(|(name, ..)| *name == suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let length = whole.len() + fraction.len();
    if length == 0 || length > 18 || fraction.contains('.') {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10i128.pow(u32::try_from(fraction.len()).ok()?);
    digits.checked_mul(multiply)?.checked_mul(NANOS)?.checked_div(divide * scale)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().expect("a quantity")
    }

    #[test]
    fn compares_by_value_whatever_the_unit() {
        assert_eq!(quantity("1024Mi"), quantity("1Gi"));
        assert_eq!(quantity("500m"), quantity("0.5"));
        assert_eq!(quantity("500m"), quantity(".5"));
        assert!(quantity("1M") < quantity("1Mi"));
        assert!(quantity("999m") < quantity("1"));
        assert!(quantity("1Ei") > quantity("1E"));
    }

    #[test]
    fn keeps_the_text_it_was_written_as() {
        assert_eq!(quantity("1024Mi").to_string(), "1024Mi");
    }

    #[test]
    fn refuses_what_kubernetes_would_refuse() {
        for text in ["", "m", ".", "64mb", "64 Mi", "-1", "1..5", "1.5.2", "64MiB", "ten"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn notices_a_forgotten_unit_of_memory() {
        assert!(quantity("256").is_under_a_mebibyte());
        assert!(quantity("64m").is_under_a_mebibyte());
        assert!(!quantity("1Mi").is_under_a_mebibyte());
    }
}
