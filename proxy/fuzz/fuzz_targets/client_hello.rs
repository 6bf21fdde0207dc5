//! The ClientHello of TLS that is passed through: no panic; what was read stays as it is with more bytes; names are
//! host names.
#![no_main]

use ferrule_proxy::tcp::client_hello::{MOST, Reading, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes);
    if bytes.len() >= MOST {
        assert_ne!(whole, Reading::Incomplete);
    }
    if let Reading::Hello(hello) = &whole
        && let Some(name) = &hello.server_name
    {
        assert!((1..=253).contains(&name.len()), "{name}");
        assert!(name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || b"-_.".contains(&it)));
    }
    // A few beginnings instead of all, for each is read anew.
    let step = bytes.len().div_ceil(32).max(1);
    for end in (0..bytes.len()).step_by(step) {
        let early = read(&bytes[..end]);
        assert!(early == Reading::Incomplete || early == whole, "{early:?}, then {whole:?}");
    }
});
