//! Endpoints among which one algorithm picks.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ferrule_config::{Algorithm, ConsistentHash};

use super::{
    Endpoint, hash, least_request, maglev::Table, random::Shares, ring_hash::Ring, round_robin::Cycle,
    slow_start, zones,
};

/// Draws that may hit an endpoint that can't be taken before all of them are looked at.
const DRAWS: usize = 8;
/// Steps in which the share of a starting endpoint is counted.
const STEPS: usize = 1024;

/// A place in a group.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub endpoint: Arc<Endpoint>,
    /// At least 1.
    pub weight: u32,
    /// Since when it is there; `None` if it was from the beginning.
    pub since: Option<Instant>,
}

/// Endpoints, and what the algorithm needs to pick one of them.
#[derive(Debug)]
pub(super) struct Group {
    seats: Box<[Seat]>,
    shares: Shares,
    /// Mean weight.
    mean: f64,
    /// Time in which an endpoint that has come gets its full share.
    slow_start: Duration,
    /// Until when one of them has not its full share.
    starting: Option<Instant>,
    /// All have the same share, and always had.
    is_plain: bool,
    order: Order,
}

#[derive(Debug)]
enum Order {
    /// Of two random ones the one that costs less.
    Cost(Measure),
    Turns(Cycle),
    Chance,
    Ring(Ring),
    Table(Table),
}

#[derive(Clone, Copy, Debug)]
enum Measure {
    PeakEwma,
    LeastRequest,
}

/// What may be picked, and by what.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    /// Hash of the request's key.
    pub hash: Option<u64>,
    /// Not these.
    pub tried: &'a [SocketAddr],
    /// Unavailable ones too.
    pub any: bool,
    pub now: Instant,
}

impl Group {
    /// `start`: where round robin begins.
    pub fn new(algorithm: &Algorithm, seats: Vec<Seat>, slow_start: Duration, start: usize) -> Self {
        let weights: Vec<_> = seats.iter().map(|seat| seat.weight).collect();
        let order = match algorithm {
            Algorithm::PeakEwma => Order::Cost(Measure::PeakEwma),
            Algorithm::LeastRequest => Order::Cost(Measure::LeastRequest),
            Algorithm::RoundRobin => Order::Turns(Cycle::new(&weights, start)),
            Algorithm::Random => Order::Chance,
            Algorithm::RingHash(ConsistentHash { key: _, size }) => {
                let names = names(&seats);
                Order::Ring(Ring::new(names.iter().map(String::as_str).zip(weights.iter().copied()), *size))
            }
            Algorithm::Maglev(ConsistentHash { key: _, size }) => {
                let names = names(&seats);
                Order::Table(Table::new(names.iter().map(String::as_str).zip(weights.iter().copied()), *size))
            }
        };
        let latest = seats.iter().filter_map(|seat| seat.since).max();
        let shares = Shares::new(&weights);
        let starting =
            latest.and_then(|since| since.checked_add(slow_start)).filter(|_| !slow_start.is_zero());
        Self {
            is_plain: shares.are_equal() && starting.is_none(),
            shares,
            mean: weights.iter().map(|&weight| f64::from(weight)).sum::<f64>() / weights.len().max(1) as f64,
            starting,
            seats: seats.into(),
            slow_start,
            order,
        }
    }

    pub fn len(&self) -> usize {
        self.seats.len()
    }

    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// One that may be picked, or `None` when there is none. `random(n)` gives a uniform number in `0..n`.
    pub fn pick(&self, request: &Request<'_>, mut random: impl FnMut(usize) -> usize) -> Option<&Seat> {
        let index = match &self.order {
            Order::Cost(measure) => self.better_of_two(*measure, request, &mut random),
            Order::Turns(cycle) => self.next_in_turn(cycle, request, &mut random),
            Order::Chance => self.draw(request, None, &mut random),
            Order::Ring(ring) => match request.hash {
                Some(hash) => self.first_of(|| ring.walk(hash), hash, request),
                None => self.draw(request, None, &mut random),
            },
            Order::Table(table) => match request.hash {
                Some(hash) => self.first_of(|| table.walk(hash), hash, request),
                None => self.draw(request, None, &mut random),
            },
        }?;
        Some(&self.seats[index])
    }

    /// The one to go to instead of `here`, which was picked among nearer ones, because that is clearly more loaded.
    pub fn relief(
        &self,
        here: &Seat,
        request: &Request<'_>,
        mut random: impl FnMut(usize) -> usize,
    ) -> Option<&Seat> {
        let Order::Cost(measure) = self.order else { return None };
        let pending = here.endpoint.load.pending();
        if pending < zones::SPILL_PENDING {
            return None;
        }
        let there = &self.seats[self.better_of_two(measure, request, &mut random)?];
        let cost = |seat| self.cost(measure, seat, request.now);
        zones::spills(pending, cost(here), cost(there)).then_some(there)
    }

    /// Two different ones when all have the same share; otherwise two by their shares, which may be the same, for
    /// with two that are always different shares would be lost among few.
    fn better_of_two(
        &self,
        measure: Measure,
        request: &Request<'_>,
        mut random: impl FnMut(usize) -> usize,
    ) -> Option<usize> {
        if self.seats.len() == 1 {
            return self.is_usable(0, request).then_some(0);
        }
        let equal = self.is_plain || (self.shares.are_equal() && !self.is_starting(request.now));
        let (first, second) = if equal && request.tried.is_empty() && !self.seats.is_empty() {
            let first = random(self.seats.len());
            let mut second = random(self.seats.len() - 1);
            // Without this shift the two could be the same one.
            if second >= first {
                second += 1;
            }
            match (self.is_usable(first, request), self.is_usable(second, request)) {
                (true, true) => (first, second),
                (true, false) => (first, self.draw(request, Some(first), &mut random).unwrap_or(first)),
                (false, true) => (second, self.draw(request, Some(second), &mut random).unwrap_or(second)),
                (false, false) => {
                    let first = self.draw(request, None, &mut random)?;
                    (first, self.draw(request, Some(first), &mut random).unwrap_or(first))
                }
            }
        } else {
            let first = self.draw(request, None, &mut random)?;
            (first, self.draw(request, equal.then_some(first), &mut random).unwrap_or(first))
        };
        let cost = |index: usize| self.cost(measure, &self.seats[index], request.now);
        Some(if first != second && cost(second) < cost(first) { second } else { first })
    }

    /// `seat` may be one of another group: its weight is compared with the mean of this one.
    fn cost(&self, measure: Measure, seat: &Seat, now: Instant) -> f64 {
        let scale =
            if self.is_plain { 1.0 } else { self.mean / (f64::from(seat.weight) * self.share(seat, now)) };
        match measure {
            Measure::PeakEwma => seat.endpoint.load.scaled_cost(scale, now),
            Measure::LeastRequest => least_request::cost(seat.endpoint.load.pending(), scale),
        }
    }

    fn next_in_turn(
        &self,
        cycle: &Cycle,
        request: &Request<'_>,
        mut random: impl FnMut(usize) -> usize,
    ) -> Option<usize> {
        for _ in 0..cycle.length() {
            let index = cycle.next();
            if self.is_usable(index, request) && self.is_admitted(index, request.now, &mut random) {
                return Some(index);
            }
        }
        self.draw(request, None, random)
    }

    /// The first of a walk that may be picked. A starting endpoint takes the part of its keys that is its share, always
    /// the same ones of them; if nobody else can, all.
    fn first_of<I: Iterator<Item = usize>>(
        &self,
        walk: impl Fn() -> I,
        hash: u64,
        request: &Request<'_>,
    ) -> Option<usize> {
        let takes = |index: usize| {
            let share = self.share(&self.seats[index], request.now);
            share >= 1.0 || {
                let lot = hash::mixed(hash ^ self.seats[index].endpoint.id()) % STEPS as u64;
                (lot as f64) < share * STEPS as f64
            }
        };
        let first = walk().next()?;
        if self.is_usable(first, request) && takes(first) {
            return Some(first);
        }
        if !(0..self.seats.len()).any(|index| self.is_usable(index, request)) {
            return None;
        }
        let mut usable = walk().filter(|&index| self.is_usable(index, request));
        let nearest = usable.next()?;
        if takes(nearest) { Some(nearest) } else { usable.find(|&index| takes(index)).or(Some(nearest)) }
    }

    /// One by chance, by its share; not `except`.
    fn draw(
        &self,
        request: &Request<'_>,
        except: Option<usize>,
        mut random: impl FnMut(usize) -> usize,
    ) -> Option<usize> {
        if self.seats.is_empty() {
            return None;
        }
        let fits = |index: usize| except != Some(index) && self.is_usable(index, request);
        for _ in 0..DRAWS {
            let index = self.shares.draw(&mut random);
            if fits(index) && self.is_admitted(index, request.now, &mut random) {
                return Some(index);
            }
        }
        let candidates = || (0..self.seats.len()).filter(|&index| fits(index));
        let share = |index: usize| {
            let steps = f64::from(self.seats[index].weight)
                * self.share(&self.seats[index], request.now)
                * STEPS as f64;
            (steps as usize).max(1)
        };
        let total = candidates().map(share).sum();
        if total == 0 {
            return None;
        }
        let mut point = random(total);
        candidates().find(|&index| match point.checked_sub(share(index)) {
            Some(rest) => {
                point = rest;
                false
            }
            None => true,
        })
    }

    fn is_usable(&self, index: usize, request: &Request<'_>) -> bool {
        let endpoint = &self.seats[index].endpoint;
        (request.any || endpoint.is_available()) && !request.tried.contains(&endpoint.address)
    }

    /// Whether a draw that has hit this one counts: always, unless it is starting.
    fn is_admitted(&self, index: usize, now: Instant, mut random: impl FnMut(usize) -> usize) -> bool {
        let share = self.share(&self.seats[index], now);
        share >= 1.0 || (random(STEPS) as f64) < share * STEPS as f64
    }

    /// The share of its weight that an endpoint has now.
    fn share(&self, seat: &Seat, now: Instant) -> f64 {
        if self.is_starting(now) { slow_start::factor(seat.since, self.slow_start, now) } else { 1.0 }
    }

    fn is_starting(&self, now: Instant) -> bool {
        self.starting.is_some_and(|until| now < until)
    }
}

fn names(seats: &[Seat]) -> Vec<String> {
    seats.iter().map(|seat| seat.endpoint.address.to_string()).collect()
}
