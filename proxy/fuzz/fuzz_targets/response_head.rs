//! Heads of responses: no panic, and what holds of every head that is taken.
#![no_main]

use ferrule_proxy::http1::{
    body::Framing,
    head::{self, field_space},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, bool, &[u8])| {
    let (to_head, to_connect, bytes) = input;
    let mut space = field_space();
    let Ok(Some((head, length))) = head::response(bytes, &mut space, to_head, to_connect) else { return };
    assert!(bytes[..length].ends_with(b"\r\n\r\n"));
    assert!((100..=999).contains(&head.status));
    assert!(!(head.framing == Framing::Close && head.keep_alive));
    if to_head || head.status < 200 || head.status == 204 || head.status == 304 {
        assert_eq!(head.framing, Framing::None);
    }
    assert!(matches!(
        head::response(&bytes[..length], &mut field_space(), to_head, to_connect),
        Ok(Some((_, again))) if again == length
    ));
});
