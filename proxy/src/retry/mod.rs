//! Whether a failed attempt may be followed by another: pure.
//!
//! Safe by proof: what an endpoint has provably not processed is sent again; what it may have processed only if
//! the method is idempotent (RFC 9110 §9.2.2), or the user has said that it may be. A budget bounds what retries add to
//! the load of a destination.

mod budget;

use std::time::Duration;

use ferrule_config::{self as config, RetryOn};

pub use self::budget::Budget;

/// Attempts for one request, the first included, where no rule says otherwise.
pub const MAX_ATTEMPTS: usize = 4;

/// Latency that a failed attempt counts as, so that the endpoint is avoided while others are there.
pub const PENALTY: Duration = Duration::from_secs(2);

/// A response that wants the client to wait for longer is given to it.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);

/// How an attempt failed before any of its response was forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The endpoint never saw it: no connection, or the endpoint's own sidecar says so.
    NotConnected,
    /// The endpoint refused it, and has not processed it.
    Refused,
    /// The connection broke before the response began.
    Reset,
    /// The attempt's own time was up before the response began.
    TimedOut,
    /// It was answered with this status code.
    Status(u16),
    /// It was answered with this status of gRPC, and nothing else.
    Grpc(u8),
    /// The request's time was up, or the response was malformed.
    Final,
}

/// What of a request decides whether it may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Its method is idempotent.
    pub idempotent: bool,
    /// All of it is still at hand.
    pub complete: bool,
}

/// When a request is sent again, and how often.
#[derive(Debug)]
pub struct Policy {
    /// After the first attempt.
    retries: usize,
    /// How long an attempt may take until its response begins.
    pub per_try: Option<Duration>,
    connect_failure: bool,
    refused: bool,
    reset: bool,
    timeout: bool,
    codes: Vec<u16>,
    /// A bit for each status.
    grpc: u32,
    /// Before the first retry, and at most.
    backoff: Option<(Duration, Duration)>,
    non_idempotent: bool,
}

/// What holds where no rule says otherwise.
pub static DEFAULT: Policy = Policy {
    retries: MAX_ATTEMPTS - 1,
    per_try: None,
    connect_failure: true,
    refused: true,
    reset: true,
    timeout: false,
    codes: Vec::new(),
    grpc: 0,
    backoff: None,
    non_idempotent: false,
};

impl Policy {
    /// As a rule says.
    #[must_use]
    pub fn new(retry: &config::Retry) -> Self {
        let config::Retry {
            attempts,
            per_try_timeout,
            on,
            codes,
            grpc_codes,
            backoff,
            budget: _,
            non_idempotent,
        } = retry;
        Self {
            retries: *attempts.min(&config::MAX_RETRIES) as usize,
            per_try: per_try_timeout.map(config::Duration::get).filter(|limit| !limit.is_zero()),
            connect_failure: on.contains(&RetryOn::ConnectFailure),
            refused: on.contains(&RetryOn::Refused),
            reset: on.contains(&RetryOn::Reset),
            timeout: on.contains(&RetryOn::Timeout),
            codes: codes.clone(),
            grpc: grpc_codes.iter().filter(|code| **code < 32).fold(0, |all, code| all | 1 << code),
            backoff: backoff.map(|backoff| (backoff.base.get(), backoff.max.get())),
            non_idempotent: *non_idempotent,
        }
    }

    /// Whether the request may be sent once more after `attempts` of them. `is_retry`: whether it came as a retry of
    /// another sidecar. What may have been processed is then not sent again: the attempts of one hop would multiply
    /// with those of the other.
    #[must_use]
    pub fn allows(
        &self,
        failure: Failure,
        replay: Replay,
        attempts: usize,
        is_retry: impl FnOnce() -> bool,
    ) -> bool {
        let (wanted, processed) = match failure {
            Failure::NotConnected => (self.connect_failure, false),
            Failure::Refused => (self.refused, false),
            Failure::Reset => (self.reset, true),
            Failure::TimedOut => (self.timeout, true),
            Failure::Status(status) => (self.codes.contains(&status), true),
            Failure::Grpc(code) => (code < 32 && self.grpc & (1 << code) != 0, true),
            Failure::Final => (false, true),
        };
        let safe = !processed || ((replay.idempotent || self.non_idempotent) && !is_retry());
        wanted && replay.complete && attempts <= self.retries && safe
    }

    /// Whether a response can lead to another attempt.
    #[must_use]
    pub fn looks_at_responses(&self) -> bool {
        !self.codes.is_empty() || self.grpc != 0
    }

    /// How long is waited before the attempt that follows `attempts` of them: a random part (`random` is from 0 to 1) of
    /// what doubles each time ("Exponential Backoff And Jitter", AWS: full jitter).
    #[must_use]
    pub fn pause(&self, attempts: usize, random: f64) -> Duration {
        let Some((base, max)) = self.backoff else { return Duration::ZERO };
        let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(20);
        base.saturating_mul(1 << doublings).min(max).mul_f64(random.clamp(0.0, 1.0))
    }
}

/// How long a response wants the client to wait, by its `Retry-After` (RFC 9110 §10.2.3). A date is not read: whoever
/// names one thinks of longer than a request lasts.
#[must_use]
pub fn retry_after(value: &[u8]) -> Option<Duration> {
    let digits =
        std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POST: Replay = Replay { idempotent: false, complete: true };
    const GET: Replay = Replay { idempotent: true, complete: true };

    fn policy() -> config::Retry {
        config::Retry {
            attempts: 3,
            per_try_timeout: None,
            on: vec![RetryOn::ConnectFailure, RetryOn::Refused, RetryOn::Reset, RetryOn::Timeout],
            codes: vec![503],
            grpc_codes: vec![14],
            backoff: None,
            budget: None,
            non_idempotent: false,
        }
    }

    fn default(failure: Failure, replay: Replay, attempts: usize) -> bool {
        DEFAULT.allows(failure, replay, attempts, || false)
    }

    #[test]
    fn what_was_not_processed_is_sent_again() {
        for failure in [Failure::NotConnected, Failure::Refused] {
            assert!(default(failure, POST, 1) && default(failure, GET, 1));
        }
    }

    #[test]
    fn what_may_have_been_processed_needs_an_idempotent_method_or_the_users_word() {
        assert!(!default(Failure::Reset, POST, 1));
        assert!(default(Failure::Reset, GET, 1));
        let policy = Policy::new(&policy());
        let word = Policy::new(&config::Retry { non_idempotent: true, ..self::policy() });
        for failure in [Failure::Reset, Failure::TimedOut, Failure::Status(503), Failure::Grpc(14)] {
            assert!(policy.allows(failure, GET, 1, || false), "{failure:?}");
            assert!(!policy.allows(failure, POST, 1, || false), "{failure:?}");
            assert!(word.allows(failure, POST, 1, || false), "{failure:?}");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_sent_again() {
        let none = Policy::new(&config::Retry { on: Vec::new(), ..policy() });
        for failure in [Failure::NotConnected, Failure::Refused, Failure::Reset, Failure::TimedOut] {
            assert!(!none.allows(failure, GET, 1, || false), "{failure:?}");
        }
        assert!(!none.allows(Failure::Status(500), GET, 1, || false));
        assert!(!none.allows(Failure::Grpc(13), GET, 1, || false));
        assert!(!default(Failure::TimedOut, GET, 1) && !default(Failure::Status(503), GET, 1));
    }

    #[test]
    fn what_is_no_longer_at_hand_is_not_sent_again() {
        assert!(!default(Failure::NotConnected, Replay { complete: false, ..GET }, 1));
    }

    #[test]
    fn attempts_come_to_an_end() {
        assert!(default(Failure::NotConnected, GET, MAX_ATTEMPTS - 1));
        assert!(!default(Failure::NotConnected, GET, MAX_ATTEMPTS));
        assert!(!default(Failure::Final, GET, 1));
        let never = Policy::new(&config::Retry { attempts: 0, ..policy() });
        assert!(!never.allows(Failure::NotConnected, GET, 1, || false));
    }

    #[test]
    fn what_came_as_a_retry_is_sent_again_only_if_it_was_not_processed() {
        let policy = Policy::new(&policy());
        assert!(policy.allows(Failure::NotConnected, GET, 1, || true));
        for failure in [Failure::Reset, Failure::TimedOut, Failure::Status(503), Failure::Grpc(14)] {
            assert!(!policy.allows(failure, GET, 1, || true), "{failure:?}");
        }
    }

    #[test]
    fn the_wait_doubles_up_to_its_limit_and_a_random_part_of_it_is_waited() {
        let millis = config::Duration::from_millis;
        let backoff = Some(config::Backoff { base: millis(25), max: millis(250) });
        let policy = Policy::new(&config::Retry { backoff, ..policy() });
        let waits: Vec<_> = (1..=6).map(|attempts| policy.pause(attempts, 1.0).as_millis()).collect();
        assert_eq!(waits, [25, 50, 100, 200, 250, 250]);
        assert_eq!(policy.pause(3, 0.0), Duration::ZERO);
        assert_eq!(policy.pause(usize::MAX, 1.0).as_millis(), 250);
        assert_eq!(DEFAULT.pause(3, 1.0), Duration::ZERO);
    }

    #[test]
    fn a_retry_after_is_a_number_of_seconds() {
        assert_eq!(retry_after(b"2"), Some(Duration::from_secs(2)));
        for none in ["", "-1", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", "99999999999999999999"] {
            assert_eq!(retry_after(none.as_bytes()), None, "{none}");
        }
    }
}
