//! Looks names up as a program in a pod does: `/etc/resolv.conf`, its search list and `ndots`.
//!
//! The C library's resolver loads parts of itself at run time, which an image of one static binary has not.

use std::{
    io::{Error, ErrorKind, Result},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{net::UdpSocket, time::timeout};

const A: u16 = 1;
const AAAA: u16 = 28;
const NXDOMAIN: u8 = 3;
const ATTEMPTS: usize = 4;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// What `/etc/resolv.conf` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    nameservers: Vec<IpAddr>,
    search: Vec<String>,
    ndots: usize,
}

impl Resolver {
    /// Reads `/etc/resolv.conf`.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn system() -> Result<Self> {
        Ok(Self::parse(&std::fs::read_to_string("/etc/resolv.conf")?))
    }

    /// Parses the text of a `resolv.conf`; unknown lines are skipped.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut resolver = Self { nameservers: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    resolver.nameservers.extend(words.next().and_then(|ip| ip.parse::<IpAddr>().ok()));
                }
                Some("search") => resolver.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let ndots = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    resolver.ndots = ndots.unwrap_or(resolver.ndots);
                }
                _ => {}
            }
        }
        resolver
    }

    /// First address of a host name, IPv4 before IPv6; an address is its own.
    ///
    /// # Errors
    /// When no name server answers or none of the candidates exists.
    pub async fn resolve(&self, host: &str) -> Result<IpAddr> {
        self.resolve_all(host).await.map(|addresses| addresses[0])
    }

    /// All addresses of a host name, IPv4 before IPv6; an address is its own. At least one.
    ///
    /// # Errors
    /// As [`Resolver::resolve`].
    pub async fn resolve_all(&self, host: &str) -> Result<Vec<IpAddr>> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Ok(vec![address]);
        }
        for name in self.candidates(host) {
            let mut addresses = self.query(&name, A).await?;
            addresses.extend(self.query(&name, AAAA).await?);
            if !addresses.is_empty() {
                return Ok(addresses);
            }
        }
        Err(Error::new(ErrorKind::NotFound, format!("no such host: {host}")))
    }

    fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(absolute) = host.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut names: Vec<_> = self.search.iter().map(|domain| format!("{host}.{domain}")).collect();
        let absolute_first = host.matches('.').count() >= self.ndots;
        names.insert(if absolute_first { 0 } else { names.len() }, host.to_owned());
        names
    }

    async fn query(&self, name: &str, kind: u16) -> Result<Vec<IpAddr>> {
        let mut last = Error::new(ErrorKind::NotFound, "resolv.conf names no name server");
        for attempt in 0..ATTEMPTS {
            for &server in &self.nameservers {
                // The id only tells a late answer to an earlier attempt apart: each attempt has its own socket.
                let id = u16::try_from(attempt).unwrap_or_default() + 1;
                match timeout(ATTEMPT_TIMEOUT, ask(server, id, name, kind)).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(error)) => last = error,
                    Err(_) => {
                        last = Error::new(ErrorKind::TimedOut, format!("DNS server {server} is silent"));
                    }
                }
            }
        }
        Err(last)
    }
}

async fn ask(server: IpAddr, id: u16, name: &str, kind: u16) -> Result<Vec<IpAddr>> {
    let unspecified: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(unspecified, 0)).await?;
    socket.connect(SocketAddr::new(server, 53)).await?;
    socket.send(&encode(id, name, kind)).await?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer).await?;
    decode(&answer[..length], id, kind)
}

fn encode(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut packet = Vec::with_capacity(64);
    packet.extend(id.to_be_bytes());
    // Recursion desired; one question.
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        packet.extend(label.bytes());
    }
    packet.push(0);
    packet.extend(kind.to_be_bytes());
    packet.extend([0, 1]);
    packet
}

fn decode(packet: &[u8], id: u16, kind: u16) -> Result<Vec<IpAddr>> {
    parse_answer(packet, id, kind)
        .ok_or_else(|| Error::new(ErrorKind::InvalidData, "malformed DNS answer"))?
        .map_err(|code| Error::other(format!("DNS server answered with code {code}")))
}

fn parse_answer(packet: &[u8], id: u16, kind: u16) -> Option<std::result::Result<Vec<IpAddr>, u8>> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    if word(0)? != id {
        return None;
    }
    match packet.get(3)? & 0xf {
        0 => {}
        NXDOMAIN => return Some(Ok(Vec::new())),
        code => return Some(Err(code)),
    }
    let answers = word(6)?;
    // The question ends with the root label, a type and a class.
    let mut at = skip_name(packet, 12)? + 4;
    let mut addresses = Vec::new();
    for _ in 0..answers {
        at = skip_name(packet, at)?;
        let (found, length) = (word(at)?, usize::from(word(at + 8)?));
        let data = packet.get(at + 10..at + 10 + length)?;
        at += 10 + length;
        if found != kind {
            continue;
        }
        if let Ok(octets) = <[u8; 4]>::try_from(data) {
            addresses.push(octets.into());
        } else if let Ok(octets) = <[u8; 16]>::try_from(data) {
            addresses.push(octets.into());
        }
    }
    Some(Ok(addresses))
}

fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_go_through_the_search_list_first() {
        let resolver = Resolver::parse(
            "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local\noptions ndots:5\n",
        );
        assert_eq!(
            resolver.candidates("reviews"),
            ["reviews.shop.svc.cluster.local", "reviews.svc.cluster.local", "reviews"]
        );
        assert_eq!(resolver.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(resolver.candidates("reviews."), ["reviews"]);
    }

    #[test]
    fn an_address_is_found_behind_a_compressed_name() {
        let mut packet = encode(7, "a.b", A);
        packet[2] = 0x81;
        packet[7] = 1;
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 96, 0, 1]);
        assert_eq!(decode(&packet, 7, A).expect("well formed"), [IpAddr::from([10, 96, 0, 1])]);
        assert!(decode(&packet[..20], 7, A).is_err());
    }
}
