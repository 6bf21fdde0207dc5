use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::*;

fn outcome(status: u16) -> Outcome<'static> {
    Outcome {
        direction: Direction::Outbound,
        service: "shop/cart",
        route: "",
        method: Method::Get,
        status,
        grpc: GrpcStatus::None,
        peer: "",
        cause: None,
        took: Duration::from_millis(1),
        request_bytes: 0,
        response_bytes: 10,
    }
}

fn text(telemetry: &Telemetry) -> String {
    String::from_utf8(telemetry.encode(Format::Text)).expect("text")
}

/// Sum of all samples of this name whose labels include these.
fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let lines =
        text.lines().filter_map(|line| line.strip_prefix(name)).filter(|line| line.starts_with(['{', ' ']));
    let matching = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    matching
        .map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number"))
        .sum()
}

#[test]
fn every_request_is_counted_under_its_own_labels() {
    let telemetry = Arc::new(Telemetry::default());
    let recorder = Recorder::new(Arc::clone(&telemetry));
    for round in 0..3 {
        for status in 200..260 {
            let route = if status % 2 == 0 { "shop/cart/0" } else { "" };
            recorder.request(&Outcome { route, cause: (round == 2).then_some("connect"), ..outcome(status) });
        }
    }
    let text = text(&telemetry);
    for status in 200..260 {
        let route = if status % 2 == 0 { "shop/cart/0" } else { "" };
        for (error, count) in [("", 2), ("connect", 1)] {
            let line = format!(
                "ferrule_requests_total{{direction=\"outbound\",service=\"shop/cart\",route=\"{route}\",\
                 method=\"GET\",status=\"{status}\",grpc_status=\"\",peer=\"\",error=\"{error}\"}} {count}\n"
            );
            assert!(text.contains(&line), "{line}{text}");
        }
    }
    assert_eq!(sum(&text, "ferrule_request_duration_seconds_count", &["service=\"shop/cart\""]), 180.0);
    assert_eq!(sum(&text, "ferrule_response_body_bytes_sum", &["route=\"\""]), 900.0);
}

#[test]
fn threads_are_added_up() {
    let telemetry = Arc::new(Telemetry::default());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let telemetry = Arc::clone(&telemetry);
            std::thread::spawn(move || {
                let recorder = Recorder::new(telemetry);
                for _ in 0..1000 {
                    recorder.request(&outcome(200));
                    recorder.pick(&"shop/cart".into());
                    recorder.pool(Direction::Outbound, true, Use::Reused);
                }
            })
        })
        .collect();
    // What is told meanwhile is whole in itself.
    while threads.iter().any(|thread| !thread.is_finished()) {
        let text = text(&telemetry);
        let buckets = sum(&text, "ferrule_request_duration_seconds_bucket", &["le=\"16.384\""]);
        let all = sum(&text, "ferrule_request_duration_seconds_bucket", &["le=\"+Inf\""]);
        assert!(buckets <= all, "{buckets} {all}");
        assert_eq!(all, sum(&text, "ferrule_request_duration_seconds_count", &[]));
    }
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    let text = text(&telemetry);
    assert_eq!(sum(&text, "ferrule_requests_total", &["status=\"200\""]), 4000.0);
    assert_eq!(sum(&text, "ferrule_balancer_picks_total", &["service=\"shop/cart\""]), 4000.0);
    let reused = ["direction=\"outbound\"", "protocol=\"http2\"", "result=\"reused\""];
    assert_eq!(sum(&text, "ferrule_pool_connections_total", &reused), 4000.0);
}

#[test]
fn open_connections_are_told_by_what_they_carry() {
    let telemetry = Telemetry::default();
    let service: Arc<str> = "shop/cart".into();
    let open: Vec<_> = (0..3).map(|_| telemetry.open(Direction::Outbound)).collect();
    let kept = telemetry.connection(Direction::Outbound, &service, Carried::Tcp);
    drop(telemetry.connection(Direction::Outbound, &service, Carried::Http1));
    let now = text(&telemetry);
    let of = |text: &str, name, protocol: &str| {
        sum(text, name, &["outbound", &format!("protocol=\"{protocol}\"")])
    };
    assert_eq!(of(&now, "ferrule_connections_open", "tcp"), 1.0);
    assert_eq!(of(&now, "ferrule_connections_open", "http1"), 0.0);
    assert_eq!(of(&now, "ferrule_connections_open", "undecided"), 2.0);
    assert_eq!(of(&now, "ferrule_connections_closed_total", "http1"), 1.0);
    drop((open, kept));
    assert_eq!(sum(&text(&telemetry), "ferrule_connections_open", &[]), 0.0);
}

#[test]
fn no_client_can_make_the_metrics_grow_without_bound() {
    let telemetry = Arc::new(Telemetry::default());
    let recorder = Recorder::new(Arc::clone(&telemetry));
    for number in 0..3 * MOST_REQUESTS {
        let service = format!("shop/service-{number}");
        recorder.request(&Outcome { service: &service, ..outcome(200) });
    }
    let text = text(&telemetry);
    assert_eq!(sum(&text, "ferrule_requests_total", &[]), 3.0 * MOST_REQUESTS as f64);
    let of = |name: &str| text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
    assert_eq!(of("ferrule_requests_total"), MOST_REQUESTS + 1);
    assert_eq!(of("ferrule_request_duration_seconds_count"), MOST_HISTOGRAMS + 1);
    assert!(sum(&text, "ferrule_metrics_capped_total", &[]) > 0.0);
}

#[test]
fn the_document_lists_each_metric_and_no_other() {
    let document = include_str!("../../../docs/observability.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let listed: BTreeSet<&str> = rows
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("ferrule_") || name.starts_with("process_"))
        .collect();
    let told: BTreeSet<&str> = Telemetry::default().gather().iter().map(|family| family.about.name).collect();
    assert_eq!(listed, told);
}

#[test]
fn names_follow_the_conventions() {
    for family in Telemetry::default().gather() {
        let exposition::About { name, kind, help } = family.about;
        assert_eq!(kind == exposition::Kind::Counter, name.ends_with("_total"), "{name}");
        assert!(help.ends_with('.') && !help.contains('\n'), "{help}");
        assert!(
            kind != exposition::Kind::Histogram || name.ends_with("_seconds") || name.ends_with("_bytes"),
            "{name}"
        );
    }
}

proptest! {
    #[test]
    fn requests_are_neither_lost_nor_counted_twice(statuses in prop::collection::vec(200..290u16, 0..300)) {
        let telemetry = Arc::new(Telemetry::default());
        let recorder = Recorder::new(Arc::clone(&telemetry));
        statuses.iter().for_each(|status| recorder.request(&outcome(*status)));
        let text = text(&telemetry);
        for status in 200..290u16 {
            let expected = statuses.iter().filter(|each| **each == status).count();
            prop_assert_eq!(sum(&text, "ferrule_requests_total", &[&format!("status=\"{status}\"")]), expected as f64);
        }
    }
}
