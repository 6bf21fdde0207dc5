//! Every limit on an HTTP/1 connection: its status, and its metric.

mod http1_harness;
mod support;

use std::time::{Duration, Instant};

use http1_harness::{Ended, Endpoint, Proxy, Script, outbound};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn with(script: &[u8], variables: &[(&str, &str)]) -> (Proxy, Endpoint) {
    let endpoint = Endpoint::new(Script::Answer(script.to_vec())).await;
    (outbound(&[endpoint.address], variables).await, endpoint)
}

async fn exceeded(proxy: &Proxy, limit: &str) -> u64 {
    let name = format!(r#"ferrule_limit_exceeded_total{{direction="outbound",limit="{limit}"}}"#);
    proxy.metric(&name).await
}

/// Sends a request and expects this status, the end of the connection, and that the limit was counted.
async fn refused(proxy: &Proxy, request: &[u8], status: &str, limit: &str) {
    let before = exceeded(proxy, limit).await;
    let mut client = proxy.connect().await;
    client.send(request).await;
    let (answer, ended) = client.until_end().await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{limit}: {answer}");
    assert!(answer.contains("connection: close\r\n"), "{limit}: {answer}");
    assert_eq!(ended, Ended::Closed, "{limit}");
    assert_eq!(exceeded(proxy, limit).await, before + 1, "{limit}");
}

#[tokio::test]
async fn a_head_is_bounded_in_fields_bytes_and_its_first_line() {
    let (proxy, endpoint) = with(
        OK,
        &[
            ("FERRULE_LIMIT_FIELDS", "10"),
            ("FERRULE_LIMIT_HEAD_BYTES", "4000"),
            ("FERRULE_LIMIT_REQUEST_LINE", "1000"),
        ],
    )
    .await;
    let fields = |count: usize| {
        let fields: String = (0..count).map(|n| format!("x{n}: y\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    };
    let bytes = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(count));
    let line = |count: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(count));
    let tall = "431 Request Header Fields Too Large";
    refused(&proxy, fields(10).as_bytes(), tall, "fields").await;
    refused(&proxy, fields(300).as_bytes(), tall, "fields").await;
    refused(&proxy, bytes(4000).as_bytes(), tall, "head-bytes").await;
    // Without an end it must not be waited for.
    refused(&proxy, &bytes(100_000).as_bytes()[..90_000], tall, "head-bytes").await;
    refused(&proxy, line(1000).as_bytes(), "414 URI Too Long", "request-line").await;
    refused(&proxy, &line(10_000).as_bytes()[..9_000], "414 URI Too Long", "request-line").await;
    assert!(endpoint.seen().is_empty());
    for fits in [fields(9), bytes(3900), line(900)] {
        let mut client = proxy.connect().await;
        client.send(fits.as_bytes()).await;
        client.until(b"ok").await;
    }
}

#[tokio::test]
async fn the_defaults_are_those_that_are_documented() {
    let (proxy, _endpoint) = with(OK, &[]).await;
    let request = |fields: usize, bytes: usize, line: usize| {
        let fields: String = (1..fields).map(|n| format!("x{n}: y\r\n")).collect();
        let begin =
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n{fields}", "x".repeat(line - "GET / HTTP/1.1".len()));
        if bytes == 0 {
            return format!("{begin}\r\n");
        }
        format!("{begin}X: {}\r\n\r\n", "x".repeat(bytes - begin.len() - "X: \r\n\r\n".len()))
    };
    for fits in [request(128, 0, 14), request(1, 65_536, 14), request(1, 0, 16_384)] {
        let mut client = proxy.connect().await;
        client.send(fits.as_bytes()).await;
        client.until(b"ok").await;
    }
    let tall = "431 Request Header Fields Too Large";
    refused(&proxy, request(129, 0, 14).as_bytes(), tall, "fields").await;
    refused(&proxy, request(1, 65_537, 14).as_bytes(), tall, "head-bytes").await;
    refused(&proxy, request(1, 0, 16_385).as_bytes(), "414 URI Too Long", "request-line").await;
}

#[tokio::test]
async fn a_head_must_be_complete_in_time() {
    let (proxy, _endpoint) = with(OK, &[("FERRULE_LIMIT_HEAD_TIME", "200ms")]).await;
    refused(&proxy, b"GET / HTTP/1.1\r\nHost: a\r\n", "408 Request Timeout", "head-time").await;
    // Bytes that trickle in win no time.
    let mut client = proxy.connect().await;
    let begun = Instant::now();
    client.send(b"GET / HTTP/1.1\r\n").await;
    let (mut read, mut write) = client.0.split();
    let trickle = async {
        use tokio::io::AsyncWriteExt;
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if write.write_all(b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let answer = async {
        use tokio::io::AsyncReadExt;
        let mut seen = vec![0; 12];
        read.read_exact(&mut seen).await.expect("an answer");
        seen
    };
    tokio::select! {
        () = trickle => {}
        answer = answer => assert_eq!(answer, b"HTTP/1.1 408"),
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time_and_not_before() {
    let (proxy, _endpoint) = with(OK, &[("FERRULE_LIMIT_IDLE", "300ms")]).await;
    let mut client = proxy.connect().await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.until(b"ok").await;
    }
    let begun = Instant::now();
    assert_eq!(client.until_end().await, (Vec::new(), Ended::Closed));
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
    assert_eq!(exceeded(&proxy, "idle").await, 1);
}

#[tokio::test]
async fn a_body_that_stops_is_not_waited_for() {
    let endpoint = Endpoint::new(Script::Silent).await;
    let proxy = outbound(&[endpoint.address], &[("FERRULE_LIMIT_CLIENT_STALL", "200ms")]).await;
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc";
    refused(&proxy, request, "408 Request Timeout", "client-stall").await;
    // While bytes come it may take as long as it likes.
    let mut client = proxy.connect().await;
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n").await;
    for _ in 0..9 {
        tokio::time::sleep(Duration::from_millis(80)).await;
        client.send(b"x").await;
    }
    endpoint.script(Script::Answer(OK.to_vec()));
    client.send(b"x").await;
    let (answer, ended) = client.for_a_while(Duration::from_millis(100)).await;
    assert_eq!((answer, ended), (Vec::new(), Ended::Open), "the endpoint is waited for, not the client");
}

#[tokio::test]
async fn an_endpoint_that_says_nothing_is_not_waited_for() {
    let endpoint = Endpoint::new(Script::Silent).await;
    let proxy = outbound(&[endpoint.address], &[("FERRULE_LIMIT_ENDPOINT_STALL", "200ms")]).await;
    let mut client = proxy.connect().await;
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.until(b"\r\n\r\n").await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.starts_with("HTTP/1.1 504 Gateway Timeout\r\nferrule-error: response-timeout\r\n"),
        "{answer}"
    );
    assert_eq!(exceeded(&proxy, "endpoint-stall").await, 1);

    // One that stops in the middle: nothing can be taken back.
    endpoint.script(Script::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_vec()));
    let mut client = proxy.connect().await;
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (answer, ended) = client.until_end().await;
    assert!(answer.ends_with(b"\r\n\r\nabc"), "{}", answer.escape_ascii());
    assert_eq!(ended, Ended::Reset);
    assert_eq!(exceeded(&proxy, "endpoint-stall").await, 2);
}

#[tokio::test]
async fn interim_responses_come_to_an_end() {
    let hints = |count: usize| {
        let mut bytes = b"HTTP/1.1 103 x\r\n\r\n".repeat(count);
        bytes.extend_from_slice(OK);
        bytes
    };
    let (proxy, endpoint) = with(&hints(3), &[("FERRULE_LIMIT_INTERIM_RESPONSES", "3")]).await;
    let mut client = proxy.connect().await;
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.until(b"ok").await, hints(3));
    endpoint.script(Script::Answer(hints(4)));
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    let answer = client.until(b"\r\n\r\nferrule: ").await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("HTTP/1.1 502 Bad Gateway\r\nferrule-error: bad-response\r\n"), "{answer}");
    assert_eq!(exceeded(&proxy, "interim-responses").await, 1);
}

#[tokio::test]
async fn a_response_head_is_bounded_too() {
    let endless = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &vec![b'x'; 100_000]].concat();
    let fields: String = (0..20).map(|n| format!("x{n}: y\r\n")).collect();
    let many = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n");
    for (script, limit) in [(endless, "head-bytes"), (many.into_bytes(), "fields")] {
        let (proxy, _endpoint) = with(&script, &[("FERRULE_LIMIT_FIELDS", "10")]).await;
        let mut client = proxy.connect().await;
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.until(b"\r\n\r\n").await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with("HTTP/1.1 502 Bad Gateway\r\nferrule-error: bad-response\r\n"),
            "{answer}"
        );
        assert_eq!(exceeded(&proxy, limit).await, 1);
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_reset_and_those_before_it_served() {
    let (proxy, _endpoint) = with(OK, &[("FERRULE_LIMIT_CONNECTIONS", "2")]).await;
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut served = Vec::new();
    for _ in 0..2 {
        let mut client = proxy.connect().await;
        client.send(request).await;
        client.until(b"ok").await;
        served.push(client);
    }
    let third = async {
        let mut stream = tokio::net::TcpStream::connect(proxy.address()).await?;
        tokio::io::AsyncReadExt::read(&mut stream, &mut [0]).await
    };
    // It may come before the connection is seen to be there.
    assert_eq!(third.await.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset));
    assert_eq!(exceeded(&proxy, "connections").await, 1);
    for client in &mut served {
        client.send(request).await;
        client.until(b"ok").await;
    }
}
