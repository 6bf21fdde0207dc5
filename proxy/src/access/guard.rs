//! A thread's way to decide: what is in force, whom it does not concern, and who is told.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Access, Policy, Refusal, Verdict,
    held::Held,
    subject::{Asked, Subject},
};
use crate::{
    peer::Caller,
    telemetry::{Notes, Telemetry},
};

/// Lines of the log within [`WINDOW`]: a client that is refused in a loop must not fill the log.
const LINES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);
/// Bytes of a path that are logged.
const LONGEST: usize = 256;

/// Decides for one thread.
#[derive(Debug)]
pub struct Guard {
    access: Access,
    /// The pod's own addresses: it may talk to itself.
    own: Vec<IpAddr>,
    telemetry: Arc<Telemetry>,
    held: RefCell<Vec<Weak<Held>>>,
    lines: Lines,
}

/// What a request of a caller is checked against.
pub struct Check<'a> {
    guard: &'a Guard,
    caller: &'a Caller,
    policy: arc_swap::Guard<Arc<Policy>>,
}

impl Check<'_> {
    /// Whether header fields are needed.
    #[must_use]
    pub fn needs_fields(&self) -> bool {
        self.policy.needs_fields()
    }

    /// Whether the request is refused; whoever has to know that was told.
    #[must_use]
    pub fn refuses(&self, asked: &Asked<'_>, notes: &Notes) -> bool {
        let subject = self.caller.subject();
        let (refusal, audited) = match self.policy.decide(&subject, Some(asked)) {
            Verdict::Allowed => return false,
            Verdict::Audited(refusal) => (refusal, true),
            Verdict::Refused(refusal) => (refusal, false),
        };
        self.guard.tell(&refusal, audited, &subject, Some(asked));
        notes.policy.replace(Some((refusal.policy, audited)));
        !audited
    }
}

impl Guard {
    /// For a pod that has these addresses.
    #[must_use]
    pub fn new(access: Access, own: Vec<IpAddr>, telemetry: Arc<Telemetry>) -> Self {
        Self { access, own, telemetry, held: RefCell::default(), lines: Lines::default() }
    }

    /// What requests of this caller are checked against; nothing if all of them are let in. To be asked anew for each: it
    /// changes.
    #[must_use]
    pub fn check<'a>(&'a self, caller: Option<&'a Caller>) -> Option<Check<'a>> {
        let caller = caller?;
        let policy = self.access.now();
        let concerned = !policy.is_empty() && !self.is_own(caller);
        concerned.then_some(Check { guard: self, caller, policy })
    }

    /// Decides on a connection that carries bytes. `decide`: from what is in force, now and whenever that changes. Nothing if
    /// it is refused; whoever has to know that was told, but for the client.
    pub fn hold(
        &self,
        caller: &Rc<Caller>,
        decide: impl Fn(&Policy, &Subject<'_>) -> Verdict + 'static,
    ) -> Option<Rc<Held>> {
        let own = self.is_own(caller);
        let verdict = if own { Verdict::Allowed } else { decide(&self.access.now(), &caller.subject()) };
        match verdict {
            Verdict::Refused(refusal) => {
                self.tell(&refusal, false, &caller.subject(), None);
                return None;
            }
            Verdict::Audited(refusal) => self.tell(&refusal, true, &caller.subject(), None),
            Verdict::Allowed => {}
        }
        let held = Rc::new(Held::new(Rc::clone(caller), decide));
        if !own {
            let mut all = self.held.borrow_mut();
            if all.len() == all.capacity() {
                all.retain(|held| held.strong_count() > 0);
            }
            all.push(Rc::downgrade(&held));
        }
        Some(held)
    }

    /// Looks at the connections that carry bytes again whenever what is in force changes; never ends.
    pub async fn follow(&self) {
        let mut changes = self.access.changes();
        while changes.changed().await.is_ok() {
            let all: Vec<_> = self.held.borrow().iter().filter_map(Weak::upgrade).collect();
            for held in all {
                // This thread alone ends them, and nothing here waits, so none can slip through between two policies.
                if let Verdict::Refused(refusal) = held.decide(&self.access.now()) {
                    self.tell(&refusal, false, &held.caller().subject(), None);
                    held.end();
                }
            }
        }
    }

    fn is_own(&self, caller: &Caller) -> bool {
        self.own.contains(&caller.peer.address)
    }

    fn tell(&self, refusal: &Refusal, audited: bool, subject: &Subject<'_>, asked: Option<&Asked<'_>>) {
        let Refusal { policy, why } = refusal;
        let (mode, carried) =
            (if audited { "audit" } else { "enforced" }, if asked.is_some() { "http" } else { "tcp" });
        self.telemetry.access_refused(policy, why.name(), mode, carried);
        let Some(hidden) = self.lines.admit(Instant::now()) else { return };
        let caller = subject.identity.map(ToString::to_string);
        let method = asked.map(|asked| shortened(asked.method));
        let path = asked.map(|asked| shortened(asked.path));
        tracing::info!(
            %policy,
            reason = why.name(),
            mode,
            caller = caller.as_deref().unwrap_or("unknown"),
            address = %subject.address,
            port = subject.port,
            method,
            path,
            hidden,
            "{}",
            if audited { "would be refused by an AccessPolicy" } else { "refused by an AccessPolicy" }
        );
    }
}

fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default()
}

/// Bounds the lines of the log.
#[derive(Debug, Default)]
struct Lines {
    began: Cell<Option<Instant>>,
    told: Cell<u32>,
    hidden: Cell<u64>,
}

impl Lines {
    /// Whether one more may be told, and then how many were not since the last one.
    fn admit(&self, now: Instant) -> Option<u64> {
        let over = self.began.get().is_none_or(|began| now.saturating_duration_since(began) >= WINDOW);
        if over {
            self.began.set(Some(now));
            self.told.set(0);
        }
        if self.told.get() == LINES {
            self.hidden.set(self.hidden.get() + 1);
            return None;
        }
        self.told.set(self.told.get() + 1);
        Some(self.hidden.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_few_and_say_how_many_are_missing() {
        let (lines, begin) = (Lines::default(), Instant::now());
        let told = (0..100).filter_map(|_| lines.admit(begin)).collect::<Vec<_>>();
        assert_eq!(told, [0; LINES as usize]);
        assert_eq!(lines.admit(begin + WINDOW - Duration::from_millis(1)), None);
        assert_eq!(lines.admit(begin + WINDOW), Some(100 - u64::from(LINES) + 1));
        assert_eq!(lines.admit(begin + WINDOW), Some(0));
    }
}
