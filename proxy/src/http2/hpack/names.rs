//! The names that the encoder knows: where the static table has them, and how their values are sent.

use super::static_table::STATIC_TABLE;

/// How a field is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// It comes again: it gets a place in the dynamic table.
    Repeats,
    /// It differs from message to message, and would only drive others out of the table.
    Varies,
    /// Who shares the connection could guess it by the table's answers (RFC 7541 §7.1.3): no hop ever indexes it.
    Sensitive,
}

/// Sensitive whatever their value is. A bearer token is sent whole each time: copying it costs less than
/// explaining to its owner that it stays in a table which other users of the connection can ask.
const SENSITIVE: [&[u8]; 3] = [b"authorization", b"proxy-authorization", b"set-cookie"];

/// A cookie shorter than this could be guessed; the bound is that of nghttp2.
const GUESSABLE_COOKIE: usize = 20;

/// Names whose values differ from message to message. Those that the static table doesn't have come after.
const VARIES: [&[u8]; 35] = [
    b"age",
    b"content-length",
    b"content-range",
    b"date",
    b"etag",
    b"expires",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"last-modified",
    b"location",
    b"range",
    b"retry-after",
    b"b3",
    b"grpc-timeout",
    b"grpc-trace-bin",
    b"server-timing",
    b"traceparent",
    b"tracestate",
    b"uber-trace-id",
    b"x-amzn-trace-id",
    b"x-b3-parentspanid",
    b"x-b3-spanid",
    b"x-b3-traceid",
    b"x-cloud-trace-context",
    b"x-correlation-id",
    b"x-datadog-parent-id",
    b"x-datadog-trace-id",
    b"x-envoy-upstream-service-time",
    b"x-ot-span-context",
    b"x-request-id",
    b"x-request-start",
    b"x-response-time",
];
/// How many of them the static table has.
const VARIES_STATIC: usize = 15;

/// Distinct names in the static table, and all that are known.
const STATIC_NAMES: usize = 52;
const NAMES: usize = STATIC_NAMES + VARIES.len() - VARIES_STATIC;

/// A name that the encoder knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    name: &'static [u8],
    /// Its first entry in the static table; 0 where it has none.
    pub(super) index: u8,
    /// How many entries in a row have it.
    entries: u8,
    habit: Habit,
}

impl Known {
    /// Index of the static table's entry with this value.
    #[inline]
    pub(super) fn with_value(&self, value: &[u8]) -> Option<usize> {
        let first = usize::from(self.index);
        (first..first + usize::from(self.entries)).find(|index| STATIC_TABLE[index - 1].1 == value)
    }

    /// How to send it with this value.
    #[inline]
    pub(super) fn habit(&self, value: &[u8]) -> Habit {
        match self.index {
            PATH if memchr::memchr(b'?', value).is_some() => Habit::Varies,
            COOKIE if value.len() < GUESSABLE_COOKIE => Habit::Sensitive,
            _ => self.habit,
        }
    }
}

const PATH: u8 = 4;
const COOKIE: u8 = 32;

/// The name, if it is known.
#[inline]
pub(super) fn find(name: &[u8]) -> Option<&'static Known> {
    if name.is_empty() {
        return None;
    }
    let known = &KNOWN[usize::from(SLOTS[slot(name, MULTIPLIER)])];
    (known.name == name).then_some(known)
}

const SLOT_BITS: u32 = 9;

/// Length, first, middle and last octet tell all known names apart; this multiplier also keeps them apart in
/// so few slots.
const MULTIPLIER: u32 = multiplier();

static KNOWN: [Known; NAMES] = KNOWN_NAMES;
const KNOWN_NAMES: [Known; NAMES] = known_names();

/// Where the name with this slot is in `KNOWN`; slots without a name lead to just any.
static SLOTS: [u8; 1 << SLOT_BITS] = slots();

/// `name` is not empty.
#[inline]
const fn slot(name: &[u8], multiplier: u32) -> usize {
    let key = [name.len() as u8, name[0], name[name.len() / 2], name[name.len() - 1]];
    (u32::from_le_bytes(key).wrapping_mul(multiplier) >> (u32::BITS - SLOT_BITS)) as usize
}

const fn multiplier() -> u32 {
    let mut candidate: u32 = 0x9e37_79b1;
    loop {
        let mut taken = [false; 1 << SLOT_BITS];
        let mut place = 0;
        while place < NAMES {
            let slot = slot(KNOWN_NAMES[place].name, candidate);
            if taken[slot] {
                break;
            }
            taken[slot] = true;
            place += 1;
        }
        if place == NAMES {
            return candidate;
        }
        candidate = candidate.wrapping_mul(0x915f_77f5) | 1;
    }
}

const fn slots() -> [u8; 1 << SLOT_BITS] {
    let mut slots = [0; 1 << SLOT_BITS];
    let mut place = 0;
    while place < NAMES {
        slots[slot(KNOWN_NAMES[place].name, MULTIPLIER)] = place as u8;
        place += 1;
    }
    slots
}

const fn known_names() -> [Known; NAMES] {
    let mut known = [Known { name: b"", index: 0, entries: 0, habit: Habit::Varies }; NAMES];
    let mut count = 0;
    let mut place = 0;
    while place < STATIC_TABLE.len() {
        let name = STATIC_TABLE[place].0;
        if count > 0 && same(known[count - 1].name, name) {
            known[count - 1].entries += 1;
        } else {
            let habit = if contains(&SENSITIVE, name) {
                Habit::Sensitive
            } else if contains(&VARIES, name) {
                Habit::Varies
            } else {
                Habit::Repeats
            };
            known[count] = Known { name, index: place as u8 + 1, entries: 1, habit };
            count += 1;
        }
        place += 1;
    }
    assert!(count == STATIC_NAMES);
    let mut place = VARIES_STATIC;
    while place < VARIES.len() {
        known[count] = Known { name: VARIES[place], index: 0, entries: 0, habit: Habit::Varies };
        count += 1;
        place += 1;
    }
    assert!(count == NAMES);
    known
}

const fn contains(names: &[&[u8]], name: &[u8]) -> bool {
    let mut place = 0;
    while place < names.len() {
        if same(names[place], name) {
            return true;
        }
        place += 1;
    }
    false
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut place = 0;
    while place < one.len() {
        if one[place] != other[place] {
            return false;
        }
        place += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_static_entry_is_found_by_name_and_value() {
        for (place, (name, value)) in STATIC_TABLE.iter().enumerate() {
            let known = find(name).expect("a static name");
            assert_eq!(known.name, *name);
            assert_eq!(known.with_value(value), Some(place + 1));
            assert_eq!(STATIC_TABLE[usize::from(known.index) - 1].0, *name);
            assert_eq!(known.with_value(b"no such value"), None);
        }
    }

    #[test]
    fn names_that_vary_are_found_and_have_the_static_index_they_should() {
        for (place, name) in VARIES.iter().enumerate() {
            let known = find(name).expect("a known name");
            assert_eq!(known.habit(b"1"), Habit::Varies);
            assert_eq!(known.index > 0, place < VARIES_STATIC, "{}", String::from_utf8_lossy(name));
        }
    }

    #[test]
    fn names_that_are_not_known_are_not_found() {
        for name in [&b""[..], b"x", b"x-user", b"content-typo", b"Content-Type", b":pbth", &[b'a'; 300]] {
            assert!(find(name).is_none(), "{}", String::from_utf8_lossy(name));
        }
    }

    #[test]
    fn credentials_and_guessable_cookies_are_sensitive() {
        let habit = |name: &[u8], value: &[u8]| find(name).expect("a known name").habit(value);
        assert_eq!(habit(b"authorization", b"Bearer of a long token"), Habit::Sensitive);
        assert_eq!(habit(b"proxy-authorization", b"Basic YTpi"), Habit::Sensitive);
        assert_eq!(habit(b"set-cookie", b"session=0123456789abcdef0123456789abcdef"), Habit::Sensitive);
        assert_eq!(habit(b"cookie", b"lang=en; theme=dark"), Habit::Sensitive);
        assert_eq!(habit(b"cookie", b"lang=en; theme=light"), Habit::Repeats);
    }

    #[test]
    fn a_path_repeats_unless_it_has_a_query() {
        let path = find(b":path").expect("a known name");
        assert_eq!(path.habit(b"/cart.Cart/Add"), Habit::Repeats);
        assert_eq!(path.habit(b"/search?q=1"), Habit::Varies);
    }
}
