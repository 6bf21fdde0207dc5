//! Connections to endpoints: made, used again, found closed.

use super::{
    exposition::{Sample, Value},
    value::Tally,
};
use crate::direction::Direction;

/// What became of the wish for a connection to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// One was made.
    New,
    /// One was there.
    Reused,
    /// One was there, but its peer had closed it.
    Stale,
    /// None could be made.
    Failed,
}

const USES: [(Use, &str); 4] =
    [(Use::New, "new"), (Use::Reused, "reused"), (Use::Stale, "stale"), (Use::Failed, "failed")];
const DIRECTIONS: [Direction; 2] = [Direction::Outbound, Direction::Inbound];
const PROTOCOLS: [(bool, &str); 2] = [(false, "http1"), (true, "http2")];

/// What one thread has counted.
#[derive(Debug, Default)]
pub(super) struct Pools {
    uses: [[[Tally; 4]; 2]; 2],
    idle: [[Tally; 2]; 2],
}

impl Pools {
    pub(super) fn of(&self, direction: Direction, http2: bool, r#use: Use) -> &Tally {
        &self.uses[direction as usize][usize::from(http2)][r#use as usize]
    }

    pub(super) fn idle(&self, direction: Direction, http2: bool) -> &Tally {
        &self.idle[direction as usize][usize::from(http2)]
    }
}

/// Series of all threads together: uses, and connections that are idle.
pub(super) fn tell<'a>(threads: impl Iterator<Item = &'a Pools> + Clone) -> (Vec<Sample>, Vec<Sample>) {
    let (mut uses, mut idle) = (Vec::new(), Vec::new());
    for direction in DIRECTIONS {
        for (http2, protocol) in PROTOCOLS {
            let labels = vec![("direction", direction.name().into()), ("protocol", protocol.into())];
            let sample = |labels, sum: u64| Sample { labels, value: Value::Number(sum as f64), since: None };
            for (r#use, name) in USES {
                let labels = [labels.as_slice(), &[("result", name.into())]].concat();
                uses.push(sample(
                    labels,
                    threads.clone().map(|each| each.of(direction, http2, r#use).get()).sum(),
                ));
            }
            idle.push(sample(labels, threads.clone().map(|each| each.idle(direction, http2).get()).sum()));
        }
    }
    (uses, idle)
}
