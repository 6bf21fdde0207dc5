//! Bounds what a peer may do without ever asking for anything: pure.
//!
//! Rapid reset (CVE-2023-44487), floods of SETTINGS, PING and empty frames (CVE-2019-9512, -9515, -9518): each
//! kind has a number a second, above which the connection ends with ENHANCE_YOUR_CALM (RFC 9113 §10.5). WINDOW_UPDATE
//! goes by what was sent: who takes much has much to say.

use std::time::{Duration, Instant};

use super::frame::ConnectionError;
use crate::limits::{Limit, Rates};

/// WINDOW_UPDATEs a second that nothing has to have been sent for.
const FREE_WINDOW_UPDATES: u32 = 100;
/// WINDOW_UPDATEs that come with a stream: many clients enlarge its window as soon as it is open.
const WINDOW_UPDATES_A_STREAM: u32 = 2;

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
    /// See [`Rates::window_updates`].
    WindowUpdate,
}

/// Counts of the current second.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    rates: Rates,
    since: Instant,
    counts: [u32; 5],
    /// DATA frames, which make up for as many PINGs.
    carried: u32,
    /// WINDOW_UPDATEs that streams and DATA make up for, of all the time.
    expected: u32,
}

impl Flood {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(rates: Rates, now: Instant) -> Self {
        Self { rates, since: now, counts: [0; 5], carried: 0, expected: 0 }
    }

    /// Notes a stream that was opened by either side.
    pub fn opened(&mut self) {
        self.expected = self.expected.saturating_add(WINDOW_UPDATES_A_STREAM);
    }

    /// Notes a DATA frame that was received.
    pub fn received_data(&mut self) {
        self.carried = self.carried.saturating_add(1);
    }

    /// Notes a DATA frame that was sent.
    pub fn sent_data(&mut self) {
        self.carried = self.carried.saturating_add(1);
        self.expected = self.expected.saturating_add(self.rates.window_updates);
    }

    /// Notes one, unless it is one too many.
    ///
    /// # Errors
    /// ENHANCE_YOUR_CALM.
    pub fn note(&mut self, nuisance: Nuisance, now: Instant) -> Result<(), ConnectionError> {
        if nuisance == Nuisance::WindowUpdate && self.expected > 0 {
            self.expected -= 1;
            return Ok(());
        }
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.counts = [0; 5];
            self.carried = 0;
        }
        let Rates { resets, settings, pings, empty, window_updates: _ } = self.rates;
        let (most, limit, reason) = match nuisance {
            Nuisance::Reset => (resets, Limit::Http2Resets, "too many streams are reset"),
            Nuisance::Settings => (settings, Limit::Http2Settings, "too many SETTINGS"),
            Nuisance::Ping => (pings.saturating_add(self.carried), Limit::Http2Pings, "too many PINGs"),
            Nuisance::Empty => (empty, Limit::Http2Empty, "too many frames without content"),
            Nuisance::WindowUpdate => {
                (FREE_WINDOW_UPDATES, Limit::Http2WindowUpdates, "too many WINDOW_UPDATEs")
            }
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
    fn window_updates_are_bounded_by_what_was_sent_whenever_that_was() {
        let start = Instant::now();
        let rates = Rates { window_updates: 8, ..Rates::default() };
        let mut flood = Flood::new(rates, start);
        flood.opened();
        for _ in 0..1000 {
            flood.sent_data();
        }
        flood.received_data();
        // A client that has not read for long says all at once what it takes.
        let later = start + Duration::from_secs(600);
        for _ in 0..2 + 8 * 1000 + FREE_WINDOW_UPDATES {
            assert!(flood.note(Nuisance::WindowUpdate, later).is_ok());
        }
        assert_eq!(
            flood.note(Nuisance::WindowUpdate, later).map_err(|e| e.limit),
            Err(Some(Limit::Http2WindowUpdates))
        );
    }

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
