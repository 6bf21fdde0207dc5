//! The examples of RFC 7541 Appendix C, octet by octet.

use super::*;

type Fields<'a> = &'a [(&'a str, &'a str)];

/// Decodes the blocks one after another into these fields; after each, the table has these fields and this size.
fn check(max_size: usize, blocks: &[(&str, Fields<'_>, Fields<'_>, usize)]) {
    let mut decoder = Decoder::new(4096);
    if max_size != 4096 {
        decoder.set_max_table_size(max_size);
        let mut update = Vec::new();
        super::super::integer::put_integer(max_size, 5, 0x20, &mut update);
        assert_eq!(decode(&mut decoder, &update), Ok(Vec::new()));
    }
    for (block, fields, table, size) in blocks {
        assert_eq!(decode(&mut decoder, &hex(block)), Ok(owned(fields)), "{block}");
        let entries: Vec<_> = (0..decoder.table().len())
            .filter_map(|age| decoder.table().entry(age))
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect();
        assert_eq!(entries, owned(table), "{block}");
        assert_eq!(decoder.table().size(), *size, "{block}");
    }
}

#[test]
fn c_2_single_representations() {
    check(
        4096,
        &[(
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            &[("custom-key", "custom-header")],
            &[("custom-key", "custom-header")],
            55,
        )],
    );
    check(4096, &[("040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")], &[], 0)]);
    check(4096, &[("1008 7061 7373 776f 7264 0673 6563 7265 74", &[("password", "secret")], &[], 0)]);
    check(4096, &[("82", &[(":method", "GET")], &[], 0)]);
}

#[test]
fn c_2_3_is_the_one_that_is_never_indexed() {
    let mut flags = Vec::new();
    let block = hex("1008 7061 7373 776f 7264 0673 6563 7265 74 040c 2f73 616d 706c 652f 7061 7468 82");
    Decoder::new(4096).decode_fields(&block, |field| flags.push(field.never_indexed)).expect("a valid block");
    assert_eq!(flags, [true, false, false]);
}

const FIRST: Fields<'static> =
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
const SECOND: Fields<'static> = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "www.example.com"),
    ("cache-control", "no-cache"),
];
const THIRD: Fields<'static> = &[
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/index.html"),
    (":authority", "www.example.com"),
    ("custom-key", "custom-value"),
];

fn check_requests(first: &str, second: &str, third: &str) {
    check(
        4096,
        &[
            (first, FIRST, &[(":authority", "www.example.com")], 57),
            (second, SECOND, &[("cache-control", "no-cache"), (":authority", "www.example.com")], 110),
            (
                third,
                THIRD,
                &[
                    ("custom-key", "custom-value"),
                    ("cache-control", "no-cache"),
                    (":authority", "www.example.com"),
                ],
                164,
            ),
        ],
    );
}

#[test]
fn c_3_requests_without_huffman_coding() {
    check_requests(
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    );
}

#[test]
fn c_4_requests_with_huffman_coding() {
    check_requests(
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    );
}

const DATE: &str = "Mon, 21 Oct 2013 20:13:21 GMT";
const LATER: &str = "Mon, 21 Oct 2013 20:13:22 GMT";
const LOCATION: &str = "https://www.example.com";
const COOKIE: &str = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";

fn check_responses(first: &str, second: &str, third: &str) {
    check(
        256,
        &[
            (
                first,
                &[(":status", "302"), ("cache-control", "private"), ("date", DATE), ("location", LOCATION)],
                &[("location", LOCATION), ("date", DATE), ("cache-control", "private"), (":status", "302")],
                222,
            ),
            (
                second,
                &[(":status", "307"), ("cache-control", "private"), ("date", DATE), ("location", LOCATION)],
                &[(":status", "307"), ("location", LOCATION), ("date", DATE), ("cache-control", "private")],
                222,
            ),
            (
                third,
                &[
                    (":status", "200"),
                    ("cache-control", "private"),
                    ("date", LATER),
                    ("location", LOCATION),
                    ("content-encoding", "gzip"),
                    ("set-cookie", COOKIE),
                ],
                &[("set-cookie", COOKIE), ("content-encoding", "gzip"), ("date", LATER)],
                215,
            ),
        ],
    );
}

#[test]
fn c_5_responses_without_huffman_coding() {
    check_responses(
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
         3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 \
         7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 \
         6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
    );
}

#[test]
fn c_6_responses_with_huffman_coding() {
    check_responses(
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
         1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
         e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    );
}

#[test]
fn the_encoder_writes_the_representations_of_the_rfc() {
    let mut encoder = Encoder::new();
    // Twice as literals, the second time into the table, then as in C.3.2 and later.
    let authority = "0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d";
    let fields = owned(FIRST);
    assert_eq!(encode(&mut encoder, &fields), hex(&format!("8286 8401 {authority}")));
    assert_eq!(encode(&mut encoder, &fields), hex(&format!("8286 8441 {authority}")));
    assert_eq!(encode(&mut encoder, &fields), hex("8286 84be"));
    // C.2.2, and C.2.3 for a name of ours.
    assert_eq!(
        encode(&mut encoder, &owned(&[(":path", "/sample/path")])),
        hex("040c 2f73 616d 706c 652f 7061 7468")
    );
    assert_eq!(encode(&mut encoder, &owned(&[("authorization", "a")])), hex("1f08 0161"));
    let mut block = Vec::new();
    encoder.field_never_indexed(b"password", b"secret", &mut block);
    assert_eq!(block, hex("1008 7061 7373 776f 7264 0673 6563 7265 74"));
}
