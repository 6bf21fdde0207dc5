//! An HTTP/2 endpoint that dies, in every phase of a request, and what the client gets each time. The table is in
//! `docs/protocols.md` too.

mod http2_harness;
mod support;

use std::{net::SocketAddr, time::Duration};

use http2_harness::{
    CANCEL, ENHANCE_YOUR_CALM, Endpoint, Frame, INTERNAL_ERROR, NO_ERROR, PROTOCOL_ERROR, Peer,
    REFUSED_STREAM, Response, STREAM_CLOSED, frame, metric,
};
use support::{World, get, talk};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What an endpoint does on every connection.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// Nobody listens.
    Refuses,
    /// Closes a connection as soon as it is there.
    ClosesAtOnce,
    /// Resets a connection as soon as it is used.
    ResetsAtOnce,
    /// Answers in another language.
    IsNoHttp2,
    /// Closes after its SETTINGS, before a request.
    AfterItsSettings,
    /// Closes when it has the head of a request.
    AfterRequestHead,
    /// Sends GOAWAY that leaves the request out, and closes.
    GoAwayWithoutIt(u32),
    /// Sends GOAWAY that includes the request, and closes.
    GoAwayWithIt(u32),
    /// Sends GOAWAY that includes the request, then the response, and closes.
    GoAwayThenResponse,
    /// Resets the stream before it responds.
    ResetsStream(u32),
    /// Closes after an interim response.
    AfterInterim,
    /// Closes after the head of the response.
    AfterResponseHead,
    /// Closes in the middle of the body, of which the length was told.
    MidBody,
    /// Closes in the middle of a DATA frame.
    MidFrame,
    /// Resets the connection in the middle of the body.
    ResetMidBody,
    /// Resets the stream in the middle of the body.
    ResetsStreamMidBody(u32),
    /// GOAWAY that includes the request in the middle of the body, which then goes on to its end.
    GoAwayMidBody,
    /// Ends the stream before as much as was told.
    ShortBody,
    /// Closes after all of the body, before the trailers.
    BeforeTrailers,
    /// Trailers that no message may have.
    BadTrailers,
    /// A head that no message may have.
    BadHead,
}

use Death::*;

async fn die(stream: TcpStream, death: Death) {
    match death {
        ClosesAtOnce => return,
        ResetsAtOnce => {
            // Any earlier it may look like a connection that was never there.
            let (mut stream, mut preface) = (stream, [0; 24]);
            let _ = stream.read_exact(&mut preface).await;
            return stream.set_zero_linger().expect("a socket");
        }
        IsNoHttp2 => {
            let mut stream = stream;
            let mut preface = [0; 24];
            let _ = stream.read_exact(&mut preface).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
            return;
        }
        _ => {}
    }
    let Some(mut peer) = Peer::server(stream, &[]).await else { return };
    if matches!(death, AfterItsSettings) {
        return;
    }
    loop {
        let id = match peer.next_ever().await {
            Frame::Headers { id, .. } => id,
            Frame::Closed | Frame::Aborted => return,
            _ => continue,
        };
        if !die_on_stream(&mut peer, id, death).await {
            break;
        }
    }
    if matches!(death, ResetMidBody) {
        return;
    }
    // What was sent is to arrive: closing with something unread would reset the connection.
    let _ = peer.stream.shutdown().await;
    let _ = tokio::time::timeout(Duration::from_millis(500), peer.end()).await;
}

/// Returns whether only the stream dies, and the connection takes further ones.
async fn die_on_stream(peer: &mut Peer, id: u32, death: Death) -> bool {
    match death {
        AfterRequestHead => {}
        GoAwayWithoutIt(code) => peer.goaway(0, code).await,
        GoAwayWithIt(code) => peer.goaway(id, code).await,
        GoAwayThenResponse => {
            peer.goaway(id, NO_ERROR).await;
            peer.headers(id, &[(":status", "200"), ("content-length", "4")], false).await;
            peer.data(id, b"full", true).await;
        }
        ResetsStream(code) => peer.reset(id, code).await,
        AfterInterim => peer.headers(id, &[(":status", "103")], false).await,
        BadHead => peer.headers(id, &[(":status", "200"), ("connection", "close")], false).await,
        _ => {
            peer.headers(id, &[(":status", "200"), ("content-length", "8")], false).await;
            match death {
                AfterResponseHead => {}
                BeforeTrailers => drop(peer.data(id, b"all of i", false).await),
                BadTrailers => {
                    peer.data(id, b"all of i", false).await;
                    peer.headers(id, &[("content-length", "8")], true).await;
                }
                ShortBody => drop(peer.data(id, b"half", true).await),
                MidFrame => {
                    let data = frame(http2_harness::DATA, 0, id, b"half and");
                    peer.write(&data[..9 + 4]).await;
                }
                _ => drop(peer.data(id, b"half", false).await),
            }
            match death {
                ResetsStreamMidBody(code) => peer.reset(id, code).await,
                GoAwayMidBody => {
                    peer.goaway(id, NO_ERROR).await;
                    peer.data(id, b" and", true).await;
                }
                ResetMidBody => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    peer.stream.set_zero_linger().expect("a socket");
                }
                _ => {}
            }
        }
    }
    matches!(death, ResetsStream(_) | ResetsStreamMidBody(_) | BadHead | BadTrailers | ShortBody)
}

/// What the client gets: the whole, an error of the proxy, or a response that visibly breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gets {
    Whole,
    Error(u16, &'static str),
    BreaksOff,
}

use Gets::*;

fn got(response: &Response) -> Gets {
    if response.complete && response.field("ferrule-error").is_empty() {
        return Whole;
    }
    if response.complete {
        let name = response.field("ferrule-error").to_owned();
        return Error(response.status, name.leak());
    }
    assert!(response.reset == Some(CANCEL) && !response.gone, "the connection goes on: {response:?}");
    BreaksOff
}

/// Phase, what a client gets for a GET and for a POST, and how many times a GET is tried.
const TABLE: [(Death, Gets, Gets, u64); 29] = [
    (Refuses, Error(503, "connect"), Error(503, "connect"), 4),
    (ClosesAtOnce, Error(502, "reset"), Error(502, "reset"), 4),
    (ResetsAtOnce, Error(502, "reset"), Error(502, "reset"), 4),
    (IsNoHttp2, Error(502, "reset"), Error(502, "reset"), 4),
    (AfterItsSettings, Error(502, "reset"), Error(502, "reset"), 4),
    (AfterRequestHead, Error(502, "reset"), Error(502, "reset"), 4),
    (GoAwayWithoutIt(NO_ERROR), Error(502, "reset"), Error(502, "reset"), 4),
    (GoAwayWithoutIt(ENHANCE_YOUR_CALM), Error(502, "reset"), Error(502, "reset"), 4),
    (GoAwayWithIt(NO_ERROR), Error(502, "reset"), Error(502, "reset"), 4),
    (GoAwayWithIt(INTERNAL_ERROR), Error(502, "reset"), Error(502, "reset"), 4),
    (GoAwayThenResponse, Whole, Whole, 1),
    (ResetsStream(REFUSED_STREAM), Error(502, "reset"), Error(502, "reset"), 4),
    (ResetsStream(NO_ERROR), Error(502, "reset"), Error(502, "reset"), 4),
    (ResetsStream(PROTOCOL_ERROR), Error(502, "reset"), Error(502, "reset"), 4),
    (ResetsStream(INTERNAL_ERROR), Error(502, "reset"), Error(502, "reset"), 4),
    (ResetsStream(STREAM_CLOSED), Error(502, "reset"), Error(502, "reset"), 4),
    (ResetsStream(CANCEL), Error(502, "reset"), Error(502, "reset"), 4),
    (ResetsStream(ENHANCE_YOUR_CALM), Error(502, "reset"), Error(502, "reset"), 4),
    (AfterInterim, Error(502, "reset"), Error(502, "reset"), 4),
    (BadHead, Error(502, "bad-response"), Error(502, "bad-response"), 1),
    (AfterResponseHead, BreaksOff, BreaksOff, 1),
    (MidBody, BreaksOff, BreaksOff, 1),
    (MidFrame, BreaksOff, BreaksOff, 1),
    (ResetMidBody, BreaksOff, BreaksOff, 1),
    (ResetsStreamMidBody(INTERNAL_ERROR), BreaksOff, BreaksOff, 1),
    (GoAwayMidBody, Whole, Whole, 1),
    (ShortBody, BreaksOff, BreaksOff, 1),
    (BeforeTrailers, BreaksOff, BreaksOff, 1),
    (BadTrailers, BreaksOff, BreaksOff, 1),
];

/// What is retried of a POST: only what was provably not processed.
fn post_is_retried(death: Death) -> bool {
    matches!(death, Refuses | GoAwayWithoutIt(_) | ResetsStream(REFUSED_STREAM))
}

async fn endpoint(death: Death) -> SocketAddr {
    if matches!(death, Refuses) {
        return TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    }
    Endpoint::raw(move |stream, _| die(stream, death)).await.address
}

#[tokio::test]
async fn whatever_an_endpoint_dies_of_the_client_is_told_and_nothing_broken_looks_whole() {
    for (death, for_get, for_post, attempts) in TABLE {
        let world = World::new();
        world.service_speaking("cart", &[endpoint(death).await], Some("kubernetes.io/h2c"));
        let proxy = world.proxy(&["cart"], &[]).await;
        let mut client = Peer::client(proxy.listeners[0]).await;
        let retries = async || {
            metric(&proxy, r#"ferrule_retries_total{direction="outbound",service="shop/cart"}"#).await
        };
        let response = client.get("/", &[]).await;
        assert_eq!(got(&response), for_get, "{death:?}, GET: {response:?}");
        let after_get = retries().await;
        assert_eq!(after_get, attempts - 1, "{death:?}: retries of the GET");
        let response = client.send("POST", b"content", &[]).await;
        assert_eq!(got(&response), for_post, "{death:?}, POST: {response:?}");
        let expected = if post_is_retried(death) { 3 } else { 0 };
        assert_eq!(retries().await - after_get, expected, "{death:?}: retries of the POST");
        // A client of HTTP/1 gets the same.
        let answer = talk(proxy.listeners[0], &get("/", "")).await;
        match for_get {
            Whole => assert!(
                answer.starts_with("HTTP/1.1 200") && answer.contains("\r\n\r\n"),
                "{death:?}: {answer}"
            ),
            Error(status, name) => {
                let head = format!("HTTP/1.1 {status} ");
                let told = answer.split("HTTP/1.1 103 \r\n\r\n").last().unwrap_or_default();
                let told = told.rsplit("HTTP/1.1 103 Early Hints\r\n\r\n").next().unwrap_or_default();
                assert!(
                    told.starts_with(&head) && told.contains(&format!("ferrule-error: {name}\r\n")),
                    "{death:?}: {answer}"
                );
            }
            BreaksOff => {
                let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
                assert!(answer.contains("content-length: 8\r\n"), "{death:?}: {answer}");
                // Before the trailers all of the body has come; that it has ended can't be taken back in HTTP/1.
                assert!(
                    body.len() < 8 || matches!(death, BeforeTrailers | BadTrailers),
                    "{death:?}: {answer}"
                );
            }
        }
    }
}

/// gRPC's clients hear of it in their own words.
#[tokio::test]
async fn a_grpc_client_is_told_unavailable() {
    for death in [Refuses, AfterRequestHead, ResetsStream(INTERNAL_ERROR)] {
        let world = World::new();
        world.service_speaking("cart", &[endpoint(death).await], Some("grpc"));
        let proxy = world.proxy(&["cart"], &[]).await;
        let mut client = Peer::client(proxy.listeners[0]).await;
        let response = client.send("POST", b"\0\0\0\0\0", &[("content-type", "application/grpc")]).await;
        assert_eq!((response.status, response.field("grpc-status")), (200, "14"), "{death:?}: {response:?}");
    }
}

/// A server whose deadline has passed cancels the call. The client's library tells that from its own deadline.
#[tokio::test]
async fn a_cancelled_call_is_cancelled_at_the_client_and_not_sent_again() {
    let world = World::new();
    world.service_speaking("cart", &[endpoint(ResetsStream(CANCEL)).await], Some("grpc"));
    let proxy = world.proxy(&["cart"], &[]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    for _ in 0..2 {
        let response = client.send("POST", b"\0\0\0\0\0", &[("content-type", "application/grpc")]).await;
        assert!(response.reset == Some(CANCEL) && !response.gone, "{response:?}");
        assert_eq!(response.status, 0, "nothing was answered: {response:?}");
    }
    let retried = metric(&proxy, r#"ferrule_retries_total{direction="outbound",service="shop/cart"}"#).await;
    assert_eq!(retried, 0);
}

/// A server's sidecar says that nothing was processed, and the request's content is still on its way: gRPC's clients send
/// a call's head before its first message.
#[tokio::test]
async fn a_call_that_no_application_took_goes_elsewhere_with_what_was_sent_of_it() {
    let gone = Endpoint::new(&[], |mut peer, _| async move {
        loop {
            match peer.next_ever().await {
                // Only when there is something to be lost.
                Frame::Data { id, .. } => {
                    let told = [(":status", "200"), ("grpc-status", "14"), ("ferrule-error", "app-connect")];
                    peer.headers(id, &told, true).await;
                }
                Frame::Closed | Frame::Aborted => return,
                _ => {}
            }
        }
    })
    .await;
    let there = Endpoint::named("there").await;
    let world = World::new();
    world.service_speaking("cart", &[gone.address, there.address], Some("grpc"));
    let proxy = world.proxy(&["cart"], &[]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    for _ in 0..20 {
        let id = client.request("POST", "/", &[("content-type", "application/grpc")], false).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        client.data(id, b"first ", false).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.data(id, b"second", true).await;
        let response = client.response(id).await;
        assert!(response.text().ends_with("\nfirst second"), "{response:?}");
    }
    let retried = metric(&proxy, r#"ferrule_retries_total{direction="outbound",service="shop/cart"}"#).await;
    assert!(retried > 0 && gone.connections() > 0, "{retried} retries");
}
