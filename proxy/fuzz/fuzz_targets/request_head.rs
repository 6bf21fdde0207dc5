//! Heads of requests: no panic, and what holds of every head that is taken.
#![no_main]

use ferrule_proxy::http1::head::{self, Scan, field_space};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut space = field_space();
    let Ok(Some((head, length))) = head::request(bytes, &mut space) else { return };
    assert!(bytes[..length].ends_with(b"\r\n\r\n"));
    assert!(!bytes[..length - 4].windows(4).any(|four| four == b"\r\n\r\n"));
    assert!(head.path().starts_with('/') || head.path() == "*" || head.method == "CONNECT");
    assert!(head.target.is_ascii());
    // The scanner that decides when to parse finds the same end, however the bytes arrive.
    let mut scan = Scan::default();
    for end in 1..length {
        assert!(!scan.is_decidable(&bytes[..end]), "at {end} of {length}");
    }
    assert!(scan.is_decidable(&bytes[..length]));
    // What comes after a head does not change it, and less of it is no head.
    assert!(
        matches!(head::request(&bytes[..length], &mut field_space()), Ok(Some((_, again))) if again == length)
    );
    assert!(matches!(head::request(&bytes[..length - 1], &mut field_space()), Ok(None)));
});
