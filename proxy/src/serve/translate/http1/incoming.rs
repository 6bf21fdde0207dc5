//! A message's content and trailers as they come in over HTTP/1.

use crate::{
    buffer::Buffer,
    http1::body::{Body, Framing},
    http2::{fields::Fields, stream::Piece, streams::Ended},
    stream::Shared,
};

/// A message body that is being read.
#[derive(Debug)]
pub struct Incoming {
    body: Body,
    /// The trailer section, as far as it was read.
    trailers: Vec<u8>,
}

impl Incoming {
    /// A body with this framing, before its first byte.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self { body: Body::new(framing), trailers: Vec::new() }
    }

    /// Whether the last byte was read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.body.is_done()
    }

    /// Appends content that was read, or waits for some.
    ///
    /// # Errors
    /// `Faulty` when the framing can't be followed, `Gone` when the connection ended before the message.
    pub async fn piece(
        &mut self,
        read: &mut Buffer,
        from: &mut Shared<'_>,
        into: &mut Vec<u8>,
    ) -> Result<Piece, Ended> {
        loop {
            let before = into.len();
            while !self.body.is_done() && !read.is_empty() {
                let in_trailers = self.body.is_in_trailers();
                let step = self.body.step(read.data()).map_err(|_| Ended::Faulty)?;
                if in_trailers {
                    self.trailers.extend_from_slice(&read.data()[..step.used]);
                }
                into.extend_from_slice(&read.data()[step.content]);
                read.consume(step.used);
            }
            if into.len() > before {
                return Ok(Piece::Content);
            }
            if self.body.is_done() {
                return self.end();
            }
            match read.fill(from).await {
                Ok(0) if self.body.may_end() => return Ok(Piece::End),
                Ok(0) | Err(_) => return Err(Ended::Gone),
                Ok(_) => {}
            }
        }
    }

    fn end(&mut self) -> Result<Piece, Ended> {
        let section = std::mem::take(&mut self.trailers);
        let lines = section.split(|&byte| byte == b'\n').filter_map(|line| line.strip_suffix(b"\r"));
        let mut fields = Fields::take();
        for line in lines.filter(|line| !line.is_empty()) {
            let colon = line.iter().position(|&byte| byte == b':').ok_or(Ended::Faulty)?;
            fields.push_lower(&line[..colon], line[colon + 1..].trim_ascii());
        }
        if fields.is_empty() {
            return Ok(Piece::End);
        }
        fields.as_trailers().map_err(|_| Ended::Faulty)?;
        Ok(Piece::Trailers(fields))
    }
}
