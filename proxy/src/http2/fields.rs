//! Field sections as HTTP/2 carries them (RFC 9113 §8.2 and §8.3): decoded, checked, and read as requests,
//! responses and trailers. Pure.
//!
//! What is let through here can be written as HTTP/1 by another hop without changing its meaning, so whatever
//! could smuggle a line, a length or a second request is malformed.

use std::cell::RefCell;

use thiserror::Error;

use super::hpack;
use crate::{
    http1::body::{is_token, may_trail},
    message::Field,
};

/// Sections that a thread keeps for the next message.
const KEPT: usize = 128;
/// A section that has grown beyond this is not kept.
const USUAL: usize = 8 * 1024;

thread_local! {
    static FREE: RefCell<Vec<Fields>> = const { RefCell::new(Vec::new()) };
}

/// Why a message is malformed: a stream error (§8.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub &'static str);

/// Fields in their order, pseudo-header fields first, in one piece of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    bytes: Vec<u8>,
    /// Where each name and value ends, and whether the field is never to be indexed.
    ends: Vec<(u32, u32, bool)>,
    /// How many of them are pseudo-header fields.
    pseudo: usize,
}

impl Fields {
    /// An empty section from the thread's store.
    #[must_use]
    pub fn take() -> Self {
        FREE.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// Puts the memory back into the thread's store.
    pub fn give_back(mut self) {
        if self.bytes.capacity() == 0 || self.bytes.capacity() > USUAL {
            return;
        }
        self.clear();
        // The store is gone while the thread ends: then the memory is simply freed.
        let _ = FREE.try_with(|free| {
            if let Ok(mut free) = free.try_borrow_mut()
                && free.len() < KEPT
            {
                free.push(self);
            }
        });
    }

    /// Takes all fields out.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.pseudo = 0;
    }

    /// Appends a field that may be indexed.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_field(hpack::Field::new(name, value));
    }

    /// Appends a field.
    pub fn push_field(&mut self, hpack::Field { name, value, never_indexed }: hpack::Field<'_>) {
        self.bytes.extend_from_slice(name);
        let name_end = self.end();
        self.bytes.extend_from_slice(value);
        self.ends.push((name_end, self.end(), never_indexed));
    }

    /// Appends a field whose name may have capital letters.
    pub fn push_lower(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.push(name, value);
        self.bytes[start..start + name.len()].make_ascii_lowercase();
    }

    /// `:status`; for a checked response.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.text(b":status").parse().unwrap_or(0)
    }

    fn end(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    /// Number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Size as SETTINGS_MAX_HEADER_LIST_SIZE counts it (RFC 9113 §6.5.2).
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len() + 32 * self.ends.len()
    }

    /// The field at this place.
    fn at(&self, index: usize) -> (&[u8], &[u8]) {
        let start = if index == 0 { 0 } else { self.ends[index - 1].1 as usize };
        let (name_end, end, _) = self.ends[index];
        (&self.bytes[start..name_end as usize], &self.bytes[name_end as usize..end as usize])
    }

    /// Names and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        (0..self.len()).map(|index| self.at(index))
    }

    /// Those that are no pseudo-header fields.
    pub fn regular(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        (self.pseudo..self.len()).map(|index| self.at(index))
    }

    /// Those that are no pseudo-header fields, with what their sender said of indexing.
    pub fn regular_fields(&self) -> impl Iterator<Item = hpack::Field<'_>> {
        (self.pseudo..self.len()).map(|index| {
            let (name, value) = self.at(index);
            hpack::Field { name, value, never_indexed: self.ends[index].2 }
        })
    }

    /// Value of a pseudo-header field.
    fn pseudo(&self, name: &[u8]) -> Option<&[u8]> {
        (0..self.pseudo).map(|index| self.at(index)).find(|(each, _)| *each == name).map(|(_, value)| value)
    }

    /// The regular fields as [`Field`]s in `space`; those for which there is no space are left out.
    #[must_use]
    pub fn view<'a, 'b>(&'a self, space: &'b mut [Field<'a>]) -> &'b [Field<'a>] {
        let mut count = 0;
        for ((name, value), place) in self.regular().zip(space.iter_mut()) {
            // Names were checked to be ASCII.
            *place = Field { name: std::str::from_utf8(name).unwrap_or_default(), value };
            count += 1;
        }
        &space[..count]
    }

    /// Checks that this is a request's head, and reads it.
    ///
    /// # Errors
    /// Whatever breaks RFC 9113 §8.2 and §8.3.1.
    pub fn as_request(&mut self) -> Result<RequestInfo, Malformed> {
        let length = self.check(&[b":method", b":scheme", b":authority", b":path"])?;
        let method = self.pseudo(b":method").ok_or(Malformed("no :method"))?;
        if method.is_empty() || !method.iter().copied().all(is_token) {
            return Err(Malformed(":method is no token"));
        }
        let host = self.single_host()?;
        let authority = self.pseudo(b":authority");
        if authority.is_some_and(|authority| host.is_some_and(|host| host != authority)) {
            return Err(Malformed("Host differs from :authority"));
        }
        let authority = authority.or(host).ok_or(Malformed("neither :authority nor Host"))?;
        check_authority(authority)?;
        let (scheme, path) = (self.pseudo(b":scheme"), self.pseudo(b":path"));
        let connect = method == b"CONNECT";
        if connect {
            if scheme.is_some() || path.is_some() {
                return Err(Malformed("CONNECT with :scheme or :path"));
            }
            if self.pseudo(b":authority").is_none() {
                return Err(Malformed("CONNECT without :authority"));
            }
        } else {
            check_scheme(scheme.ok_or(Malformed("no :scheme"))?)?;
            check_path(path.ok_or(Malformed("no :path"))?, method)?;
        }
        Ok(RequestInfo { length, connect })
    }

    /// The same request with another path, or for another host; checked as one that was received.
    ///
    /// # Errors
    /// Whatever breaks RFC 9113 §8.2 and §8.3.1 now.
    pub fn rewritten(&self, path: Option<&[u8]>, authority: Option<&[u8]>) -> Result<Self, Malformed> {
        let mut fields = Self::take();
        for (name, value) in (0..self.pseudo).map(|index| self.at(index)) {
            let value = match name {
                b":path" => path.unwrap_or(value),
                b":authority" => authority.unwrap_or(value),
                _ => value,
            };
            fields.push(name, value);
        }
        if let Some(authority) = authority
            && self.pseudo(b":authority").is_none()
        {
            fields.push(b":authority", authority);
        }
        for field in self.regular_fields().filter(|field| authority.is_none() || field.name != b"host") {
            fields.push_field(field);
        }
        fields.as_request()?;
        Ok(fields)
    }

    /// Checks that this is a response's head, and reads it.
    ///
    /// # Errors
    /// Whatever breaks RFC 9113 §8.2 and §8.3.2.
    pub fn as_response(&mut self) -> Result<ResponseInfo, Malformed> {
        let length = self.check(&[b":status"])?;
        let status = match self.pseudo(b":status") {
            Some(&[a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']) => {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            _ => return Err(Malformed(":status is no status code")),
        };
        if status == 101 {
            return Err(Malformed("101 in HTTP/2"));
        }
        Ok(ResponseInfo { length, status })
    }

    /// Checks that these are trailers (§8.1).
    ///
    /// # Errors
    /// Whatever breaks RFC 9113 §8.2; pseudo-header fields; fields that frame or route (RFC 9110 §6.5.1).
    pub fn as_trailers(&mut self) -> Result<(), Malformed> {
        self.check(&[])?;
        if !self.iter().all(|(name, _)| may_trail(name)) {
            return Err(Malformed("trailers frame or route the message"));
        }
        Ok(())
    }

    /// What holds for all sections. Returns the content length, if there is one.
    fn check(&mut self, pseudo: &[&[u8]]) -> Result<Option<u64>, Malformed> {
        let mut length = None;
        let mut count = 0;
        let mut seen = 0u8;
        for index in 0..self.len() {
            let (name, value) = self.at(index);
            if name.first() == Some(&b':') {
                let known = pseudo.iter().position(|each| *each == name);
                let known = known.ok_or(Malformed("unknown pseudo-header field"))?;
                if count != index {
                    return Err(Malformed("pseudo-header field after a regular one"));
                }
                if seen & (1 << known) != 0 {
                    return Err(Malformed("pseudo-header field twice"));
                }
                seen |= 1 << known;
                count += 1;
            } else {
                check_name(name)?;
                match name {
                    b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding"
                    | b"upgrade" => {
                        return Err(Malformed("connection-specific field"));
                    }
                    b"te" if !value.eq_ignore_ascii_case(b"trailers") => {
                        return Err(Malformed("TE other than trailers"));
                    }
                    b"content-length" => {
                        if length.is_some() {
                            return Err(Malformed("more than one Content-Length"));
                        }
                        length = Some(content_length(value)?);
                    }
                    _ => {}
                }
            }
            check_value(value)?;
        }
        self.pseudo = count;
        Ok(length)
    }

    fn single_host(&self) -> Result<Option<&[u8]>, Malformed> {
        let mut hosts = self.regular().filter(|(name, _)| *name == b"host").map(|(_, value)| value);
        let host = hosts.next();
        if hosts.next().is_some() { Err(Malformed("more than one Host")) } else { Ok(host) }
    }

    /// `:method`; for a checked request.
    #[must_use]
    pub fn method(&self) -> &str {
        self.text(b":method")
    }

    /// Whether it is the head of a gRPC call.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        self.value(b"content-type").is_some_and(|value| value.starts_with(b"application/grpc"))
    }

    /// `:scheme`, nothing for CONNECT.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.text(b":scheme")
    }

    /// `:path` with its query, nothing for CONNECT.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text(b":path")
    }

    /// `:authority`, or the `Host` that stands for it.
    #[must_use]
    pub fn authority(&self) -> &str {
        let value = self.pseudo(b":authority").or_else(|| self.value(b"host"));
        value.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
    }

    fn text(&self, name: &[u8]) -> &str {
        self.pseudo(name).and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
    }

    /// The first value of a regular field.
    #[must_use]
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.regular().find(|(each, _)| *each == name).map(|(_, value)| value)
    }
}

/// What a request's head says of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// Its `Content-Length`.
    pub length: Option<u64>,
    /// It is a CONNECT (§8.5).
    pub connect: bool,
}

/// What a response's head says of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseInfo {
    /// Its `Content-Length`.
    pub length: Option<u64>,
    /// Status code, 100 to 999.
    pub status: u16,
}

fn check_name(name: &[u8]) -> Result<(), Malformed> {
    if name.is_empty() {
        return Err(Malformed("empty field name"));
    }
    if name.iter().any(|&byte| byte.is_ascii_uppercase() || !is_token(byte)) {
        return Err(Malformed("field name is no lower-case token"));
    }
    Ok(())
}

/// §8.2.1, and control characters besides, which no field value may have (RFC 9110 §5.5).
fn check_value(value: &[u8]) -> Result<(), Malformed> {
    let control = |byte: u8| (byte < b' ' && byte != b'\t') || byte == 0x7f;
    // All of them are looked at, so that it is done many at a time.
    if value.iter().fold(false, |found, &byte| found | control(byte)) {
        return Err(Malformed("control character in a field value"));
    }
    let space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if space(value.first()) || space(value.last()) {
        return Err(Malformed("space around a field value"));
    }
    Ok(())
}

fn content_length(value: &[u8]) -> Result<u64, Malformed> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value)
        .ok()
        .filter(|_| digits)
        .and_then(|value| value.parse().ok())
        .ok_or(Malformed("Content-Length is not a number"))
}

/// RFC 3986 §3.2 without user information (RFC 9113 §8.3.1).
fn check_authority(authority: &[u8]) -> Result<(), Malformed> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(&byte);
    if authority.is_empty() || !authority.iter().copied().all(allowed) {
        return Err(Malformed("authority is no host and port"));
    }
    Ok(())
}

fn check_scheme(scheme: &[u8]) -> Result<(), Malformed> {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    match scheme.split_first() {
        Some((first, tail)) if first.is_ascii_alphabetic() && tail.iter().copied().all(rest) => Ok(()),
        _ => Err(Malformed(":scheme is no scheme")),
    }
}

fn check_path(path: &[u8], method: &[u8]) -> Result<(), Malformed> {
    let asterisk = path == b"*" && method == b"OPTIONS";
    if path.first() != Some(&b'/') && !asterisk {
        return Err(Malformed(":path does not begin with a slash"));
    }
    if path.iter().any(|&byte| byte <= b' ' || byte == 0x7f || byte == b'#')
        || std::str::from_utf8(path).is_err()
    {
        return Err(Malformed(":path has a character that no path has"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
