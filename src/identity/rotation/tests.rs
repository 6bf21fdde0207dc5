use std::time::UNIX_EPOCH;

use ferrule_config::identity::BundleReport;
use proptest::prelude::*;

use super::*;
use crate::identity::{
    authority::Key,
    life::{LONGEST, SHORTEST},
    state::CURRENT,
};

const LIFE: Duration = DAY;

fn start() -> SystemTime {
    UNIX_EPOCH + DAY * 20_000
}

fn made() -> Authority {
    issue::authority(start()).expect("made")
}

/// One whose root's key is not known here.
fn users() -> Authority {
    let made = made();
    let (roots, chain, key, _) = made.to_pem();
    Authority::new(CURRENT, &roots, &chain, Key::new(key.to_owned()), None).expect("usable")
}

fn steady_state() -> State {
    State::new(made(), LIFE, start())
}

fn inputs() -> Inputs<'static> {
    Inputs { life: LIFE, grace: GRACE, ..Inputs::default() }
}

fn after(state: &State, inputs: &Inputs<'_>, now: SystemTime) -> State {
    let step = decide(state, inputs, now);
    carry_out(state, step, inputs, now).expect("carried out").expect("a step")
}

fn agreed(state: &State, after: Duration) -> Census {
    Census { generation: state.generation, after, sidecars: 2, waiting: vec![] }
}

#[test]
fn nothing_is_done_without_a_reason() {
    assert_eq!(decide(&steady_state(), &inputs(), start()), Step::Keep);
}

#[test]
fn a_rotation_goes_from_trust_to_signing_to_distrust() {
    let old = steady_state();
    let asked = Inputs { request: Some("r1"), ..inputs() };
    let trusting = after(&old, &asked, start());
    assert_eq!(trusting.current, old.current);
    assert_eq!(trusting.trusted().count(), 2);
    assert!(trusting.generation > old.generation);

    let now = start() + GRACE;
    let census = agreed(&trusting, GRACE);
    let waiting = Census { waiting: vec!["shop/cart".into()], ..census };
    assert_eq!(decide(&trusting, &Inputs { census: Some(&waiting), ..asked }, now), Step::Keep);
    let promoted = after(&trusting, &Inputs { census: Some(&census), ..asked }, now);
    assert_ne!(promoted.current, old.current);
    assert_eq!(promoted.trusted().next(), Some(&promoted.current.roots()[0]), "who signs comes first");
    assert_eq!(promoted.trusted().count(), 2);

    let now = now + GRACE;
    let census = agreed(&promoted, GRACE);
    let retired = after(&promoted, &Inputs { census: Some(&census), ..asked }, now);
    assert_eq!(retired.phase, Phase::Steady);
    assert_eq!(retired.trusted().count(), 1);
    assert_eq!(decide(&retired, &asked, now), Step::Keep, "a request is followed once");
}

#[test]
fn answers_from_before_the_grace_or_about_another_state_do_not_count() {
    let old = steady_state();
    let asked = Inputs { request: Some("r1"), ..inputs() };
    let trusting = after(&old, &asked, start());
    let now = start() + GRACE * 2;
    for census in [agreed(&trusting, GRACE - Duration::from_secs(1)), agreed(&old, GRACE)] {
        assert_eq!(decide(&trusting, &Inputs { census: Some(&census), ..asked }, now), Step::Keep);
    }
}

#[test]
fn a_root_is_dropped_when_nothing_that_it_signed_is_valid() {
    let asked = Inputs { request: Some("r1"), ..inputs() };
    let trusting = after(&steady_state(), &asked, start());
    let forced = Inputs { force: Some(trusting.generation), ..asked };
    let promoted = after(&trusting, &forced, start());
    assert_eq!(decide(&promoted, &forced, start() + LIFE), Step::Keep, "force is for one phase");
    assert_eq!(decide(&promoted, &forced, start() + LIFE + FRESH + SKEW), Step::Retire);
}

#[test]
fn nobody_goes_on_without_sidecars_by_itself() {
    let asked = Inputs { request: Some("r1"), ..inputs() };
    let trusting = after(&steady_state(), &asked, start());
    for days in [1, 30, 150] {
        assert_eq!(decide(&trusting, &asked, start() + DAY * days), Step::Keep);
    }
}

#[test]
fn an_issuer_is_renewed_at_half_of_its_life_and_a_root_before_its_end() {
    let state = steady_state();
    let now = start() + issue::ISSUER_LIFE / 2;
    assert_eq!(decide(&state, &inputs(), now), Step::RenewIssuer);
    let renewed = after(&state, &inputs(), now);
    assert_eq!((renewed.generation, renewed.bundle()), (state.generation, state.bundle()));
    let late = start() + issue::ROOT_LIFE - ROOT_REST;
    let renewed = after(&state, &inputs(), late);
    assert_eq!(decide(&renewed, &inputs(), late), Step::Prepare(None));
}

#[test]
fn a_longer_life_is_written_down_before_it_is_given() {
    let state = steady_state();
    let longer = Inputs { life: LIFE * 2, ..inputs() };
    assert_eq!(decide(&state, &longer, start()), Step::Lengthen);
    assert_eq!(after(&state, &longer, start()).longest, LIFE * 2);
    let shorter = Inputs { life: LIFE / 2, ..inputs() };
    assert_eq!(decide(&state, &shorter, start()), Step::Keep);
}

#[test]
fn the_users_authority_is_trusted_before_it_signs_and_its_issuers_are_adopted() {
    let (first, second) = (users(), users());
    let wish = |supplied| Inputs { supplied, user_supplies: true, ..inputs() };
    let state = steady_state();
    assert_eq!(decide(&state, &wish(None), start()), Step::Keep, "what can't be used changes nothing");
    let trusting = after(&state, &wish(Some(&first)), start());
    assert!(matches!(&trusting.phase, Phase::Trusting { next, .. } if **next == first));
    let replaced = after(&trusting, &wish(Some(&second)), start());
    assert!(matches!(&replaced.phase, Phase::Trusting { next, .. } if **next == second));
    assert!(replaced.generation > trusting.generation);

    let users = State { current: first.clone(), ..state };
    assert_eq!(decide(&users, &wish(Some(&first)), start()), Step::Keep);
    let trusting = after(&users, &wish(Some(&second)), start());
    let abandoned = after(&trusting, &wish(Some(&first)), start());
    assert_eq!((abandoned.phase, abandoned.current), (Phase::Steady, first.clone()));
    let requested = Inputs { request: Some("r1"), ..wish(Some(&first)) };
    assert_eq!(decide(&users, &requested, start()), Step::Decline);
    let declined = after(&users, &requested, start());
    assert_eq!(decide(&declined, &requested, start()), Step::Keep);
    assert_eq!(decide(&users, &inputs(), start()), Step::Prepare(None), "and back to one made here");
}

#[test]
fn a_sidecar_is_waited_for_while_it_lags() {
    let asked = Inputs { request: Some("r1"), ..inputs() };
    let old = steady_state();
    let trusting = after(&old, &asked, start());
    let promoted = after(&trusting, &Inputs { force: Some(trusting.generation), ..asked }, start());
    let report = |generation, root: &Authority| Report {
        id: Some("spiffe://cluster.local/ns/shop/sa/cart".into()),
        root: Some(root.roots()[0].fingerprint()),
        bundle: Some(BundleReport { generation, hash: String::new() }),
        ..Report::default()
    };
    assert!(lags(&trusting, &report(old.generation, &old.current)));
    assert!(!lags(&trusting, &report(trusting.generation, &old.current)));
    assert!(lags(&promoted, &report(promoted.generation, &old.current)));
    assert!(!lags(&promoted, &report(promoted.generation, &promoted.current)));
    assert!(!lags(&trusting, &Report::default()), "without a certificate it has nothing to lose");
}

// A model of the cluster: whatever happens in whatever order, no two sidecars fail to verify each other.

/// Longest time from a replica's look at the state to the sidecar's use of the answer.
const UNDER_WAY: Duration = Duration::from_secs(20);
/// Longest time from a decision to the moment that its write is in force: the API server may be slow, too.
const LATE: Duration = Duration::from_secs(65);
const SIDECARS: usize = 4;
const REPLICAS: usize = 2;

#[derive(Clone, Debug)]
enum Event {
    Wait(u64),
    /// The kubelet brings what is published now.
    Mount(usize),
    Publish,
    /// A sidecar asks a replica for a certificate.
    Ask(usize, usize),
    /// The answer arrives.
    Arrive(usize),
    Restart(usize),
    Stop(usize),
    Request,
    /// The user's authority: one of two, or none.
    Supply(Option<usize>),
    Live(u64),
    /// The leader asks the sidecars and decides.
    Decide,
    /// It writes what it decided, if nobody else wrote.
    Write,
    /// It dies; another one leads.
    Crash,
}

fn event() -> impl Strategy<Value = Event> {
    let sidecar = 0..SIDECARS;
    prop_oneof![
        4 => (1u64..90).prop_map(Event::Wait),
        1 => (90u64..90_000).prop_map(Event::Wait),
        4 => sidecar.clone().prop_map(Event::Mount),
        3 => Just(Event::Publish),
        5 => (sidecar.clone(), 0..REPLICAS).prop_map(|(sidecar, replica)| Event::Ask(sidecar, replica)),
        6 => sidecar.clone().prop_map(Event::Arrive),
        1 => sidecar.clone().prop_map(Event::Restart),
        1 => sidecar.prop_map(Event::Stop),
        2 => Just(Event::Request),
        1 => prop_oneof![Just(None), Just(Some(0)), Just(Some(1))].prop_map(Event::Supply),
        1 => (SHORTEST.as_secs()..LONGEST.as_secs()).prop_map(Event::Live),
        6 => Just(Event::Decide),
        6 => Just(Event::Write),
        1 => Just(Event::Crash),
    ]
}

#[derive(Clone, Debug, Default)]
struct Bundle {
    generation: u64,
    roots: Vec<String>,
}

impl Bundle {
    fn of(state: &State) -> Self {
        Self { generation: state.generation, roots: state.trusted().map(|root| root.fingerprint()).collect() }
    }
}

#[derive(Clone, Debug)]
struct Answer {
    root: String,
    until: SystemTime,
    bundle: Bundle,
    looked: SystemTime,
}

#[derive(Clone, Debug, Default)]
struct Sidecar {
    runs: bool,
    certificate: Option<(String, SystemTime)>,
    bundle: Bundle,
    under_way: Option<Answer>,
}

impl Sidecar {
    fn take(&mut self, bundle: Bundle) {
        if bundle.generation > self.bundle.generation {
            self.bundle = bundle;
        }
    }

    fn report(&self) -> Report {
        Report {
            id: self.certificate.is_some().then(String::new),
            root: self.certificate.as_ref().map(|(root, _)| root.clone()),
            bundle: Some(BundleReport { generation: self.bundle.generation, hash: String::new() }),
            ..Report::default()
        }
    }
}

struct Cluster {
    now: SystemTime,
    secret: State,
    writes: u64,
    /// Since when the leader has known of the state.
    seen: SystemTime,
    published: Bundle,
    sidecars: Vec<Sidecar>,
    /// What each replica knows, and since when.
    replicas: Vec<(State, SystemTime)>,
    requests: u64,
    supplied: Option<usize>,
    life: Duration,
    /// What the leader decided, and about which write.
    decided: Option<(State, u64, SystemTime)>,
    users: [Authority; 2],
    promotions: u32,
}

impl Cluster {
    fn new() -> Self {
        let secret = State::new(made(), LIFE, start());
        let sidecar = Sidecar { runs: true, ..Sidecar::default() };
        Self {
            now: start(),
            writes: 0,
            seen: start(),
            published: Bundle::of(&secret),
            sidecars: vec![sidecar; SIDECARS],
            replicas: vec![(secret.clone(), start()); REPLICAS],
            secret,
            requests: 0,
            supplied: None,
            life: LIFE,
            decided: None,
            users: [users(), users()],
            promotions: 0,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wait(seconds) => self.now += Duration::from_secs(seconds),
            Event::Mount(sidecar) => {
                let bundle = self.published.clone();
                self.sidecars[sidecar].take(bundle);
            }
            Event::Publish => self.published = Bundle::of(&self.secret),
            Event::Ask(sidecar, replica) => self.ask(sidecar, replica),
            Event::Arrive(sidecar) => self.arrive(sidecar),
            Event::Restart(sidecar) => {
                self.sidecars[sidecar] = Sidecar { runs: true, ..Sidecar::default() };
            }
            Event::Stop(sidecar) => self.sidecars[sidecar] = Sidecar::default(),
            Event::Request => self.requests += 1,
            Event::Supply(which) => self.supplied = which,
            Event::Live(seconds) => self.life = Duration::from_secs(seconds),
            Event::Decide => self.decide(),
            Event::Write => self.write(),
            Event::Crash => {
                self.decided = None;
                self.seen = self.now;
            }
        }
    }

    fn ask(&mut self, sidecar: usize, replica: usize) {
        let (known, looked) = &mut self.replicas[replica];
        if self.now.duration_since(*looked).expect("later") >= FRESH {
            (*known, *looked) = (self.secret.clone(), self.now);
        }
        let life = self.life.min(known.longest);
        let answer = Answer {
            root: known.current.roots()[0].fingerprint(),
            until: self.now + life,
            bundle: Bundle::of(known),
            looked: self.now,
        };
        let sidecar = &mut self.sidecars[sidecar];
        if sidecar.runs {
            sidecar.under_way = Some(answer);
        }
    }

    fn arrive(&mut self, sidecar: usize) {
        let sidecar = &mut self.sidecars[sidecar];
        let Some(Answer { root, until, bundle, looked }) = sidecar.under_way.take() else { return };
        if self.now <= looked + UNDER_WAY {
            sidecar.take(bundle);
            sidecar.certificate = Some((root, until));
        }
    }

    fn decide(&mut self) {
        let waiting = self.sidecars.iter().enumerate();
        let waiting = waiting.filter(|(_, sidecar)| sidecar.runs && lags(&self.secret, &sidecar.report()));
        let census = Census {
            generation: self.secret.generation,
            after: self.now.duration_since(self.seen).expect("later"),
            sidecars: SIDECARS,
            waiting: waiting.map(|(index, _)| index.to_string()).collect(),
        };
        let request = self.requests.to_string();
        let inputs = Inputs {
            life: self.life,
            grace: GRACE,
            supplied: self.supplied.map(|which| &self.users[which]),
            user_supplies: self.supplied.is_some(),
            request: (self.requests > 0).then_some(request.as_str()),
            force: None,
            census: Some(&census),
        };
        let step = decide(&self.secret, &inputs, self.now);
        let changed = carry_out(&self.secret, step, &inputs, self.now).expect("carried out");
        self.decided = changed.map(|changed| (changed, self.writes, self.now));
    }

    fn write(&mut self) {
        let Some((state, seen, decided)) = self.decided.take() else { return };
        let late = self.now > decided + LATE;
        if seen != self.writes || late {
            return;
        }
        self.promotions += u32::from(matches!(state.phase, Phase::Retiring { .. }));
        self.secret = State::parse(&state.to_data()).expect("readable");
        self.writes += 1;
        self.seen = self.now;
    }

    fn check(&self) -> Result<(), String> {
        let live = |sidecar: &&Sidecar| sidecar.runs && sidecar.certificate.is_some();
        for verifier in self.sidecars.iter().filter(live) {
            for shown in self.sidecars.iter().filter(live) {
                let (root, until) = shown.certificate.as_ref().expect("filtered");
                if *until > self.now && !verifier.bundle.roots.contains(root) {
                    return Err(format!("{verifier:?} does not trust {shown:?} at {:?}", self.now));
                }
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn sidecars_always_verify_each_other(events in proptest::collection::vec(event(), 0..250)) {
        let mut cluster = Cluster::new();
        for event in events {
            cluster.happen(event.clone());
            prop_assert_eq!(cluster.check(), Ok(()), "after {:?}", event);
        }
    }
}

/// The leader dies before or after each write; the rotation comes to its end all the same.
#[test]
fn a_rotation_ends_whatever_step_the_leader_dies_at() {
    for crash in 0..12 {
        let mut cluster = Cluster::new();
        for sidecar in 0..SIDECARS {
            cluster.happen(Event::Ask(sidecar, 0));
            cluster.happen(Event::Arrive(sidecar));
        }
        let before = cluster.secret.current.clone();
        cluster.happen(Event::Request);
        let mut actions = 0;
        for _ in 0..40 {
            for action in [Event::Decide, Event::Write, Event::Publish] {
                actions += 1;
                cluster.happen(if actions == crash { Event::Crash } else { action });
            }
            for sidecar in 0..SIDECARS {
                cluster.happen(Event::Mount(sidecar));
                cluster.happen(Event::Ask(sidecar, sidecar % REPLICAS));
                cluster.happen(Event::Arrive(sidecar));
            }
            cluster.happen(Event::Wait(20));
            assert_eq!(cluster.check(), Ok(()), "crash at {crash}");
        }
        assert_eq!(cluster.secret.phase, Phase::Steady, "crash at {crash}");
        assert_eq!(cluster.promotions, 1, "crash at {crash}");
        assert!(!cluster.secret.current.has_roots_of(&before));
    }
}

/// The test above can fail: with the grace left out it does.
#[test]
fn without_the_grace_a_sidecar_would_be_cut_off() {
    let mut cluster = Cluster::new();
    cluster.happen(Event::Ask(0, 0));
    cluster.happen(Event::Arrive(0));
    cluster.happen(Event::Request);
    cluster.happen(Event::Decide);
    cluster.happen(Event::Write);
    // A replica that does not know yet answers a new sidecar, and the answer is under way.
    cluster.happen(Event::Ask(1, 1));
    cluster.happen(Event::Publish);
    cluster.happen(Event::Mount(0));
    let Phase::Trusting { next, .. } = cluster.secret.phase.clone() else { panic!("trusting") };
    assert_eq!(cluster.check(), Ok(()));
    // All that run and have a certificate agree, so only the grace keeps the next root from signing now.
    cluster.happen(Event::Decide);
    assert_eq!(cluster.decided, None);
    let hasty = State { current: *next, ..cluster.secret.clone() };
    cluster.secret = hasty;
    cluster.happen(Event::Arrive(1));
    cluster.happen(Event::Wait(FRESH.as_secs()));
    cluster.happen(Event::Ask(0, 0));
    cluster.happen(Event::Arrive(0));
    assert!(cluster.check().is_err());
}

const _: () = assert!(GRACE.as_secs() > FRESH.as_secs() + UNDER_WAY.as_secs());
const _: () = assert!(LATE.as_secs() >= HASTE.as_secs() + 60 && SKEW.as_secs() > LATE.as_secs());
