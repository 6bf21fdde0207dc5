//! Laws that hold for all fields and all octets.

use proptest::prelude::*;

use super::*;

/// What happens to one direction of a connection.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Block(Vec<Owned>),
    /// The peer's SETTINGS_HEADER_TABLE_SIZE.
    TableSize(usize),
    /// A long pause.
    Forget,
}

fn any_octets() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 0..30),
        1 => prop::collection::vec(any::<u8>(), 0..600),
        1 => (0_usize..5000).prop_map(|length| vec![b'v'; length]),
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    const USUAL: [&str; 12] = [
        ":method",
        ":path",
        ":status",
        ":authority",
        "cookie",
        "date",
        "authorization",
        "x-user",
        "x-tenant",
        "content-length",
        "accept-encoding",
        "grpc-timeout",
    ];
    prop_oneof![4 => prop::sample::select(&USUAL[..]).prop_map(|name| name.as_bytes().to_vec()), 1 => any_octets()]
}

/// Few enough that many come again.
fn value() -> impl Strategy<Value = Vec<u8>> {
    const USUAL: [&str; 10] =
        ["", "GET", "/", "200", "304", "gzip, deflate", "a", "b", "/search?q=1", "0123456789abcdef-0123"];
    prop_oneof![
        4 => prop::sample::select(&USUAL[..]).prop_map(|value| value.as_bytes().to_vec()),
        1 => any_octets()
    ]
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let block = prop::collection::vec((name(), value()), 0..16).prop_map(Step::Block);
    let size = prop_oneof![Just(0), Just(4096), Just(65_536), 0_usize..400].prop_map(Step::TableSize);
    prop::collection::vec(prop_oneof![8 => block, 2 => size, 1 => Just(Step::Forget)], 1..40)
}

/// Blocks of any octets, some of which begin as blocks do.
fn blocks() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let piece = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..20),
        2 => prop::collection::vec(0x80_u8..0xc8, 0..8),
        3 => (name(), value()).prop_map(|(name, value)| {
            let mut piece = vec![0x40];
            super::super::integer::put_string(&name, &mut piece);
            super::super::integer::put_string(&value, &mut piece);
            piece
        }),
        1 => (62_usize..70, value()).prop_map(|(index, value)| {
            let mut piece = Vec::new();
            super::super::integer::put_integer(index, 6, 0x40, &mut piece);
            super::super::integer::put_string(&value, &mut piece);
            piece
        }),
        1 => (0_usize..5000).prop_map(|size| {
            let mut piece = Vec::new();
            super::super::integer::put_integer(size, 5, 0x20, &mut piece);
            piece
        }),
    ];
    prop::collection::vec(prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat()), 0..20)
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded_whatever_sizes_the_table_has(steps in steps()) {
        let mut encoder = Encoder::new();
        let mut decoder = Decoder::new(4096);
        for step in steps {
            match step {
                Step::TableSize(size) => {
                    encoder.set_max_table_size(size);
                    decoder.set_max_table_size(size);
                }
                Step::Forget => {
                    encoder.forget();
                    decoder.shrink();
                }
                Step::Block(fields) => {
                    let block = encode(&mut encoder, &fields);
                    prop_assert_eq!(decode(&mut decoder, &block), Ok(fields));
                    let (ours, theirs) = (encoder.table(), decoder.table());
                    prop_assert_eq!(ours.len(), theirs.len());
                    for age in 0..ours.len() {
                        prop_assert_eq!(ours.entry(age), theirs.entry(age));
                    }
                }
            }
        }
    }

    #[test]
    fn any_octets_leave_the_table_within_its_size(limit in 0_usize..6000, blocks in blocks()) {
        let mut decoder = Decoder::new(limit);
        for block in blocks {
            let mut handed_out = 0;
            let result = decoder.decode(&block, |_, _| handed_out += 1);
            let table = decoder.table();
            prop_assert!(table.size() <= table.max_size());
            prop_assert!(table.capacity() <= 2 * table.max_size().max(4096) + 2 * block.len() + 256);
            prop_assert!(handed_out <= block.len());
            prop_assert!(decoder.scratch_len() <= 2 * 1024 + 4 * block.len());
            if result.is_err() {
                break;
            }
        }
    }
}
