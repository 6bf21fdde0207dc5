//! A worker thread's way to the metrics of requests: what it counted lately it finds again without a lock, a hash or
//! an allocation.

use std::{cell::RefCell, sync::Arc};

use prometheus_client::metrics::{counter::Counter, histogram::Histogram};

use super::{Outcome, Telemetry};

/// Combinations of labels that a thread keeps at hand. A pod has a few that matter.
const KEPT: usize = 32;

/// Counts the requests of one thread.
#[derive(Debug)]
pub struct Recorder {
    telemetry: Arc<Telemetry>,
    /// The most used ones come first, roughly.
    recent: RefCell<Vec<Recent>>,
}

#[derive(Debug)]
struct Recent {
    direction: &'static str,
    service: Box<str>,
    route: Box<str>,
    status: u16,
    cause: Option<&'static str>,
    requests: Counter,
    durations: Histogram,
}

impl Recent {
    fn is(&self, outcome: &Outcome<'_>) -> bool {
        self.status == outcome.status
            && self.direction == outcome.direction.name()
            && self.cause == outcome.cause
            && *self.service == *outcome.service
            && *self.route == *outcome.route
    }
}

impl Recorder {
    /// A thread that has counted nothing yet.
    #[must_use]
    pub fn new(telemetry: Arc<Telemetry>) -> Self {
        Self { telemetry, recent: RefCell::default() }
    }

    /// Counts a request.
    pub fn request(&self, outcome: &Outcome<'_>) {
        let mut recent = self.recent.borrow_mut();
        let found = recent.iter().position(|each| each.is(outcome));
        let place = found.unwrap_or_else(|| {
            if recent.len() == KEPT {
                recent.pop();
            }
            recent.push(self.look_up(outcome));
            recent.len() - 1
        });
        let Recent { requests, durations, .. } = &recent[place];
        requests.inc();
        durations.observe(outcome.took.as_secs_f64());
        // It moves half way to the front, so one that is seldom used does not displace the others.
        recent.swap(place, place / 2);
    }

    fn look_up(&self, outcome: &Outcome<'_>) -> Recent {
        let (requests, durations) = self.telemetry.of_requests(outcome);
        Recent {
            direction: outcome.direction.name(),
            service: outcome.service.into(),
            route: outcome.route.into(),
            status: outcome.status,
            cause: outcome.cause,
            requests,
            durations,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::direction::Direction;

    #[test]
    fn every_request_is_counted_under_its_own_labels() {
        let telemetry = Arc::new(Telemetry::default());
        let recorder = Recorder::new(Arc::clone(&telemetry));
        for round in 0..3 {
            for status in 200..260 {
                recorder.request(&Outcome {
                    direction: Direction::Outbound,
                    service: "shop/cart",
                    route: if status % 2 == 0 { "shop/cart/0" } else { "" },
                    status,
                    cause: (round == 2).then_some("connect"),
                    took: Duration::from_millis(1),
                });
            }
        }
        let text = telemetry.render();
        for status in 200..260 {
            let route = if status % 2 == 0 { "shop/cart/0" } else { "" };
            for (error, count) in [("", 2), ("connect", 1)] {
                let line = format!(
                    "ferrule_requests_total{{direction=\"outbound\",service=\"shop/cart\",route=\"{route}\",\
                     status=\"{status}\",error=\"{error}\"}} {count}\n"
                );
                assert!(text.contains(&line), "{line}{text}");
            }
        }
        assert!(text.contains(
            "ferrule_request_duration_seconds_count{direction=\"outbound\",service=\"shop/cart\"} 180"
        ));
    }
}
