//! The bounds on what an HTTP/2 peer can make grow or last, through the real proxy: what ends, with which code, and
//! that it is counted.

mod http2_harness;
mod support;

use std::time::{Duration, Instant};

use ferrule_proxy::{
    app::App,
    http2::{
        core::{Core, Role},
        frame::Code,
    },
    limits::Http2Limits,
};
use http2_harness::{
    ACK, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Endpoint,
    FLOW_CONTROL_ERROR, Frame, GOAWAY, HEADERS, NO_ERROR, PADDED, PING, PRIORITY, Peer, REFUSED_STREAM,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, exceeded, frame, value,
};
use support::World;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A proxy in front of an endpoint that answers everything.
async fn proxy(variables: &[(&str, &str)]) -> (World, App) {
    let endpoint = Endpoint::named("app").await;
    let world = World::new();
    world.service("cart", &[endpoint.address]);
    let proxy = world.proxy_with(&["cart"], &[], variables).await;
    (world, proxy)
}

async fn calm(client: &mut Peer, reason: &str) {
    match client.end().await {
        Frame::GoAway { code: ENHANCE_YOUR_CALM, debug, .. } => assert_eq!(debug, reason),
        other => panic!("{other:?} instead of: {reason}"),
    }
}

/// Sends these frames a number of times at once, as an attacker does, and expects the end of the connection.
async fn flood(limit: &str, reason: &str, each: impl Fn(&mut Peer, u32) -> Vec<u8>, count: u32) {
    let (_world, proxy) = proxy(&[]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let mut bytes = Vec::new();
    for index in 0..count {
        bytes.extend(each(&mut client, index));
    }
    client.write(&bytes).await;
    calm(&mut client, reason).await;
    assert_eq!(exceeded(&proxy, limit).await, 1, "{limit}");
    let mut other = Peer::client(proxy.listeners[0]).await;
    assert_eq!(other.get("/", &[]).await.status, 200, "others are served");
}

fn open(peer: &mut Peer, end: bool) -> (u32, Vec<u8>) {
    let id = peer.take_id();
    let fields = [(":method", "POST"), (":scheme", "http"), (":authority", "cart"), (":path", "/")];
    let block = peer.block(&fields);
    (id, frame(HEADERS, END_HEADERS | u8::from(end), id, &block))
}

/// CVE-2023-44487.
#[tokio::test]
async fn rapid_reset_ends_the_connection() {
    let each = |peer: &mut Peer, _| {
        let (id, head) = open(peer, true);
        [head, frame(RST_STREAM, 0, id, &CANCEL.to_be_bytes())].concat()
    };
    flood("http2-resets", "too many streams are reset", each, 600).await;
}

/// The same by errors that the proxy has to answer with a reset (CVE-2025-8671, "MadeYouReset").
#[tokio::test]
async fn streams_that_are_made_to_be_reset_end_the_connection() {
    let each = |peer: &mut Peer, _| {
        let (id, head) = open(peer, true);
        [head, frame(WINDOW_UPDATE, 0, id, &[0; 4])].concat()
    };
    flood("http2-resets", "too many streams are reset", each, 600).await;
}

#[tokio::test]
async fn a_flood_of_settings_ends_the_connection() {
    flood("http2-settings", "too many SETTINGS", |_, _| frame(SETTINGS, 0, 0, &[]), 60).await;
}

#[tokio::test]
async fn a_flood_of_answers_that_nobody_asked_for_ends_the_connection() {
    flood("http2-settings", "too many SETTINGS", |_, _| frame(SETTINGS, ACK, 0, &[]), 60).await;
    flood("http2-pings", "too many PINGs", |_, _| frame(PING, ACK, 0, &[0; 8]), 110).await;
}

#[tokio::test]
async fn a_flood_of_pings_ends_the_connection() {
    flood("http2-pings", "too many PINGs", |_, _| frame(PING, 0, 0, &[0; 8]), 110).await;
}

#[tokio::test]
async fn a_flood_of_goaways_ends_the_connection() {
    // The open stream keeps the connection, which would else end in order.
    let each = |peer: &mut Peer, index| {
        if index == 0 { open(peer, false).1 } else { frame(GOAWAY, 0, 0, &[0; 8]) }
    };
    flood("http2-empty", "too many frames without content", each, 1100).await;
}

/// CVE-2019-9511 and -9517 begin so.
#[tokio::test]
async fn a_flood_of_window_updates_ends_the_connection() {
    let reason = "too many WINDOW_UPDATEs";
    let one = 1_u32.to_be_bytes();
    flood("http2-window-updates", reason, |_, _| frame(WINDOW_UPDATE, 0, 0, &one), 110).await;
    let on_a_stream = |peer: &mut Peer, index| {
        if index == 0 { open(peer, false).1 } else { frame(WINDOW_UPDATE, 0, 1, &one) }
    };
    flood("http2-window-updates", reason, on_a_stream, 110).await;
}

/// Go's net/http tells of each 4 KiB that is read, of the stream and of the connection: eight for each DATA frame.
#[tokio::test]
async fn a_client_that_tells_of_every_four_kilobytes_floods_nobody() {
    const SIZE: usize = 8 * 1024 * 1024;
    let endpoint = Endpoint::new(&[(4, 0x7fff_ffff)], |mut peer, _| async move {
        let Frame::Headers { id, .. } = peer.next_ever().await else { return };
        peer.headers(id, &[(":status", "200")], false).await;
        // The connection's window is larger.
        let mut window = 256 * 1024;
        for _ in 0..SIZE / 16_384 {
            while window < 16_384 {
                match peer.any().await {
                    Frame::WindowUpdate { id: of, increment } if of == id => window += increment,
                    Frame::WindowUpdate { .. } | Frame::SettingsAck => {}
                    other => panic!("{other:?}"),
                }
            }
            window -= 16_384;
            peer.data(id, &[7; 16_384], false).await;
        }
        peer.data(id, b"", true).await;
        peer.end().await;
    })
    .await;
    let world = World::new();
    world.service("cart", &[endpoint.address]);
    let proxy = world.proxy_with(&["cart"], &[], &[]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    client.gives_back = false;
    let id = client.request("GET", "/", &[], true).await;
    let mut seen = 0;
    loop {
        match client.next().await {
            Frame::Headers { .. } => {}
            Frame::Data { content, end, .. } => {
                seen += content.len();
                for piece in content.chunks(4096) {
                    client.window(0, piece.len() as u32).await;
                    client.window(id, piece.len() as u32).await;
                }
                if end {
                    break;
                }
            }
            other => panic!("{other:?} after {seen} bytes"),
        }
    }
    assert_eq!(seen, SIZE);
    assert_eq!(exceeded(&proxy, "http2-window-updates").await, 0);
}

#[tokio::test]
async fn a_flood_of_empty_data_ends_the_connection() {
    let each = |peer: &mut Peer, index| {
        if index == 0 { open(peer, false).1 } else { frame(DATA, 0, 1, &[]) }
    };
    flood("http2-empty", "too many frames without content", each, 1100).await;
}

#[tokio::test]
async fn a_flood_of_padding_ends_the_connection() {
    let padded = [&[200u8][..], &[0; 200]].concat();
    let each = move |peer: &mut Peer, index| {
        if index == 0 { open(peer, false).1 } else { frame(DATA, PADDED, 1, &padded) }
    };
    flood("http2-empty", "too many frames without content", each, 1100).await;
}

#[tokio::test]
async fn a_flood_of_priorities_and_unknown_frames_ends_the_connection() {
    let each = |_: &mut Peer, index: u32| match index % 2 {
        0 => frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 16]),
        _ => frame(0xbe, 0xff, 0, b"grease"),
    };
    flood("http2-empty", "too many frames without content", each, 1100).await;
}

/// CVE-2024-27316 and its kin: a header block that goes on for ever.
#[tokio::test]
async fn endless_continuations_end_the_connection() {
    let each = |peer: &mut Peer, index| match index {
        0 => {
            let (id, mut head) = open(peer, false);
            head[4] &= !END_HEADERS;
            assert_eq!(id, 1);
            head
        }
        _ => frame(CONTINUATION, 0, 1, &[]),
    };
    flood("head-bytes", "header block is too large", each, 40).await;
    let large = move |peer: &mut Peer, index| match index {
        0 => each(peer, 0),
        _ => frame(CONTINUATION, 0, 1, &[0x40; 16_000]),
    };
    flood("head-bytes", "header block is too large", large, 8).await;
}

#[tokio::test]
async fn a_large_head_in_many_continuations_is_understood_where_it_is_allowed() {
    let endpoint = Endpoint::new(&[], |mut peer, _| async move {
        let Frame::Headers { id, fields, .. } = peer.next_ever().await else { return };
        let size = value(&fields, "x-long").len().to_string();
        peer.headers(id, &[(":status", "200"), ("x-size", &size)], true).await;
        peer.end().await;
    })
    .await;
    let world = World::new();
    world.service("cart", &[endpoint.address]);
    let proxy = world.proxy_with(&["cart"], &[], &[("FERRULE_LIMIT_HEAD_BYTES", "1000000")]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let long = "x".repeat(600_000);
    let fields =
        [(":method", "GET"), (":scheme", "http"), (":authority", "cart"), (":path", "/"), ("x-long", &long)];
    let id = client.take_id();
    let block = client.block(&fields);
    let mut pieces = block.chunks(16_384).peekable();
    client.frame(HEADERS, END_STREAM, id, pieces.next().expect("the first")).await;
    while let Some(piece) = pieces.next() {
        let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        client.frame(CONTINUATION, last, id, piece).await;
    }
    let response = client.response(id).await;
    assert_eq!((response.status, response.field("x-size")), (200, "600000"), "{response:?}");
}

/// What was begun and not ended: a header block, a frame, the greeting.
#[tokio::test]
async fn a_head_that_does_not_end_in_time_ends_the_connection() {
    let (_world, proxy) = proxy(&[("FERRULE_LIMIT_HEAD_TIME", "300ms")]).await;
    let reason = "greeting, frame or header block did not end in time";
    for (index, kind) in ["block", "frame"].into_iter().enumerate() {
        let mut client = Peer::client(proxy.listeners[0]).await;
        assert_eq!(client.get("/", &[]).await.status, 200);
        let (_, mut head) = open(&mut client, true);
        if kind == "block" {
            head[4] &= !END_HEADERS;
            client.write(&head).await;
            // Frames of the block go on, slowly.
            tokio::time::sleep(Duration::from_millis(200)).await;
            client.frame(CONTINUATION, 0, 3, &[]).await;
        } else {
            client.write(&head[..head.len() - 1]).await;
        }
        let waited = Instant::now();
        calm(&mut client, reason).await;
        assert!(waited.elapsed() < Duration::from_secs(2), "{kind}: {:?}", waited.elapsed());
        assert_eq!(exceeded(&proxy, "head-time").await, index as u64 + 1, "{kind}");
    }
    let mut client = TcpStream::connect(proxy.listeners[0]).await.expect("the proxy listens");
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
    let mut seen = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(2), client.read_to_end(&mut seen)).await;
    end.expect("cut off in time").expect("ended in order");
    assert!(seen.ends_with(reason.as_bytes()), "{}", seen.escape_ascii());
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_the_others_are_not() {
    let silent = Endpoint::new(&[(3, 1000)], |mut peer, _| async move {
        while !matches!(peer.next_ever().await, Frame::Closed | Frame::Aborted) {}
    })
    .await;
    let world = World::new();
    world.service("cart", &[silent.address]);
    let proxy = world.proxy_with(&["cart"], &[], &[("FERRULE_LIMIT_HTTP2_STREAMS", "10")]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let Frame::Settings(settings) = client.any().await else { panic!("SETTINGS come first") };
    assert!(settings.contains(&(3, 10)), "{settings:?}");
    for _ in 0..12 {
        client.request("GET", "/", &[], true).await;
    }
    assert_eq!(client.next().await, Frame::Reset { id: 21, code: REFUSED_STREAM });
    assert_eq!(client.next().await, Frame::Reset { id: 23, code: REFUSED_STREAM });
    assert_eq!(exceeded(&proxy, "http2-streams").await, 2);
    client.reset(1, CANCEL).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let id = client.request("GET", "/", &[], true).await;
    client.frame(PING, 0, 0, b"are you?").await;
    loop {
        match client.any().await {
            Frame::Pong(_) => break,
            Frame::Reset { id: of, .. } => panic!("{of} of {id} was refused although one had ended"),
            _ => {}
        }
    }
}

/// A block of some kilobytes that stands for megabytes: one long field, named again and again by one byte.
#[tokio::test]
async fn a_header_bomb_is_answered_with_431() {
    let (_world, proxy) = proxy(&[]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let id = client.take_id();
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "cart"), (":path", "/")];
    let mut block = client.block(&fields);
    // Literal with incremental indexing, a name of one byte and a value of 3,900: the newest entry, index 62.
    block.extend_from_slice(&[0x40, 1, b'x', 0x7f]);
    let mut rest = 3900 - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).expect("seven bits") | 0x80);
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("seven bits"));
    block.extend_from_slice(&[b'y'; 3900]);
    block.extend_from_slice(&[0x80 | 62; 12_000]);
    client.frame(HEADERS, END_HEADERS | END_STREAM, id, &block).await;
    let response = client.response(id).await;
    assert_eq!((response.status, response.field("ferrule-error")), (431, "head-too-large"), "{response:?}");
    assert_eq!(exceeded(&proxy, "head-bytes").await, 1);
}

/// Without the proxy around it, for that takes content as it comes.
#[test]
fn more_content_than_the_windows_allow_is_refused() {
    let begin = || {
        let now = Instant::now();
        let mut core = Core::new(Role::Server, Http2Limits::default(), now);
        let mut encoder = loona_hpack::Encoder::new();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &[]));
        for id in [1, 3, 5, 7, 9] {
            let fields = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
            let block =
                encoder.encode(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
            bytes.extend(frame(HEADERS, END_HEADERS, id, &block));
        }
        assert_eq!(core.receive(&bytes, now), Ok(bytes.len()));
        core.out.clear();
        (core, now)
    };
    let piece = |id| frame(DATA, 0, id, &[0; 16_384]);
    let (mut core, now) = begin();
    for _ in 0..16 {
        assert!(core.receive(&piece(1), now).is_ok());
    }
    assert!(core.out.is_empty(), "a stream's window is used up to its last byte");
    assert!(core.receive(&piece(1), now).is_ok());
    assert_eq!(core.out, frame(RST_STREAM, 0, 1, &FLOW_CONTROL_ERROR.to_be_bytes()));
    let (mut core, now) = begin();
    for id in [1, 3, 5, 7] {
        for _ in 0..16 {
            assert!(core.receive(&piece(id), now).is_ok());
        }
    }
    assert_eq!(core.receive(&piece(9), now).map_err(|error| error.code), Err(Code::FLOW_CONTROL_ERROR));
}

/// Padding takes from a stream's window, and nobody ever takes padding: it has to be given back by itself.
#[tokio::test]
async fn padding_alone_does_not_use_a_window_up() {
    let (_world, proxy) = proxy(&[("FERRULE_LIMIT_HTTP2_STREAM_WINDOW", "65535")]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let id = client.request("POST", "/", &[], false).await;
    let padded = [&[255u8][..], &[0; 255]].concat();
    let mut window = 65_535;
    for _ in 0..600 {
        while window < 256 {
            if let Frame::WindowUpdate { id: of, increment } = client.any().await
                && of == id
            {
                window += increment;
            }
        }
        client.frame(DATA, PADDED, id, &padded).await;
        window -= 256;
    }
    client.data(id, b"end", true).await;
    let response = client.response(id).await;
    assert!(response.text().ends_with("\n\nend"), "{response:?}");
}

/// A client that asks and never reads: what waits for it stays bounded, and its stall ends it.
#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let endpoint = Endpoint::new(&[], |mut peer, _| async move {
        loop {
            match peer.next_ever().await {
                Frame::Headers { id, .. } => {
                    peer.headers(id, &[(":status", "200")], false).await;
                    peer.data(id, &[0; 16_384], false).await;
                }
                Frame::Closed | Frame::Aborted => return,
                _ => {}
            }
        }
    })
    .await;
    let world = World::new();
    world.service("cart", &[endpoint.address]);
    let variables = [("FERRULE_LIMIT_CLIENT_STALL", "1s"), ("FERRULE_LIMIT_HTTP2_PINGS", "100000000")];
    let proxy = world.proxy_with(&["cart"], &[], &variables).await;

    // It gives no window: each stream that waits for one ends.
    let mut client = Peer::client_with(proxy.listeners[0], &[(4, 0)]).await;
    let id = client.request("GET", "/", &[], true).await;
    assert!(matches!(client.next().await, Frame::Headers { .. }));
    assert_eq!(client.next().await, Frame::Reset { id, code: CANCEL });
    assert_eq!(exceeded(&proxy, "client-stall").await, 1);

    // It doesn't read at all: PINGs whose answers nobody takes are not read for ever, and the connection ends.
    let mut client = Peer::client(proxy.listeners[0]).await;
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(4096);
    let mut sent = 0;
    let begun = Instant::now();
    loop {
        match tokio::time::timeout(Duration::from_secs(6), client.write(&pings)).await {
            Ok(true) => sent += pings.len(),
            Ok(false) => break,
            Err(_) => panic!("it was not cut off after {sent} bytes"),
        }
        assert!(sent < 100 << 20, "all of it was read");
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(exceeded(&proxy, "client-stall").await, 2);
}

#[tokio::test]
async fn an_idle_connection_ends_in_order_and_a_used_one_does_not() {
    let (_world, proxy) = proxy(&[("FERRULE_LIMIT_IDLE", "400ms")]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        assert_eq!(client.get("/", &[]).await.status, 200, "after {:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(matches!(client.end().await, Frame::GoAway { code: NO_ERROR, .. }));
    assert_eq!(exceeded(&proxy, "idle").await, 1);
}

/// An endpoint that breaks HTTP/2's rules is an endpoint without a response; what it gets is the right code.
#[tokio::test]
async fn an_endpoint_that_floods_gets_what_a_client_gets() {
    let (told, mut codes) = tokio::sync::mpsc::unbounded_channel();
    let endpoint = Endpoint::new(&[], move |mut peer, _| {
        let told = told.clone();
        async move {
            let Frame::Headers { fields, .. } = peer.next_ever().await else { return };
            let flood = match value(&fields, ":path") {
                "/settings" => frame(SETTINGS, 0, 0, &[]).repeat(60),
                "/pings" => frame(PING, 0, 0, &[0; 8]).repeat(110),
                "/acks" => frame(SETTINGS, ACK, 0, &[]),
                _ => frame(0xbe, 0, 0, &[]).repeat(1100),
            };
            peer.write(&flood).await;
            if let Frame::GoAway { code, .. } = peer.end().await {
                told.send(code).expect("the test goes on");
            }
        }
    })
    .await;
    let world = World::new();
    world.service("cart", &[endpoint.address]);
    let proxy = world.proxy(&["cart"], &[]).await;
    let mut client = Peer::client(proxy.listeners[0]).await;
    for path in ["/settings", "/pings", "/unknown"] {
        let id = client.request("POST", path, &[], true).await;
        let response = client.response(id).await;
        assert_eq!((response.status, response.field("ferrule-error")), (502, "reset"), "{path}");
        assert_eq!(codes.recv().await, Some(ENHANCE_YOUR_CALM), "{path}");
    }
}
