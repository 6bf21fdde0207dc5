//! What it costs to find the rule that a request falls under, by the number of rules and what they go by.
//!
//! The last rule is asked for each time: a walk along the list would pass all others first.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ferrule_config::{HeaderMatch, Match, PathMatch, RouteEntry, ValueMatch};
use ferrule_proxy::{
    message::Field,
    route::{Request, Table},
};

const SIZES: [usize; 4] = [1, 10, 100, 1000];

/// As a browser sends them.
const FIELDS: [(&str, &[u8]); 10] = [
    ("Host", b"cart.shop.svc.cluster.local:8080"),
    ("User-Agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("Accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", b"en-US,en;q=0.5"),
    ("Accept-Encoding", b"gzip, deflate, br, zstd"),
    ("Cookie", b"session=1f0b6d1e-7c33-4a53-9c0e-0d9f1a2b3c4d; theme=dark"),
    ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("X-Request-Id", b"7d1f6c0e-52a4-4c5e-9c39-0f7b0a3a6b0c"),
    ("X-Tenant", b"europe-west-3"),
    ("Content-Type", b"application/json"),
];

fn table(size: usize, matches: impl Fn(usize) -> Match) -> Table {
    let entries = (0..size).map(|rule| RouteEntry { port: None, matches: matches(rule), rule });
    Table::new(entries.collect()).expect("sound")
}

fn path(path: PathMatch) -> Match {
    Match { path: Some(path), ..Match::default() }
}

fn decide(criterion: &mut Criterion) {
    let fields = FIELDS.map(|(name, value)| Field { name, value });
    let mut group = criterion.benchmark_group("route");
    let mut ask = |kind: &str, size: usize, table: &Table, path: &str, user: Option<&str>| {
        let mut fields = fields.to_vec();
        fields.extend(user.map(|user| Field { name: "X-User", value: user.as_bytes() }));
        let request = Request { method: "GET", path, query: None, authority: FIELDS[0].1, fields: &fields };
        assert_eq!(table.decide(&request).map(|found| found.rule), Some(size - 1), "{kind} {size}");
        group.bench_function(BenchmarkId::new(kind, size), |bencher| {
            bencher.iter(|| black_box(table).decide(black_box(&request)));
        });
    };
    for size in SIZES {
        let last = size - 1;
        let exact = table(size, |rule| path(PathMatch::Exact(format!("/api/v1/items/{rule}"))));
        ask("exact", size, &exact, &format!("/api/v1/items/{last}"), None);
        let prefix = table(size, |rule| path(PathMatch::Prefix(format!("/api/v1/items/{rule}"))));
        ask("prefix", size, &prefix, &format!("/api/v1/items/{last}/parts/7"), None);
        let header = |name: String, value: String| Match {
            headers: vec![HeaderMatch { name, value: ValueMatch::Exact(value) }],
            ..Match::default()
        };
        let headers = table(size, |rule| header("x-user".into(), format!("user-{rule}")));
        ask("header", size, &headers, "/api/v1/items/7", Some(&format!("user-{last}")));
        let names = table(size, |rule| {
            if rule == last {
                header("x-user".into(), "a".into())
            } else {
                header(format!("x-{rule}"), "a".into())
            }
        });
        ask("header-names", size, &names, "/api/v1/items/7", Some("a"));
        let both = table(size, |rule| Match {
            path: Some(PathMatch::Prefix(format!("/api/v1/items/{}", rule % 10))),
            ..header("x-user".into(), format!("user-{rule}"))
        });
        ask(
            "prefix-header",
            size,
            &both,
            &format!("/api/v1/items/{}/x", last % 10),
            Some(&format!("user-{last}")),
        );
    }
    group.finish();
}

criterion_group!(benches, decide);
criterion_main!(benches);
