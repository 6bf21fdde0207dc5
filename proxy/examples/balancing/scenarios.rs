//! What is compared.

use ferrule_config::{Algorithm, Balancer, ConsistentHash, Duration, HashKey, Zones};

use crate::simulation::{Server, Setup};

/// A table.
pub struct Scenario {
    pub name: &'static str,
    pub what: &'static str,
    /// Whose share is shown.
    pub odd_name: &'static str,
    pub cases: Vec<Case>,
}

/// A row of it.
pub struct Case {
    pub name: String,
    pub setup: Setup,
}

/// All of them.
pub fn all() -> Vec<Scenario> {
    vec![equal(), slow(), refusing(), silent(), returning(), hundred(), zones_even(), zone_overloaded()]
}

fn algorithms() -> [(&'static str, Algorithm); 6] {
    let key = || ConsistentHash { key: HashKey::SourceAddress, size: None };
    [
        ("PeakEwma", Algorithm::PeakEwma),
        ("LeastRequest", Algorithm::LeastRequest),
        ("RoundRobin", Algorithm::RoundRobin),
        ("Random", Algorithm::Random),
        ("RingHash", Algorithm::RingHash(key())),
        ("Maglev", Algorithm::Maglev(key())),
    ]
}

fn with(algorithm: Algorithm) -> Balancer {
    Balancer { algorithm, zones: Zones::Ignore, ..Balancer::default() }
}

/// One case for each algorithm.
fn each(setup: impl Fn(Balancer) -> Setup) -> Vec<Case> {
    algorithms()
        .into_iter()
        .map(|(name, algorithm)| Case { name: name.to_owned(), setup: setup(with(algorithm)) })
        .collect()
}

fn servers(count: usize, first: Server) -> Vec<Server> {
    let mut servers = vec![Server::default(); count];
    servers[0] = Server { odd: true, ..first };
    servers
}

fn equal() -> Scenario {
    Scenario {
        name: "Ten equal endpoints",
        what: "At 70 % of what they can do.",
        odd_name: "share of the first",
        cases: each(|balancer| Setup::new(balancer, servers(10, Server::default()), 0.7)),
    }
}

fn slow() -> Scenario {
    let slow = || Server { slowness: 10.0, ..Server::default() };
    Scenario {
        name: "One of ten is ten times slower",
        what: "At 50 % of what ten ordinary ones can do. A tenth of that is five times what the slow one can do.",
        odd_name: "share of the slow one",
        cases: each(|balancer| Setup::new(balancer, servers(10, slow()), 0.5)),
    }
}

fn refusing() -> Scenario {
    let dead = || Server { refuses: Some(0.001), ..Server::default() };
    Scenario {
        name: "One of ten refuses connections",
        what: "Within 1 ms; the request goes on to another one. At 50 %.",
        odd_name: "share of the dead one",
        cases: each(|balancer| Setup::new(balancer, servers(10, dead()), 0.5)),
    }
}

fn silent() -> Scenario {
    let dead = || Server { refuses: Some(1.0), ..Server::default() };
    Scenario {
        name: "One of ten does not answer to connections",
        what: "Each attempt at it takes 1 s. At 50 %.",
        odd_name: "share of the dead one",
        cases: each(|balancer| Setup::new(balancer, servers(10, dead()), 0.5)),
    }
}

fn returning() -> Scenario {
    let cold = || Server { comes: 10.0, cold: 10.0, ..Server::default() };
    let setup = |balancer, slow_start: Option<u64>| {
        let slow_start = slow_start.map(Duration::from_millis);
        let setup = Setup::new(Balancer { slow_start, ..balancer }, servers(10, cold()), 0.5);
        Setup { from: 10.0, lasts: 20.0, ..setup }
    };
    let cases = algorithms().into_iter().take(5).flat_map(|(name, algorithm)| {
        [("", None), (", slow start 10 s", Some(10_000))].map(|(suffix, slow_start)| Case {
            name: format!("{name}{suffix}"),
            setup: setup(with(algorithm.clone()), slow_start),
        })
    });
    Scenario {
        name: "A cold endpoint comes",
        what: "The tenth, ten times slower at first and as fast as the others after 10 s. At 50 %; the 10 s since it came.",
        odd_name: "share of the new one",
        cases: cases.collect(),
    }
}

fn hundred() -> Scenario {
    Scenario {
        name: "A hundred endpoints",
        what: "Ten of them four times slower, at 60 %, with eight proxies: each knows an eighth of what is under way.",
        odd_name: "share of the ten",
        cases: each(|balancer| {
            let server = |index| match index % 10 {
                0 => Server { slowness: 4.0, odd: true, ..Server::default() },
                _ => Server::default(),
            };
            let setup = Setup::new(balancer, (0..100).map(server).collect(), 0.6);
            Setup { lasts: 15.0, ..setup }
        }),
    }
}

fn in_zones(balancer: Balancer, own: usize, other: usize, proxies: [usize; 2], share: f64) -> Setup {
    let of = |zone| Server { zone, ..Server::default() };
    let servers = [vec![of("a"); own], vec![of("b"); other]].concat();
    let proxies = [vec!["a"; proxies[0]], vec!["b"; proxies[1]]].concat();
    Setup { proxies, distance: 0.002, ..Setup::new(balancer, servers, share) }
}

fn zone_cases(setup: impl Fn(Balancer) -> Setup) -> Vec<Case> {
    let cases = algorithms().into_iter().take(4).flat_map(|(name, algorithm)| {
        [("Ignore", Zones::Ignore), ("Prefer", Zones::Prefer)].map(|(zones_name, zones)| Case {
            name: format!("{name}, {zones_name}"),
            setup: setup(Balancer { zones, ..with(algorithm.clone()) }),
        })
    });
    cases.collect()
}

fn zones_even() -> Scenario {
    Scenario {
        name: "Two zones, evenly loaded",
        what: "Five endpoints and four proxies in each, 2 ms apart, at 60 %.",
        odd_name: "share that leaves its zone (in the single seconds)",
        cases: zone_cases(|balancer| in_zones(balancer, 5, 5, [4, 4], 0.6)),
    }
}

fn zone_overloaded() -> Scenario {
    Scenario {
        name: "Two zones, the own one overloaded",
        what: "Three endpoints here and seven there, all eight proxies here, at 60 %: twice what the own zone can do.",
        odd_name: "share that leaves its zone (in the single seconds)",
        cases: zone_cases(|balancer| in_zones(balancer, 3, 7, [8, 0], 0.6)),
    }
}
