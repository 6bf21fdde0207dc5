//! A closed loop: every connection always has so many requests under way. Tells what the proxy can do at most,
//! and what a request costs it.

use std::{net::SocketAddr, time::Instant};

use anyhow::{Context as _, bail};

use super::{Ask, Interval, Options, Outcome, dial};
use crate::{
    connection::{Connection, Received},
    poll::{Poller, Ready},
    session::Client,
};

/// Room for what is read at once.
const READ: usize = 128 * 1024;

/// Measures.
///
/// # Errors
/// When a response is wrong, a connection fails, or a watched process is gone.
pub fn run(options: &Options) -> anyhow::Result<Outcome> {
    let mut poller = Poller::new()?;
    let mut lines = Vec::new();
    for index in 0..options.connections {
        lines.push(Line::open(options, index, &poller)?);
    }
    let (mut ready, mut buffer) = (Vec::new(), vec![0; READ]);
    let mut interval = Interval::new(options, Instant::now());
    let mut completed = 0;
    loop {
        poller.wait(Some(interval.end.saturating_duration_since(Instant::now())), &mut ready)?;
        let now = Instant::now();
        if interval.begins(now)? {
            completed = 0;
        }
        if interval.is_over(now) {
            let (seconds, cpu) = interval.close(now)?;
            return Ok(Outcome { completed, seconds, cpu, ..Outcome::default() });
        }
        for &Ready { token: index, ended } in &ready {
            let (done, over) = lines[index].turn(&mut buffer, ended)?;
            completed += done;
            if over {
                lines[index] = Line::open(options, index, &poller)?;
            }
        }
    }
}

/// One connection.
struct Line {
    connection: Connection,
    client: Box<dyn Client>,
    /// Whether the peer is to close it after its response.
    once: bool,
    answered: u64,
}

impl Line {
    fn open(options: &Options, index: usize, poller: &Poller) -> anyhow::Result<Self> {
        let target: SocketAddr = options.target[index % options.target.len()];
        let once = options.ask == Ask::H1Connect;
        let mut connection = if once { dial::begin(target) } else { dial::wait(target) }
            .with_context(|| format!("connecting to {target}"))?;
        let mut client = options.ask.client();
        client.open(&mut connection.out);
        for _ in 0..options.depth {
            client.start(&mut connection.out);
        }
        if !once {
            connection.flush()?;
        }
        poller.add(connection.stream(), index)?;
        Ok(Self { connection, client, once, answered: 0 })
    }

    /// Reads, asks again and sends. How many responses are complete now, and whether the connection has ended.
    fn turn(&mut self, buffer: &mut [u8], ended: bool) -> anyhow::Result<(u64, bool)> {
        if self.once && self.answered == 0 {
            self.connection.flush()?;
        }
        let mut completed = 0;
        loop {
            let (count, last) = match self.connection.receive(buffer).context("reading a response")? {
                Received::Some(count) => (count, false),
                Received::Last(count) => (count, true),
                // Counted when all is over: the end of the connection belongs to what one costs.
                Received::End if self.once && self.answered == 1 => return Ok((1, true)),
                Received::End => bail!("the connection ended before the response did"),
            };
            let done = self.client.receive(&buffer[..count], &mut self.connection.out);
            let done = done.map_err(|error| anyhow::anyhow!("a wrong response: {error}"))?;
            self.answered += done as u64;
            if !self.once {
                completed += done as u64;
                (0..done).for_each(|_| self.client.start(&mut self.connection.out));
            }
            if last && !ended {
                break;
            }
        }
        self.connection.flush().context("sending a request")?;
        Ok((completed, false))
    }
}
