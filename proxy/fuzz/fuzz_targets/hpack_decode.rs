//! Header blocks of a peer: no panic, no more fields than octets, and what was read is read again when we write it.
#![no_main]

use ferrule_proxy::http2::hpack::{Decoder, Encoder};
use libfuzzer_sys::fuzz_target;

/// Cuts the input into blocks, each with its length before it.
fn blocks(mut input: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = input.split_first()?;
        let (block, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        input = rest;
        Some(block)
    })
}

fuzz_target!(|input: (u16, &[u8])| {
    let (limit, input) = input;
    let mut decoder = Decoder::new(usize::from(limit));
    let (mut encoder, mut second) = (Encoder::new(), Decoder::new(4096));
    for block in blocks(input) {
        let mut fields: Vec<(Vec<u8>, Vec<u8>, bool)> = Vec::new();
        let read = decoder.decode_fields(block, |field| {
            fields.push((field.name.to_vec(), field.value.to_vec(), field.never_indexed));
        });
        assert!(fields.len() <= block.len());
        let largest = usize::from(limit).max(4096).max(2 * block.len());
        assert!(fields.iter().all(|(name, value, _)| name.len() <= largest && value.len() <= largest));
        // Forwarded, the fields are the same, and what no hop may index still says so.
        let mut forwarded = Vec::new();
        encoder.begin(&mut forwarded);
        for (name, value, never_indexed) in &fields {
            if *never_indexed {
                encoder.field_never_indexed(name, value, &mut forwarded);
            } else {
                encoder.field(name, value, &mut forwarded);
            }
        }
        let mut expected = fields.iter();
        second
            .decode_fields(&forwarded, |field| {
                let (name, value, never_indexed) = expected.next().expect("not more fields");
                assert_eq!((field.name, field.value), (&name[..], &value[..]));
                assert!(field.never_indexed || !never_indexed);
            })
            .expect("our own block");
        assert_eq!(expected.len(), 0);
        if read.is_err() {
            break;
        }
    }
});
