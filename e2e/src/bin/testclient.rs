//! The client of the end-to-end tests; see [`ferrule_e2e::workload`].

use std::{
    io::{Error, Result},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use ferrule_e2e::workload::{
    datagram,
    dns::Resolver,
    fetch::{Connector, Target, exchange},
    lines,
    load::{self, Message, Plan, Watch, print_line},
    tcp,
};
use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::timeout,
};

/// Sends requests and prints what came back, one JSON object a line.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Idles until SIGTERM, so that the other modes can be run in the same pod.
    Serve,
    /// Sends one request and prints the response.
    Once {
        /// http://HOST[:PORT]/PATH or https://…
        url: Target,
        /// Give up after this many seconds.
        #[arg(long, default_value_t = 10.0)]
        timeout: f64,
        #[command(flatten)]
        message: Message,
    },
    /// Sends requests and prints a summary at the end.
    Load {
        #[command(flatten)]
        plan: Plan,
        /// Also print counts each 100 ms.
        #[arg(long)]
        live: bool,
    },
    /// Sends requests and prints each change of the version that answers, at the end a summary.
    WatchSplit {
        #[command(flatten)]
        plan: Plan,
    },
    /// Sends a text over TCP, ends its side, and prints what came back.
    Tcp {
        /// Host.
        host: String,
        /// Port.
        port: u16,
        /// The text.
        #[arg(long, default_value = "hello")]
        send: String,
        /// Send only after the server has spoken.
        #[arg(long)]
        wait_first: bool,
        /// Give up after this many seconds without a byte.
        #[arg(long, default_value_t = 10.0)]
        timeout: f64,
    },
    /// Keeps TCP connections that say a line now and then, and prints how they fared.
    Lines {
        #[command(flatten)]
        plan: lines::Plan,
    },
    /// Sends a datagram and prints what came back.
    Datagram {
        /// Host.
        host: String,
        /// UDP port; without it the datagram is an ICMP echo request.
        port: Option<u16>,
        /// The text.
        #[arg(long, default_value = "hello")]
        send: String,
    },
    /// Prints all addresses of a name.
    Resolve {
        /// The name.
        host: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().mode).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testclient: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(mode: Mode) -> Result<()> {
    match mode {
        Mode::Serve => {
            signal(SignalKind::terminate())?.recv().await;
            Ok(())
        }
        Mode::Once { url, timeout: seconds, message } => {
            let limit = Duration::from_secs_f64(seconds);
            let exchanged = timeout(limit, once(url, &message)).await;
            exchanged.map_err(|_| Error::other(format!("no response within {limit:?}")))?
        }
        Mode::Load { plan, live } => produce(&plan, if live { Watch::Live } else { Watch::Quiet }).await,
        Mode::WatchSplit { plan } => produce(&plan, Watch::Split).await,
        Mode::Tcp { host, port, send, wait_first, timeout } => {
            let limit = Duration::from_secs_f64(timeout);
            print_line(&tcp::talk(&host, port, &send, wait_first, limit).await?);
            Ok(())
        }
        Mode::Lines { plan } => {
            let stopped = stopped(plan.until_stdin_ends);
            print_line(&lines::run(plan, stopped).await?);
            Ok(())
        }
        Mode::Datagram { host, port, send } => {
            let address = Resolver::system()?.resolve(&host).await?;
            print_line(&match port {
                Some(port) => datagram::udp(SocketAddr::new(address, port), &send).await?,
                None => datagram::ping(address, &send)?,
            });
            Ok(())
        }
        Mode::Resolve { host } => {
            print_line(&Resolver::system()?.resolve_all(&host).await?);
            Ok(())
        }
    }
}

async fn once(url: Target, message: &Message) -> Result<()> {
    let request = message.request(&url, false);
    let mut connection = Connector::new(url, message.ca.as_deref())?.connect().await?;
    let (response, _) = exchange(&mut connection, &request).await?;
    print_line(&response);
    Ok(())
}

async fn produce(plan: &Plan, watch: Watch) -> Result<()> {
    if plan.seconds.is_none() && plan.count.is_none() && !plan.until_stdin_ends {
        return Err(Error::other("say when to stop: --seconds, --count or --until-stdin-ends"));
    }
    print_line(&load::run(plan, watch, stopped(plan.until_stdin_ends)).await?);
    Ok(())
}

/// Turns true when standard input ends, if that is to be looked at.
fn stopped(until_stdin_ends: bool) -> watch::Receiver<bool> {
    let (stop, stopped) = watch::channel(false);
    if until_stdin_ends {
        tokio::spawn(async move {
            let mut discarded = Vec::new();
            // An error on standard input is an end of it as well.
            let _ = tokio::io::stdin().read_to_end(&mut discarded).await;
            stop.send_replace(true);
        });
    } else {
        // The sender must live as long as the load: a closed channel reads as a stop.
        tokio::spawn(async move { stop.closed().await });
    }
    stopped
}
