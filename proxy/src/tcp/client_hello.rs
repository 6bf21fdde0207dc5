//! What a TLS client says before anything is encrypted (RFC 8446 §4.1.2), read and never changed: pure.

use crate::tls::alpn::PREFIX;

/// Bytes of a connection that are looked at; a greeting that has not ended by then is passed over.
pub const MOST: usize = 16 * 1024;

/// The TLS version that a client would like best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// SSL 3, TLS 1.0 or 1.1: deprecated by RFC 8996.
    Old,
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Version {
    /// Label in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}

/// A ClientHello, as far as a proxy has use for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The host that it asks for (SNI, RFC 6066 §3), in lower case.
    pub server_name: Option<String>,
    /// The highest version offered.
    pub version: Version,
    /// It is for a sidecar: what it offers first begins with `ferrule/` (ALPN, RFC 7301 §3.1).
    pub mesh: bool,
    /// It carries an encrypted ClientHello (RFC 9849), or what looks like one: then the name is only the outer one.
    pub encrypted: bool,
}

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// More bytes are needed to tell.
    Incomplete,
    /// No ClientHello, a malformed one, or one longer than [`MOST`].
    Other,
    /// A whole ClientHello.
    Hello(ClientHello),
}

const RECORD_HEADER: usize = 5;
/// RFC 8446 §5.1: a record's plain text.
const LONGEST_RECORD: usize = 1 << 14;
const HANDSHAKE_RECORD: u8 = 22;
const HELLO_MESSAGE: u8 = 1;
const MESSAGE_HEADER: usize = 4;
const SERVER_NAME: u16 = 0;
const PROTOCOLS: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
/// RFC 1035 §2.3.4, without the final dot.
const LONGEST_NAME: usize = 253;

/// Reads the ClientHello with which these bytes begin; it may be split over records.
#[must_use]
pub fn read(bytes: &[u8]) -> Reading {
    let message = match message(&bytes[..bytes.len().min(MOST)]) {
        Ok(Some(message)) => message,
        Ok(None) if bytes.len() < MOST => return Reading::Incomplete,
        Ok(None) | Err(Malformed) => return Reading::Other,
    };
    hello(&message).map_or(Reading::Other, Reading::Hello)
}

#[derive(Debug)]
struct Malformed;

/// The body of the first handshake message, put together from its records; `None` if it has not ended.
fn message(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let mut message = Vec::new();
    loop {
        if bytes.first().is_some_and(|&kind| kind != HANDSHAKE_RECORD)
            || bytes.get(1).is_some_and(|&major| major != 3)
        {
            return Err(Malformed);
        }
        let Some((header, rest)) = bytes.split_at_checked(RECORD_HEADER) else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        // An empty record of a handshake is forbidden (RFC 8446 §5.1).
        if length == 0 || length > LONGEST_RECORD {
            return Err(Malformed);
        }
        let (fragment, rest) = rest.split_at(length.min(rest.len()));
        message.extend_from_slice(fragment);
        if message.first().is_some_and(|&kind| kind != HELLO_MESSAGE) {
            return Err(Malformed);
        }
        if let Some(&[_, high, middle, low]) = message.first_chunk::<MESSAGE_HEADER>() {
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if length > MOST {
                return Err(Malformed);
            }
            if let Some(body) = message.get(MESSAGE_HEADER..MESSAGE_HEADER + length) {
                return Ok(Some(body.to_vec()));
            }
        }
        if fragment.len() < length {
            return Ok(None);
        }
        bytes = rest;
    }
}

fn hello(body: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader(body);
    let legacy = reader.u16()?;
    reader.take(32)?; // random
    reader.vector8()?; // legacy session id
    reader.vector16()?; // cipher suites
    reader.vector8()?; // compression methods
    let mut hello =
        ClientHello { server_name: None, version: version(legacy), mesh: false, encrypted: false };
    if reader.0.is_empty() {
        // Before RFC 3546 there were no extensions.
        return Some(hello);
    }
    let mut extensions = Reader(reader.vector16()?);
    if !reader.0.is_empty() {
        return None;
    }
    let (mut named, mut versioned, mut offers) = (false, false, false);
    while !extensions.0.is_empty() {
        let (kind, mut content) = (extensions.u16()?, Reader(extensions.vector16()?));
        match kind {
            // Two of a kind could be read in two ways (RFC 8446 §4.2).
            SERVER_NAME if named => return None,
            SUPPORTED_VERSIONS if versioned => return None,
            PROTOCOLS if offers => return None,
            SERVER_NAME => {
                named = true;
                hello.server_name = Some(server_name(&mut content)?);
            }
            SUPPORTED_VERSIONS => {
                versioned = true;
                let offered = content.vector8()?;
                if offered.is_empty() || !offered.len().is_multiple_of(2) {
                    return None;
                }
                let offered = offered.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
                // Values that mean nothing are put there so that servers learn to pass over them (GREASE, RFC 8701).
                hello.version = offered.filter(|it| it >> 8 == 3).map(version).max().unwrap_or(hello.version);
            }
            PROTOCOLS => {
                offers = true;
                let mut list = Reader(content.vector16()?);
                hello.mesh = list.vector8()?.starts_with(PREFIX);
            }
            ENCRYPTED_CLIENT_HELLO => hello.encrypted = true,
            _ => continue,
        }
        if kind != ENCRYPTED_CLIENT_HELLO && !content.0.is_empty() {
            return None;
        }
    }
    Some(hello)
}

/// The one host name of a list (RFC 6066 §3): of a kind there may be one, and no other kind was ever defined.
fn server_name(content: &mut Reader<'_>) -> Option<String> {
    let mut list = Reader(content.vector16()?);
    let (0, name) = (list.u8()?, list.vector16()?) else { return None };
    let name = std::str::from_utf8(name).ok()?;
    let well_formed = !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name.split('.').all(|label| (1..=63).contains(&label.len()))
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    (list.0.is_empty() && well_formed).then(|| name.to_ascii_lowercase())
}

fn version(number: u16) -> Version {
    match number {
        0x0304.. => Version::Tls13,
        0x0303 => Version::Tls12,
        _ => Version::Old,
    }
}

/// Takes parts off the front of bytes; `None` when they do not suffice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_length(content: &[u8]) -> Vec<u8> {
        [&(content.len() as u16).to_be_bytes()[..], content].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &with_length(content)].concat()
    }

    fn name(name: &str) -> Vec<u8> {
        let entry = [&[0][..], &with_length(name.as_bytes())].concat();
        extension(SERVER_NAME, &with_length(&entry))
    }

    fn versions(numbers: &[u16]) -> Vec<u8> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        extension(SUPPORTED_VERSIONS, &[&[bytes.len() as u8][..], &bytes].concat())
    }

    /// A ClientHello of TLS 1.2 with these extensions, in records of this size.
    fn greeting(extensions: &[Vec<u8>], record: usize) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend([0, 4, 0x1a, 0x1a, 0x13, 0x01]);
        body.extend([1, 0]);
        body.extend(with_length(&extensions.concat()));
        let message = [&[1, 0][..], &with_length(&body)].concat();
        message
            .chunks(record)
            .flat_map(|fragment| [&[22, 3, 1][..], &with_length(fragment)].concat())
            .collect()
    }

    fn hello(bytes: &[u8]) -> ClientHello {
        match read(bytes) {
            Reading::Hello(hello) => hello,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn name_and_version_are_read_whatever_stands_around_them() {
        let grease = extension(0x0a0a, b"");
        let bytes = greeting(&[grease, name("Cart.Shop"), versions(&[0x7a7a, 0x0303, 0x0304])], 9000);
        let expected = ClientHello {
            server_name: Some("cart.shop".into()),
            version: Version::Tls13,
            mesh: false,
            encrypted: false,
        };
        assert_eq!(hello(&bytes), expected);
    }

    fn protocols(names: &[&str]) -> Vec<u8> {
        let list: Vec<u8> =
            names.iter().flat_map(|name| [&[name.len() as u8][..], name.as_bytes()].concat()).collect();
        extension(PROTOCOLS, &with_length(&list))
    }

    #[test]
    fn what_is_offered_first_says_whether_it_is_for_a_sidecar() {
        for (offered, mesh) in
            [(&["ferrule/h2"][..], true), (&["h2", "ferrule/h2"], false), (&["http/1.1"], false)]
        {
            assert_eq!(hello(&greeting(&[protocols(offered)], 9000)).mesh, mesh, "{offered:?}");
        }
        assert_eq!(read(&greeting(&[protocols(&["h2"]), protocols(&["ferrule/h2"])], 9000)), Reading::Other);
    }

    #[test]
    fn a_client_may_name_nobody_and_offer_an_old_version() {
        let bytes = greeting(&[], 9000);
        assert_eq!(
            hello(&bytes),
            ClientHello { server_name: None, version: Version::Tls12, mesh: false, encrypted: false }
        );
        assert_eq!(hello(&greeting(&[versions(&[0x0301, 0x0302])], 9000)).version, Version::Old);
    }

    #[test]
    fn of_an_encrypted_greeting_the_outer_name_is_seen() {
        let bytes = greeting(&[name("public.example"), extension(0xfe0d, &[0; 200])], 9000);
        let hello = hello(&bytes);
        assert!(hello.encrypted);
        assert_eq!(hello.server_name.as_deref(), Some("public.example"));
    }

    #[test]
    fn every_cut_into_records_and_segments_reads_the_same() {
        let extensions = [name("cart.shop"), versions(&[0x0304])];
        let whole = hello(&greeting(&extensions, 9000));
        for record in [1, 2, 3, 4, 5, 50] {
            let bytes = greeting(&extensions, record);
            for end in 0..bytes.len() {
                assert_eq!(read(&bytes[..end]), Reading::Incomplete, "{end} of {record}");
            }
            assert_eq!(hello(&bytes), whole);
            assert_eq!(hello(&[&bytes[..], b"more"].concat()), whole);
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_read() {
        let two_entries = [&[0][..], &with_length(b"a"), &[0], &with_length(b"b")].concat();
        for extensions in [
            vec![name("a"), name("b")],
            vec![versions(&[0x0304]), versions(&[0x0303])],
            vec![extension(SERVER_NAME, &with_length(&two_entries))],
            vec![name("")],
            vec![name("a..b")],
            vec![name("a/b")],
            vec![name("a\0b")],
            vec![name(&"a".repeat(64))],
            vec![extension(SERVER_NAME, b"")],
            vec![extension(SUPPORTED_VERSIONS, &[3, 3, 4, 0])],
            vec![vec![0, 0, 0]],
        ] {
            assert_eq!(read(&greeting(&extensions, 9000)), Reading::Other, "{extensions:?}");
        }
    }

    #[test]
    fn other_protocols_and_endless_greetings_are_passed_over() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x02",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x00\x05\x02",
            b"\x16\x03\x01\x40\x01",
            b"\x16\x03\x01\x00\x05\x01\x01\x00\x00",
        ] {
            assert_eq!(read(bytes), Reading::Other, "{}", bytes.escape_ascii());
        }
        // A message of 8 KiB, a byte to a record.
        let message = [&[1, 0, 0x20, 0][..], &[0; 0x2000]].concat();
        let endless: Vec<u8> = message.iter().flat_map(|&byte| [22, 3, 1, 0, 1, byte]).collect();
        assert_eq!(read(&endless[..MOST - 1]), Reading::Incomplete);
        assert_eq!(read(&endless), Reading::Other);
    }
}
