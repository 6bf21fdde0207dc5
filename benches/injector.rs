//! The pure part of the injector on a pod as large as those that the API server sends.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ferrule::injector::{Context, Settings, inject};
use serde_json::Value;

const POD: &str = include_str!("../tests/injector_pod.json");

fn injector(criterion: &mut Criterion) {
    let settings = Settings::new("ferrule/ferrule-proxy:bench");
    let context = Context { namespace: "shop", pod_security: None };
    let pod: Value = serde_json::from_str(POD).expect("JSON");
    criterion.bench_function("inject", |bencher| {
        bencher.iter(|| inject(black_box(&pod), &context, &settings));
    });
    criterion.bench_function("parse and inject", |bencher| {
        bencher.iter(|| {
            let pod: Value = serde_json::from_str(black_box(POD)).expect("JSON");
            inject(&pod, &context, &settings)
        });
    });
}

criterion_group!(benches, injector);
criterion_main!(benches);
