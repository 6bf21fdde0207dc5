//! Discrete events: requests come in by chance, are picked an endpoint for, wait there for one of its workers, and are
//! answered; or they are refused and go to another endpoint, as in the proxy.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ferrule_config as config;
use ferrule_proxy::{
    balance::{Balancer, Endpoint, Load, Locality, Member, Pick, hash},
    retry::{MAX_ATTEMPTS, PENALTY},
};

/// Mean time of work on a request at an ordinary endpoint.
pub const WORK: f64 = 0.010;
/// Requests that an endpoint works on at the same time.
pub const WORKERS: usize = 4;
/// What is over by then is not counted: the averages start with a guess.
const SETTLED: f64 = 5.0;
/// Different keys that are hashed.
const KEYS: u64 = 10_000;

/// An endpoint.
#[derive(Clone, Debug)]
pub struct Server {
    /// Times that its work takes longer than an ordinary one's.
    pub slowness: f64,
    /// Seconds after which a connection fails, if it takes none.
    pub refuses: Option<f64>,
    /// When it comes, in seconds; then its work takes `cold` times longer, which falls to nothing in [`WARM_UP`].
    pub comes: f64,
    pub cold: f64,
    pub zone: &'static str,
    /// Whether its share is shown.
    pub odd: bool,
}

/// Seconds in which a cold endpoint gets warm, linearly.
pub const WARM_UP: f64 = 10.0;

impl Default for Server {
    fn default() -> Self {
        Self { slowness: 1.0, refuses: None, comes: 0.0, cold: 1.0, zone: "a", odd: false }
    }
}

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Setup {
    pub balancer: config::Balancer,
    pub servers: Vec<Server>,
    /// Zones of the proxies, each with counters of its own.
    pub proxies: Vec<&'static str>,
    /// Requests a second, of all proxies.
    pub rate: f64,
    /// Seconds on the way to another zone and back.
    pub distance: f64,
    /// Seconds that requests come for.
    pub lasts: f64,
    /// Seconds from which on is measured.
    pub from: f64,
}

impl Setup {
    /// Ordinary endpoints under this share of what they can do.
    pub fn new(balancer: config::Balancer, servers: Vec<Server>, share: f64) -> Self {
        let rate = servers.len() as f64 * WORKERS as f64 / WORK * share;
        Self { balancer, servers, proxies: vec!["a"; 8], rate, distance: 0.0, lasts: 30.0, from: SETTLED }
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Milliseconds from a request's arrival to its answer, sorted.
    latencies: Vec<f64>,
    /// Attempts at an odd server, or in another zone, and all, by the second of the request's arrival.
    seconds: Vec<(u32, u32)>,
    /// Attempts in vain.
    pub failed: u32,
    /// Requests without an answer.
    pub errors: u32,
}

impl Outcome {
    /// In milliseconds; NaN when nothing was answered.
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1) as f64;
        self.latencies.get((last * share) as usize).copied().unwrap_or(f64::NAN)
    }

    /// Share of the odd ones, and the range of it in the single seconds.
    pub fn odd_share(&self) -> String {
        let share = |(odd, all): (u32, u32)| 100.0 * f64::from(odd) / f64::from(all.max(1));
        let shares = || self.seconds.iter().filter(|(_, all)| *all > 0).map(|second| share(*second));
        let total = self.seconds.iter().fold((0, 0), |sum, second| (sum.0 + second.0, sum.1 + second.1));
        let (least, most) = (shares().fold(f64::MAX, f64::min), shares().fold(0.0, f64::max));
        format!("{:.1} % ({least:.0} to {most:.0})", share(total))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives { proxy: usize },
    Reaches { request: usize },
    Fails { request: usize },
    Answers { request: usize },
    Comes,
}

struct Request {
    proxy: usize,
    key: u64,
    arrived: f64,
    began: f64,
    tried: Vec<SocketAddr>,
    server: usize,
    load: Option<Load>,
}

struct Simulation<'a> {
    setup: &'a Setup,
    start: Instant,
    random: fastrand::Rng,
    /// By time in nanoseconds, then in order of their making.
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    made: u64,
    requests: Vec<Request>,
    queues: Vec<VecDeque<usize>>,
    busy: Vec<usize>,
    /// One endpoint a server for each proxy: they don't know of each other's requests.
    endpoints: Vec<Vec<Arc<Endpoint>>>,
    balancers: Vec<Arc<Balancer>>,
    outcome: Outcome,
}

/// Simulates.
pub fn run(setup: &Setup) -> Outcome {
    let start = Instant::now();
    let address = |server: usize| {
        let [high, low] = u16::try_from(server).unwrap_or_default().to_be_bytes();
        SocketAddr::from(([10, 0, high, low], 8080))
    };
    let endpoint = |server: usize| {
        let endpoint = Endpoint::new(address(server));
        // The clock of the first use is the simulated one.
        endpoint.load.observe(Duration::from_millis(30), start);
        Arc::new(endpoint)
    };
    let count = setup.servers.len();
    let mut simulation = Simulation {
        setup,
        start,
        random: fastrand::Rng::with_seed(1),
        events: BinaryHeap::new(),
        made: 0,
        requests: Vec::new(),
        queues: vec![VecDeque::new(); count],
        busy: vec![0; count],
        endpoints: setup.proxies.iter().map(|_| (0..count).map(endpoint).collect()).collect(),
        balancers: Vec::new(),
        outcome: Outcome { seconds: vec![(0, 0); setup.lasts as usize + 1], ..Outcome::default() },
    };
    simulation.rebuild(0.0);
    for server in setup.servers.iter().filter(|server| server.comes > 0.0) {
        simulation.at(server.comes, Event::Comes);
    }
    for proxy in 0..setup.proxies.len() {
        simulation.next_arrival(0.0, proxy);
    }
    while let Some(Reverse((nanos, _, event))) = simulation.events.pop() {
        simulation.happens(nanos as f64 / 1e9, event);
    }
    simulation.outcome.latencies.sort_by(f64::total_cmp);
    simulation.outcome
}

impl Simulation<'_> {
    fn at(&mut self, seconds: f64, event: Event) {
        self.made += 1;
        self.events.push(Reverse(((seconds * 1e9) as u64, self.made, event)));
    }

    fn happens(&mut self, now: f64, event: Event) {
        match event {
            Event::Comes => self.rebuild(now),
            Event::Arrives { proxy } => {
                self.next_arrival(now, proxy);
                let key = hash::mixed(self.random.u64(0..KEYS));
                let request = Request {
                    proxy,
                    key,
                    arrived: now,
                    began: now,
                    tried: Vec::new(),
                    server: 0,
                    load: None,
                };
                self.requests.push(request);
                self.attempt(now, self.requests.len() - 1);
            }
            Event::Reaches { request } => {
                let server = self.requests[request].server;
                self.queues[server].push_back(request);
                self.work(now, server);
            }
            Event::Fails { request } => {
                let instant = self.instant(now);
                let Request { proxy, server, tried, load, .. } = &mut self.requests[request];
                *load = None;
                let endpoint = &self.endpoints[*proxy][*server];
                endpoint.load.observe(PENALTY, instant);
                tried.push(endpoint.address);
                self.outcome.failed += 1;
                self.attempt(now, request);
            }
            Event::Answers { request } => self.answered(now, request),
        }
    }

    fn next_arrival(&mut self, now: f64, proxy: usize) {
        let rate = self.setup.rate / self.setup.proxies.len() as f64;
        let next = now + self.exponential() / rate;
        if next < self.setup.lasts {
            self.at(next, Event::Arrives { proxy });
        }
    }

    fn attempt(&mut self, now: f64, index: usize) {
        let instant = self.instant(now);
        let request = &mut self.requests[index];
        let pick = Pick { hash: Some(request.key), session: None, tried: &request.tried, now: instant };
        let random = &mut self.random;
        let picked = self.balancers[request.proxy].pick(&pick, |n| random.usize(0..n));
        let Some(endpoint) = picked.filter(|_| request.tried.len() < MAX_ATTEMPTS) else {
            self.outcome.errors += 1;
            return;
        };
        let same = |each: &Arc<Endpoint>| Arc::ptr_eq(each, endpoint);
        request.server = self.endpoints[request.proxy].iter().position(same).unwrap_or_default();
        request.began = now;
        request.load = Some(Load::begin(endpoint));
        let Request { proxy, server, arrived, .. } = *request;
        let way = self.way(proxy, server);
        if arrived >= self.setup.from {
            let is_odd = self.setup.servers[server].odd || self.is_far(proxy, server);
            let (odd, all) = &mut self.outcome.seconds[arrived as usize];
            *odd += u32::from(is_odd);
            *all += 1;
        }
        match self.setup.servers[server].refuses {
            Some(after) => self.at(now + after, Event::Fails { request: index }),
            None => self.at(now + way / 2.0, Event::Reaches { request: index }),
        }
    }

    /// Workers that are free take what waits.
    fn work(&mut self, now: f64, server: usize) {
        while self.busy[server] < WORKERS {
            let Some(request) = self.queues[server].pop_front() else { return };
            self.busy[server] += 1;
            let Server { slowness, comes, cold, .. } = self.setup.servers[server];
            let warmth = ((now - comes) / WARM_UP).min(1.0);
            let work = WORK * slowness * (cold + (1.0 - cold) * warmth) * self.exponential();
            self.at(now + work, Event::Answers { request });
        }
    }

    fn answered(&mut self, now: f64, index: usize) {
        let Request { proxy, server, arrived, began, .. } = self.requests[index];
        let (instant, way) = (self.instant(now), self.way(proxy, server));
        self.requests[index].load = None;
        let took = now + way / 2.0 - began;
        self.endpoints[proxy][server].load.observe(Duration::from_secs_f64(took), instant);
        if arrived >= self.setup.from {
            self.outcome.latencies.push((now + way / 2.0 - arrived) * 1000.0);
        }
        self.busy[server] -= 1;
        self.work(now, server);
    }

    fn is_far(&self, proxy: usize, server: usize) -> bool {
        self.setup.servers[server].zone != self.setup.proxies[proxy]
    }

    fn way(&self, proxy: usize, server: usize) -> f64 {
        if self.is_far(proxy, server) { self.setup.distance } else { 0.0 }
    }

    fn rebuild(&mut self, now: f64) {
        let instant = self.instant(now);
        let build = |(proxy, zone): (usize, &&str)| {
            let there = self
                .setup
                .servers
                .iter()
                .zip(&self.endpoints[proxy])
                .filter(|(server, _)| server.comes <= now);
            let members = there.map(|(server, endpoint)| Member {
                zone: Some(server.zone.into()),
                ..Member::new(Arc::clone(endpoint))
            });
            let locality = Locality { zone: Some((*zone).to_owned()), node: None };
            let (config, previous) = (self.setup.balancer.clone(), self.balancers.get(proxy));
            Balancer::build(config, members.collect(), &locality, previous, instant, proxy)
        };
        self.balancers = self.setup.proxies.iter().enumerate().map(build).collect();
    }

    fn instant(&self, now: f64) -> Instant {
        self.start + Duration::from_secs_f64(now)
    }

    /// With mean 1.
    fn exponential(&mut self) -> f64 {
        -(1.0 - self.random.f64()).ln()
    }
}
