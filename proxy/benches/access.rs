//! What it costs to decide who may call what, by the number of policies.
//!
//! The last rule of the last policy lets the request in: all others are passed first.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ferrule_config::access::Access;
use ferrule_proxy::{
    access::{Asked, Policy, Subject, Verdict},
    message::Field,
};
use serde_json::json;

fn policies(count: usize, to: &serde_json::Value) -> Policy {
    let one = |number: usize| {
        let account =
            if number + 1 == count { "web/frontend".to_owned() } else { format!("web/other-{number}") };
        json!({
            "name": format!("shop/policy-{number:04}"),
            "allow": [{"from": [{"serviceAccount": account}], "to": [to]}],
            "deny": [{"from": [{"namespace": "test-*"}]}],
        })
    };
    let all: Vec<Access> =
        serde_json::from_value((0..count).map(one).collect()).expect("policies that are understood");
    Policy::new(&all)
}

fn decide(criterion: &mut Criterion) {
    let id = "spiffe://cluster.local/ns/web/sa/frontend".parse().expect("an identity");
    let address = "10.1.2.3".parse().expect("an address");
    let subject = Subject { identity: Some(&id), address, port: 8080 };
    let fields = [Field { name: "x-team", value: b"red" }];
    let kinds = [
        ("from", json!({"ports": [8080]}), "/reviews/1"),
        ("path", json!({"methods": ["GET"], "paths": ["/reviews/*"]}), "/reviews/1"),
        ("encoded path", json!({"methods": ["GET"], "paths": ["/reviews/*"]}), "/reviews/caf%C3%A9"),
        ("header", json!({"headers": [{"name": "x-team", "value": {"exact": "red"}}]}), "/reviews/1"),
    ];
    let mut group = criterion.benchmark_group("access");
    for (kind, to, path) in &kinds {
        for count in [1, 10, 100] {
            let policy = policies(count, to);
            let asked = Asked { method: "GET", path, fields: &fields };
            assert_eq!(policy.decide(&subject, Some(&asked)), Verdict::Allowed);
            group.bench_function(BenchmarkId::new(*kind, count), |bencher| {
                bencher.iter(|| policy.decide(black_box(&subject), Some(black_box(&asked))));
            });
        }
    }
    let none = Policy::default();
    let asked = Asked { method: "GET", path: "/", fields: &[] };
    group.bench_function("none", |bencher| {
        bencher.iter(|| none.decide(black_box(&subject), Some(black_box(&asked))));
    });
    group.finish();
}

criterion_group!(benches, decide);
criterion_main!(benches);
