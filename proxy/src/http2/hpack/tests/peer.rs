//! Against another implementation: it reads what we write, and we read what it writes.

use proptest::prelude::*;

use super::{
    laws::{Step, steps},
    *,
};

proptest! {
    #[test]
    fn the_peer_decodes_what_we_encode(steps in steps()) {
        let mut encoder = Encoder::new();
        let mut peer = loona_hpack::Decoder::new();
        peer.set_max_allowed_table_size(4096);
        for step in steps {
            match step {
                Step::TableSize(size) => encoder.set_max_table_size(size),
                Step::Forget => encoder.forget(),
                // The peer takes no block that has nothing but a table size.
                Step::Block(fields) if fields.is_empty() => {}
                Step::Block(fields) => {
                    let block = encode(&mut encoder, &fields);
                    prop_assert_eq!(peer.decode(&block).ok(), Some(fields));
                }
            }
        }
    }

    #[test]
    fn we_decode_what_the_peer_encodes(steps in steps()) {
        let mut peer = loona_hpack::Encoder::new();
        let mut decoder = Decoder::new(4096);
        for step in steps {
            // It announces no sizes.
            let Step::Block(fields) = step else { continue };
            let block = peer.encode(fields.iter().map(|(name, value)| (&name[..], &value[..])));
            prop_assert_eq!(decode(&mut decoder, &block), Ok(fields));
        }
    }

    #[test]
    fn the_peer_reads_the_same_in_any_octets_that_we_accept(block in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(fields) = decode(&mut Decoder::new(4096), &block)
            // See above.
            && !fields.is_empty()
        {
            let mut peer = loona_hpack::Decoder::new();
            peer.set_max_allowed_table_size(4096);
            prop_assert_eq!(peer.decode(&block).ok(), Some(fields));
        }
    }
}
