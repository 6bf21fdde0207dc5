//! Bytes without end through TCP connections.

use std::{io, time::Instant};

use anyhow::{Context as _, bail};
use rustix::net::{RecvFlags, recv};

use super::{Interval, Options, Outcome, dial};
use crate::poll::Poller;

/// Bytes that are dropped at once.
const READ: usize = 1 << 20;
/// Reads of one connection before others have their turn.
const TURNS: usize = 4;

/// Measures.
///
/// # Errors
/// When a connection fails or a watched process is gone.
pub fn run(options: &Options) -> anyhow::Result<Outcome> {
    let mut poller = Poller::new()?;
    let mut connections = Vec::new();
    for index in 0..options.connections {
        let target = options.target[index % options.target.len()];
        let mut connection = dial::wait(target).with_context(|| format!("connecting to {target}"))?;
        // The backend waits for it, so that a proxy need not wait to see whether the server speaks first.
        connection.out.push(b'?');
        connection.flush()?;
        poller.add(connection.stream(), index)?;
        connections.push(connection);
    }
    let (mut ready, mut buffer) = (Vec::new(), vec![0; READ]);
    let mut again: Vec<usize> = Vec::new();
    let mut interval = Interval::new(options, Instant::now());
    let mut bytes = 0;
    loop {
        let limit = interval.end.saturating_duration_since(Instant::now());
        let limit = if again.is_empty() { limit } else { std::time::Duration::ZERO };
        poller.wait(Some(limit), &mut ready)?;
        let now = Instant::now();
        if interval.begins(now)? {
            bytes = 0;
        }
        if interval.is_over(now) {
            let (seconds, cpu) = interval.close(now)?;
            return Ok(Outcome { bytes, seconds, cpu, ..Outcome::default() });
        }
        again.extend(ready.iter().map(|ready| ready.token));
        again.sort_unstable();
        again.dedup();
        for index in std::mem::take(&mut again) {
            let (count, more) = drop_bytes(connections[index].stream(), &mut buffer)?;
            bytes += count;
            if more {
                again.push(index);
            }
        }
    }
}

/// Drops what has come, without copying it: the load's own cost is to be small. How much it was, and whether there
/// may be more.
fn drop_bytes(stream: &std::net::TcpStream, buffer: &mut [u8]) -> anyhow::Result<(u64, bool)> {
    let mut sum = 0;
    for _ in 0..TURNS {
        match recv(stream, &mut *buffer, RecvFlags::TRUNC) {
            Ok((_, 0)) => bail!("the connection ended"),
            Ok((_, count)) => sum += count as u64,
            Err(rustix::io::Errno::AGAIN) => return Ok((sum, false)),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error)).context("reading"),
        }
    }
    Ok((sum, true))
}
