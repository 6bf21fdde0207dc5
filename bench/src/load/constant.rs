//! A constant rate: requests are due at fixed times, whether or not earlier ones have been answered, and a
//! request's time counts from when it was due (no coordinated omission).

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use super::{Interval, Latency, Options, Outcome, dial};
use crate::{
    connection::{Connection, Received},
    poll::{Poller, Ready},
    session::Client,
};

/// Room for what is read at once.
const READ: usize = 64 * 1024;
/// So many requests may be due and not answered, in seconds of the rate, before the proxy counts as overloaded.
const PATIENCE: f64 = 2.0;

/// Measures at so many requests a second.
///
/// # Errors
/// When a response is wrong, a connection fails, the proxy does not keep up, or a watched process is gone.
pub fn run(options: &Options, rate: f64) -> anyhow::Result<Outcome> {
    // The kernel delays timers by 50 µs to group them; here that would be taken for the proxy's delay.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
    let mut poller = Poller::new()?;
    let mut lines = Vec::new();
    for index in 0..options.connections {
        let target = options.target[index % options.target.len()];
        let connection = dial::wait(target).with_context(|| format!("connecting to {target}"))?;
        poller.add(connection.stream(), index)?;
        lines.push(Line { connection, client: options.ask.client(), due: None });
        let line = lines.last_mut().expect("just pushed");
        line.client.open(&mut line.connection.out);
        line.connection.flush()?;
    }
    let mut free: VecDeque<usize> = (0..lines.len()).collect();
    let mut schedule = Schedule::new(Instant::now(), rate);
    let mut interval = Interval::new(options, Instant::now());
    let mut samples = Vec::new();
    let (mut ready, mut buffer) = (Vec::new(), vec![0; READ]);
    loop {
        let now = Instant::now();
        interval.begins(now)?;
        if interval.is_over(now) {
            break;
        }
        while let Some(due) = schedule.due(now) {
            let Some(index) = free.pop_front() else { break };
            lines[index].ask(due)?;
            schedule.advance();
        }
        if schedule.behind(now) > Duration::from_secs_f64(PATIENCE) {
            bail!("the proxy does not keep up with {rate} requests a second");
        }
        // With no connection free only a response can change anything.
        let pause =
            if free.is_empty() { interval.end - now } else { schedule.next.saturating_duration_since(now) };
        poller.wait(Some(pause), &mut ready)?;
        for &Ready { token: index, ended } in &ready {
            if let Some(due) = lines[index].turn(&mut buffer, ended)? {
                free.push_back(index);
                if due >= interval.begin {
                    samples.push(due.elapsed());
                }
            }
        }
    }
    let (seconds, cpu) = interval.close(Instant::now())?;
    let completed = samples.len() as u64;
    let latency = Latency::of(&mut samples);
    Ok(Outcome { completed, seconds, cpu, latency, ..Outcome::default() })
}

/// When requests are due.
#[derive(Debug)]
struct Schedule {
    start: Instant,
    rate: f64,
    count: u64,
    next: Instant,
}

impl Schedule {
    fn new(start: Instant, rate: f64) -> Self {
        Self { start, rate, count: 0, next: start }
    }

    /// When the next request was due, if it is.
    fn due(&self, now: Instant) -> Option<Instant> {
        (self.next <= now).then_some(self.next)
    }

    /// Goes on to the request after it.
    fn advance(&mut self) {
        self.count += 1;
        // From the start each time, so that nothing adds up.
        self.next = self.start + Duration::from_secs_f64(self.count as f64 / self.rate);
    }

    fn behind(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.next)
    }
}

/// One connection.
struct Line {
    connection: Connection,
    client: Box<dyn Client>,
    /// When the request that is under way was due.
    due: Option<Instant>,
}

impl Line {
    fn ask(&mut self, due: Instant) -> anyhow::Result<()> {
        self.due = Some(due);
        self.client.start(&mut self.connection.out);
        self.connection.flush().context("sending a request")?;
        Ok(())
    }

    /// Reads. When the request was due that is answered now, if one is.
    fn turn(&mut self, buffer: &mut [u8], ended: bool) -> anyhow::Result<Option<Instant>> {
        let mut answered = None;
        loop {
            let (count, last) = match self.connection.receive(buffer).context("reading a response")? {
                Received::Some(count) => (count, false),
                Received::Last(count) => (count, true),
                Received::End => bail!("the connection ended before the response did"),
            };
            let done = self.client.receive(&buffer[..count], &mut self.connection.out);
            match done.map_err(|error| anyhow::anyhow!("a wrong response: {error}"))? {
                0 => {}
                1 => answered = self.due.take(),
                more => bail!("{more} responses to one request"),
            }
            if last && !ended {
                break;
            }
        }
        self.connection.flush().context("sending")?;
        Ok(answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_fixed_times_however_late_they_are_sent() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 2000.0);
        let late = start + Duration::from_millis(3);
        let mut due = Vec::new();
        while let Some(at) = schedule.due(late) {
            due.push(at - start);
            schedule.advance();
        }
        let expected: Vec<_> = (0..=6).map(|n| Duration::from_micros(500 * n)).collect();
        assert_eq!(due, expected);
        assert_eq!(schedule.behind(start + Duration::from_secs(1)), Duration::from_micros(996_500));
    }
}
