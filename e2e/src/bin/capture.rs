//! Catches all packets of this network namespace for some seconds, but for those on its loopback, and prints how many bytes
//! there were and how often a marker was among them. (What a test prints in a pod comes back over loopback, from the container
//! runtime to the kubelet.) Packets that are larger than the marker are not joined: keep it short.

use std::{
    env,
    io::{ErrorKind, Read},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

/// `ETH_P_ALL` in network order.
const ALL: i32 = 0x0300;
/// Addresses of a frame on loopback.
const LOOPBACK: [u8; 12] = [0; 12];

fn main() -> ExitCode {
    match run() {
        Ok((bytes, markers)) => {
            println!("{bytes} {markers}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("capture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(usize, usize)> {
    let mut arguments = env::args().skip(1);
    let usage = "usage: capture SECONDS MARKER";
    let seconds: u64 = arguments.next().context(usage)?.parse().context(usage)?;
    let marker = arguments.next().context(usage)?.into_bytes();
    let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL)))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    socket.set_recv_buffer_size(32 * 1024 * 1024)?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut packet, mut bytes, mut markers) = (vec![0; 128 * 1024], 0, 0);
    while Instant::now() < end {
        match socket.read(&mut packet) {
            Ok(count) if packet[..count].starts_with(&LOOPBACK) => {}
            Ok(count) => {
                bytes += count;
                markers += packet[..count].windows(marker.len()).filter(|window| *window == marker).count();
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((bytes, markers))
}
