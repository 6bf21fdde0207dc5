//! Request targets and authorities (RFC 9112 §3.2, RFC 3986 §3.2).

use super::HeadError;

/// Which of the four forms a request target has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'a> {
    /// `/path?query`.
    Origin,
    /// `scheme://authority/path?query`.
    Absolute {
        /// Host and maybe port.
        authority: &'a str,
        /// Path and query; may be empty.
        after: &'a str,
    },
    /// `host:port`, with CONNECT alone.
    Authority,
    /// `*`, with OPTIONS alone.
    Asterisk,
}

/// The form of a target that goes with this method.
///
/// # Errors
/// [`HeadError::Malformed`] for a target that has none of the forms, or one that the method must not have.
pub(super) fn form<'a>(method: &str, target: &'a str) -> Result<Form<'a>, HeadError> {
    // The parser lets through all that is visible; a fragment is none of the target (RFC 9112 §3.2).
    if target.bytes().any(|byte| !byte.is_ascii() || byte == b'#') {
        return Err(HeadError::Malformed("invalid character in the request target"));
    }
    if method == "CONNECT" {
        let (_, port) = target.rsplit_once(':').unwrap_or((target, ""));
        let whole = !port.is_empty() && !target.starts_with(':') && is_authority(target.as_bytes());
        return if whole { Ok(Form::Authority) } else { Err(HeadError::Malformed("target of CONNECT")) };
    }
    if target.starts_with('/') {
        return Ok(Form::Origin);
    }
    if target == "*" {
        return match method {
            "OPTIONS" => Ok(Form::Asterisk),
            _ => Err(HeadError::Malformed("target * with a method other than OPTIONS")),
        };
    }
    absolute(target).ok_or(HeadError::Malformed("request target has none of the four forms"))
}

fn absolute(target: &str) -> Option<Form<'_>> {
    let (scheme, rest) = target.split_once("://")?;
    let mut letters = scheme.bytes();
    let named = letters.next()?.is_ascii_alphabetic()
        && letters.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let (authority, after) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // RFC 9110 §4.2.4: a user before the host is there to mislead.
    (named && is_authority(authority.as_bytes())).then_some(Form::Absolute { authority, after })
}

/// Whether this is a host, not empty, and maybe a port.
#[must_use]
pub fn is_authority(authority: &[u8]) -> bool {
    let (host, port) = if authority.first() == Some(&b'[') {
        let Some(end) = authority.iter().position(|&byte| byte == b']') else { return false };
        let address = &authority[1..end];
        let valid = address.contains(&b':')
            && address.iter().all(|&byte| byte.is_ascii_hexdigit() || b":.".contains(&byte));
        if !valid {
            return false;
        }
        (&authority[..=end], &authority[end + 1..])
    } else {
        let end = authority.iter().position(|&byte| byte == b':').unwrap_or(authority.len());
        let (host, port) = authority.split_at(end);
        if !is_name(host) {
            return false;
        }
        (host, port)
    };
    !host.is_empty() && is_port(port)
}

/// Nothing, or a colon and a number of 16 bits.
fn is_port(port: &[u8]) -> bool {
    match port {
        [] => true,
        [b':', digits @ ..] => {
            let number = digits.iter().try_fold(0u32, |number, byte| match byte {
                b'0'..=b'9' => Some(number * 10 + u32::from(byte - b'0')).filter(|&n| n <= 65_535),
                _ => None,
            });
            number.is_some()
        }
        _ => false,
    }
}

/// A registered name or an IPv4 address: unreserved characters, sub-delimiters, percent-encoded octets.
fn is_name(host: &[u8]) -> bool {
    let mut rest = host;
    loop {
        rest = match rest {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest,
            [byte, rest @ ..] if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte) => rest,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_and_maybe_a_port() {
        for good in ["a", "a:80", "a.b_c-d", "127.0.0.1:1", "[::1]", "[::1]:65535", "a:", "x%20y"] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a:b", "a:65536", "a:1:2", "u@a", "a b", "a/b", "[::1", "[]", "[x]", "[::1]x", "%2",
            "a\\b", "ä",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn each_form_goes_with_its_methods() {
        assert_eq!(form("GET", "/a#"), Err(HeadError::Malformed("invalid character in the request target")));
        assert_eq!(form("GET", "/a"), Ok(Form::Origin));
        assert_eq!(form("OPTIONS", "*"), Ok(Form::Asterisk));
        assert_eq!(form("CONNECT", "a:1"), Ok(Form::Authority));
        let absolute = Form::Absolute { authority: "a:1", after: "?x" };
        assert_eq!(form("GET", "http://a:1?x"), Ok(absolute));
        for (method, target) in [
            ("GET", "*"),
            ("GET", "a:1"),
            ("GET", "a"),
            ("GET", "//"),
            ("GET", "http:/a"),
            ("GET", "http://"),
            ("GET", "http://u@a/"),
            ("GET", "1http://a/"),
            ("OPTIONS", "**"),
            ("CONNECT", "/"),
            ("CONNECT", "a"),
            ("CONNECT", "a:"),
            ("CONNECT", ":1"),
            ("CONNECT", "http://a:1/"),
        ] {
            assert_eq!(form(method, target).is_err(), target != "//", "{method} {target}");
        }
    }
}
