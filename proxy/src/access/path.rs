//! What a path means, if all who read it agree on that.
//!
//! A policy and an application that read a path in different ways are a hole: `//admin`, `/./admin`, `/x/../admin`,
//! `/%61dmin`, `/admin;x`, `\admin` are `/admin` to one server and something else to another. Paths are forwarded as they
//! came, so what can be read in two ways is not guessed at: it has no meaning here, and [`Policy`](super::Policy) lets it
//! meet no condition of `allow` and every one of `deny`.

use std::borrow::Cow;

/// What a path means: the path with its percent-encoded octets decoded; nothing if it can be read in two ways.
///
/// Read in two ways can be: what does not begin with a slash; an empty segment, but for the end; the segments `.` and `..`;
/// a backslash; a semicolon, behind which some servers see parameters; control characters; and of what is percent-encoded:
/// slashes, backslashes, semicolons, control characters, letters, digits and `-._~`, which nobody has to encode (RFC 3986 §2.3), what
/// begins another encoded octet when it is decoded (`%2561`), and what is no UTF-8.
#[must_use]
pub fn meaning(path: &str) -> Option<Cow<'_, str>> {
    let decoded = decode(path)?;
    let mut segments = decoded.strip_prefix('/')?.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if matches!(segment, "." | "..") || (segment.is_empty() && !last) {
            return None;
        }
    }
    Some(decoded)
}

fn decode(path: &str) -> Option<Cow<'_, str>> {
    let plain = |byte: u8| !byte.is_ascii_control() && !matches!(byte, b'\\' | b';');
    let bytes = path.as_bytes();
    if !bytes.iter().all(|&byte| plain(byte)) {
        return None;
    }
    if !bytes.contains(&b'%') {
        return Some(Cow::Borrowed(path));
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let octet = octet(rest)?;
        let needless = octet.is_ascii_alphanumeric() || b"-._~".contains(&octet);
        if needless || !plain(octet) || octet == b'/' {
            return None;
        }
        rest = &rest[2..];
        if octet == b'%' && self::octet(rest).is_some() {
            return None;
        }
        decoded.push(octet);
    }
    // What is encoded on both sides of a part that is not would make one octet of three.
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

/// The octet whose two digits stand at the front.
fn octet(text: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let [high, low, ..] = text else { return None };
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_can_be_read_in_one_way_only_means_that() {
        for (path, expected) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a/b.c/..d/e..", "/a/b.c/..d/e.."),
            ("/a%20b", "/a b"),
            ("/caf%C3%A9", "/café"),
            ("/caf%c3%a9", "/café"),
            ("/café", "/café"),
            ("/a%3Fb", "/a?b"),
            ("/100%25", "/100%"),
            ("/100%25/x", "/100%/x"),
            ("/a%21b", "/a!b"),
            ("/a+b@c:d,e=f&g'(h)*$", "/a+b@c:d,e=f&g'(h)*$"),
            ("/...", "/..."),
        ] {
            assert_eq!(meaning(path).as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_means_nothing() {
        for path in [
            "",
            "*",
            "a",
            "a:80",
            "//",
            "//admin",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/./admin",
            "/x/../admin",
            "/x/./y",
            "/x/..",
            "/x/.",
            "/%2e/admin",
            "/%2E%2e/admin",
            "/.%2e/admin",
            "/%61dmin",
            "/admi%6E",
            "/%2dx",
            "/a%7eb",
            "/a%2Fb",
            "/a%2fb",
            "/%2F",
            "\\admin",
            "/\\admin",
            "/a\\..\\b",
            "/a%5Cb",
            "/admin;x=y",
            "/;/admin",
            "/admin;",
            "/admin%3Bx",
            "/a%3b",
            "/a%00",
            "/a%0a",
            "/a%7F",
            "/a\u{7f}",
            "/%",
            "/%4",
            "/%zz",
            "/a%2",
            "/%2561dmin",
            "/%252e%252e/",
            "/%25%36",
            "/%c0%ae",
            "/%e0%80%ae",
            "/%ff",
            "/%C3",
            "/%C3x%A9",
            "/%+1",
            "/% 1",
        ] {
            // `%25%36` is encoded needlessly in its second part.
            assert_eq!(meaning(path), None, "{path}");
        }
    }

    proptest! {
        /// No path that means something has a second one that means the same to a server that reads more into it.
        #[test]
        fn a_meaning_has_no_other_reading(path in "/([a-c./;%\\\\]|%2e|%2F|%61|%25|%41|%5c|%20){0,12}") {
            if let Some(meaning) = meaning(&path) {
                let segments: Vec<_> = meaning[1..].split('/').collect();
                let (last, others) = segments.split_last().expect("one at least");
                prop_assert!(others.iter().all(|segment| !segment.is_empty()));
                prop_assert!(![last].into_iter().chain(others).any(|segment| matches!(*segment, "." | "..")));
                prop_assert!(!meaning.contains('\\'));
                prop_assert!(!path.contains(';'));
                // The structure is that of the path as it came.
                prop_assert_eq!(meaning.matches('/').count(), path.matches('/').count());
            }
        }

        #[test]
        fn nothing_panics(path in "\\PC{0,40}") {
            let _ = meaning(&path);
        }
    }
}
