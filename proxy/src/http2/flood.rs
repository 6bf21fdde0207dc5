//! Bounds what a peer may do without ever asking for anything: pure.
//!
//! Rapid reset (CVE-2023-44487), floods of SETTINGS, PING and empty frames (CVE-2019-9512, -9515, -9518): each
//! kind has a number a second, above which the connection ends with ENHANCE_YOUR_CALM (RFC 9113 §10.5).

use std::time::{Duration, Instant};

use super::frame::ConnectionError;
use crate::limits::{Limit, Rates};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nuisance {
    /// See [`Rates::resets`].
    Reset,
    /// See [`Rates::settings`].
    Settings,
    /// See [`Rates::pings`].
    Ping,
    /// See [`Rates::empty`].
    Empty,
}

/// Counts of the current second.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    rates: Rates,
    since: Instant,
    counts: [u32; 4],
    /// DATA frames, which make up for as many PINGs.
    carried: u32,
}

impl Flood {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(rates: Rates, now: Instant) -> Self {
        Self { rates, since: now, counts: [0; 4], carried: 0 }
    }

    /// Notes DATA frames, in either direction.
    pub fn carry(&mut self, frames: u32) {
        self.carried = self.carried.saturating_add(frames);
    }

    /// Notes one, unless it is one too many.
    ///
    /// # Errors
    /// ENHANCE_YOUR_CALM.
    pub fn note(&mut self, nuisance: Nuisance, now: Instant) -> Result<(), ConnectionError> {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.counts = [0; 4];
            self.carried = 0;
        }
        let Rates { resets, settings, pings, empty } = self.rates;
        let (most, limit, reason) = match nuisance {
            Nuisance::Reset => (resets, Limit::Http2Resets, "too many streams are reset"),
            Nuisance::Settings => (settings, Limit::Http2Settings, "too many SETTINGS"),
            Nuisance::Ping => (pings.saturating_add(self.carried), Limit::Http2Pings, "too many PINGs"),
            Nuisance::Empty => (empty, Limit::Http2Empty, "too many frames without content"),
        };
        let count = &mut self.counts[nuisance as usize];
        *count += 1;
        if *count > most { Err(ConnectionError::limit(limit, reason)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::frame::Code;

    #[test]
    fn a_burst_beyond_the_rate_ends_the_connection_and_a_slow_stream_of_them_does_not() {
        let start = Instant::now();
        let mut flood = Flood::new(Rates { pings: 3, ..Rates::default() }, start);
        for _ in 0..3 {
            assert!(flood.note(Nuisance::Ping, start).is_ok());
        }
        assert!(flood.note(Nuisance::Settings, start).is_ok());
        assert_eq!(flood.note(Nuisance::Ping, start).map_err(|e| e.code), Err(Code::ENHANCE_YOUR_CALM));
        let mut flood = Flood::new(Rates { pings: 3, ..Rates::default() }, start);
        for tenth in 0..100 {
            assert!(flood.note(Nuisance::Ping, start + Duration::from_millis(400 * tenth)).is_ok());
        }
    }
}
