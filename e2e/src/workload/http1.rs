//! HTTP/1.1 on the wire (RFC 9112), as much as the test programs need, with header fields as they came.

use std::io::{Error, ErrorKind, Result};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const MAX_HEADERS: usize = 128;

/// Header fields in the order and with the case in which they were sent.
pub type Headers = Vec<(String, String)>;

/// Request line and header of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Method.
    pub method: String,
    /// Target, path and query.
    pub target: String,
    /// Header fields.
    pub headers: Headers,
}

/// Status line and header of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Status code.
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After this many bytes.
    Length(usize),
    /// With the last chunk.
    Chunked,
    /// With the end of the connection.
    UntilClose,
}

impl Framing {
    /// Framing of the body of a request with these header fields.
    ///
    /// # Errors
    /// A length that is not a number.
    pub fn of_request(headers: &Headers) -> Result<Self> {
        Ok(Self::declared(headers)?.unwrap_or(Self::Length(0)))
    }

    /// Framing of the body of a response to a request of this method.
    ///
    /// # Errors
    /// A length that is not a number.
    pub fn of_response(method: &str, head: &ResponseHead) -> Result<Self> {
        if method == "HEAD" || matches!(head.status, 100..=199 | 204 | 304) {
            return Ok(Self::Length(0));
        }
        Ok(Self::declared(&head.headers)?.unwrap_or(Self::UntilClose))
    }

    fn declared(headers: &Headers) -> Result<Option<Self>> {
        if find(headers, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Ok(Some(Self::Chunked));
        }
        let Some(length) = find(headers, "content-length") else {
            return Ok(None);
        };
        let length = length.parse().map_err(|_| invalid(format!("Content-Length is {length:?}")))?;
        Ok(Some(Self::Length(length)))
    }
}

/// Value of the first field of this name, whatever its case.
#[must_use]
pub fn find<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Whether the sender ends the connection after this message.
#[must_use]
pub fn closes(headers: &Headers) -> bool {
    find(headers, "connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"))
}

/// A connection and what was read from it and not used yet.
pub struct Connection<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Wraps a fresh connection.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::with_capacity(8 * 1024) }
    }

    /// Whether nothing of a next message has come in.
    pub fn is_idle(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Waits for more bytes; 0 means that the other side has ended the connection. Nothing is lost when the
    /// future is dropped.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn fill(&mut self) -> Result<usize> {
        self.stream.read_buf(&mut self.buffer).await
    }

    /// Sends all of this.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Next request; `None` when the connection ended in between.
    ///
    /// # Errors
    /// Those of the socket, a malformed request, an end in the middle of one.
    pub async fn request_head(&mut self) -> Result<Option<RequestHead>> {
        loop {
            if let Some((head, length)) = parse_request(&self.buffer)? {
                self.buffer.advance(length);
                return Ok(Some(head));
            }
            if self.fill().await? == 0 {
                return if self.is_idle() { Ok(None) } else { Err(ended("a request's header")) };
            }
        }
    }

    /// Next final response; interim ones (1xx) are skipped.
    ///
    /// # Errors
    /// Those of the socket, a malformed response, an end before or in the middle of it.
    pub async fn response_head(&mut self) -> Result<ResponseHead> {
        loop {
            if let Some((head, length)) = parse_response(&self.buffer)? {
                self.buffer.advance(length);
                if head.status >= 200 {
                    return Ok(head);
                }
            } else if self.fill().await? == 0 {
                let where_ = if self.is_idle() { "a response's first byte" } else { "a response's header" };
                return Err(ended(where_));
            }
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// Those of the socket, malformed chunks, an end before the body's.
    pub async fn body(&mut self, framing: Framing) -> Result<Vec<u8>> {
        match framing {
            Framing::Length(length) => self.take(length, "a body").await,
            Framing::Chunked => self.chunks().await,
            Framing::UntilClose => {
                while self.fill().await? > 0 {}
                Ok(std::mem::take(&mut self.buffer).to_vec())
            }
        }
    }

    async fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(digits, 16).map_err(|_| invalid(format!("chunk size {line:?}")))?;
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(size, "a chunk").await?);
            if !self.line().await?.is_empty() {
                return Err(invalid("a chunk is longer than its size".to_owned()));
            }
        }
    }

    async fn take(&mut self, length: usize, what: &str) -> Result<Vec<u8>> {
        while self.buffer.len() < length {
            if self.fill().await? == 0 {
                return Err(ended(what));
            }
        }
        Ok(self.buffer.split_to(length).to_vec())
    }

    async fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.split_to(end + 2);
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.fill().await? == 0 {
                return Err(ended("a chunk's size"));
            }
        }
    }
}

fn parse_request(bytes: &[u8]) -> Result<Option<(RequestHead, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = request.parse(bytes).map_err(|error| malformed(error, bytes))?
    else {
        return Ok(None);
    };
    let head = RequestHead {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        headers: owned(request.headers),
    };
    Ok(Some((head, length)))
}

fn parse_response(bytes: &[u8]) -> Result<Option<(ResponseHead, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) =
        response.parse(bytes).map_err(|error| malformed(error, bytes))?
    else {
        return Ok(None);
    };
    let head = ResponseHead { status: response.code.unwrap_or_default(), headers: owned(response.headers) };
    Ok(Some((head, length)))
}

fn owned(fields: &[httparse::Header<'_>]) -> Headers {
    fields
        .iter()
        .map(|field| (field.name.to_owned(), String::from_utf8_lossy(field.value).into_owned()))
        .collect()
}

fn malformed(error: httparse::Error, bytes: &[u8]) -> Error {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
    invalid(format!("not HTTP/1.1 ({error}): {start:?}"))
}

fn invalid(reason: String) -> Error {
    Error::new(ErrorKind::InvalidData, reason)
}

fn ended(before: &str) -> Error {
    Error::new(ErrorKind::UnexpectedEof, format!("connection ended before the end of {before}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn connection(bytes: &'static [u8]) -> Connection<tokio::io::DuplexStream> {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            for byte in bytes {
                theirs.write_all(&[*byte]).await.expect("reader is there");
            }
        });
        Connection::new(ours)
    }

    #[tokio::test]
    async fn header_fields_keep_their_case_and_order() {
        let mut connection =
            connection(b"GET /a?b HTTP/1.1\r\nX-MiXed: 1\r\nhost: h\r\nX-MiXed: 2\r\n\r\n").await;
        let head = connection.request_head().await.expect("well formed").expect("a request");
        let names: Vec<_> = head.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((head.target.as_str(), names), ("/a?b", vec!["X-MiXed", "host", "X-MiXed"]));
        assert_eq!(connection.request_head().await.expect("clean end"), None);
    }

    #[tokio::test]
    async fn chunks_are_put_together_and_the_next_message_stays() {
        let mut connection = connection(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        )
        .await;
        let head = connection.response_head().await.expect("well formed");
        let framing = Framing::of_response("GET", &head).expect("framed");
        assert_eq!(connection.body(framing).await.expect("whole"), b"abcde");
        assert_eq!(connection.response_head().await.expect("well formed").status, 204);
    }

    #[tokio::test]
    async fn a_body_cut_short_is_an_error() {
        let mut connection = connection(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc").await;
        let head = connection.response_head().await.expect("well formed");
        let framing = Framing::of_response("GET", &head).expect("framed");
        let error = connection.body(framing).await.expect_err("cut short");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}
