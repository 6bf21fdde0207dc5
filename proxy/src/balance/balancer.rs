//! Picks an endpoint of a Service's port: what to prefer, and by which algorithm.
//!
//! ```text
//!   session's endpoint, if it is usable
//!   tiers: ready ─▶ ready of weight 0 ─▶ ending ─▶ ending of weight 0      the first that has an available endpoint
//!      └─ groups: own node ─▶ own zone ─▶ all                              the first that has one not tried yet
//!   panic: ready and not ready ones, available or not                      instead, when too few are usable
//! ```
//!
//! Built once for a snapshot; a pick takes no lock and allocates nothing.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use ferrule_config::{self as config, HashKey};

use super::{
    Endpoint, Locality, Member, State, endpoint,
    group::{Group, Request, Seat},
    zones::{self, Near},
};

/// The endpoints of a port of a Service, ready to be picked from.
#[derive(Debug)]
pub struct Balancer {
    config: config::Balancer,
    locality: Locality,
    /// By address.
    members: Box<[Member]>,
    /// Since when each member is ready; `None`: from the first snapshot on, or it is not.
    since: Box<[Option<Instant>]>,
    tiers: Box<[Tier]>,
    panic: Option<Panic>,
    /// Ready ones by [`Endpoint::id`]; empty without sessions.
    sessions: Box<[(u64, Arc<Endpoint>)]>,
}

/// What decides on a pick.
#[derive(Clone, Copy, Debug)]
pub struct Pick<'a> {
    /// Hash of the request's key, for consistent hashing; without it chance decides there.
    pub hash: Option<u64>,
    /// [`Endpoint::id`] of the endpoint that the client's session is kept at.
    pub session: Option<u64>,
    /// Endpoints that the request was sent to in vain: taken only when there is no other.
    pub tried: &'a [SocketAddr],
    /// Time of the pick.
    pub now: Instant,
}

impl Pick<'_> {
    /// A pick by nothing but the endpoints themselves.
    #[must_use]
    pub fn any(now: Instant) -> Self {
        Self { hash: None, session: None, tried: &[], now }
    }
}

/// Endpoints that are equally good; in groups, the nearest first, the last one all of them.
#[derive(Debug)]
struct Tier {
    groups: Box<[Group]>,
}

/// What is done when too few endpoints are usable.
#[derive(Debug)]
struct Panic {
    /// All endpoints that are not ending.
    tier: Tier,
    /// Those of them that are ready.
    ready: Box<[Arc<Endpoint>]>,
    /// Per cent of the tier that must be usable.
    threshold: u8,
    /// Whether too few are, in the lowest bit; above it the count of [`endpoint::changes`] that it was found at, plus one.
    verdict: AtomicU64,
}

impl Balancer {
    /// A balancer over these members, or `previous` if that is the same. `previous`: the last one of the same port,
    /// whose endpoints need no slow start. `start`: where round robin begins, best a random number.
    #[must_use]
    pub fn build(
        config: config::Balancer,
        mut members: Vec<Member>,
        locality: &Locality,
        previous: Option<&Arc<Self>>,
        now: Instant,
        start: usize,
    ) -> Arc<Self> {
        members.sort_unstable_by_key(|member| member.endpoint.address);
        match previous {
            Some(previous) if previous.is_over(&config, &members, locality) => Arc::clone(previous),
            _ => {
                Arc::new(Self::new(config, members, locality.clone(), previous.map(Arc::as_ref), now, start))
            }
        }
    }

    /// A balancer over one endpoint.
    #[must_use]
    pub fn only(endpoint: Arc<Endpoint>) -> Self {
        let members = vec![Member::new(endpoint)];
        Self::new(config::Balancer::default(), members, Locality::default(), None, Instant::now(), 0)
    }

    fn is_over(&self, config: &config::Balancer, members: &[Member], locality: &Locality) -> bool {
        self.config == *config
            && self.locality == *locality
            && self.members.len() == members.len()
            && self.members.iter().zip(members).all(|(old, new)| old.is_same(new))
    }

    fn new(
        config: config::Balancer,
        members: Vec<Member>,
        locality: Locality,
        previous: Option<&Self>,
        now: Instant,
        start: usize,
    ) -> Self {
        let since: Box<[_]> = members.iter().map(|member| since(member, previous, now)).collect();
        let builder =
            Builder { config: &config, members: &members, since: &since, locality: &locality, start };
        let tiers = builder.tiers();
        let panic = builder.panic();
        let mut sessions: Vec<_> = match config.session {
            Some(_) => {
                let ready = members.iter().filter(|member| member.state == State::Ready);
                ready.map(|member| (member.endpoint.id(), Arc::clone(&member.endpoint))).collect()
            }
            None => Vec::new(),
        };
        sessions.sort_unstable_by_key(|(id, _)| *id);
        let (members, sessions) = (members.into(), sessions.into());
        Self { config, locality, members, since, tiers, panic, sessions }
    }

    /// The endpoint that a request goes to; `None` when none can be used. `random(n)` gives a uniform number in `0..n`.
    pub fn pick(&self, pick: &Pick<'_>, mut random: impl FnMut(usize) -> usize) -> Option<&Arc<Endpoint>> {
        if let Some(endpoint) = self.kept(pick) {
            return Some(endpoint);
        }
        let Pick { hash, session: _, tried, now } = *pick;
        if let Some(panic) = self.panic.as_ref().filter(|panic| panic.is_on()) {
            return panic.tier.pick(&Request { hash, tried, any: true, now }, random);
        }
        let request = Request { hash, tried, any: false, now };
        self.tiers.iter().find_map(|tier| tier.pick(&request, &mut random))
    }

    /// The endpoint of the client's session, unless it is unavailable or was tried.
    fn kept(&self, pick: &Pick<'_>) -> Option<&Arc<Endpoint>> {
        let id = pick.session?;
        let index = self.sessions.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let endpoint = &self.sessions[index].1;
        (endpoint.is_available() && !pick.tried.contains(&endpoint.address)).then_some(endpoint)
    }

    /// How it picks.
    #[must_use]
    pub fn config(&self) -> &config::Balancer {
        &self.config
    }

    /// The endpoint at this address.
    #[must_use]
    pub fn find(&self, address: SocketAddr) -> Option<&Arc<Endpoint>> {
        let index = self.members.binary_search_by_key(&address, |member| member.endpoint.address).ok()?;
        Some(&self.members[index].endpoint)
    }

    /// What of a request is to be hashed; nothing without consistent hashing.
    #[must_use]
    pub fn hash_key(&self) -> Option<&HashKey> {
        match &self.config.algorithm {
            config::Algorithm::RingHash(hash) | config::Algorithm::Maglev(hash) => Some(&hash.key),
            _ => None,
        }
    }

    /// How clients are kept at one endpoint.
    #[must_use]
    pub fn session(&self) -> Option<&config::Session> {
        self.config.session.as_ref()
    }

    /// All that is known of all endpoints, those included that take no traffic now.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The endpoints that are in use while none of them fails: those of the first tier.
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = &Arc<Endpoint>> {
        let seats = self.tiers.first().map_or(&[][..], |tier| tier.all().seats());
        seats.iter().map(|seat| &seat.endpoint)
    }

    /// Whether no endpoint can be picked whatever happens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tiers.is_empty() && self.panic.is_none()
    }
}

impl Tier {
    fn pick(&self, request: &Request<'_>, mut random: impl FnMut(usize) -> usize) -> Option<&Arc<Endpoint>> {
        if let [only] = &*self.groups
            && request.tried.is_empty()
        {
            return only.pick(request, random).map(|seat| &seat.endpoint);
        }
        let wider = self.groups.iter().skip(1).map(Some).chain([None]);
        for (group, wider) in self.groups.iter().zip(wider) {
            let Some(seat) = group.pick(request, &mut random) else { continue };
            let relief = wider.and_then(|wider| wider.relief(seat, request, &mut random));
            return Some(&relief.unwrap_or(seat).endpoint);
        }
        if request.tried.is_empty() {
            return None;
        }
        self.all().pick(&Request { tried: &[], ..*request }, random).map(|seat| &seat.endpoint)
    }

    fn all(&self) -> &Group {
        &self.groups[self.groups.len() - 1]
    }
}

impl Panic {
    /// Whether too few endpoints are usable: computed anew when the availability of any endpoint has changed.
    fn is_on(&self) -> bool {
        let stamp = endpoint::changes() + 1;
        let verdict = self.verdict.load(Relaxed);
        if verdict >> 1 == stamp {
            return verdict & 1 == 1;
        }
        let usable = self.ready.iter().filter(|endpoint| endpoint.is_available()).count();
        let is_on = usable * 100 < self.tier.all().len() * usize::from(self.threshold);
        self.verdict.store(stamp << 1 | u64::from(is_on), Relaxed);
        is_on
    }
}

/// Since when a member is ready: only those start slowly that come to others.
fn since(member: &Member, previous: Option<&Balancer>, now: Instant) -> Option<Instant> {
    let previous = previous?;
    if member.state != State::Ready || !previous.members.iter().any(|old| old.state == State::Ready) {
        return None;
    }
    let address = |member: &Member| member.endpoint.address;
    match previous.members.binary_search_by_key(&address(member), address) {
        Ok(index) if previous.members[index].state == State::Ready => previous.since[index],
        _ => Some(now),
    }
}

struct Builder<'a> {
    config: &'a config::Balancer,
    members: &'a [Member],
    since: &'a [Option<Instant>],
    locality: &'a Locality,
    start: usize,
}

impl Builder<'_> {
    fn tiers(&self) -> Box<[Tier]> {
        let of = |state: State, weighty: bool| {
            move |member: &Member| {
                member.state == state && (member.weight(&self.config.weights) > 0) == weighty
            }
        };
        let ready: Vec<_> = self.members.iter().filter(|member| member.state == State::Ready).collect();
        let near = zones::preferences(self.config.zones, self.locality, &ready);
        let tiers =
            [(State::Ready, true), (State::Ready, false), (State::Ending, true), (State::Ending, false)];
        tiers.into_iter().filter_map(|(state, weighty)| self.tier(&of(state, weighty), &near)).collect()
    }

    /// With no ready endpoint, those that end are known to serve at least.
    fn panic(&self) -> Option<Panic> {
        let threshold = self.config.panic_threshold;
        let ready: Box<[_]> = self
            .members
            .iter()
            .filter(|member| member.state == State::Ready)
            .map(|member| Arc::clone(&member.endpoint))
            .collect();
        let none_ready = ready.is_empty();
        let takes_part = |member: &Member| match member.state {
            State::Ready | State::NotReady => true,
            State::Ending => none_ready,
        };
        let weighty =
            self.members.iter().any(|member| takes_part(member) && member.weight(&self.config.weights) > 0);
        let tier = self.tier(
            &|member| takes_part(member) && (!weighty || member.weight(&self.config.weights) > 0),
            &[],
        )?;
        (threshold > 0).then(|| Panic { tier, ready, threshold, verdict: AtomicU64::new(0) })
    }

    fn tier(&self, takes_part: &dyn Fn(&Member) -> bool, near: &[Near]) -> Option<Tier> {
        let all = self.group(takes_part)?;
        let mut groups: Vec<Group> = Vec::new();
        for near in near {
            let group = self.group(&|member| takes_part(member) && near.holds(member, self.locality));
            let wider = |group: &Group| groups.last().is_none_or(|last| group.len() > last.len());
            groups.extend(group.filter(|group| group.len() < all.len() && wider(group)));
        }
        groups.push(all);
        Some(Tier { groups: groups.into() })
    }

    fn group(&self, takes_part: &dyn Fn(&Member) -> bool) -> Option<Group> {
        let seats: Vec<_> = self
            .members
            .iter()
            .zip(self.since)
            .filter(|(member, _)| takes_part(member))
            .map(|(member, since)| Seat {
                endpoint: Arc::clone(&member.endpoint),
                weight: member.weight(&self.config.weights).max(1),
                since: *since,
            })
            .collect();
        let slow_start = self.config.slow_start.map_or(Duration::ZERO, config::Duration::get);
        (!seats.is_empty()).then(|| Group::new(&self.config.algorithm, seats, slow_start, self.start))
    }
}

#[cfg(test)]
mod tests;
