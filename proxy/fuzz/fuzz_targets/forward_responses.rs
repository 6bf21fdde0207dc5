//! What we forward of an endpoint's responses is, to a strict second parser, the same responses.
#![no_main]

use ferrule_fuzz::{
    forward,
    strict::{self, Kind},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, bool, &[u8])| {
    let (to_head, dechunk, bytes) = input;
    let (forwarded, understood) = forward::responses(bytes, to_head, dechunk);
    let messages = match strict::parse(&forwarded, Kind::Responses { to_head }) {
        Ok(messages) => messages,
        Err(error) => panic!("{error}: {}", forwarded.escape_ascii()),
    };
    assert_eq!(messages.len(), understood.len(), "{}", forwarded.escape_ascii());
    for (message, understood) in messages.iter().zip(&understood) {
        assert_eq!(message.start[1], understood.start);
        assert_eq!(message.content, understood.content);
        assert!(!message.fields.iter().any(|(name, _)| name == "ferrule-error"), "forged");
    }
});
