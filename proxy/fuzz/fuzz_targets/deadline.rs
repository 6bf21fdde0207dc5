//! Deadlines in header fields: what is passed on is readable, and never more than there was.
#![no_main]

use std::time::Instant;

use ferrule_proxy::deadline::{NAMES, of, written};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let colon = bytes.iter().position(|&byte| byte == b':').unwrap_or(bytes.len());
    let (name, value) = (&bytes[..colon], bytes.get(colon + 1..).unwrap_or_default());
    let now = Instant::now();
    let Some(at) = of([(name, value)].into_iter(), now) else { return };
    for name in NAMES {
        let text = written(name, at - now);
        let again = of([(name.as_bytes(), text.as_bytes())].into_iter(), now).expect("what we write is readable");
        assert!(again <= at, "{name}: {text} is more than {:?}", at - now);
    }
});
