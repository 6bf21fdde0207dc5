use std::collections::HashMap;

use config::{Algorithm, ConsistentHash, EndpointWeight, Session, SessionKeeper, Zones};
use proptest::prelude::*;

use super::*;
use crate::balance::{Hints, Load, hash};

fn endpoint(number: u16) -> Arc<Endpoint> {
    Arc::new(Endpoint::new(([10, 0, 0, 1], 1000 + number).into()))
}

/// All as fast as each other, so that nothing but the algorithm decides.
fn members(count: u16) -> Vec<Member> {
    let now = Instant::now();
    let member = |number| {
        let endpoint = endpoint(number);
        endpoint.load.observe(Duration::from_millis(100), now);
        Member::new(endpoint)
    };
    (0..count).map(member).collect()
}

fn in_zone(mut member: Member, zone: &str) -> Member {
    member.zone = Some(zone.into());
    member.hints = Hints { zones: vec![zone.into()], nodes: Vec::new() };
    member
}

fn with(algorithm: Algorithm) -> config::Balancer {
    config::Balancer { algorithm, ..config::Balancer::default() }
}

fn by_source(size: Option<u32>) -> ConsistentHash {
    ConsistentHash { key: HashKey::SourceAddress, size }
}

fn algorithms() -> [Algorithm; 6] {
    [
        Algorithm::PeakEwma,
        Algorithm::LeastRequest,
        Algorithm::RoundRobin,
        Algorithm::Random,
        Algorithm::RingHash(by_source(None)),
        Algorithm::Maglev(by_source(Some(1009))),
    ]
}

fn build(config: config::Balancer, members: Vec<Member>) -> Arc<Balancer> {
    Balancer::build(config, members, &Locality::default(), None, Instant::now(), 0)
}

fn zone_a() -> Locality {
    Locality { zone: Some("a".into()), node: Some("n1".into()) }
}

/// Picks so often, with another hash each time; how often each endpoint was picked, by its number.
fn counts(balancer: &Balancer, pick: &Pick<'_>, times: u64) -> HashMap<u16, u64> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut counts = HashMap::new();
    for number in 0..times {
        let pick = Pick { hash: Some(hash::mixed(number)), ..*pick };
        let picked = balancer.pick(&pick, |n| random.usize(0..n)).expect("an endpoint");
        *counts.entry(picked.address.port() - 1000).or_default() += 1;
    }
    counts
}

fn share(counts: &HashMap<u16, u64>, number: u16) -> f64 {
    counts.get(&number).copied().unwrap_or_default() as f64 / counts.values().sum::<u64>() as f64
}

fn near(actual: f64, expected: f64) -> bool {
    (actual - expected).abs() < 0.03
}

#[test]
fn nothing_is_picked_from_nothing() {
    for algorithm in algorithms() {
        let balancer = build(with(algorithm), Vec::new());
        assert!(balancer.is_empty());
        assert!(balancer.pick(&Pick::any(Instant::now()), |_| 0).is_none());
    }
}

#[test]
fn a_slow_endpoint_loses_against_a_fast_one() {
    let now = Instant::now();
    let members = members(2);
    members[0].endpoint.load.observe(Duration::from_secs(1), now);
    let balancer = build(with(Algorithm::PeakEwma), members);
    assert!(near(share(&counts(&balancer, &Pick::any(now), 100), 1), 1.0));
}

#[test]
fn a_busy_endpoint_loses_against_an_idle_one() {
    let members = members(2);
    let _load = Load::begin(&members[0].endpoint);
    let balancer = build(with(Algorithm::LeastRequest), members);
    assert!(near(share(&counts(&balancer, &Pick::any(Instant::now()), 100), 1), 1.0));
}

#[test]
fn weights_are_shares_with_every_algorithm() {
    let weights = vec![EndpointWeight { zone: Some("a".into()), weight: 3, ..EndpointWeight::default() }];
    for algorithm in algorithms() {
        let mut members = members(3);
        members[0].zone = Some("a".into());
        let name = format!("{algorithm:?}");
        let config = config::Balancer { weights: weights.clone(), ..with(algorithm) };
        let counts = counts(&build(config, members), &Pick::any(Instant::now()), 20_000);
        let got = share(&counts, 0);
        assert!(near(got, 0.6), "{name}: {got}");
    }
}

#[test]
fn weight_0_gets_nothing_while_another_is_there() {
    let weights = vec![EndpointWeight { zone: Some("a".into()), weight: 0, ..EndpointWeight::default() }];
    for algorithm in algorithms() {
        let mut members = members(2);
        members[0].zone = Some("a".into());
        let other = Arc::clone(&members[1].endpoint);
        let balancer = build(config::Balancer { weights: weights.clone(), ..with(algorithm) }, members);
        let now = Instant::now();
        let tried = [other.address];
        let pick = Pick { tried: &tried, ..Pick::any(now) };
        assert!(near(share(&counts(&balancer, &pick, 100), 1), 1.0), "another is there, though it was tried");
        other.set_available(false);
        assert!(near(share(&counts(&balancer, &Pick::any(now), 100), 0), 1.0));
    }
}

#[test]
fn an_endpoint_that_comes_later_starts_slowly() {
    let slow_start = Some(config::Duration::from_millis(10_000));
    for algorithm in algorithms() {
        let name = format!("{algorithm:?}");
        let config = config::Balancer { slow_start, ..with(algorithm) };
        let (start, all) = (Instant::now(), members(4));
        let first = Balancer::build(config.clone(), all[..3].to_vec(), &zone_a(), None, start, 0);
        let come = start + Duration::from_secs(60);
        let second = Balancer::build(config, all, &zone_a(), Some(&first), come, 0);
        let at = |age| share(&counts(&second, &Pick::any(come + Duration::from_secs(age)), 8000), 3);
        let (fresh, half, full) = (at(0), at(5), at(10));
        // With two choices a starting endpoint that costs less wins whenever it is among the two.
        let most = if ["PeakEwma", "LeastRequest"].contains(&&*name) { 2.0 } else { 1.2 };
        assert!(fresh > 0.01 && fresh < most * 0.1 / 3.1, "{name}: {fresh} when it comes");
        assert!(half > fresh && half < most * 0.5 / 3.5, "{name}: {half} after half the time");
        assert!(full > 0.2, "{name}: {full} in the end");
    }
}

#[test]
fn keys_of_a_starting_endpoint_move_to_it_once() {
    let config = config::Balancer {
        slow_start: Some(config::Duration::from_millis(10_000)),
        ..with(Algorithm::Maglev(by_source(None)))
    };
    let (start, all) = (Instant::now(), members(4));
    let first = Balancer::build(config.clone(), all[..3].to_vec(), &zone_a(), None, start, 0);
    let second = Balancer::build(config, all, &zone_a(), Some(&first), start, 0);
    for key in 0..500 {
        let is_there = |millis| {
            let now = start + Duration::from_millis(millis);
            let pick = Pick { hash: Some(hash::mixed(key)), ..Pick::any(now) };
            second.pick(&pick, |_| panic!("no chance in it")).expect("one").address.port() == 1003
        };
        let moves: Vec<_> = (0..11).map(|second| is_there(second * 1000)).collect();
        assert!(moves.is_sorted(), "{moves:?}");
    }
}

#[test]
fn endpoints_of_the_first_snapshot_do_not_start_slowly() {
    let config = config::Balancer {
        slow_start: Some(config::Duration::from_millis(10_000)),
        ..with(Algorithm::Random)
    };
    let now = Instant::now();
    let balancer = Balancer::build(config.clone(), members(2), &zone_a(), None, now, 0);
    assert!(near(share(&counts(&balancer, &Pick::any(now), 5000), 0), 0.5));
    let none = Balancer::build(config.clone(), Vec::new(), &zone_a(), None, now, 0);
    let balancer = Balancer::build(config, members(2), &zone_a(), Some(&none), now, 0);
    assert!(balancer.since.iter().all(Option::is_none), "there is nobody who could take their share");
}

#[test]
fn ending_endpoints_are_used_when_none_is_ready() {
    for algorithm in algorithms() {
        let mut members = members(3);
        members[0].state = State::Ending;
        members[1].state = State::NotReady;
        let ready = Arc::clone(&members[2].endpoint);
        let balancer = build(with(algorithm), members.clone());
        let pick = Pick::any(Instant::now());
        assert!(near(share(&counts(&balancer, &pick, 100), 2), 1.0));
        ready.set_available(false);
        assert!(near(share(&counts(&balancer, &pick, 100), 0), 1.0));
        let without = build(balancer.config.clone(), members[..2].to_vec());
        assert!(near(share(&counts(&without, &pick, 100), 0), 1.0));
    }
}

#[test]
fn the_own_zone_is_preferred_until_its_endpoints_were_tried() {
    for algorithm in algorithms() {
        let members: Vec<_> = members(4)
            .into_iter()
            .enumerate()
            .map(|(index, member)| in_zone(member, if index < 2 { "a" } else { "b" }))
            .collect();
        let tried = [members[0].endpoint.address, members[1].endpoint.address];
        let balancer = Balancer::build(with(algorithm), members, &zone_a(), None, Instant::now(), 0);
        let pick = Pick::any(Instant::now());
        let all = counts(&balancer, &pick, 500);
        assert!(near(share(&all, 0) + share(&all, 1), 1.0));
        let rest = counts(&balancer, &Pick { tried: &tried[..1], ..pick }, 500);
        assert!(near(share(&rest, 1), 1.0));
        let rest = counts(&balancer, &Pick { tried: &tried, ..pick }, 500);
        assert!(near(share(&rest, 2) + share(&rest, 3), 1.0));
    }
}

#[test]
fn a_loaded_zone_spills_into_another() {
    for algorithm in [Algorithm::PeakEwma, Algorithm::LeastRequest] {
        let members = vec![in_zone(Member::new(endpoint(0)), "a"), in_zone(Member::new(endpoint(1)), "b")];
        let local = Arc::clone(&members[0].endpoint);
        let balancer = Balancer::build(with(algorithm), members, &zone_a(), None, Instant::now(), 0);
        let pick = Pick::any(Instant::now());
        let load = [Load::begin(&local)];
        assert!(near(share(&counts(&balancer, &pick, 100), 0), 1.0), "one request is no load");
        let more: Vec<_> = (0..5).map(|_| Load::begin(&local)).collect();
        assert!(near(share(&counts(&balancer, &pick, 100), 1), 1.0));
        drop((load, more));
        assert!(near(share(&counts(&balancer, &pick, 100), 0), 1.0));
    }
}

#[test]
fn without_ready_endpoints_of_the_own_zone_others_are_used() {
    let mut members = vec![in_zone(Member::new(endpoint(0)), "a"), in_zone(Member::new(endpoint(1)), "b")];
    members[0].state = State::NotReady;
    let config = config::Balancer { zones: Zones::Prefer, ..config::Balancer::default() };
    let balancer = Balancer::build(config, members, &zone_a(), None, Instant::now(), 0);
    assert!(near(share(&counts(&balancer, &Pick::any(Instant::now()), 100), 1), 1.0));
}

#[test]
fn in_panic_all_are_used() {
    let mut members = members(4);
    members[2].state = State::NotReady;
    members[3].state = State::NotReady;
    let endpoints: Vec<_> = members.iter().map(|member| Arc::clone(&member.endpoint)).collect();
    let config = config::Balancer { panic_threshold: 50, ..with(Algorithm::RoundRobin) };
    let balancer = build(config.clone(), members.clone());
    let pick = Pick::any(Instant::now());
    let calm = |counts: &HashMap<u16, u64>| near(share(counts, 0) + share(counts, 1), 1.0);
    assert!(calm(&counts(&balancer, &pick, 100)), "half is enough");
    endpoints[0].set_available(false);
    let panic = counts(&balancer, &pick, 100);
    assert!((0..4).all(|number| near(share(&panic, number), 0.25)), "{panic:?}");
    endpoints[0].set_available(true);
    assert!(calm(&counts(&balancer, &pick, 100)));
    let never = build(config::Balancer { panic_threshold: 0, ..config }, members);
    endpoints[0].set_available(false);
    endpoints[1].set_available(false);
    assert!(never.pick(&pick, |_| 0).is_none(), "without a threshold only usable ones ever are used");
    endpoints[0].set_available(true);
}

#[test]
fn a_session_stays_at_its_endpoint_for_as_long_as_that_is_usable() {
    let session = Session { kept_in: SessionKeeper::Cookie, name: "s".into(), ttl: None };
    let weights = vec![EndpointWeight { zone: Some("a".into()), weight: 0, ..EndpointWeight::default() }];
    let mut members = members(5);
    members[1].zone = Some("a".into());
    members[2].state = State::Ending;
    let of = |index: usize| (members[index].endpoint.id(), Arc::clone(&members[index].endpoint));
    let [(id, kept), (light, _), (ending, _)] = [of(0), of(1), of(2)];
    let balancer = build(
        config::Balancer { session: Some(session), weights, ..config::Balancer::default() },
        members.clone(),
    );
    let now = Instant::now();
    let share_of = |session, number| {
        share(&counts(&balancer, &Pick { session: Some(session), ..Pick::any(now) }, 300), number)
    };
    assert!(near(share_of(id, 0), 1.0));
    assert!(near(share_of(light, 1), 1.0), "a session that is there is kept, whatever the weight has become");
    assert!(near(share_of(ending, 2), 0.0));
    assert!(share_of(12345, 3) > 0.2, "one that nobody knows goes anywhere");
    let tried = [kept.address];
    let pick = Pick { session: Some(id), tried: &tried, ..Pick::any(now) };
    assert!(near(share(&counts(&balancer, &pick, 100), 0), 0.0));
    kept.set_available(false);
    assert!(near(share_of(id, 0), 0.0));
}

#[test]
fn nothing_new_makes_no_new_balancer() {
    let now = Instant::now();
    let members = members(3);
    let first = build(with(Algorithm::RoundRobin), members.clone());
    let mut turned = members.clone();
    turned.reverse();
    let again =
        |config, members| Balancer::build(config, members, &Locality::default(), Some(&first), now, 0);
    assert!(Arc::ptr_eq(&first, &again(with(Algorithm::RoundRobin), turned)), "order means nothing");
    assert!(!Arc::ptr_eq(&first, &again(with(Algorithm::Random), members.clone())));
    let mut changed = members.clone();
    changed[0].state = State::Ending;
    assert!(!Arc::ptr_eq(&first, &again(with(Algorithm::RoundRobin), changed)));
    assert!(!Arc::ptr_eq(&first, &again(with(Algorithm::RoundRobin), members[..2].to_vec())));
}

#[test]
fn a_key_goes_on_to_the_same_next_endpoint() {
    for algorithm in [Algorithm::RingHash(by_source(None)), Algorithm::Maglev(by_source(None))] {
        let all = members(5);
        let (one, two) = (build(with(algorithm.clone()), all.clone()), build(with(algorithm), all));
        for key in 0..100 {
            let mut tried = Vec::new();
            for _ in 0..5 {
                let pick =
                    Pick { hash: Some(hash::mixed(key)), session: None, tried: &tried, now: Instant::now() };
                let no_chance = |_| panic!("no chance in it");
                let (one, two) = (one.pick(&pick, no_chance), two.pick(&pick, no_chance));
                let (one, two) = (one.expect("one").address, two.expect("two").address);
                assert_eq!(one, two, "two proxies agree");
                assert!(!tried.contains(&one));
                tried.push(one);
            }
        }
    }
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![4 => Just(State::Ready), 1 => Just(State::Ending), 1 => Just(State::NotReady)]
}

prop_compose! {
    fn any_member(number: u16)(
        state in state(), zone in 0..3usize, hinted in any::<bool>(), available in prop::bool::weighted(0.8),
    ) -> Member {
        let zone = ["a", "b", "c"][zone];
        let mut member = Member { state, zone: Some(zone.into()), ..Member::new(endpoint(number)) };
        if hinted {
            member = in_zone(member, zone);
        }
        member.endpoint.set_available(available);
        member
    }
}

fn any_members() -> impl Strategy<Value = Vec<Member>> {
    (1..12u16).prop_flat_map(|count| (0..count).map(any_member).collect::<Vec<_>>())
}

fn any_config() -> impl Strategy<Value = config::Balancer> {
    let weights = prop::collection::vec((0..3usize, 0..4u16), 0..3);
    let zones = prop_oneof![Just(Zones::Hints), Just(Zones::Prefer), Just(Zones::Ignore)];
    (0..6usize, weights, zones, prop::option::of(0..20_000u64), prop_oneof![Just(0), 1..=100u8]).prop_map(
        |(algorithm, weights, zones, slow_start, panic_threshold)| config::Balancer {
            algorithm: algorithms()[algorithm].clone(),
            weights: weights
                .into_iter()
                .map(|(zone, weight)| EndpointWeight {
                    zone: Some(["a", "b", "c"][zone].into()),
                    weight,
                    ..EndpointWeight::default()
                })
                .collect(),
            zones,
            slow_start: slow_start.map(config::Duration::from_millis),
            panic_threshold,
            session: None,
        },
    )
}

proptest! {
    /// Whatever is configured: somebody is picked whenever anybody can be, never one that can't, never one that was
    /// tried or has no weight while there is another of the same tier.
    #[test]
    fn a_pick_is_one_that_may_be_picked(
        config in any_config(), members in any_members(), later in 0..12usize,
        tried in 0..12usize, hash in prop::option::of(any::<u64>()), age in 0..30_000u64, seed: u64,
    ) {
        let start = Instant::now();
        let first = members[..later.min(members.len())].to_vec();
        let first = Balancer::build(config.clone(), first, &zone_a(), None, start, 3);
        let balancer = Balancer::build(config.clone(), members.clone(), &zone_a(), Some(&first), start, 5);
        let tried: Vec<_> = members.iter().take(tried).map(|member| member.endpoint.address).collect();
        let now = start + Duration::from_millis(age);
        let mut random = fastrand::Rng::with_seed(seed);
        let pick = Pick { hash, session: None, tried: &tried, now };
        let picked = balancer.pick(&pick, |n| random.usize(0..n));

        let count = |of: &dyn Fn(&Member) -> bool| members.iter().filter(|member| of(member)).count();
        let ready = count(&|member| member.state == State::Ready);
        let usable = count(&|member| member.state == State::Ready && member.endpoint.is_available());
        let weighty = |member: &Member| member.weight(&config.weights) > 0;
        // Among those of some weight when there are any.
        let weighed = |of: &dyn Fn(&Member) -> bool| {
            let any = members.iter().any(|member| of(member) && weighty(member));
            members.iter().filter(|member| of(member) && (!any || weighty(member))).cloned().collect::<Vec<_>>()
        };
        let takes_part = |member: &Member| member.state != State::Ending || ready == 0;
        let in_panic = weighed(&takes_part);
        let panic = config.panic_threshold > 0
            && usable * 100 < in_panic.len() * usize::from(config.panic_threshold);
        let in_state = |state: State| {
            move |member: &Member| member.state == state && member.endpoint.is_available()
        };
        let allowed = if panic {
            in_panic
        } else if usable > 0 {
            weighed(&in_state(State::Ready))
        } else {
            weighed(&in_state(State::Ending))
        };
        let Some(picked) = picked else {
            prop_assert!(allowed.is_empty());
            return Ok(());
        };
        let is = |member: &Member| member.endpoint.address == picked.address;
        prop_assert!(allowed.iter().any(is));
        let untried = allowed.iter().any(|member| !tried.contains(&member.endpoint.address));
        prop_assert!(!untried || !tried.contains(&picked.address));
    }
}
