//! Fields and table sizes, block after block: what was encoded is decoded, and the tables stay in step.
#![no_main]

use ferrule_proxy::http2::hpack::{Decoder, Encoder};
use libfuzzer_sys::fuzz_target;

/// Names that the encoder treats in different ways.
const NAMES: [&[u8]; 8] = [
    b":path",
    b":status",
    b":authority",
    b"cookie",
    b"authorization",
    b"content-length",
    b"x-tenant",
    b"accept-encoding",
];

fn take<'a>(input: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(length.min(input.len()));
    *input = rest;
    taken
}

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    let mut fields: Vec<(&[u8], &[u8])> = Vec::new();
    while let [step, rest @ ..] = input {
        input = rest;
        match step {
            0..=0x5f => {
                let name = match step >> 3 {
                    0..=7 => NAMES[usize::from(step >> 3)],
                    _ => take(&mut input, usize::from(step & 0x1f)),
                };
                let length = take(&mut input, 1).first().map_or(0, |length| usize::from(*length));
                fields.push((name, take(&mut input, length)));
                continue;
            }
            // A field once more.
            0x60..=0xdf => {
                fields.extend(fields.get(usize::from(step - 0x60)).copied());
                continue;
            }
            0xe0..=0xee => {
                // The size changes between blocks, as a peer's setting does.
                if fields.is_empty() {
                    let size = usize::from(step & 0x0f) * 300;
                    encoder.set_max_table_size(size);
                    decoder.set_max_table_size(size);
                }
                continue;
            }
            0xef => {
                // A long pause.
                if fields.is_empty() {
                    encoder.forget();
                    decoder.shrink();
                }
                continue;
            }
            0xf0.. => {}
        }
        // The same block twice or more, so that fields come into the table.
        for _ in 0..=(step & 3) {
            let mut block = Vec::new();
            encoder.begin(&mut block);
            fields.iter().for_each(|(name, value)| encoder.field(name, value, &mut block));
            let mut decoded = fields.iter();
            decoder
                .decode(&block, |name, value| assert_eq!(decoded.next(), Some(&(name, value))))
                .expect("our own block");
            assert_eq!(decoded.len(), 0);
        }
        fields.clear();
    }
});
