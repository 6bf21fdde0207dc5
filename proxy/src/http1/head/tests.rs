//! Heads as RFC 9110 and RFC 9112 have them, and as they must not be.

use super::*;

/// The framing of a request with these lines after `Host`, or why it is refused.
fn framing(lines: &str) -> Result<Framing, HeadError> {
    let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let mut space = field_space();
    let (head, length) = request(bytes.as_bytes(), &mut space)?.expect("it is complete");
    assert_eq!(length, bytes.len());
    Ok(head.framing)
}

fn refused(bytes: &[u8]) -> bool {
    request(bytes, &mut field_space()).is_err()
}

#[test]
fn one_framing_or_none() {
    use Framing::{Chunked, Length, None};
    for (lines, expected) in [
        ("", Ok(None)),
        ("Content-Length: 0\r\n", Ok(Length(0))),
        ("content-length: 12\r\n", Ok(Length(12))),
        ("Transfer-Encoding: chunked\r\n", Ok(Chunked)),
        ("Transfer-Encoding: Chunked\r\n", Ok(Chunked)),
    ] {
        assert_eq!(framing(lines), expected, "{lines}");
    }
    for lines in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: a\r\n b\r\n",
        "X: a\nY: b\r\n",
        "X: a\rY: b\r\n",
        "X: a\0b\r\n",
        "X y: a\r\n",
        ": a\r\n",
        "Host: b\r\n",
    ] {
        assert!(framing(lines).is_err(), "{}", lines.escape_debug());
    }
}

#[test]
fn a_request_line_is_taken_by_the_letter() {
    for bytes in [
        &b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET / http/1.1\r\nHost: a\r\n\r\n",
        b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert!(refused(bytes), "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_head_that_never_ends_is_refused() {
    let bytes = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ".as_slice(), &vec![b'x'; MAX_HEAD]].concat();
    assert_eq!(request(&bytes, &mut field_space()).err(), Some(HeadError::TooLarge));
    let many: String = (0..MAX_FIELDS).map(|n| format!("x{n}: y\r\n")).collect();
    assert_eq!(framing(&many), Err(HeadError::TooManyFields));
}

#[test]
fn the_path_is_found_in_every_form_of_the_target() {
    for (target, path) in [
        ("/a/b?c=d", "/a/b"),
        ("/", "/"),
        ("http://host/a?b", "/a"),
        ("http://host", "/"),
        ("http://host?x", "/"),
        ("/redirect?to=http://host/x", "/redirect"),
        ("/http://x", "/http://x"),
        ("*", "*"),
    ] {
        let method = if target == "*" { "OPTIONS" } else { "GET" };
        let bytes = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut space = field_space();
        let (head, _) = request(bytes.as_bytes(), &mut space).expect("valid").expect("complete");
        assert_eq!(head.path(), path, "{target}");
    }
}

fn response_framing(bytes: &str, to_head: bool, to_connect: bool) -> Result<Framing, HeadError> {
    let mut space = field_space();
    let (head, _) = response(bytes.as_bytes(), &mut space, to_head, to_connect)?.expect("complete");
    Ok(head.framing)
}

#[test]
fn a_response_is_held_to_the_same_standard() {
    for (bytes, head, connect, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, false, Framing::Length(5)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, false, Framing::None),
        ("HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", false, false, Framing::None),
        ("HTTP/1.1 204 x\r\n\r\n", false, false, Framing::None),
        ("HTTP/1.1 101 x\r\nUpgrade: x\r\n\r\n", false, false, Framing::None),
        ("HTTP/1.1 200 OK\r\n\r\n", false, false, Framing::Close),
        ("HTTP/1.1 200 OK\r\n\r\n", false, true, Framing::None),
        ("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", false, false, Framing::Chunked),
    ] {
        assert_eq!(response_framing(bytes, head, connect), Ok(expected), "{bytes}");
    }
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 99 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nX: y\n\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
    ] {
        assert!(response_framing(bytes, false, false).is_err(), "{}", bytes.escape_debug());
    }
}

#[test]
fn persistence_follows_version_and_connection_field() {
    for (line, options, expected) in [
        ("HTTP/1.1", "", true),
        ("HTTP/1.1", "Connection: close\r\n", false),
        ("HTTP/1.1", "Connection: x, Close\r\n", false),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "Connection: keep-alive\r\n", true),
    ] {
        let bytes = format!("GET / {line}\r\nHost: a\r\n{options}\r\n");
        let mut space = field_space();
        let (head, _) = request(bytes.as_bytes(), &mut space).expect("valid").expect("complete");
        assert_eq!(head.keep_alive, expected, "{line} {options}");
    }
}
