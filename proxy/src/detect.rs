//! What protocol a client speaks, told from its first bytes: pure.

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// The HTTP/2 connection preface (RFC 9113 §3.4).
    Http2,
    /// A TLS record with a handshake.
    Tls,
    /// Something else.
    Opaque,
    /// Too few bytes to tell.
    Undecided,
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The methods of RFC 9110 and PATCH (RFC 5789): with a space and a path after it, no other protocol begins so.
const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH "];
/// A request line with an unknown method is followed this far to see whether it ends in an HTTP version.
const LONGEST_LINE: usize = 8 * 1024;
/// No method is longer.
const LONGEST_METHOD: usize = 32;

/// Whether a server's first bytes are the header of the SETTINGS frame with which HTTP/2 begins (RFC 9113 §3.4). Such
/// a server speaks before its client, and its client speaks without waiting for it.
#[must_use]
pub fn greets_in_http2(bytes: &[u8]) -> bool {
    matches!(bytes, [0, 0..=0x40, length, 4, 0, 0, 0, 0, 0, ..] if length.is_multiple_of(6) || bytes[1] > 0)
}

/// Tells the protocol from the bytes that a client has sent so far.
#[must_use]
pub fn detect(bytes: &[u8]) -> Verdict {
    if bytes.is_empty() {
        return Verdict::Undecided;
    }
    if bytes[0] == 0x16 {
        // ContentType handshake, then the legacy version 3.x (RFC 8446 §5.1).
        return match bytes.get(1) {
            None => Verdict::Undecided,
            Some(3) => Verdict::Tls,
            Some(_) => Verdict::Opaque,
        };
    }
    if bytes.starts_with(HTTP2_PREFACE) {
        return Verdict::Http2;
    }
    if HTTP2_PREFACE.starts_with(bytes) {
        return Verdict::Undecided;
    }
    if let Some(target) = METHODS.iter().find_map(|method| bytes.strip_prefix(*method)) {
        return match target.first() {
            None => Verdict::Undecided,
            Some(b'/' | b'*') => Verdict::Http1,
            // Absolute or authority form, or a line of another protocol that begins like a request.
            Some(_) => by_request_line(bytes),
        };
    }
    if METHODS.iter().any(|method| method.starts_with(bytes)) {
        return Verdict::Undecided;
    }
    by_request_line(bytes)
}

/// An extension method, or another text protocol: the end of the line tells.
fn by_request_line(bytes: &[u8]) -> Verdict {
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let method = line.split(|&byte| byte == b' ').next().unwrap_or_default();
    if method.is_empty()
        || !method.iter().all(|&byte| byte.is_ascii_uppercase() || byte == b'-' || byte == b'_')
    {
        return Verdict::Opaque;
    }
    // However the bytes arrive, the verdict is the same.
    if method.len() > LONGEST_METHOD || line.len() > LONGEST_LINE {
        return Verdict::Opaque;
    }
    if line.len() == bytes.len() {
        return Verdict::Undecided;
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") {
        Verdict::Http1
    } else {
        Verdict::Opaque
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_http2_is_known_by_its_greeting() {
        assert!(greets_in_http2(b"\0\0\x0c\x04\0\0\0\0\0"));
        assert!(!greets_in_http2(b"\0\0\x0c\x04"));
        assert!(!greets_in_http2(b"\0\0\x0c\x04\x01\0\0\0\0"));
        assert!(!greets_in_http2(b"220 smtp.example\r\n"));
        assert!(!greets_in_http2(b""));
    }

    #[test]
    fn tells_the_protocols_apart() {
        let cases: [(&[u8], Verdict); 18] = [
            (b"", Verdict::Undecided),
            (b"GET / HTTP/1.1\r\n", Verdict::Http1),
            (b"GE", Verdict::Undecided),
            (b"GET ", Verdict::Undecided),
            (b"GET http://a/ HTTP/1.1\r\n", Verdict::Http1),
            (b"GET is how this begins\r\n", Verdict::Opaque),
            (b"P", Verdict::Undecided),
            (b"PROPFIND /x HTTP/1.1\r\n", Verdict::Http1),
            (b"PROPFIND /x HT", Verdict::Undecided),
            (HTTP2_PREFACE, Verdict::Http2),
            (b"PRI * HT", Verdict::Undecided),
            (b"\x16\x03\x01", Verdict::Tls),
            (b"\x16", Verdict::Undecided),
            (b"PING\r\n", Verdict::Opaque),
            (b"EHLO me\r\n", Verdict::Opaque),
            (b"get key\r\n", Verdict::Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Verdict::Opaque),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Verdict::Opaque),
        ];
        for (bytes, verdict) in cases {
            assert_eq!(detect(bytes), verdict, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_verdict_is_never_taken_back_by_more_bytes() {
        for full in [&b"GET /a HTTP/1.1\r\n"[..], b"MKCOL /a HTTP/1.1\r\n", HTTP2_PREFACE, b"EHLO me\r\n"] {
            let verdict = detect(full);
            for end in 0..full.len() {
                let early = detect(&full[..end]);
                assert!(early == Verdict::Undecided || early == verdict, "{}", full[..end].escape_ascii());
            }
        }
    }
}
