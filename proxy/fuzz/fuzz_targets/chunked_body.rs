//! Chunked bodies: how the bytes arrive changes nothing, and content comes out as the second parser has it.
#![no_main]

use ferrule_fuzz::strict::{self, Kind};
use ferrule_proxy::http1::body::{Body, Framing};
use libfuzzer_sys::fuzz_target;

fn read(bytes: &[u8], piece: usize) -> Option<(Vec<u8>, usize, bool)> {
    let mut body = Body::new(Framing::Chunked);
    let (mut content, mut used) = (Vec::new(), 0);
    while used < bytes.len() && !body.is_done() {
        let end = (used + piece).min(bytes.len());
        let step = body.step(&bytes[used..end]).ok()?;
        content.extend_from_slice(&bytes[used..end][step.content]);
        used += step.used;
    }
    Some((content, used, body.is_done()))
}

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let whole = read(bytes, usize::MAX / 2);
    assert_eq!(read(bytes, usize::from(piece) + 1), whole);
    let mut body = Body::new(Framing::Chunked);
    assert_eq!(body.advance(bytes).ok(), whole.as_ref().map(|(_, used, _)| *used));
    let Some((content, used, true)) = whole else { return };
    let mut message = b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    message.extend_from_slice(&bytes[..used]);
    let messages =
        strict::parse(&message, Kind::Responses { to_head: false }).expect("the second parser takes it");
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].content, content);
});
