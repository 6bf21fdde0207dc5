//! The edges of HTTP/2 through the real proxy: what comes late, what waits, what is wrong only in a certain state.

mod http2_harness;
mod support;

use std::time::Duration;

use ferrule_proxy::app::App;
use http2_harness::{
    CANCEL, END_HEADERS, Endpoint, FRAME_SIZE_ERROR, Frame, HEADERS, PING, PRIORITY, PROTOCOL_ERROR, Peer,
    exceeded, frame, value,
};
use support::{World, get, talk};
use tokio::sync::mpsc;

async fn in_front_of(endpoint: &Endpoint, variables: &[(&str, &str)]) -> (World, App) {
    let world = World::new();
    world.service("cart", &[endpoint.address]);
    let proxy = world.proxy_with(&["cart"], &[], variables).await;
    (world, proxy)
}

/// An endpoint that answers each request with these heads; the last one ends the response.
async fn answering(heads: &'static [&'static [(&'static str, &'static str)]]) -> Endpoint {
    Endpoint::new(&[], move |mut peer, _| async move {
        loop {
            match peer.next_ever().await {
                Frame::Headers { id, .. } => {
                    for (index, head) in heads.iter().enumerate() {
                        peer.headers(id, head, index + 1 == heads.len()).await;
                    }
                }
                Frame::Closed | Frame::Aborted => return,
                _ => {}
            }
        }
    })
    .await
}

const HINT: &[(&str, &str)] = &[(":status", "103"), ("link", "</style.css>; rel=preload")];
const OK: &[(&str, &str)] = &[(":status", "200")];

#[tokio::test]
async fn interim_responses_come_to_an_end_whatever_the_endpoint_speaks() {
    let variables = [("FERRULE_LIMIT_INTERIM_RESPONSES", "3")];
    for (heads, status) in [(&[HINT, HINT, HINT, OK][..], 200), (&[HINT, HINT, HINT, HINT, OK], 502)] {
        let endpoint = answering(heads).await;
        let (_world, proxy) = in_front_of(&endpoint, &variables).await;
        let mut client = Peer::client(proxy.listeners[0]).await;
        let response = client.get("/", &[]).await;
        assert_eq!((response.status, response.interim.len()), (status, 3), "{response:?}");
        assert_eq!(exceeded(&proxy, "interim-responses").await, u64::from(status == 502));
    }
    let endpoint = support::server(|_| "HTTP/1.1 103 x\r\n\r\n".repeat(4) + &support::ok("late")).await;
    let world = World::new();
    world.service_speaking("cart", &[endpoint], Some("http"));
    let proxy = world.proxy_with(&["cart"], &[], &variables).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let response = client.get("/", &[]).await;
    assert_eq!((response.status, response.field("ferrule-error")), (502, "bad-response"), "{response:?}");
}

/// RFC 9110 §8.6.
#[tokio::test]
async fn no_content_has_no_length_whatever_the_client_speaks() {
    let endpoint = answering(&[&[(":status", "204"), ("content-length", "0"), ("x-of", "the app")]]).await;
    let world = World::new();
    world.service_speaking("cart", &[endpoint.address], Some("kubernetes.io/h2c"));
    let proxy = world.proxy_with(&["cart"], &[], &[]).await;
    let response = talk(proxy.listeners[0], &get("/", "Connection: close\r\n")).await;
    assert!(response.starts_with("HTTP/1.1 204 No Content\r\nx-of: the app\r\n"), "{response}");
    assert!(!response.contains("content-length"), "{response}");
    let mut client = Peer::client(proxy.listeners[0]).await;
    let response = client.get("/", &[]).await;
    assert_eq!((response.status, response.field("x-of")), (204, "the app"));
    assert_eq!(response.field("content-length"), "");
}

/// As between two that speak HTTP/1: while nothing of a response was forwarded, the client is told.
#[tokio::test]
async fn malformed_chunks_for_an_http2_endpoint_are_answered_with_400() {
    let endpoint = Endpoint::named("app").await;
    let world = World::new();
    world.service_speaking("cart", &[endpoint.address], Some("kubernetes.io/h2c"));
    let proxy = world.proxy_with(&["cart"], &[], &[]).await;
    for body in [
        "3\r\nabc\r\nzz\r\n",
        "zz\r\n",
        "3\r\nabc\r\n0\r\nno colon\r\n\r\n",
        "3\r\nabc\r\n0\r\nhost: a\r\n\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let response = talk(proxy.listeners[0], &request).await;
        let expected = "HTTP/1.1 400 Bad Request\r\nferrule-error: bad-request\r\n";
        assert!(response.starts_with(expected), "{body:?}: {response}");
    }
    assert!(talk(proxy.listeners[0], &get("/", "Connection: close\r\n")).await.starts_with("HTTP/1.1 200"));
}

/// RFC 9113 §6.3 asks for a stream error, §6.4 forbids one where the stream is idle.
#[tokio::test]
async fn a_wrong_priority_costs_its_stream_and_where_there_is_none_the_connection() {
    let endpoint = Endpoint::named("app").await;
    let (_world, proxy) = in_front_of(&endpoint, &[]).await;
    let wrong = [(vec![0; 4], FRAME_SIZE_ERROR), (vec![0, 0, 0, 1, 16], PROTOCOL_ERROR)];
    for (payload, code) in &wrong {
        let mut client = Peer::client(proxy.listeners[0]).await;
        let id = client.request("POST", "/", &[], false).await;
        client.frame(PRIORITY, 0, id, payload).await;
        assert_eq!(client.response(id).await.reset, Some(*code));
        assert_eq!(client.get("/", &[]).await.status, 200, "others go on");
        let mut client = Peer::client(proxy.listeners[0]).await;
        client.frame(PRIORITY, 0, 1, payload).await;
        match client.end().await {
            Frame::GoAway { code: of, .. } => assert_eq!(of, *code),
            other => panic!("{other:?}"),
        }
    }
}

/// What was on its way when a stream was reset comes later, for many streams at once.
#[tokio::test]
async fn frames_of_streams_that_were_reset_long_ago_end_no_clients_connection() {
    let endpoint = Endpoint::named("app").await;
    let (_world, proxy) = in_front_of(&endpoint, &[("FERRULE_LIMIT_HTTP2_EMPTY", "5000")]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let mut ids = Vec::new();
    let mut bytes = Vec::new();
    for _ in 0..200 {
        let id = client.take_id();
        // Without a path.
        let block = client.block(&[(":method", "POST"), (":scheme", "http"), (":authority", "cart")]);
        bytes.extend(frame(HEADERS, END_HEADERS, id, &block));
        ids.push(id);
    }
    client.write(&bytes).await;
    for id in &ids {
        assert_eq!(client.next().await, Frame::Reset { id: *id, code: PROTOCOL_ERROR });
    }
    for id in &ids {
        for _ in 0..4 {
            client.data(*id, b"content", false).await;
        }
        client.headers(*id, &[("x-trailer", "1")], true).await;
    }
    assert_eq!(client.get("/", &[]).await.status, 200);
    assert_eq!(exceeded(&proxy, "http2-resets").await, 0);
}

/// The same at the other end: responses to what many clients have cancelled.
#[tokio::test]
async fn responses_to_requests_that_were_cancelled_long_ago_end_no_endpoints_connection() {
    const MANY: usize = 150;
    let endpoint = Endpoint::new(&[(3, 1000)], |mut peer, _| async move {
        let mut cancelled = Vec::new();
        loop {
            match peer.next_ever().await {
                Frame::Reset { id, .. } => cancelled.push(id),
                Frame::Headers { id, fields, .. } if value(&fields, ":path") == "/last" => {
                    for id in cancelled.drain(..) {
                        peer.headers(id, OK, false).await;
                        peer.data(id, b"late", false).await;
                        peer.headers(id, &[("grpc-status", "0")], true).await;
                    }
                    peer.headers(id, OK, true).await;
                }
                Frame::Closed | Frame::Aborted => return,
                _ => {}
            }
        }
    })
    .await;
    let (_world, proxy) = in_front_of(&endpoint, &[]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    // The first answer tells how many streams the endpoint allows.
    assert_eq!(client.get("/last", &[]).await.status, 200);
    let mut ids = Vec::new();
    for _ in 0..MANY {
        ids.push(client.request("GET", "/", &[], true).await);
    }
    client.frame(PING, 0, 0, b"all here").await;
    while !matches!(client.any().await, Frame::Pong(_)) {}
    for id in ids {
        client.reset(id, CANCEL).await;
    }
    for _ in 0..2 {
        assert_eq!(client.get("/last", &[]).await.status, 200);
    }
    assert_eq!(endpoint.connections(), 1, "the connection is still the first");
}

/// What an endpoint does not take stops the client at one window, besides what the endpoint's own window holds.
#[tokio::test]
async fn a_stalled_upload_holds_one_window_and_no_second_one() {
    const WINDOW: usize = 256 * 1024;
    const ENDPOINTS: usize = 65_535;
    let (tell, mut told) = mpsc::unbounded_channel();
    let endpoint = Endpoint::new(&[], move |mut peer, _| {
        let tell = tell.clone();
        async move {
            peer.gives_back = false;
            let mut seen = 0;
            loop {
                match peer.wait_any().await {
                    Frame::Data { content, .. } => seen += content.len(),
                    Frame::Closed | Frame::Aborted => return,
                    _ => {}
                }
                if seen == ENDPOINTS {
                    let _ = tell.send(());
                }
            }
        }
    })
    .await;
    let (_world, proxy) = in_front_of(&endpoint, &[]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let id = client.request("POST", "/", &[], false).await;
    let mut allowed = WINDOW;
    let (mut sent, mut stuck) = (0, false);
    loop {
        while sent < allowed {
            let count = (allowed - sent).min(16_384);
            client.data(id, &vec![7; count], false).await;
            sent += count;
        }
        let frame =
            tokio::time::timeout(Duration::from_millis(if stuck { 300 } else { 10_000 }), client.wait_any());
        tokio::select! {
            frame = frame => match frame {
                Ok(Frame::WindowUpdate { id: of, increment }) if of == id => allowed += increment as usize,
                Ok(Frame::Closed | Frame::Aborted) => panic!("it ended"),
                Ok(_) => {}
                Err(_) => break,
            },
            Some(()) = told.recv(), if !stuck => stuck = true,
        }
    }
    assert!(stuck, "the endpoint's window was filled");
    assert!(sent <= WINDOW + ENDPOINTS, "{sent} bytes were asked for");
}
