//! What RFC 9110 and RFC 9112 say of an intermediary, and an endpoint that dies in every phase of a request.

mod http1_harness;
mod support;

use std::time::Duration;

use http1_harness::{Client, Ended, Endpoint, Proxy, Script, eventually, outbound, show};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";

async fn answering(bytes: &[u8]) -> (Proxy, Endpoint) {
    let endpoint = Endpoint::new(Script::Answer(bytes.to_vec())).await;
    (outbound(&[endpoint.address], &[]).await, endpoint)
}

/// A proxy and an endpoint that the test plays itself.
async fn by_hand() -> (Proxy, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    (outbound(&[listener.local_addr().expect("bound")], &[]).await, listener)
}

async fn accept(listener: &TcpListener) -> Client {
    Client(listener.accept().await.expect("connected").0)
}

/// RFC 9112 §9.3.2: responses in the order of the requests, whole, one after another.
#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (proxy, listener) = by_hand().await;
    let mut client = proxy.connect().await;
    let requests: String = (0..30)
        .map(|n| match n % 3 {
            0 => format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
            _ => format!(
                "POST /{n} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
            ),
        })
        .collect();
    client.send(requests.as_bytes()).await;
    let endpoint = tokio::spawn(async move {
        let mut stream = accept(&listener).await;
        let mut heads = String::new();
        for n in 0..30 {
            let head = stream.until(b"\r\n\r\n").await;
            heads += &String::from_utf8_lossy(&head);
            match n % 3 {
                0 => {}
                1 => drop(stream.until(b"abc").await),
                _ => drop(stream.until(b"0\r\n\r\n").await),
            }
            // Later ones are answered sooner, if they can.
            tokio::time::sleep(Duration::from_millis(30 - n)).await;
            stream.send(format!("HTTP/1.1 200 x\r\nContent-Length: 3\r\n\r\n{n:03}").as_bytes()).await;
        }
        heads
    });
    let expected: String =
        (0..30).map(|n| format!("HTTP/1.1 200 x\r\nContent-Length: 3\r\n\r\n{n:03}")).collect();
    assert_eq!(show(&client.until(b"029").await), show(expected.as_bytes()));
    let heads = endpoint.await.expect("it ran");
    assert!((0..30).all(|n| heads.contains(&format!("/{n} HTTP/1.1\r\n"))));
}

/// RFC 9110 §10.1.1: the client waits, the endpoint allows it, the body follows.
#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_from_the_endpoint() {
    let (proxy, listener) = by_hand().await;
    let mut client = proxy.connect().await;
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    let mut endpoint = accept(&listener).await;
    let head = endpoint.until(b"\r\n\r\n").await;
    assert!(String::from_utf8_lossy(&head).contains("Expect: 100-continue\r\n"), "{}", show(&head));
    endpoint.send(b"HTTP/1.1 100 Continue\r\n\r\n").await;
    client.until(b"HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send(b"body").await;
    endpoint.until(b"body").await;
    endpoint.send(OK).await;
    assert_eq!(client.until(b"ok").await, OK);
    client.send(GET).await;
    endpoint.until(b"\r\n\r\n").await;
    endpoint.send(OK).await;
    client.until(b"ok").await;
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_100_is_not_held_up() {
    let (proxy, listener) = by_hand().await;
    let mut client = proxy.connect().await;
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody").await;
    let mut endpoint = accept(&listener).await;
    endpoint.until(b"body").await;
    endpoint.send(b"HTTP/1.1 100 Continue\r\n\r\n").await;
    endpoint.send(OK).await;
    assert_eq!(client.until(b"ok").await, [b"HTTP/1.1 100 Continue\r\n\r\n", OK].concat());
}

/// A final status instead of 100: whether the client then sends the body can't be known, so the connection ends.
#[tokio::test]
async fn a_refusal_instead_of_100_ends_the_connection() {
    let (proxy, listener) = by_hand().await;
    let mut client = proxy.connect().await;
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    let mut endpoint = accept(&listener).await;
    endpoint.until(b"\r\n\r\n").await;
    endpoint.send(b"HTTP/1.1 417 x\r\nContent-Length: 0\r\n\r\n").await;
    let answer = client.until(b"\r\n\r\n").await;
    assert_eq!(show(&answer), show(b"HTTP/1.1 417 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
    client.send(b"body").await;
    assert_eq!(client.until_end().await, (Vec::new(), Ended::Closed));
    assert_eq!(endpoint.until_end().await.0, b"", "no byte of the body");
}

/// RFC 9110 §7.8: a server may ignore the wish for another protocol.
#[tokio::test]
async fn a_refused_upgrade_leaves_http_as_it_was() {
    let (proxy, _endpoint) = answering(OK).await;
    let mut client = proxy.connect().await;
    for _ in 0..2 {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        assert_eq!(client.until(b"ok").await, OK);
    }
}

/// RFC 9110 §9.3.6: after a 2xx bytes go both ways and each way ends on its own; the fields that would announce
/// content are gone.
#[tokio::test]
async fn connect_makes_a_tunnel() {
    let (proxy, listener) = by_hand().await;
    let mut client = proxy.connect().await;
    client.send(b"CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\nearly").await;
    let mut endpoint = accept(&listener).await;
    assert_eq!(endpoint.until(b"\r\n\r\n").await, b"CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n");
    endpoint.send(b"HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\nHTTP/1.1 is not spoken here").await;
    let answer = client.until(b"here").await;
    assert_eq!(show(&answer), show(b"HTTP/1.1 200 x\r\n\r\nHTTP/1.1 is not spoken here"));
    client.send(b"\0late").await;
    client.0.shutdown().await.expect("half closed");
    assert_eq!(endpoint.until_end().await, (b"early\0late".to_vec(), Ended::Closed));
    endpoint.send(b"still").await;
    drop(endpoint);
    assert_eq!(client.until_end().await, (b"still".to_vec(), Ended::Closed));
}

#[tokio::test]
async fn a_refused_connect_leaves_http_as_it_was() {
    let (proxy, _endpoint) = answering(b"HTTP/1.1 405 x\r\nContent-Length: 2\r\n\r\nno").await;
    let mut client = proxy.connect().await;
    for _ in 0..2 {
        client.send(b"CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n").await;
        client.until(b"\r\n\r\nno").await;
    }
}

/// RFC 9112 §6.3: what has no content, whatever it announces.
#[tokio::test]
async fn responses_without_content_end_with_their_head() {
    for (request, response) in [
        ("HEAD", "HTTP/1.1 200 x\r\nContent-Length: 1000\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", "HTTP/1.1 304 x\r\nContent-Length: 1000\r\n\r\n"),
        ("GET", "HTTP/1.1 204 x\r\n\r\n"),
    ] {
        let (proxy, endpoint) = answering(response.as_bytes()).await;
        let mut client = proxy.connect().await;
        for _ in 0..2 {
            client.send(format!("{request} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
            assert_eq!(client.until(b"\r\n\r\n").await, response.as_bytes());
        }
        assert_eq!(endpoint.connections(), 1, "{request} {response:?}: the connection was used again");
    }
}

/// RFC 9112 §9.3: who speaks HTTP/1.0 keeps a connection only if both sides say so.
#[tokio::test]
async fn http10_is_spoken_on_both_sides() {
    let (proxy, endpoint) = answering(b"HTTP/1.0 200 x\r\nContent-Length: 2\r\n\r\nok").await;
    let mut client = proxy.connect().await;
    client.send(b"GET / HTTP/1.0\r\n\r\n").await;
    let (answer, ended) = client.until_end().await;
    assert_eq!(show(&answer), show(b"HTTP/1.1 200 x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"));
    assert_eq!(ended, Ended::Closed);
    eventually("the endpoint's connection is closed", || endpoint.open() == 0).await;
    let mut client = proxy.connect().await;
    for _ in 0..2 {
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let answer = client.until(b"ok").await;
        assert!(String::from_utf8_lossy(&answer).contains("Connection: keep-alive\r\n"), "{}", show(&answer));
    }
}

#[tokio::test]
async fn a_response_may_end_with_its_connection() {
    let endpoint =
        Endpoint::new(Script::AnswerAndClose(b"HTTP/1.1 200 x\r\n\r\nas long as it is".to_vec())).await;
    let proxy = outbound(&[endpoint.address], &[]).await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let (answer, ended) = client.until_end().await;
    assert_eq!(show(&answer), show(b"HTTP/1.1 200 x\r\nConnection: close\r\n\r\nas long as it is"));
    assert_eq!(ended, Ended::Closed);
}

/// RFC 9110 §7.6.2: these are the endpoint's business.
#[tokio::test]
async fn trace_and_max_forwards_pass_as_they_are() {
    let (proxy, endpoint) = answering(OK).await;
    let mut client = proxy.connect().await;
    let trace = b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n";
    client.send(trace).await;
    client.until(b"ok").await;
    assert_eq!(endpoint.take_seen(), trace);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    let endpoint = Endpoint::new(Script::Silent).await;
    let proxy = outbound(&[endpoint.address], &[]).await;
    for request in [GET, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhi"] {
        let mut client = proxy.connect().await;
        client.send(request).await;
        eventually("the endpoint has it", || endpoint.open() == 1).await;
        drop(client);
        eventually("the endpoint's connection is closed", || endpoint.open() == 0).await;
    }
    let name = r#"ferrule_requests_total{direction="outbound",service="shop/cart",route="",status="0",error="client-closed"}"#;
    assert_eq!(proxy.metric(name).await, 2);
}

/// A body that comes in small pieces with pauses, both ways at once.
#[tokio::test]
async fn bodies_flow_both_ways_at_once() {
    let (proxy, listener) = by_hand().await;
    let mut client = proxy.connect().await;
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut endpoint = accept(&listener).await;
    endpoint.until(b"\r\n\r\n").await;
    endpoint.send(b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.until(b"\r\n\r\n").await;
    for n in 0..20 {
        let chunk = format!("3\r\n{n:03}\r\n");
        for piece in chunk.as_bytes().chunks(2) {
            client.send(piece).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(endpoint.until(b"\r\n").await, b"3\r\n");
        endpoint.until(format!("{n:03}\r\n").as_bytes()).await;
        endpoint.send(chunk.as_bytes()).await;
        client.until(chunk.as_bytes()).await;
    }
    client.send(b"0\r\nX-Request: done\r\n\r\n").await;
    endpoint.until(b"0\r\nX-Request: done\r\n\r\n").await;
    endpoint.send(b"0\r\nX-Response: done\r\n\r\n").await;
    client.until(b"0\r\nX-Response: done\r\n\r\n").await;
    client.send(GET).await;
    endpoint.until(b"\r\n\r\n").await;
    endpoint.send(OK).await;
    client.until(b"ok").await;
}

/// An endpoint that ends in this way at this point of a request.
struct Death {
    phase: &'static str,
    script: Script,
    /// What the client gets for a POST, which may not be sent twice: beginning of the response.
    gets: &'static str,
    ends: Ended,
}

fn deaths() -> Vec<Death> {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let death = |phase, script, gets, ends| Death { phase, script, gets, ends };
    let reset = "HTTP/1.1 502 Bad Gateway\r\nferrule-error: reset\r\n";
    let bad = "HTTP/1.1 502 Bad Gateway\r\nferrule-error: bad-response\r\n";
    let chunked = "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let both = |phase, text: &str, gets, ends| {
        [
            death(phase, Script::AnswerAndClose(bytes(text)), gets, ends),
            death(phase, Script::AnswerAndReset(bytes(text)), gets, ends),
        ]
    };
    let mut deaths = vec![death("after accepting", Script::CloseAtOnce, reset, Ended::Open)];
    deaths.extend(both("after the request", "", reset, Ended::Open));
    deaths.extend(both(
        "after interim responses",
        "HTTP/1.1 103 x\r\n\r\n",
        "HTTP/1.1 103 x\r\n\r\nHTTP/1.1 502 ",
        Ended::Open,
    ));
    deaths.extend(both("in the status line", "HTTP/1.1 20", bad, Ended::Open).into_iter().take(1));
    deaths.extend(both("in the head", "HTTP/1.1 200 x\r\nContent-Le", bad, Ended::Open).into_iter().take(1));
    deaths.extend(both(
        "after the head",
        "HTTP/1.1 200 x\r\nContent-Length: 4\r\n\r\n",
        "HTTP/1.1 200 x\r\nContent-Length: 4\r\n\r\n",
        Ended::Reset,
    ));
    deaths.extend(both(
        "in a body with a length",
        "HTTP/1.1 200 x\r\nContent-Length: 4\r\n\r\nab",
        "HTTP/1.1 200 x\r\nContent-Length: 4\r\n\r\nab",
        Ended::Reset,
    ));
    for (phase, rest) in [
        ("before the first chunk", ""),
        ("in a chunk's size", "4"),
        ("in a chunk", "4\r\nab"),
        ("after a chunk", "4\r\nabcd\r\n"),
        ("before the trailers", "4\r\nabcd\r\n0\r\n"),
        ("in the trailers", "4\r\nabcd\r\n0\r\nX: y\r\n"),
    ] {
        let whole: &'static str = Box::leak(format!("{chunked}{rest}").into_boxed_str());
        deaths.extend(both(phase, whole, whole, Ended::Reset));
    }
    // By its connection's end this body ends in order; a reset is none.
    let close = "HTTP/1.1 200 x\r\nConnection: close\r\n\r\nab";
    let open = "HTTP/1.1 200 x\r\n\r\nab";
    deaths.push(death(
        "in a body without a length",
        Script::AnswerAndClose(bytes(open)),
        close,
        Ended::Closed,
    ));
    deaths.push(death(
        "in a body without a length",
        Script::AnswerAndReset(bytes(open)),
        close,
        Ended::Reset,
    ));
    deaths
}

#[tokio::test]
async fn a_client_learns_of_an_endpoint_that_dies_in_any_phase() {
    for Death { phase, script, gets, ends } in deaths() {
        let endpoint = Endpoint::new(script.clone()).await;
        let proxy = outbound(&[endpoint.address], &[]).await;
        let mut client = proxy.connect().await;
        client.send(POST).await;
        let (answer, ended) = client.for_a_while(Duration::from_millis(400)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(gets), "{phase}, {script:?}: {answer:?}");
        assert_eq!(ended, ends, "{phase}, {script:?}: {answer:?}");
        if ended != Ended::Open {
            assert_eq!(answer, gets, "{phase}: nothing is added");
        }
        assert_eq!(endpoint.connections(), 1, "{phase}: a POST was sent twice");
    }
}

#[tokio::test]
async fn an_endpoint_that_can_not_be_connected_to_is_named() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    let proxy = outbound(&[gone], &[]).await;
    let mut client = proxy.connect().await;
    for _ in 0..2 {
        client.send(POST).await;
        let answer = client.until(b"\n\r\n").await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\nferrule-error: connect\r\n"), "{text}");
        let body = client.until(b"\n").await;
        assert!(String::from_utf8_lossy(&body).contains(&gone.to_string()), "{}", show(&body));
    }
}

/// What broke before any of the response came is tried elsewhere if the method allows it.
#[tokio::test]
async fn a_get_survives_the_death_of_an_endpoint() {
    for script in [
        Script::CloseAtOnce,
        Script::AnswerAndClose(Vec::new()),
        Script::AnswerAndReset(Vec::new()),
        Script::AnswerAndClose(b"HTTP/1.1 200 x\r\nConte".to_vec()),
    ] {
        let dying = Endpoint::new(script.clone()).await;
        let alive = Endpoint::new(Script::Answer(OK.to_vec())).await;
        let proxy = outbound(&[dying.address, alive.address], &[]).await;
        for _ in 0..10 {
            let mut client = proxy.connect().await;
            client.send(GET).await;
            assert_eq!(client.until(b"ok").await, OK, "{script:?}");
        }
    }
}

/// A body that was taken from the client for an attempt that failed is gone, and what follows it is out of step: the
/// connection ends, and nothing of the body is taken for a request.
#[tokio::test]
async fn a_failure_in_the_middle_of_a_body_ends_the_connection() {
    let (proxy, listener) = by_hand().await;
    let mut client = proxy.connect().await;
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\n").await;
    let mut endpoint = accept(&listener).await;
    endpoint.until(b"\r\n\r\n").await;
    client.send(b"0123456789").await;
    endpoint.until(b"0123456789").await;
    drop(endpoint);
    let answer = client.until(b"\r\n\r\n").await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && answer.contains("connection: close\r\n"),
        "{answer}"
    );
    client.send(b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (rest, _) = client.until_end().await;
    assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1 "), "{}", show(&rest));
    let another = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
    assert!(another.is_err(), "a hidden request was sent");
}

/// Memory stays flat, and the pace is the reader's, when one side is slow.
#[tokio::test]
async fn a_slow_reader_holds_the_sender_up() {
    let (proxy, listener) = by_hand().await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let mut endpoint = accept(&listener).await;
    endpoint.until(b"\r\n\r\n").await;
    let size = 64 * 1024 * 1024;
    endpoint.send(format!("HTTP/1.1 200 x\r\nContent-Length: {size}\r\n\r\n").as_bytes()).await;
    let piece = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    // Until the sockets' buffers between are full.
    while tokio::time::timeout(Duration::from_millis(300), endpoint.0.write_all(&piece)).await.is_ok() {
        sent += piece.len();
        assert!(sent < size / 2, "the proxy takes {sent} bytes that nobody reads");
    }
    client.until(b"\r\n\r\n").await;
    let mut taken = vec![0; sent];
    client.0.read_exact(&mut taken).await.expect("all that was sent");
}

#[tokio::test]
async fn what_the_endpoints_own_sidecar_says_of_a_failure_is_believed() {
    let told = b"HTTP/1.1 502 Bad Gateway\r\nferrule-error: reset\r\nContent-Length: 4\r\n\r\ndead".to_vec();
    let dying = Endpoint::new(Script::Answer(told.clone())).await;
    let dead = Endpoint::new(Script::Answer(told)).await;
    let well = Endpoint::new(Script::Answer(OK.to_vec())).await;
    // Each proxy chooses by chance: one that has chosen the third first has nothing to believe.
    for _ in 0..20 {
        let proxy = outbound(&[dying.address, dead.address, well.address], &[]).await;
        let mut client = proxy.connect().await;
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let (answer, _) = client.until_end().await;
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", show(&answer));
    }
    let met = dying.take_seen().len() + dead.take_seen().len();
    assert!(met > 0, "no request went to a dying endpoint");
    // It may have been processed: a POST is not sent twice.
    let proxy = outbound(&[dying.address], &[]).await;
    let mut client = proxy.connect().await;
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    assert!(client.until_end().await.0.starts_with(b"HTTP/1.1 502 "));
    assert_eq!(show(&dying.seen()).matches("POST").count(), 1);
}
