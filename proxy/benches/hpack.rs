//! What a request's fields cost to encode and to decode, beside another implementation; and what Huffman coding
//! would cost, which the encoder leaves out.
//!
//! `first` is a connection's first request; `steady` is any after the second, with three fields that differ each
//! time.

use std::{borrow::Cow, hint::black_box};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ferrule_proxy::http2::hpack::{Decoder, Encoder, huffman};

/// A gRPC request as a service sends it.
const REQUEST: [(&[u8], &[u8]); 12] = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/shop.v1.CartService/AddItem"),
    (b":authority", b"cart.shop.svc.cluster.local:8080"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
    (b"user-agent", b"grpc-go/1.76.0"),
    (b"grpc-accept-encoding", b"gzip"),
    (b"x-tenant", b"europe-west-3"),
    (b"grpc-timeout", b"499813u"),
    (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    (b"x-request-id", b"7d1f6c0e-52a4-4c5e-9c39-0f7b0a3a6b0c"),
];

/// How many of its fields, the last ones, differ from request to request.
const VARYING: usize = 3;

fn encode(encoder: &mut Encoder, out: &mut Vec<u8>) {
    out.clear();
    encoder.begin(out);
    for (name, value) in REQUEST {
        encoder.field(name, value, out);
    }
}

/// Our encoder's block for its n-th request.
fn block(request: usize) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let mut out = Vec::new();
    for _ in 0..request {
        encode(&mut encoder, &mut out);
    }
    out
}

/// The same request from a peer that codes strings and indexes at once, as nghttp2 and gRPC's libraries do:
/// its first block, and any later one.
fn coded_blocks() -> (Vec<u8>, Vec<u8>) {
    fn string(string: &[u8], out: &mut Vec<u8>) {
        out.push(0x80 | u8::try_from(huffman::encoded_len(string)).expect("short strings"));
        huffman::encode(string, out);
    }
    let (mut first, mut later) = (vec![0x83, 0x86], vec![0x83, 0x86]);
    let repeating = REQUEST.len() - VARYING;
    for (name, value) in &REQUEST[2..repeating] {
        first.push(0x40);
        string(name, &mut first);
        string(value, &mut first);
    }
    // The oldest has the highest index.
    later.extend((0..repeating - 2).rev().map(|age| 0x80 | (62 + u8::try_from(age).expect("few fields"))));
    for block in [&mut first, &mut later] {
        for (name, value) in &REQUEST[repeating..] {
            block.push(0x00);
            string(name, block);
            string(value, block);
        }
    }
    (first, later)
}

fn sum(decoder: &mut Decoder, block: &[u8]) -> usize {
    let mut sum = 0;
    decoder
        .decode(black_box(block), |name, value| sum += black_box(name).len() + black_box(value).len())
        .expect("a valid block");
    sum
}

fn sum_by_peer(decoder: &mut loona_hpack::Decoder<'_>, block: &[u8]) -> usize {
    let mut sum = 0;
    decoder
        .decode_with_cb(black_box(block), |name: Cow<'_, [u8]>, value: Cow<'_, [u8]>| {
            sum += black_box(name).len() + black_box(value).len();
        })
        .expect("a valid block");
    sum
}

fn decoding(criterion: &mut Criterion) {
    let size = REQUEST.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    let (coded_first, coded_later) = coded_blocks();
    for (kind, first, later) in [("plain", block(2), block(3)), ("huffman", coded_first, coded_later)] {
        let mut group = criterion.benchmark_group(format!("decode/{kind}"));
        group.bench_function("first", |bencher| {
            bencher.iter(|| sum(&mut Decoder::new(4096), &first));
        });
        group.bench_function("first, loona-hpack", |bencher| {
            bencher.iter(|| sum_by_peer(&mut loona_hpack::Decoder::new(), &first));
        });
        let mut decoder = Decoder::new(4096);
        assert_eq!(sum(&mut decoder, &first), size);
        assert_eq!(sum(&mut decoder, &later), size);
        group.bench_function("steady", |bencher| bencher.iter(|| sum(&mut decoder, &later)));
        let mut decoder = loona_hpack::Decoder::new();
        assert_eq!(sum_by_peer(&mut decoder, &first), size);
        assert_eq!(sum_by_peer(&mut decoder, &later), size);
        group.bench_function("steady, loona-hpack", |bencher| {
            bencher.iter(|| sum_by_peer(&mut decoder, &later));
        });
    }
}

fn encoding(criterion: &mut Criterion) {
    let mut out = Vec::with_capacity(4096);
    let mut group = criterion.benchmark_group("encode");
    group.bench_function("first", |bencher| {
        bencher.iter(|| {
            encode(&mut Encoder::new(), &mut out);
            black_box(out.len())
        });
    });
    group.bench_function("first, loona-hpack", |bencher| {
        bencher.iter(|| {
            out.clear();
            loona_hpack::Encoder::new().encode_into(REQUEST, &mut out).expect("a Vec takes all");
            black_box(out.len())
        });
    });
    let mut encoder = Encoder::new();
    (0..2).for_each(|_| encode(&mut encoder, &mut out));
    group.bench_function("steady", |bencher| {
        bencher.iter(|| {
            encode(&mut encoder, &mut out);
            black_box(out.len())
        });
    });
    let mut encoder = loona_hpack::Encoder::new();
    group.bench_function("steady, loona-hpack", |bencher| {
        bencher.iter(|| {
            out.clear();
            encoder.encode_into(REQUEST, &mut out).expect("a Vec takes all");
            black_box(out.len())
        });
    });
}

/// A string of each usual length, coded and as it is.
fn strings(criterion: &mut Criterion) {
    const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let token: Vec<u8> = (0..1000_usize).map(|each| BASE64[each * each * 31 / 7 % 64]).collect();
    let strings: [(&str, &[u8]); 3] =
        [("7 octets", REQUEST[9].1), ("55 octets", REQUEST[10].1), ("1000 octets", &token)];
    let mut group = criterion.benchmark_group("huffman");
    for (length, string) in strings {
        group.throughput(Throughput::Bytes(string.len() as u64));
        let mut out = Vec::with_capacity(2048);
        group.bench_function(format!("encode {length}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                huffman::encode(black_box(string), &mut out);
                black_box(out.len())
            });
        });
        let coded = out.clone();
        group.bench_function(format!("copy {length}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                out.extend_from_slice(black_box(string));
                black_box(out.len())
            });
        });
        let mut scratch = Vec::new();
        group.bench_function(format!("decode {length}"), |bencher| {
            bencher.iter(|| huffman::decode(black_box(&coded), &mut scratch).map(<[u8]>::len));
        });
    }
}

criterion_group!(benches, decoding, encoding, strings);
criterion_main!(benches);
