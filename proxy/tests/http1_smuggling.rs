//! Malformed and smuggling messages, each with the section that forbids it, through the real proxy: what the client
//! gets, and that the other side never sees what was hidden.

mod http1_harness;
mod support;

use std::time::Duration;

use http1_harness::{Ended, Endpoint, Script, eventually, outbound, show};

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Request {
    /// This status, the end of the connection, and not a byte for the endpoint.
    Refused(u16),
    /// The endpoint sees exactly this.
    Seen(&'static str),
}
use Request::{Refused, Seen};

/// Section, request, outcome. A hidden request for `/hidden` follows each that is refused, and must never arrive.
const REQUESTS: &[(&str, &str, Request)] = &[
    // The request line.
    ("9112 2.2", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Seen("GET / HTTP/1.1\r\nHost: a\r\n\r\n")),
    ("9112 2.2", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 2.2", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 2.2", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 2.2", "\tGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 2.2", "GET / HTTP/1.1\nHost: a\n\n", Refused(400)),
    ("9112 2.2", "GET / HTTP/1.1\r\nHost: a\n\r\n", Refused(400)),
    ("9112 2.2", "GET / HTTP/1.1\r\nHost: a\r\n\n", Refused(400)),
    ("9112 2.2", "GET / HTTP/1.1\rHost: a\r\r", Refused(400)),
    ("9112 2.2", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3", "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3", "GET / x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.1", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.1", "G\0T / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.1", "GET: / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.1", " / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9110 9.1", "BREW / HTTP/1.1\r\nHost: a\r\n\r\n", Seen("BREW / HTTP/1.1\r\nHost: a\r\n\r\n")),
    ("9110 9.1", "get / HTTP/1.1\r\nHost: a\r\n\r\n", Seen("get / HTTP/1.1\r\nHost: a\r\n\r\n")),
    ("9112 2.3", "GET /\r\n", Refused(400)),
    ("9112 2.3", "GET /\r\n\r\n", Refused(400)),
    ("9112 2.3", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", Refused(505)),
    ("9112 2.3", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", Refused(505)),
    ("9112 2.3", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", Refused(505)),
    ("9112 2.3", "GET / http/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 2.3", "GET / HTTP/1,1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 2.3", "GET / HTTP/11\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 2.3", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 2.3", "GET / HTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    // The target.
    ("9112 3.2", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET ../a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET ?a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET /\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.2.2", "GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.2.2", "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.2.2", "GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9110 4.2.4", "GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    (
        "9112 3.2.2",
        "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n",
        Seen("GET http://b/x HTTP/1.1\r\nHost: b\r\n\r\n"),
    ),
    ("9112 3.2.3", "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.2.3", "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.2.3", "CONNECT http://a:1/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9110 9.3.6", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", Refused(400)),
    (
        "9110 9.3.6",
        "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("9112 3.2.4", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.2.4", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Seen("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")),
    // Host.
    ("9112 3.2", "GET / HTTP/1.1\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", Refused(400)),
    ("9112 3.2", "GET / HTTP/1.1\r\nHost: [::1]:8\r\n\r\n", Seen("GET / HTTP/1.1\r\nHost: [::1]:8\r\n\r\n")),
    ("9112 3.2", "GET / HTTP/1.0\r\n\r\n", Seen("GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n")),
    // Fields.
    ("9112 5", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refused(400)),
    ("9112 5.1", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", Refused(400)),
    ("9112 5.1", "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", Refused(400)),
    ("9112 5.1", "GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n", Refused(400)),
    ("9112 5.1", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Refused(400)),
    ("9112 5.1", "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", Refused(400)),
    ("9112 5.1", "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", Refused(400)),
    ("9112 5.1", "GET / HTTP/1.1\r\nHost: a\r\nX\u{e4}: b\r\n\r\n", Refused(400)),
    ("9112 5.2", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", Refused(400)),
    ("9112 5.2", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n", Refused(400)),
    (
        "9112 5.2",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("9110 5.5", "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", Refused(400)),
    ("9110 5.5", "GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n", Refused(400)),
    ("9110 5.5", "GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n", Refused(400)),
    ("9110 5.5", "GET / HTTP/1.1\r\nHost: a\r\nX: \u{b}b\r\n\r\n", Refused(400)),
    ("9110 5.5", "GET / HTTP/1.1\r\nHost: a\r\nX: b\u{7f}\r\n\r\n", Refused(400)),
    (
        "9110 5.5",
        "GET / HTTP/1.1\r\nHost:a\r\nX:\t b \t\r\nY:\r\n\r\n",
        Seen("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\nY: \r\n\r\n"),
    ),
    // Content-Length.
    (
        "9112 6.3",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        Refused(400),
    ),
    (
        "9112 6.3",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\ncontent-length: 4\r\n\r\nabc",
        Refused(400),
    ),
    ("9112 6.3", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", Refused(400)),
    ("9112 6.3", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3,4\r\n\r\nabc", Refused(400)),
    ("9110 8.6", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", Refused(400)),
    ("9110 8.6", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc", Refused(400)),
    ("9110 8.6", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc", Refused(400)),
    ("9110 8.6", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 3\r\n\r\nabc", Refused(400)),
    ("9110 8.6", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3.0\r\n\r\nabc", Refused(400)),
    ("9110 8.6", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\nabc", Refused(400)),
    ("9110 8.6", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"3\"\r\n\r\nabc", Refused(400)),
    ("9110 8.6", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \u{663}\r\n\r\nabc", Refused(400)),
    (
        "9110 8.6",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\nabc",
        Refused(400),
    ),
    ("9112 11.2", "POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 3\r\n\r\nabc", Refused(400)),
    (
        "9110 8.6",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabc",
        Seen("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabc"),
    ),
    // Transfer-Encoding.
    (
        "9112 6.1",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 6.1",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 6.1",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 6.1",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("9112 6.1", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("9112 6.3", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (
        "9112 6.3",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("9112 6.3", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", Refused(400)),
    ("9112 6.3", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", Refused(400)),
    (
        "9112 6.3",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "9112 6.3",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("9112 6.3", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", Refused(400)),
    (
        "9112 6.1",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        Refused(501),
    ),
    (
        "9112 6.1",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        Refused(501),
    ),
    (
        "9112 7",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        Refused(501),
    ),
    ("9112 7", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", Refused(501)),
    (
        "9110 5.5",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("9112 5.1", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (
        "9112 5.1",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\u{b}: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("9112 11.2", "POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (
        "9112 7",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tCHUNKED \r\n\r\n2\r\nab\r\n0\r\n\r\n",
        Seen("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n2\r\nab\r\n0\r\n\r\n"),
    ),
    // Chunks. The table's head for all of them is `C`, see below.
    ("9112 7.1", "C+2\r\nab\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1", "C-2\r\nab\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1", "C0x2\r\nab\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1", "C 2\r\nab\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1", "C2 \r\nab\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1", "C2\t\r\nab\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1", "C2_0\r\nab\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1", "C\r\nab\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1", "Cg\r\nab\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1", "C2\nab\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1", "C2\rab\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1", "C2\r\nab\n0\r\n\r\n", Refused(400)),
    ("9112 7.1", "C2\r\nab0\r\n\r\n", Refused(400)),
    ("9112 7.1", "C2\r\nabc\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1", "C2\r\nab\r\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1", "C10000000000000002\r\nab\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1", "C00000000000000002\r\nab\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1.1", "C2;a=b\r\nab\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1.1", "C2;\r\nab\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1.1", "C2;a=\"\r\n\"\r\nab\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1.1", "C2;\nGET /hidden HTTP/1.1\r\nab\r\n0\r\n\r\n", Refused(400)),
    ("9112 7.1.1", "C0;a\r\n\r\n", Refused(400)),
    ("9112 7.1.2", "C0\r\n\nx", Refused(400)),
    ("9112 7.1.2", "C0\r\nno colon\r\n\r\n", Refused(400)),
    ("9112 7.1.2", "C0\r\nX : y\r\n\r\n", Refused(400)),
    ("9112 7.1.2", "C0\r\n X: y\r\n\r\n", Refused(400)),
    ("9112 7.1.2", "C0\r\nX: y\r\n z\r\n\r\n", Refused(400)),
    ("9112 7.1.2", "C0\r\nX: y\nZ: a\r\n\r\n", Refused(400)),
    ("9112 7.1.2", "C0\r\nX: y\0\r\n\r\n", Refused(400)),
    ("9110 6.5.1", "C0\r\nContent-Length: 5\r\n\r\n", Refused(400)),
    ("9110 6.5.1", "C0\r\ntransfer-encoding: chunked\r\n\r\n", Refused(400)),
    ("9110 6.5.1", "C0\r\nHost: b\r\n\r\n", Refused(400)),
    ("9110 6.5.1", "C0\r\nX: y\r\nAuthorization: b\r\n\r\n", Refused(400)),
    ("9110 6.5.1", "C0\r\nConnection: close\r\n\r\n", Refused(400)),
    ("9110 6.5.1", "C0\r\nTransfer_Encoding: chunked\r\n\r\n", Refused(400)),
    ("9112 7.1.2", "C1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n", Seen("C1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n")),
    ("9112 7.1", "C0002\r\nab\r\n000\r\n\r\n", Seen("C0002\r\nab\r\n000\r\n\r\n")),
    // Connection and Upgrade.
    (
        "9110 7.6.1",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length, host\r\nContent-Length: 2\r\n\r\nab",
        Seen("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"),
    ),
    (
        "9110 7.6.1",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Seen("C0\r\n\r\n"),
    ),
    (
        "9110 7.6.1",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\nProxy-Connection: 1\r\n\r\n",
        Seen("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ),
    (
        "9110 7.8",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        Seen("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ),
    (
        "9113 3.1",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        Seen("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ),
    (
        "9110 7.8",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nab",
        Seen("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"),
    ),
];

/// The head that `C` stands for.
const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
/// The endpoint closes after it, for a body may end as a head does.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn whole(text: &str) -> String {
    match text.strip_prefix('C') {
        Some(rest) if !rest.starts_with("ON") => format!("{CHUNKED}{rest}"),
        _ => text.to_owned(),
    }
}

#[tokio::test]
async fn a_request_is_understood_in_one_way_or_refused() {
    let endpoint = Endpoint::new(Script::AnswerAndClose(ANSWER.to_vec())).await;
    let proxy = outbound(&[endpoint.address], &[]).await;
    let mut wrong = Vec::new();
    for (section, text, outcome) in REQUESTS {
        let request = whole(text);
        let mut client = proxy.connect().await;
        client.send(request.as_bytes()).await;
        let complaint = match outcome {
            Refused(status) => {
                client.send(HIDDEN.as_bytes()).await;
                let (answer, ended) = client.until_end().await;
                let seen = endpoint.take_seen();
                let answer = String::from_utf8_lossy(&answer);
                let right = answer.starts_with(&format!("HTTP/1.1 {status} "))
                    && answer.contains("ferrule-error: ")
                    && answer.matches("HTTP/1.1 ").count() == 1
                    && ended == Ended::Closed
                    && seen.is_empty();
                (!right).then(|| format!("{answer:?} {ended:?}, endpoint saw {}", show(&seen)))
            }
            Seen(expected) => {
                let expected = whole(expected);
                let answer = client.until(b"ok").await;
                let answered = answer.starts_with(b"HTTP/1.1 200 OK\r\n");
                let seen = endpoint.take_seen();
                (!answered || seen != expected.as_bytes())
                    .then(|| format!("endpoint saw {}, client {}", show(&seen), show(&answer)))
            }
        };
        if let Some(complaint) = complaint {
            wrong.push(format!("RFC {section}: {text:?}\n    {outcome:?}\n    {complaint}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), REQUESTS.len(), wrong.join("\n"));
}

/// The same bytes, one at a time: how they arrive changes nothing of what they mean.
#[tokio::test]
async fn a_request_that_comes_in_pieces_means_the_same() {
    let endpoint = Endpoint::new(Script::AnswerAndClose(ANSWER.to_vec())).await;
    let proxy = outbound(&[endpoint.address], &[]).await;
    let refused = REQUESTS.iter().filter(|(_, _, outcome)| matches!(outcome, Refused(_)));
    let requests: Vec<_> = refused.collect();
    for (section, text, _) in requests.iter().step_by(7) {
        let mut client = proxy.connect().await;
        let bytes = format!("{}{HIDDEN}", whole(text));
        for byte in bytes.as_bytes() {
            client.send(&[*byte]).await;
            tokio::task::yield_now().await;
        }
        let (answer, ended) = client.until_end().await;
        let seen = endpoint.take_seen();
        let hidden = seen.windows(7).any(|seven| seven == b"/hidden");
        assert!(!hidden, "RFC {section}: {text:?}: endpoint saw {}", show(&seen));
        let answer = String::from_utf8_lossy(&answer);
        // What is wrong with a body may come after the endpoint has its beginning, and has answered: then that answer
        // is the last of the connection.
        let refused =
            answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5");
        let last = answer.matches("HTTP/1.1 ").count() == 1 && ended != Ended::Open;
        let head = whole(text).to_ascii_lowercase();
        let has_body = head.contains("content-length") || head.contains("transfer-encoding");
        assert!(refused || (last && has_body), "RFC {section}: {text:?}: {answer}");
    }
}

/// What becomes of a response.
#[derive(Clone, Copy, Debug)]
enum Response {
    /// 502, and not a byte of it.
    Bad,
    /// The client gets exactly this.
    Got(&'static str),
}
use Response::{Bad, Got};

const RESPONSES: &[(&str, &str, Response)] = &[
    // The status line.
    ("9112 4", "HTTP/1.1 99 x\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9112 4", "HTTP/1.1 2000 x\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9112 4", "HTTP/1.1 2x0 x\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9112 4", "HTTP/1.1  200 x\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9112 4", "HTTP/1.1 +200 x\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9112 4", "HTTP/2.0 200 x\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9112 4", "http/1.1 200 x\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9112 4", " HTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9112 4", "\r\nHTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9112 4", "ICY 200 OK\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9112 4", "<html>no head at all</html>", Bad),
    ("9112 4", "HTTP/1.1 200 a\0b\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9112 4", "HTTP/1.1 200 a\rb\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9112 2.2", "HTTP/1.1 200 x\nContent-Length: 0\n\n", Bad),
    ("9112 2.2", "HTTP/1.1 200 x\r\nContent-Length: 0\n\r\n", Bad),
    // Fields.
    ("9112 5.1", "HTTP/1.1 200 x\r\nContent-Length : 0\r\n\r\n", Bad),
    ("9112 5.1", "HTTP/1.1 200 x\r\n: a\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9112 5.1", "HTTP/1.1 200 x\r\nno colon\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9112 5.2", "HTTP/1.1 200 x\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9112 5", "HTTP/1.1 200 x\r\n X: a\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9110 5.5", "HTTP/1.1 200 x\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9110 5.5", "HTTP/1.1 200 x\r\nX: a\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n", Bad),
    ("9110 5.5", "HTTP/1.1 200 x\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n", Bad),
    // Framing.
    ("9112 6.3", "HTTP/1.1 200 x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Bad),
    ("9112 6.3", "HTTP/1.1 200 x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab", Bad),
    ("9112 6.3", "HTTP/1.1 200 x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab", Bad),
    ("9112 6.3", "HTTP/1.1 200 x\r\nContent-Length: 2, 2\r\n\r\nab", Bad),
    ("9110 8.6", "HTTP/1.1 200 x\r\nContent-Length: +2\r\n\r\nab", Bad),
    ("9110 8.6", "HTTP/1.1 200 x\r\nContent-Length: 18446744073709551616\r\n\r\nab", Bad),
    ("9110 8.6", "HTTP/1.1 200 x\r\nContent-Length:\r\n\r\nab", Bad),
    ("9112 6.1", "HTTP/1.1 200 x\r\nTransfer-Encoding: gzip\r\n\r\nab", Bad),
    ("9112 6.1", "HTTP/1.1 200 x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Bad),
    (
        "9112 6.1",
        "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Bad,
    ),
    ("9112 6.1", "HTTP/1.0 200 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Bad),
    ("9112 11.2", "HTTP/1.1 200 x\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n", Bad),
    ("9112 6.1", "HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Bad),
    ("9110 8.6", "HTTP/1.1 204 x\r\nContent-Length: 2\r\n\r\nab", Bad),
    (
        "9112 6.1",
        "HTTP/1.1 103 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n",
        Bad,
    ),
    ("9110 7.8", "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", Bad),
    // Content whose framing is wrong from the beginning.
    ("9112 7.1", "C+2\r\nab\r\n0\r\n\r\n", Bad),
    ("9112 7.1", "C0x2\r\nab\r\n0\r\n\r\n", Bad),
    ("9112 7.1.1", "C2;a\r\nab\r\n0\r\n\r\n", Bad),
    ("9112 7.1", "C2\nab\r\n0\r\n\r\n", Bad),
    ("9112 7.1", "C2\r\nabc\r\n0\r\n\r\n", Bad),
    ("9112 7.1", "Cffffffffffffffff1\r\nab\r\n0\r\n\r\n", Bad),
    ("9110 6.5.1", "C0\r\nContent-Length: 2\r\n\r\n", Bad),
    ("9110 6.5.1", "C0\r\nSet-Cookie: a\r\n\r\n", Bad),
    ("9112 7.1.2", "C0\r\nX: y\nZ: a\r\n\r\n", Bad),
    // And what is good.
    ("9110 8.6", "HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n", Got("HTTP/1.1 204 x\r\n\r\n")),
    (
        "9112 4",
        "HTTP/1.1 299\r\nContent-Length: 1\r\n\r\na",
        Got("HTTP/1.1 299 \r\nContent-Length: 1\r\n\r\na"),
    ),
    (
        "9110 15.2",
        "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 x\r\nContent-Length: 1\r\n\r\na",
        Got("HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 x\r\nContent-Length: 1\r\n\r\na"),
    ),
    ("9112 7.1.2", "C1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n", Got("C1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n")),
    (
        "9112 9.3",
        "HTTP/1.1 200 x\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 second\r\nContent-Length: 0\r\n\r\n",
        Got("HTTP/1.1 200 x\r\nContent-Length: 1\r\n\r\na"),
    ),
    (
        "9110 7.6.1",
        "HTTP/1.1 200 x\r\nConnection: x-hop, content-length\r\nX-Hop: 1\r\nContent-Length: 1\r\n\r\na",
        Got("HTTP/1.1 200 x\r\nContent-Length: 1\r\n\r\na"),
    ),
];

const CHUNKED_RESPONSE: &str = "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n";

fn whole_response(text: &str) -> String {
    text.strip_prefix('C').map_or_else(|| text.to_owned(), |rest| format!("{CHUNKED_RESPONSE}{rest}"))
}

#[tokio::test]
async fn a_response_is_held_to_the_same_standard() {
    let endpoint = Endpoint::new(Script::Silent).await;
    let proxy = outbound(&[endpoint.address], &[]).await;
    let mut wrong = Vec::new();
    for (section, text, outcome) in RESPONSES {
        endpoint.script(Script::Answer(whole_response(text).into_bytes()));
        let mut client = proxy.connect().await;
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
        let expected = match outcome {
            Bad => "HTTP/1.1 502 Bad Gateway\r\nferrule-error: bad-response\r\n".to_owned(),
            Got(expected) => whole_response(expected),
        };
        let mut answer = Vec::new();
        while answer.is_empty() {
            answer = client.for_a_while(Duration::from_millis(40)).await.0;
        }
        let answer = String::from_utf8_lossy(&answer);
        let right = match outcome {
            Bad => answer.starts_with(&expected) && answer.matches("HTTP/1.1 ").count() == 1,
            Got(_) => answer == expected,
        };
        if !right {
            wrong.push(format!("RFC {section}: {text:?}\n    {outcome:?}\n    {answer:?}"));
        }
        // Whatever came after it, and every connection whose response was bad, is out of use.
        let open = usize::from(matches!(outcome, Got(_)) && !text.contains("second"));
        eventually(&format!("{open} connections are open after {text:?}"), || endpoint.open() <= open).await;
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), RESPONSES.len(), wrong.join("\n"));
}

/// A response that goes wrong when its beginning is with the client already: nothing can be taken back, so the end
/// must not look like one.
#[tokio::test]
async fn a_response_that_goes_wrong_later_ends_in_a_reset() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for (good, bad) in [
        ("2\r\nab\r\n", "+2\r\ncd\r\n0\r\n\r\n"),
        ("2\r\nab\r\n", "2;x\r\ncd\r\n0\r\n\r\n"),
        ("2\r\nab", "c\r\n0\r\n\r\n"),
        ("2\r\nab\r\n0\r\nX: y\r\n", "Content-Length: 2\r\n\r\n"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let proxy = outbound(&[listener.local_addr().expect("bound")], &[]).await;
        let mut client = proxy.connect().await;
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let (mut stream, _) = listener.accept().await.expect("connected");
        stream.read_buf(&mut Vec::with_capacity(1024)).await.expect("a head");
        stream.write_all(format!("{CHUNKED_RESPONSE}{good}").as_bytes()).await.expect("sent");
        let begun = client.until(good.as_bytes()).await;
        assert!(begun.starts_with(b"HTTP/1.1 200 "));
        stream.write_all(bad.as_bytes()).await.expect("sent");
        assert_eq!(client.until_end().await, (Vec::new(), Ended::Reset), "{good:?} {bad:?}");
    }
}

/// An endpoint that responds without reading leaves the rest of the body behind; it must not become a request.
#[tokio::test]
async fn what_is_left_of_a_body_is_never_a_request() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let proxy = outbound(&[listener.local_addr().expect("bound")], &[]).await;
    let endpoint = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("connected");
        let mut head = vec![0; 16];
        stream.read_exact(&mut head).await.expect("the beginning of a head");
        tokio::time::sleep(Duration::from_millis(300)).await;
        stream.write_all(b"HTTP/1.1 413 x\r\nContent-Length: 0\r\n\r\n").await.expect("sent");
        // Another connection would be the hidden request.
        let hidden = tokio::time::timeout(Duration::from_millis(700), listener.accept()).await;
        drop(stream);
        hidden.is_err()
    });
    let mut client = proxy.connect().await;
    let hidden = HIDDEN.repeat(400_000);
    client
        .send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", hidden.len()).as_bytes())
        .await;
    let (mut read, mut write) = client.0.split();
    let send = async {
        let _ = tokio::time::timeout(Duration::from_millis(900), write.write_all(hidden.as_bytes())).await;
    };
    let receive = async {
        let mut seen = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(2), read.read_to_end(&mut seen)).await;
        seen
    };
    let ((), answer) = tokio::join!(send, receive);
    assert!(endpoint.await.expect("it ran"), "the endpoint was sent a hidden request");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 413 x\r\n"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}
