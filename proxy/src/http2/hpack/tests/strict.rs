//! What a decoder has to refuse, and how the sizes of both tables stay in step.

use super::*;

fn refusal(block: &str) -> HpackError {
    decode(&mut Decoder::new(4096), &hex(block)).expect_err(block)
}

#[test]
fn indexes_in_neither_table_are_refused() {
    assert_eq!(refusal("80"), HpackError::UnknownIndex(0));
    assert_eq!(refusal("be"), HpackError::UnknownIndex(62));
    assert_eq!(refusal("ff 80 01"), HpackError::UnknownIndex(255));
    assert_eq!(refusal("7e 01 61"), HpackError::UnknownIndex(62), "the name of a literal to index");
    assert_eq!(refusal("0f 2f 01 61"), HpackError::UnknownIndex(62), "the name of a literal");
    assert_eq!(refusal("1f 2f 01 61"), HpackError::UnknownIndex(62), "the name of one never indexed");
    assert_eq!(refusal("40 01 61 01 62 bf"), HpackError::UnknownIndex(63), "one beyond the last");
    assert_eq!(refusal("ff ff ff ff ff 0f"), HpackError::IntegerOverflow, "a 33rd bit");
}

#[test]
fn blocks_that_end_within_a_field_are_refused() {
    let whole = hex("3f e1 1f 82 40 01 61 81 1f 44 85 aec3 771a 4b 0f 1c 01 35 be");
    let ends: Vec<usize> =
        (0..=whole.len()).filter(|end| decode(&mut Decoder::new(4096), &whole[..*end]).is_ok()).collect();
    assert_eq!(ends, [0, 3, 4, 9, 16, 20, 21], "only between fields");
    for end in 0..whole.len() {
        if !ends.contains(&end) {
            let cut = decode(&mut Decoder::new(4096), &whole[..end]);
            assert_eq!(cut, Err(HpackError::Truncated), "{end}");
        }
    }
}

#[test]
fn wrong_huffman_codes_are_refused_in_names_and_values() {
    assert_eq!(refusal("00 81 ff 01 61"), HpackError::WrongPadding);
    assert_eq!(refusal("04 82 1f ff"), HpackError::WrongPadding);
    assert_eq!(refusal("04 84 ff ff ff ff"), HpackError::EndOfStringInside);
}

#[test]
fn a_table_size_above_the_limit_is_refused() {
    let mut decoder = Decoder::new(4096);
    assert_eq!(decode(&mut decoder, &hex("3f e1 1f")), Ok(Vec::new()), "4096");
    let refused = decode(&mut decoder, &hex("3f e2 1f"));
    assert_eq!(refused, Err(HpackError::TableTooLarge { size: 4097, limit: 4096 }));
    assert_eq!(decode(&mut Decoder::new(8192), &hex("3f e2 1f")), Ok(Vec::new()));
}

#[test]
fn a_table_size_update_comes_first_or_not_at_all() {
    assert_eq!(refusal("82 20"), HpackError::LateTableSize);
    assert_eq!(decode(&mut Decoder::new(4096), &hex("20 3f e1 1f 82")), Ok(owned(&[(":method", "GET")])));
}

#[test]
fn a_lowered_limit_has_to_be_answered_by_the_next_block() {
    let lowered = |limits: &[usize]| {
        let mut decoder = Decoder::new(4096);
        limits.iter().for_each(|limit| decoder.set_max_table_size(*limit));
        decoder
    };
    assert_eq!(decode(&mut lowered(&[100]), &hex("82")), Err(HpackError::MissingTableSize));
    assert_eq!(decode(&mut lowered(&[0, 4096]), &hex("82")), Err(HpackError::MissingTableSize));
    assert_eq!(
        decode(&mut lowered(&[0, 4096]), &hex("3f e1 1f 82")),
        Err(HpackError::TableTooLarge { size: 4096, limit: 0 }),
        "it was 0 meanwhile"
    );
    assert_eq!(decode(&mut lowered(&[0, 4096]), &hex("20 3f e1 1f 82")).map(|fields| fields.len()), Ok(1));
    assert_eq!(decode(&mut lowered(&[100]), &hex("3f 45 82")).map(|fields| fields.len()), Ok(1));
    assert_eq!(decode(&mut lowered(&[4096, 8192]), &hex("82")).map(|fields| fields.len()), Ok(1));

    let mut decoder = lowered(&[100]);
    assert_eq!(decode(&mut decoder, &hex("")), Ok(Vec::new()));
    assert_eq!(decode(&mut decoder, &hex("82")), Err(HpackError::MissingTableSize), "still owed");

    let mut decoder = Decoder::new(4096);
    assert_eq!(decode(&mut decoder, &hex("3f 45")), Ok(Vec::new()), "its table is 100 bytes already");
    decoder.set_max_table_size(200);
    assert_eq!(decode(&mut decoder, &hex("82")).map(|fields| fields.len()), Ok(1));
}

#[test]
fn an_entry_larger_than_the_table_empties_it_and_is_still_handed_out() {
    let mut decoder = Decoder::new(4096);
    decode(&mut decoder, &hex("40 01 61 01 62")).expect("an entry");
    let mut block = vec![0x7e];
    super::super::integer::put_string(&[b'v'; 5000], &mut block);
    assert_eq!(decode(&mut decoder, &block), Ok(vec![(b"a".to_vec(), vec![b'v'; 5000])]));
    assert_eq!(decoder.table().len(), 0);
}

#[test]
fn memory_of_long_strings_is_given_back() {
    let mut decoder = Decoder::new(4096);
    let mut coded = Vec::new();
    super::super::huffman::encode(&[b'a'; 10_000], &mut coded);
    let mut block = vec![0x04];
    super::super::integer::put_integer(coded.len(), 7, 0x80, &mut block);
    block.extend_from_slice(&coded);
    assert_eq!(decode(&mut decoder, &block).map(|fields| fields[0].1.len()), Ok(10_000));
    assert_eq!(decoder.scratch_len(), 0);
}

#[test]
fn the_encoder_announces_the_smallest_and_the_last_size() {
    let announced = |sizes: &[usize]| {
        let mut encoder = Encoder::new();
        sizes.iter().for_each(|size| encoder.set_max_table_size(*size));
        let block = encode(&mut encoder, &[]);
        assert!(encode(&mut encoder, &[]).is_empty(), "only once");
        block
    };
    assert!(announced(&[]).is_empty());
    assert!(announced(&[4096]).is_empty());
    assert!(announced(&[65_536]).is_empty(), "more than we use");
    assert_eq!(announced(&[100]), hex("3f 45"));
    assert_eq!(announced(&[100, 0]), hex("20"));
    assert_eq!(announced(&[0, 100]), hex("20 3f 45"));
    assert_eq!(announced(&[0, 65_536]), hex("20 3f e1 1f"));
    assert_eq!(announced(&[100, 0, 50, 4096]), hex("20 3f e1 1f"));
}

#[test]
fn a_larger_size_is_announced_before_it_is_used() {
    let mut encoder = Encoder::new();
    encoder.set_max_table_size(0);
    assert_eq!(encode(&mut encoder, &[]), hex("20"));
    encoder.set_max_table_size(4096);
    assert_eq!(encode(&mut encoder, &[]), hex("3f e1 1f"));
}

#[test]
fn what_was_forgotten_is_taken_out_of_the_peers_table_too() {
    let mut encoder = Encoder::new();
    let usual = owned(&[("user-agent", "client/1.0")]);
    let first: Vec<_> = (0..3).map(|_| encode(&mut encoder, &usual)).collect();
    assert_eq!(first[2].len(), 1, "indexed");
    encoder.forget();
    assert_eq!(encoder.table().capacity(), 0);
    assert_eq!(encode(&mut encoder, &usual), [hex("20 3f e1 1f"), first[0].clone()].concat(), "as a new one");
    encoder.forget();
    assert_eq!(encode(&mut encoder, &usual), first[0], "an empty table needs no word");
}

#[test]
fn sensitive_fields_never_come_into_the_table() {
    let mut encoder = Encoder::new();
    let fields = owned(&[
        ("authorization", "Bearer 0123456789abcdef0123456789abcdef"),
        ("proxy-authorization", "Basic dXNlcjpwYXNz"),
        ("cookie", "lang=en"),
        ("set-cookie", "session=0123456789abcdef; HttpOnly"),
    ]);
    for _ in 0..3 {
        let block = encode(&mut encoder, &fields);
        let mut never = 0;
        Decoder::new(4096)
            .decode_fields(&block, |field| never += usize::from(field.never_indexed))
            .expect("a valid block");
        assert_eq!(never, fields.len());
    }
    assert_eq!(encoder.table().len(), 0);
}

#[test]
fn fields_that_differ_in_every_request_leave_the_table_alone() {
    let mut encoder = Encoder::new();
    let usual = owned(&[("user-agent", "client/1.0"), ("x-tenant", "shop"), (":path", "/cart.Cart/Add")]);
    for _ in 0..2 {
        encode(&mut encoder, &usual);
    }
    assert_eq!(encoder.table().len(), 3);
    for each in 0..1000 {
        let each = each.to_string();
        let fields = owned(&[
            (":path", &format!("/search?q={each}")),
            ("content-length", &each),
            ("x-of-our-own", &format!("value {each}")),
            ("traceparent", &format!("00-{each}-01")),
        ]);
        encode(&mut encoder, &fields);
    }
    assert_eq!(encoder.table().len(), 3);
    assert_eq!(encode(&mut encoder, &usual).len(), 3, "one octet each");
}

#[test]
fn a_field_of_more_than_half_the_table_stays_out_of_it() {
    let mut encoder = Encoder::new();
    let token = |length| vec![(b"x-token".to_vec(), vec![b't'; length])];
    for _ in 0..3 {
        encode(&mut encoder, &token(2048 - 32 - 7 + 1));
    }
    assert_eq!(encoder.table().len(), 0);
    for _ in 0..3 {
        encode(&mut encoder, &token(2048 - 32 - 7));
    }
    assert_eq!(encoder.table().len(), 1);
}
