//! Deadlines that a request brings along: gRPC's `grpc-timeout`, our `ferrule-deadline`, and Envoy's
//! `x-envoy-expected-rq-timeout-ms`. Each is read, and passed on with what is left of it. Pure.

use std::time::{Duration, Instant};

use ferrule_config::names::DEADLINE_HEADER;

const GRPC: &str = "grpc-timeout";
const ENVOY: &str = "x-envoy-expected-rq-timeout-ms";
/// Nothing is waited for longer.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Fields that tell of a deadline.
pub const NAMES: [&str; 3] = [GRPC, DEADLINE_HEADER, ENVOY];

/// Whether a field of this name, in any case, tells of a deadline. Most are told apart by their length.
#[must_use]
pub fn is_deadline(name: &[u8]) -> bool {
    matches!(name.len(), 12 | 16 | 30) && NAMES.iter().any(|each| name.eq_ignore_ascii_case(each.as_bytes()))
}

/// When the time of a request with these fields is over, counted from `now`: the earliest that they say. What can't be read
/// says nothing.
#[must_use]
pub fn of<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>, now: Instant) -> Option<Instant> {
    let left = fields.filter(|(name, _)| is_deadline(name)).filter_map(|(name, value)| {
        let text = std::str::from_utf8(value).ok()?;
        if name.eq_ignore_ascii_case(GRPC.as_bytes()) { grpc(text) } else { millis(text) }
    });
    left.min().map(|left| now + left.min(LONGEST))
}

/// What a field of this name, in lower case, says when so much is left.
#[must_use]
pub fn written(name: &str, left: Duration) -> String {
    if name != GRPC {
        return left.as_millis().to_string();
    }
    // At most eight digits (gRPC over HTTP/2, Requests).
    const MOST: u128 = 99_999_999;
    match (left.as_micros(), left.as_millis()) {
        (micros, _) if micros <= MOST => format!("{micros}u"),
        (_, millis) if millis <= MOST => format!("{millis}m"),
        _ => format!("{}S", left.as_secs().min(99_999_999)),
    }
}

fn millis(text: &str) -> Option<Duration> {
    digits(text, 12).map(Duration::from_millis)
}

/// One to eight digits and a unit.
fn grpc(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = digits(number, 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

fn digits(text: &str, most: usize) -> Option<u64> {
    let is_number = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn left(fields: &[(&str, &str)]) -> Option<Duration> {
        let now = Instant::now();
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        of(fields, now).map(|at| at - now)
    }

    #[test]
    fn each_field_is_read_and_the_earliest_counts() {
        for (text, expected) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("4S", Duration::from_secs(4)),
            ("1500m", Duration::from_millis(1500)),
            ("499813u", Duration::from_micros(499_813)),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("0m", Duration::ZERO),
        ] {
            assert_eq!(left(&[("grpc-timeout", text)]), Some(expected), "{text}");
        }
        assert_eq!(left(&[("Ferrule-Deadline", "1500")]), Some(Duration::from_millis(1500)));
        assert_eq!(left(&[("x-envoy-expected-rq-timeout-ms", "15")]), Some(Duration::from_millis(15)));
        assert_eq!(
            left(&[("grpc-timeout", "2S"), ("a", "1"), ("ferrule-deadline", "50")]),
            Some(Duration::from_millis(50))
        );
    }

    #[test]
    fn what_can_not_be_read_says_nothing() {
        for text in ["", "S", "1", "1s", "123456789S", "-1S", "1.5S", "ä", "1ä"] {
            assert_eq!(left(&[("grpc-timeout", text)]), None, "{text}");
        }
        for text in ["", "1s", "-5", "1e3", "1234567890123"] {
            assert_eq!(left(&[("ferrule-deadline", text)]), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_never_more_than_was_left(micros in 0..1_000_000_000_000_000u64) {
            let time = Duration::from_micros(micros);
            for name in NAMES {
                let text = written(name, time);
                let read = left(&[(name, &text)]).expect("readable");
                prop_assert!(read <= time, "{} of {:?}", text, time);
                prop_assert!(time.min(LONGEST) - read.min(LONGEST) < Duration::from_secs(1), "{} of {:?}", text, time);
            }
        }

        #[test]
        fn no_bytes_break_it(name: Vec<u8>, value: Vec<u8>) {
            let _ = of([(&name[..], &value[..]), (b"grpc-timeout", &value[..])].into_iter(), Instant::now());
        }
    }
}
