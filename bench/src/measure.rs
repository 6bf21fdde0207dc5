//! What is measured, and in which figures it is told.

use clap::ValueEnum;

use crate::{
    load::{Ask, Outcome},
    peers::Carry,
};

/// A measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Measure {
    /// HTTP/1.1, small bodies, 64 connections.
    H1Small,
    /// HTTP/1.1, 64 KiB bodies, 64 connections.
    #[value(name = "h1-64k")]
    H1Large,
    /// HTTP/1.1, a connection for each request.
    H1Connect,
    /// HTTP/2, small bodies, 8 connections of 8 streams.
    H2Small,
    /// gRPC, unary, 8 connections of 8 streams.
    GrpcSmall,
    /// TCP, 8 connections, one direction.
    Tcp,
    /// HTTP/1.1, small bodies at 2,000 requests a second.
    Latency,
    /// HTTP/1.1, small bodies, through two proxies.
    H1Two,
    /// HTTP/1.1, small bodies at 2,000 requests a second, through two proxies.
    LatencyTwo,
    /// HTTP/1.1, small bodies, through two proxies with mutual TLS between them.
    MtlsSmall,
    /// HTTP/1.1, 64 KiB bodies, likewise.
    #[value(name = "mtls-64k")]
    MtlsLarge,
    /// HTTP/1.1, small bodies at 2,000 requests a second, likewise.
    MtlsLatency,
    /// A connection for each request, carried as bytes, so that each takes a handshake between the proxies.
    MtlsConnect,
    /// TCP, 8 connections, one direction, likewise.
    MtlsTcp,
    /// Resident memory: idle, with idle connections, after them.
    Memory,
}

/// How a measure loads the proxy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// So many connections with so many requests under way on each.
    Closed {
        /// The request.
        ask: Ask,
        /// Connections.
        connections: usize,
        /// Requests on each.
        depth: usize,
    },
    /// A constant rate.
    Constant {
        /// The request.
        ask: Ask,
        /// Connections.
        connections: usize,
        /// Requests a second.
        rate: f64,
    },
    /// Bytes as fast as they come.
    Stream {
        /// Connections.
        connections: usize,
    },
    /// Connections that are held.
    Held {
        /// The request that each has had answered.
        ask: Ask,
    },
}

/// Requests a second for latency.
const RATE: f64 = 2000.0;

impl Measure {
    /// As it is written on the command line.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// How it loads the proxy.
    #[must_use]
    pub fn load(self) -> Load {
        match self {
            Self::H1Small | Self::H1Two | Self::MtlsSmall => {
                Load::Closed { ask: Ask::H1Small, connections: 64, depth: 1 }
            }
            Self::H1Large | Self::MtlsLarge => Load::Closed { ask: Ask::H1Large, connections: 64, depth: 1 },
            Self::H1Connect | Self::MtlsConnect => {
                Load::Closed { ask: Ask::H1Connect, connections: 64, depth: 1 }
            }
            Self::H2Small => Load::Closed { ask: Ask::H2Small, connections: 8, depth: 8 },
            Self::GrpcSmall => Load::Closed { ask: Ask::Grpc, connections: 8, depth: 8 },
            Self::Tcp | Self::MtlsTcp => Load::Stream { connections: 8 },
            Self::Latency | Self::LatencyTwo | Self::MtlsLatency => {
                Load::Constant { ask: Ask::H1Small, connections: 64, rate: RATE }
            }
            Self::Memory => Load::Held { ask: Ask::H1Small },
        }
    }

    /// What the proxy carries.
    #[must_use]
    pub fn carry(self) -> Carry {
        match self {
            Self::H2Small => Carry::Http2,
            Self::GrpcSmall => Carry::Grpc,
            Self::Tcp | Self::MtlsConnect | Self::MtlsTcp => Carry::Tcp,
            _ => Carry::Http1,
        }
    }

    /// What the backend speaks, where it is not what the proxy is told.
    #[must_use]
    pub fn spoken(self) -> Carry {
        if self == Self::MtlsConnect { Carry::Http1 } else { self.carry() }
    }

    /// Whether the proxies encrypt what goes between them, each with a certificate of its own.
    #[must_use]
    pub fn is_encrypted(self) -> bool {
        use Measure::{MtlsConnect, MtlsLarge, MtlsLatency, MtlsSmall, MtlsTcp};
        matches!(self, MtlsSmall | MtlsLarge | MtlsLatency | MtlsConnect | MtlsTcp)
    }

    /// Proxies between load and backend.
    #[must_use]
    pub fn hops(self) -> usize {
        if matches!(self, Self::H1Two | Self::LatencyTwo) || self.is_encrypted() { 2 } else { 1 }
    }
}

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Figure {
    /// CPU microseconds of the proxy a request.
    CpuPerRequest,
    /// CPU milliseconds of the proxy a GiB.
    CpuPerGib,
    /// Requests a second.
    Requests,
    /// Gbit a second.
    Gigabits,
    /// Half of the requests are faster; microseconds.
    P50,
    /// 99 % are faster.
    P99,
    /// 99.9 % are faster.
    P999,
    /// Resident memory before any load, MiB.
    Idle,
    /// With 1,000 idle connections: KiB for each of them.
    PerConnection1k,
    /// With 10,000.
    PerConnection10k,
    /// Resident memory after they have gone, MiB.
    After,
}

impl Figure {
    /// As it is written in the tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CpuPerRequest => "CPU µs/request",
            Self::CpuPerGib => "CPU ms/GiB",
            Self::Requests => "requests/s",
            Self::Gigabits => "Gbit/s",
            Self::P50 => "p50 µs",
            Self::P99 => "p99 µs",
            Self::P999 => "p99.9 µs",
            Self::Idle => "idle MiB",
            Self::PerConnection1k => "KiB/connection, 1,000",
            Self::PerConnection10k => "KiB/connection, 10,000",
            Self::After => "after them MiB",
        }
    }

    /// Whether the road without a proxy takes of it too, so that what the proxy adds is the difference.
    #[must_use]
    pub fn is_added(self) -> bool {
        matches!(self, Self::P50 | Self::P99 | Self::P999)
    }

    /// Whether less of it is better.
    #[must_use]
    pub fn less_is_better(self) -> bool {
        !matches!(self, Self::Requests | Self::Gigabits)
    }
}

/// The figures of an outcome.
#[must_use]
pub fn figures(outcome: &Outcome, proxied: bool) -> Vec<(Figure, f64)> {
    let mut figures = Vec::new();
    let Outcome { completed, bytes, seconds, cpu, latency } = outcome;
    if *bytes > 0 {
        figures.push((Figure::CpuPerGib, cpu * 1e3 / (*bytes as f64 / f64::from(1 << 30))));
        figures.push((Figure::Gigabits, *bytes as f64 * 8.0 / seconds / 1e9));
    } else {
        figures.push((Figure::CpuPerRequest, cpu * 1e6 / *completed as f64));
        match latency {
            Some(latency) => figures.extend([
                (Figure::P50, latency.p50),
                (Figure::P99, latency.p99),
                (Figure::P999, latency.p999),
            ]),
            None => figures.push((Figure::Requests, *completed as f64 / seconds)),
        }
    }
    figures.retain(|(figure, _)| proxied || !matches!(figure, Figure::CpuPerGib | Figure::CpuPerRequest));
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_told_per_request_or_per_gib() {
        let requests = Outcome { completed: 1000, seconds: 2.0, cpu: 0.02, ..Outcome::default() };
        assert_eq!(figures(&requests, true), [(Figure::CpuPerRequest, 20.0), (Figure::Requests, 500.0)]);
        let bytes = Outcome { bytes: 1 << 30, seconds: 1.0, cpu: 0.5, ..Outcome::default() };
        assert_eq!(figures(&bytes, true)[0], (Figure::CpuPerGib, 500.0));
    }

    #[test]
    fn without_a_proxy_there_is_no_cpu_of_one() {
        let outcome = Outcome { completed: 1000, seconds: 2.0, cpu: 0.0, ..Outcome::default() };
        assert_eq!(figures(&outcome, false), [(Figure::Requests, 500.0)]);
    }
}
