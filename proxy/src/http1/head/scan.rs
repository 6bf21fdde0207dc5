//! Line ends of a head.

use super::HeadError;

/// Looks for the end of a head in bytes that arrive in pieces, and looks at each of them once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// Bytes that were looked at.
    seen: usize,
    /// Length of the first line, once its end was seen.
    first_line: Option<usize>,
    /// Bytes there were when the incomplete head was last parsed.
    parsed: usize,
}

impl Scan {
    /// Whether the head that begins these bytes can be judged: its end is there, or a line end that no head may
    /// have. `bytes` are those of the last call and maybe more.
    pub fn is_decidable(&mut self, bytes: &[u8]) -> bool {
        // Nearly always: one head, and nothing after it.
        if bytes.ends_with(b"\r\n\r\n") {
            return true;
        }
        for at in memchr::memchr_iter(b'\n', &bytes[self.seen..]) {
            let at = self.seen + at;
            self.first_line.get_or_insert(at);
            let ends = at >= 3 && &bytes[at - 3..at] == b"\r\n\r";
            if ends || at == 0 || bytes[at - 1] != b'\r' {
                return true;
            }
        }
        self.seen = bytes.len();
        false
    }

    /// Whether an incomplete head is to be parsed for errors: each time when it has doubled, so that what never will
    /// be a head is refused at once, and one that comes byte by byte costs little.
    pub fn is_due(&mut self, bytes: &[u8]) -> bool {
        let due = bytes.len() > 2 * self.parsed;
        if due {
            self.parsed = bytes.len();
        }
        due
    }

    /// Length of the first line as far as it was seen.
    #[must_use]
    pub fn first_line(&self) -> usize {
        self.first_line.unwrap_or(self.seen)
    }
}

/// The parser takes a bare LF for a line end, and skips empty lines before the start line; a stricter or laxer
/// hop would see another message. Every line must end in CR LF and the first must not be empty.
pub(super) fn strict_lines(head: &[u8]) -> Result<(), HeadError> {
    if matches!(head.first(), Some(b'\r' | b'\n')) {
        return Err(HeadError::Malformed("empty line before the start line"));
    }
    // The first byte is none, so every LF has a byte before it.
    if memchr::memchr_iter(b'\n', head).any(|at| head[at - 1] != b'\r') {
        return Err(HeadError::Malformed("line ends in a bare LF"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_however_the_bytes_arrive() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\n";
        let end = 27;
        for step in 1..bytes.len() {
            let mut scan = Scan::default();
            let mut length = 0;
            while !scan.is_decidable(&bytes[..length]) {
                assert!(length < bytes.len(), "found with steps of {step}");
                length = (length + step).min(bytes.len());
            }
            assert!(length >= end && length < end + step, "{length} with steps of {step}");
        }
    }

    #[test]
    fn a_line_end_that_no_head_has_decides_at_once() {
        for bytes in [&b"\n"[..], b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nHost: a\nX"] {
            assert!(Scan::default().is_decidable(bytes), "{}", bytes.escape_ascii());
        }
        assert!(!Scan::default().is_decidable(b"GET / HTTP/1.1\r\nHost: a\r\n"));
    }

    #[test]
    fn the_first_line_is_measured() {
        let mut scan = Scan::default();
        assert!(!scan.is_decidable(b"GET /aaa"));
        assert_eq!(scan.first_line(), 8);
        assert!(!scan.is_decidable(b"GET /aaa HTTP/1.1\r\nHost: a"));
        assert_eq!(scan.first_line(), 18);
    }
}
