//! What we forward of a connection's requests is, to a strict second parser, the same requests: as many, with the
//! same methods, targets and content, and not a byte more.
#![no_main]

use ferrule_fuzz::{
    forward,
    strict::{self, Kind},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (forwarded, understood) = forward::requests(bytes);
    let messages = match strict::parse(&forwarded, Kind::Requests) {
        Ok(messages) => messages,
        Err(error) => panic!("{error}: {}", forwarded.escape_ascii()),
    };
    assert_eq!(messages.len(), understood.len(), "{}", forwarded.escape_ascii());
    for (message, understood) in messages.iter().zip(&understood) {
        assert_eq!(message.start[0], understood.start);
        assert_eq!(message.start[1], understood.target);
        assert_eq!(message.content, understood.content);
        // What speaks of one connection stays on it; an upgrade is asked for anew.
        for (name, value) in &message.fields {
            assert!(!["keep-alive", "proxy-connection", "http2-settings"].contains(&name.as_str()));
            if name == "connection" {
                assert!([&b"upgrade"[..], b"te", b"upgrade, te"].contains(&value.as_slice()));
            }
        }
    }
    // What is forwarded is forwarded again as it is: two sidecars agree.
    assert_eq!(forward::requests(&forwarded), (forwarded.clone(), understood));
});
