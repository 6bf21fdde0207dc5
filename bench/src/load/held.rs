//! Many connections that have each had one response and are idle then.

use std::{
    io::{BufRead as _, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use super::{Options, dial};
use crate::{
    connection::Received,
    poll::{Poller, Ready},
};

/// Longest time that opening all of them may take.
const LIMIT: Duration = Duration::from_secs(60);
/// So many are opened and answered before the next ones.
const BATCH: usize = 64;

/// Opens the connections, says `held` on its output when all have been answered, and closes them when a line, or the
/// end, comes on its input.
///
/// # Errors
/// When a response is wrong or a connection fails.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let mut poller = Poller::new()?;
    let (mut ready, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    let mut lines = Vec::with_capacity(options.connections);
    let mut answered = 0;
    let end = Instant::now() + LIMIT;
    while answered < options.connections {
        if Instant::now() > end {
            bail!("only {answered} of {} connections were answered within {LIMIT:?}", options.connections);
        }
        while lines.len() < options.connections && lines.len() < answered + BATCH {
            let index = lines.len();
            let target = options.target[index % options.target.len()];
            let mut connection = dial::wait(target).with_context(|| format!("opening connection {index}"))?;
            let mut client = options.ask.client();
            client.open(&mut connection.out);
            client.start(&mut connection.out);
            connection.flush()?;
            poller.add(connection.stream(), index)?;
            lines.push((connection, client));
        }
        poller.wait(Some(Duration::from_secs(1)), &mut ready)?;
        for &Ready { token: index, .. } in &ready {
            let (connection, client) = &mut lines[index];
            let count = match connection.receive(&mut buffer)? {
                Received::Some(count) | Received::Last(count) => count,
                Received::End => bail!("connection {index} was closed"),
            };
            let done = client.receive(&buffer[..count], &mut connection.out);
            answered += done.map_err(|error| anyhow::anyhow!("a wrong response: {error}"))?;
        }
    }
    println!("held");
    std::io::stdout().flush()?;
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}
