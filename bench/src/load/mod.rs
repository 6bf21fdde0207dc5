//! What asks the proxy, and measures it while it does.

pub mod closed;
pub mod constant;
mod dial;
pub mod held;
pub mod stream;

use std::{net::SocketAddr, time::Duration};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::{
    content, cpu,
    http1::client::{self, Persistence},
    http2,
    session::Client,
};

/// What to ask of whom, and for how long.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The proxy's address, or the backend's.
    #[arg(long, required = true)]
    pub target: Vec<SocketAddr>,
    /// What is asked.
    #[arg(long)]
    pub ask: Ask,
    /// Connections that are open at the same time.
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Requests that are under way on each of them at the same time; more than one needs HTTP/2.
    #[arg(long, default_value_t = 1)]
    pub depth: usize,
    /// Seconds before the measured interval.
    #[arg(long, default_value_t = 1.0)]
    pub warmup: f64,
    /// Seconds of the measured interval.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Processes whose CPU time over the measured interval is told.
    #[arg(long, value_delimiter = ',')]
    pub watch: Vec<u32>,
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ask {
    /// HTTP/1.1, a small body.
    H1Small,
    /// HTTP/1.1, 64 KiB.
    H1Large,
    /// HTTP/1.1, a small body, a connection each.
    H1Connect,
    /// HTTP/2, a small body.
    H2Small,
    /// HTTP/2, unary gRPC.
    Grpc,
}

impl Ask {
    /// A connection's client.
    #[must_use]
    pub fn client(self) -> Box<dyn Client> {
        let http1 =
            |path, body: &'static [u8], persistence| Box::new(client::Client::new(path, body, persistence));
        match self {
            Self::H1Small => http1(content::SMALL_PATH, &content::SMALL_BODY, Persistence::Keep),
            Self::H1Large => http1(content::LARGE_PATH, &content::LARGE_BODY, Persistence::Keep),
            Self::H1Connect => http1(content::SMALL_PATH, &content::SMALL_BODY, Persistence::Close),
            Self::H2Small => Box::new(http2::client::Client::new(http2::Shape::Get)),
            Self::Grpc => Box::new(http2::client::Client::new(http2::Shape::Unary)),
        }
    }
}

/// What came out of a measured interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Right responses.
    pub completed: u64,
    /// Bytes, where bytes are counted instead.
    pub bytes: u64,
    /// Length of the interval in seconds.
    pub seconds: f64,
    /// CPU seconds of the watched processes.
    pub cpu: f64,
    /// Time to the response in microseconds, where a constant rate was kept.
    pub latency: Option<Latency>,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half are faster.
    pub p50: f64,
    /// 99 of 100 are faster.
    pub p99: f64,
    /// 999 of 1000 are faster.
    pub p999: f64,
}

impl Latency {
    /// Of these samples; `None` when there are none.
    #[must_use]
    pub fn of(samples: &mut [Duration]) -> Option<Self> {
        samples.sort_unstable();
        let at = |share: f64| {
            // The smallest sample that this share of all does not exceed.
            let rank = (share * samples.len() as f64).ceil() as usize;
            Some(samples.get(rank.max(1) - 1)?.as_nanos() as f64 / 1e3)
        };
        Some(Self { p50: at(0.5)?, p99: at(0.99)?, p999: at(0.999)? })
    }
}

/// The measured interval: from when the warm-up is over to the end.
#[derive(Debug)]
struct Interval {
    begin: std::time::Instant,
    end: std::time::Instant,
    watch: Vec<u32>,
    begun: Option<(std::time::Instant, Duration)>,
}

impl Interval {
    fn new(options: &Options, now: std::time::Instant) -> Self {
        let begin = now + Duration::from_secs_f64(options.warmup);
        let end = begin + Duration::from_secs_f64(options.seconds);
        Self { begin, end, watch: options.watch.clone(), begun: None }
    }

    /// Whether it begins just now; true once.
    fn begins(&mut self, now: std::time::Instant) -> anyhow::Result<bool> {
        if self.begun.is_some() || now < self.begin {
            return Ok(false);
        }
        self.begun = Some((now, cpu::time(&self.watch)?));
        Ok(true)
    }

    fn is_over(&self, now: std::time::Instant) -> bool {
        now >= self.end
    }

    /// Seconds since it began, and CPU seconds of the watched processes.
    fn close(&self, now: std::time::Instant) -> anyhow::Result<(f64, f64)> {
        let (begun, before) = self.begun.ok_or_else(|| anyhow::anyhow!("the interval has not begun"))?;
        let used = cpu::time(&self.watch)?.saturating_sub(before);
        Ok(((now - begun).as_secs_f64(), used.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let mut samples: Vec<_> = (1..=1000).rev().map(Duration::from_micros).collect();
        let latency = Latency::of(&mut samples).expect("there are samples");
        assert_eq!((latency.p50, latency.p99, latency.p999), (500.0, 990.0, 999.0));
        let one = Latency::of(&mut [Duration::from_micros(7)]).expect("there is a sample");
        assert_eq!((one.p50, one.p999), (7.0, 7.0));
        assert_eq!(Latency::of(&mut []), None);
    }
}
