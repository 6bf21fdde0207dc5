//! Content that is sent while it comes, and kept for another attempt for as long as there may be one.

use super::Receiver;
use crate::http2::{stream::Piece, streams::Ended};

/// A request's content: what was already taken of it can be taken once more after [`Kept::rewind`].
pub(super) struct Kept<'a, R> {
    client: &'a mut R,
    /// Bytes that may be kept.
    most: usize,
    kept: Vec<u8>,
    /// How many of the kept bytes this attempt has taken.
    given: usize,
    ended: bool,
    gone: bool,
}

impl<'a, R> Kept<'a, R> {
    pub fn new(client: &'a mut R, most: usize) -> Self {
        Self { client, most, kept: Vec::new(), given: 0, ended: false, gone: false }
    }

    /// The next attempt begins with the first byte.
    pub fn rewind(&mut self) {
        debug_assert!(!self.gone, "there is no other attempt without the content");
        self.given = 0;
    }

    fn keep(&mut self, content: &[u8]) {
        if self.gone || self.kept.len() + content.len() > self.most {
            return self.lose();
        }
        self.kept.extend_from_slice(content);
        self.given = self.kept.len();
    }

    fn lose(&mut self) {
        self.gone = true;
        self.kept = Vec::new();
        self.given = 0;
    }
}

impl<R: Receiver> Receiver for Kept<'_, R> {
    async fn piece(&mut self, into: &mut Vec<u8>) -> Result<Piece, Ended> {
        if self.given < self.kept.len() {
            into.extend_from_slice(&self.kept[self.given..]);
            self.given = self.kept.len();
            return Ok(Piece::Content);
        }
        if self.ended {
            return Ok(Piece::End);
        }
        let before = into.len();
        let piece = self.client.piece(into).await?;
        match &piece {
            Piece::Content => self.keep(&into[before..]),
            Piece::End => self.ended = true,
            // Requests hardly ever have them.
            Piece::Trailers(_) => self.lose(),
        }
        Ok(piece)
    }

    fn is_replayable(&mut self, wanted: bool) -> bool {
        if !wanted {
            self.lose();
        }
        !self.gone
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    /// Gives these pieces, then the end.
    struct Client(Vec<&'static [u8]>);

    impl Receiver for Client {
        async fn piece(&mut self, into: &mut Vec<u8>) -> Result<Piece, Ended> {
            if self.0.is_empty() {
                return Ok(Piece::End);
            }
            into.extend_from_slice(self.0.remove(0));
            Ok(Piece::Content)
        }
    }

    fn take(kept: &mut Kept<'_, Client>, pieces: usize) -> Vec<u8> {
        let mut content = Vec::new();
        for _ in 0..pieces {
            block_on(kept.piece(&mut content)).expect("a piece");
        }
        content
    }

    #[test]
    fn another_attempt_has_what_the_first_took_and_then_the_rest() {
        let mut client = Client(vec![b"one ", b"two ", b"three"]);
        let mut kept = Kept::new(&mut client, 64);
        assert_eq!(take(&mut kept, 2), b"one two ");
        assert!(kept.is_replayable(true));
        kept.rewind();
        assert_eq!(take(&mut kept, 1), b"one two ");
        assert_eq!(take(&mut kept, 2), b"three");
        kept.rewind();
        let mut content = Vec::new();
        assert_eq!(block_on(kept.piece(&mut content)).expect("all"), Piece::Content);
        assert_eq!(content, b"one two three");
        assert_eq!(block_on(kept.piece(&mut content)).expect("the end"), Piece::End);
    }

    #[test]
    fn nothing_is_kept_beyond_the_limit_or_after_the_response_has_begun() {
        let mut client = Client(vec![b"four", b"more"]);
        let mut kept = Kept::new(&mut client, 7);
        take(&mut kept, 1);
        assert!(kept.is_replayable(true));
        take(&mut kept, 1);
        assert!(!kept.is_replayable(true) && kept.kept.capacity() == 0);

        let mut client = Client(vec![b"four", b"more"]);
        let mut kept = Kept::new(&mut client, 64);
        take(&mut kept, 1);
        assert!(!kept.is_replayable(false) && kept.kept.capacity() == 0);
        assert_eq!(take(&mut kept, 1), b"more");
        assert!(!kept.is_replayable(true));
    }
}
