use std::net::Ipv4Addr;

use ferrule_config::PlaintextClient as Reported;
use proptest::prelude::*;

use super::*;

fn at(second: u64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + i64::try_from(second).expect("small")).expect("a valid second")
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn modes(mode: TlsMode, ports: &[(u16, TlsMode)]) -> Modes {
    Modes { mode, ports: ports.iter().copied().collect(), ..Modes::default() }
}

fn key() -> Key {
    Key { namespace: "shop".into(), name: "closed".into() }
}

/// One that wants Strict everywhere, and has it nowhere.
fn wanting(quiet_for: u64) -> Wanting {
    Wanting {
        key: key(),
        subject: Subject {
            uid: Some("1".into()),
            selection: "all pods".into(),
            wanted: modes(TlsMode::Strict, &[]),
        },
        in_force: Modes::default(),
        quiet_for: seconds(quiet_for),
        listed: Vec::new(),
    }
}

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn pod(name: &str, ready: bool) -> Pod {
    Pod { name: format!("shop/{name}"), workload: "shop/cart".into(), address: address(1), ready }
}

/// A sidecar that has been looking for so long: who came by which port, how long ago.
fn report(observed: u64, clients: &[(u8, u16, u64)]) -> PlaintextReport {
    let each = clients.iter().map(|&(client, port, seconds_ago)| Reported {
        address: address(client),
        port,
        seconds_ago,
    });
    PlaintextReport { plaintext_clients: each.collect(), observed_seconds: Some(observed) }
}

fn answer(observed: u64, clients: &[(u8, u16, u64)]) -> Answer {
    Answer { pod: pod("cart-1", true), report: Some(report(observed, clients)) }
}

fn silent(name: &str, ready: bool) -> Answer {
    Answer { pod: pod(name, ready), report: None }
}

/// Asks at once, whoever's turn it is.
fn told(ratchets: &mut Ratchets, answers: &[Answer], now: u64) -> Progress {
    let names = BTreeMap::from([(address(7), "monitoring/prometheus-0".to_owned())]);
    ratchets.answered(&key(), answers, &names, at(now), 0.5).expect("followed")
}

fn following(wanting: Wanting, now: u64) -> Ratchets {
    let mut ratchets = Ratchets::default();
    assert_eq!(ratchets.follow(vec![wanting], at(now)), []);
    ratchets
}

#[test]
fn a_quiet_mesh_is_closed_at_once_if_its_sidecars_have_been_looking_for_long_enough() {
    let mut ratchets = following(wanting(3600), 0);
    assert_eq!(ratchets.due(at(0)), [key()]);
    assert_eq!(ratchets.due(at(0)), [], "it is being asked");
    let progress = told(&mut ratchets, &[answer(3600, &[]), answer(9000, &[])], 0);
    assert_eq!((progress.step, progress.count), (Step::Hold, 0));
}

#[test]
fn whoever_came_plain_is_named_and_waited_for() {
    let mut ratchets = following(wanting(600), 0);
    let progress = told(&mut ratchets, &[answer(9000, &[(7, 8080, 12), (8, 9090, 500)])], 1000);
    assert_eq!((&progress.step, progress.count), (&Step::Clients, 2));
    let first = &progress.clients[0];
    assert_eq!(
        (first.address.as_str(), first.port, first.workload.as_str()),
        ("10.0.0.7", 8080, "shop/cart")
    );
    assert_eq!(first.pod.as_deref(), Some("monitoring/prometheus-0"));
    assert_eq!(first.last_seen.0, at(988));
    assert_eq!(progress.clients[1].pod, None);
    // The last one came at 988; who came within the hour stays listed.
    let progress = told(&mut ratchets, &[answer(9000, &[(7, 8080, 599)])], 1587);
    assert_eq!(progress.step, Step::Clients);
    let progress = told(&mut ratchets, &[answer(9000, &[(7, 8080, 600)])], 1588);
    assert_eq!((progress.step, progress.count), (Step::Hold, 2));
}

#[test]
fn a_client_is_not_forgotten_with_the_pod_that_it_called() {
    let mut ratchets = following(wanting(600), 0);
    told(&mut ratchets, &[answer(9000, &[(7, 8080, 0)])], 100);
    let after_a_rollout = told(&mut ratchets, &[answer(5, &[])], 400);
    assert_eq!(after_a_rollout.step, Step::Clients);
    assert_eq!(told(&mut ratchets, &[answer(305, &[])], 700).step, Step::Hold);
}

#[test]
fn what_whoever_led_before_has_listed_counts() {
    let mut before = following(wanting(600), 0);
    let listed = told(&mut before, &[answer(9000, &[(7, 8080, 0)])], 100).clients;
    let mut ratchets = following(Wanting { listed, ..wanting(600) }, 200);
    let young = [answer(20, &[])];
    assert_eq!(told(&mut ratchets, &young, 220).step, Step::Clients);
    assert_eq!(told(&mut ratchets, &young, 729).step, Step::Clients, "it may have come a little later");
    assert_ne!(told(&mut ratchets, &young, 731).step, Step::Clients);
}

#[test]
fn young_sidecars_are_waited_for_until_all_of_the_time_is_covered() {
    let mut ratchets = following(wanting(600), 1000);
    let observing = |until| Step::Observing { until: at(until) };
    // A sidecar that began at 950, before it was asked first.
    assert_eq!(told(&mut ratchets, &[answer(9000, &[]), answer(50, &[])], 1000).step, observing(1550));
    // One that began later was asked from its first moment on.
    assert_eq!(told(&mut ratchets, &[answer(10, &[])], 1200).step, observing(1600));
    assert_eq!(told(&mut ratchets, &[answer(10, &[])], 1600).step, Step::Hold);
}

#[test]
fn without_pods_nothing_is_known_and_nothing_is_closed_before_its_time() {
    let mut ratchets = following(wanting(600), 0);
    assert_eq!(told(&mut ratchets, &[], 599).step, Step::Observing { until: at(600) });
    assert_eq!(told(&mut ratchets, &[], 600).step, Step::Hold);
}

#[test]
fn a_ready_pod_that_says_nothing_is_waited_for_and_one_that_is_not_ready_is_not() {
    let mut ratchets = following(wanting(600), 0);
    let many: Vec<_> = (0..12).map(|number| silent(&format!("cart-{number:02}"), true)).collect();
    let Step::Missing { named, count } = told(&mut ratchets, &many, 1000).step else { panic!("waits") };
    assert_eq!((named.len(), count, named[0].as_str()), (10, 12, "shop/cart-00"));
    assert_eq!(told(&mut ratchets, &[silent("cart-1", false), answer(9000, &[])], 1000).step, Step::Hold);
    let plain = [silent("cart-2", true), answer(9000, &[(7, 80, 1)])];
    assert_eq!(told(&mut ratchets, &plain, 1000).step, Step::Clients, "clients are named first");
}

#[test]
fn a_sidecar_that_does_not_say_for_how_long_it_looks_may_have_begun_just_now() {
    let mut ratchets = following(wanting(600), 0);
    let old = PlaintextReport { observed_seconds: None, ..report(0, &[]) };
    let answers = [Answer { pod: pod("cart-1", true), report: Some(old) }];
    assert_eq!(told(&mut ratchets, &answers, 599).step, Step::Observing { until: at(600) });
    assert_eq!(told(&mut ratchets, &answers, 600).step, Step::Hold);
}

#[test]
fn only_ports_that_are_to_become_strict_are_looked_at() {
    let subject =
        Subject { wanted: modes(TlsMode::Strict, &[(9090, TlsMode::Permissive)]), ..wanting(600).subject };
    let open = Wanting { subject, ..wanting(600) };
    let mut ratchets = following(open.clone(), 0);
    let progress = told(&mut ratchets, &[answer(9000, &[(7, 9090, 1)])], 1000);
    assert_eq!((progress.step, progress.count), (Step::Hold, 0));
    // Whoever comes to where it has taken hold is refused, and holds nothing up.
    let half = Wanting { in_force: modes(TlsMode::Permissive, &[(80, TlsMode::Strict)]), ..open };
    let mut ratchets = following(half, 0);
    let progress = told(&mut ratchets, &[answer(9000, &[(7, 80, 1)])], 1000);
    assert_eq!((progress.step, progress.count), (Step::Hold, 1));
    assert_eq!(told(&mut ratchets, &[answer(9000, &[(7, 81, 1)])], 1000).step, Step::Clients);
}

#[test]
fn what_has_taken_hold_is_asked_about_seldom_and_for_the_list_alone() {
    let held = Wanting { in_force: modes(TlsMode::Strict, &[]), ..wanting(600) };
    let mut ratchets = following(held, 0);
    assert_eq!(ratchets.due(at(0)), [key()]);
    let progress = told(&mut ratchets, &[answer(5, &[(7, 8080, 1)]), silent("cart-2", true)], 10);
    assert_eq!((progress.step, progress.count), (Step::Held, 1));
    assert_eq!(ratchets.due(at(309)), []);
    assert_eq!(ratchets.due(at(310)), [key()]);
}

#[test]
fn those_that_wait_are_asked_often_but_not_more_pods_than_two_hundred_a_second() {
    for (quiet_for, pods, pause) in [(10, 1, 2), (60, 1, 15), (3600, 1, 30), (3600, 10_000, 50)] {
        let mut ratchets = following(wanting(quiet_for), 0);
        assert_eq!(ratchets.due(at(0)), [key()]);
        let answers = vec![answer(1, &[]); pods];
        ratchets.answered(&key(), &answers, &BTreeMap::new(), at(0), 0.5);
        assert_eq!(ratchets.due(at(pause - 1)), [], "{quiet_for} {pods}");
        assert_eq!(ratchets.due(at(pause + 1)), [key()], "{quiet_for} {pods}");
    }
}

#[test]
fn a_list_is_not_written_anew_for_some_seconds() {
    let mut ratchets = following(wanting(600), 0);
    let ask = |ratchets: &mut Ratchets, now| told(ratchets, &[answer(9000, &[(7, 8080, 0)])], now);
    let first = ask(&mut ratchets, 100);
    assert_eq!(ask(&mut ratchets, 110), first);
    assert_eq!(ask(&mut ratchets, 129), first);
    assert_eq!(ask(&mut ratchets, 130).clients[0].last_seen.0, at(130));
    let another = told(&mut ratchets, &[answer(9000, &[(8, 8080, 0)])], 131);
    assert_eq!(another.count, 2, "another client is told at once");
}

#[test]
fn a_list_is_bounded_and_the_rest_is_counted() {
    let mut ratchets = following(wanting(600), 0);
    let clients: Vec<_> = (0..200).map(|client| (client, 80, u64::from(client))).collect();
    let progress = told(&mut ratchets, &[answer(9000, &clients)], 1000);
    assert_eq!((progress.clients.len(), progress.count), (50, 200));
    assert_eq!(progress.clients[49].address, "10.0.0.49", "the last ones are listed");

    let many = |workload: usize| Answer {
        pod: Pod { workload: format!("shop/{workload}"), ..pod("cart-1", true) },
        report: Some(report(9000, &clients)),
    };
    let many: Vec<_> = (0..100).map(many).collect();
    assert_eq!(told(&mut ratchets, &many, 1000).count, 4096);
}

#[test]
fn another_object_or_selection_begins_anew_and_another_wish_does_not() {
    let clients = |ratchets: &mut Ratchets| told(ratchets, &[answer(9000, &[])], 1001).count;
    let change = |change: fn(&mut Wanting)| {
        let mut ratchets = following(wanting(600), 0);
        told(&mut ratchets, &[answer(9000, &[(7, 80, 1)])], 1000);
        assert_eq!(ratchets.due(at(1001)), []);
        let mut new = wanting(600);
        change(&mut new);
        ratchets.follow(vec![new], at(1001));
        assert_eq!(ratchets.due(at(1001)), [key()]);
        clients(&mut ratchets)
    };
    assert_eq!(change(|new| new.subject.uid = Some("2".into())), 0);
    assert_eq!(change(|new| new.subject.selection = "app=cart".into()), 0);
    assert_eq!(change(|new| new.subject.wanted.mode = TlsMode::Permissive), 0, "nothing is to be strict");
    assert_eq!(change(|new| new.quiet_for = seconds(60)), 1);
}

#[test]
fn what_wants_strict_no_more_is_no_question_any_more() {
    let mut ratchets = following(wanting(600), 0);
    ratchets.due(at(0));
    assert_eq!(ratchets.follow(Vec::new(), at(1)), [key()]);
    assert_eq!(ratchets.answered(&key(), &[answer(9000, &[])], &BTreeMap::new(), at(2), 0.5), None);
}

#[test]
fn what_is_waited_for_is_counted() {
    let mut ratchets = following(wanting(600), 0);
    assert_eq!(ratchets.waiting(), Waiting::default());
    told(&mut ratchets, &[answer(9000, &[(7, 80, 1)])], 1000);
    assert_eq!(ratchets.waiting(), Waiting { clients: 1, plaintext_clients: 1, ..Waiting::default() });
}

fn any_mode() -> impl Strategy<Value = TlsMode> {
    prop_oneof![Just(TlsMode::Permissive), Just(TlsMode::Strict), Just(TlsMode::Disabled)]
}

fn any_modes() -> impl Strategy<Value = Modes> {
    (any_mode(), prop::collection::btree_map(80..84u16, any_mode(), 0..4)).prop_map(|(mode, ports)| Modes {
        mode,
        ports,
        ..Modes::default()
    })
}

fn any_evidence() -> impl Strategy<Value = Evidence> {
    let pod = (any::<bool>(), prop::option::of(0..1000u64)).prop_map(|(ready, since)| PodEvidence {
        name: "shop/cart".into(),
        ready,
        since: since.map(at),
    });
    let pods = prop::collection::vec(pod, 0..4);
    let clients = prop::collection::vec(0..1000u64, 0..3);
    (0..1000u64, pods, clients).prop_map(|(since, pods, clients)| Evidence {
        since: at(since),
        pods,
        clients: clients.into_iter().map(at).collect(),
    })
}

proptest! {
    #[test]
    fn strict_is_in_force_only_where_it_is_wanted_and_was(wanted in any_modes(), before in any_modes(), port in 79..85u16) {
        let now = in_force(&wanted, Some(&before));
        let both = wanted.of(port) == TlsMode::Strict && before.of(port) == TlsMode::Strict;
        prop_assert_eq!(now.of(port) == TlsMode::Strict, both);
        if wanted.of(port) != TlsMode::Strict {
            prop_assert_eq!(now.of(port), wanted.of(port));
        } else if !both {
            prop_assert_eq!(now.of(port), TlsMode::Permissive);
        }
        prop_assert_ne!(in_force(&wanted, None).of(port), TlsMode::Strict);
    }

    #[test]
    fn what_is_in_force_stays_so_until_something_else_is_wanted(wanted in any_modes(), before in any_modes()) {
        let once = in_force(&wanted, Some(&before));
        prop_assert_eq!(in_force(&wanted, Some(&once)), once);
        let held = in_force(&wanted, Some(&wanted));
        prop_assert!((79..85).all(|port| held.of(port) == wanted.of(port)));
    }

    #[test]
    fn nobody_who_came_lately_is_ever_shut_out(evidence in any_evidence(), quiet_for in 10..600u64, now in 1000..2000u64) {
        let step = decide(seconds(quiet_for), &evidence, at(now));
        let quiet_since = at(now - quiet_for);
        let holds = evidence.clients.iter().all(|seen| *seen <= quiet_since)
            && evidence.pods.iter().all(|pod| !pod.ready || pod.since.is_some());
        prop_assert!(step != Step::Hold || holds);
        let young = evidence.pods.iter().filter_map(|pod| pod.since).any(|since| since > quiet_since);
        prop_assert!(step != Step::Hold || !young || evidence.since <= quiet_since);
    }

    #[test]
    fn less_evidence_against_it_or_more_time_never_holds_it_up(
        evidence in any_evidence(), quiet_for in 10..600u64, now in 1000..2000u64, later in 0..1000u64
    ) {
        let before = decide(seconds(quiet_for), &evidence, at(now));
        let after = decide(seconds(quiet_for), &evidence, at(now + later));
        prop_assert!(before != Step::Hold || after == Step::Hold);
        let fewer = Evidence { clients: Vec::new(), ..evidence };
        prop_assert!(before != Step::Hold || decide(seconds(quiet_for), &fewer, at(now)) == Step::Hold);
    }

    #[test]
    fn it_holds_at_the_time_that_was_told(evidence in any_evidence(), quiet_for in 10..600u64, now in 1000..2000u64) {
        if let Step::Observing { until } = decide(seconds(quiet_for), &evidence, at(now)) {
            prop_assert!(until > at(now));
            prop_assert_eq!(decide(seconds(quiet_for), &evidence, until), Step::Hold);
        }
    }
}
