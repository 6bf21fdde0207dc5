//! A request and its response where either side speaks HTTP/2.
//!
//! Messages are HTTP/2's here: a head as [`Fields`], content in pieces, trailers. Whoever speaks HTTP/1
//! is translated at the edge ([`http1`]); between two that speak HTTP/2 nothing is. Requests that are HTTP/1 on
//! both sides do not come this way: [`crate::http1`] forwards them without taking them apart.
//!
//! ```text
//!   client ── Receiver ─▶ attempt ── Sender ───▶ endpoint
//!          ◀─ Sender ───    │  ▲ ◀── Receiver ──
//!                           ▼  │ failed before anything was forwarded
//!                          retry
//! ```

mod attempt;
pub mod fields;
pub mod http1;
mod replay;
mod stall;
mod upstream;

use std::{cell::Cell, pin::pin, rc::Rc, task::Poll};

use ferrule_config::HeaderChange;
use futures::{
    future::{Either, select},
    poll,
};

use crate::{
    cause::Cause,
    http2::{
        fields::Fields,
        stream::{Piece, Stream},
        streams::Ended,
    },
    retry::Replay,
    serve::attempts::{self, Attempts, Head, Terms},
    telemetry::{GrpcStatus, Notes},
    worker::{Direction, Worker},
};
use attempt::{Attempt, Failed};
use replay::Kept;
use stall::Progress;

/// A request body is kept for another attempt up to this size, in bytes (Linkerd's limit).
const MOST_REPLAYED: usize = 64 * 1024;

/// What a client is told whose request goes wrong after its head.
const MALFORMED: &str = "the request's chunks or trailers are malformed";

/// Where content and trailers come from.
pub trait Receiver {
    /// Appends content to `into`, or tells how the message ends.
    ///
    /// # Errors
    /// How it ended instead.
    async fn piece(&mut self, into: &mut Vec<u8>) -> Result<Piece, Ended>;

    /// Whether all that it gave can be given again; when that is not wanted any more, it never can again.
    fn is_replayable(&mut self, _wanted: bool) -> bool {
        false
    }
}

/// Where content and trailers go to.
pub trait Sender {
    /// Sends content; with `end` it is the last.
    ///
    /// # Errors
    /// How the message ended instead.
    async fn content(&mut self, content: &[u8], end: bool) -> Result<(), Ended>;

    /// Sends trailers, which end the message.
    ///
    /// # Errors
    /// How the message ended instead.
    async fn trailers(&mut self, trailers: &Fields) -> Result<(), Ended>;

    /// Sends what was held back for content that may come with it.
    ///
    /// # Errors
    /// How the message ended instead.
    async fn flush(&mut self) -> Result<(), Ended> {
        Ok(())
    }
}

/// Where a response goes to.
pub trait Responder: Sender {
    /// Sends a head, interim or final; with `end` the response has no content. A final one may be held back until there is
    /// content, or [`Sender::flush`]. `trusted`: the endpoint is behind a sidecar, so its `ferrule-error` is that sidecar's
    /// word.
    ///
    /// # Errors
    /// How the message ended instead.
    async fn head(
        &mut self,
        head: &Fields,
        end: bool,
        changes: &HeaderChange,
        trusted: bool,
    ) -> Result<(), Ended>;

    /// Waits until the client does not want the response any more.
    fn gone(&self) -> impl Future<Output = ()> + use<Self>;
}

/// What is to be sent, and by which rules.
pub struct Plan<'a> {
    /// Head of the request, checked.
    pub head: &'a Fields,
    /// The request has no content.
    pub end: bool,
    /// Whether the endpoint is spoken to in HTTP/2.
    pub http2: bool,
    /// Changes on the way there.
    pub request_headers: &'a HeaderChange,
    /// What was decided on it.
    pub terms: Terms<'a>,
}

/// How an exchange ended.
#[derive(Debug)]
pub enum Outcome {
    /// The response was forwarded as a whole.
    Responded(u16),
    /// Nothing was forwarded; the client is to be told why.
    Failed(Cause, String),
    /// The response broke off after it had begun, or the client is gone.
    Broken(Option<u16>),
}

/// The content of a request.
enum Body<'a, R> {
    /// All of it is at hand and can be sent again.
    Whole(Vec<u8>, Option<Fields>),
    /// It comes from the client while it is sent.
    Streaming(Kept<'a, R>),
}

/// Sends the request and forwards the response.
pub async fn run(
    client: &mut impl Receiver,
    whole: bool,
    reply: &mut impl Responder,
    plan: &Plan<'_>,
    worker: &Rc<Worker>,
) -> Outcome {
    let mut attempts = Attempts::begin(&plan.terms, worker);
    let mut body = match collect(client, whole, plan).await {
        Ok(body) => body,
        Err(Ended::Faulty) => return Outcome::Failed(Cause::BadRequest, MALFORMED.to_owned()),
        Err(ended) => {
            tracing::debug!(?ended, "the client broke off its request");
            return Outcome::Broken(None);
        }
    };
    let idempotent = crate::message::is_idempotent(plan.head.method());
    loop {
        let to = match attempts.next() {
            Ok(to) => to,
            Err((cause, detail)) => return Outcome::Failed(cause, detail),
        };
        let changes = attempts::changes_of_attempt(plan.head, plan.request_headers, &plan.terms, to.number);
        let plan = &Plan { request_headers: &changes, ..*plan };
        let attempt = Attempt { plan, worker, to, attempts: &attempts };
        let Failed { failure, cause, detail, reused, taken } = match attempt.run(&mut body, reply).await {
            Ok(outcome) => return outcome,
            Err(failed) => failed,
        };
        let replay = Replay { idempotent, complete: !taken };
        let Some(pause) = attempts.again(&to, (failure, cause), reused, replay, Head::Fields(plan.head))
        else {
            return Outcome::Failed(cause, detail);
        };
        if !pause.is_zero() {
            let gone = pin!(reply.gone());
            if let Either::Right(_) = select(Box::pin(tokio::time::sleep(pause)), gone).await {
                return Outcome::Broken(None);
            }
        }
        if let Body::Streaming(kept) = &mut body {
            kept.rewind();
        }
    }
}

async fn collect<'a, R: Receiver>(
    client: &'a mut R,
    whole: bool,
    plan: &Plan<'_>,
) -> Result<Body<'a, R>, Ended> {
    if plan.end {
        return Ok(Body::Whole(Vec::new(), None));
    }
    if !whole {
        // An application is the only endpoint of its pod's sidecar.
        let most = if plan.terms.direction == Direction::Outbound { MOST_REPLAYED } else { 0 };
        return Ok(Body::Streaming(Kept::new(client, most)));
    }
    let mut content = Vec::new();
    loop {
        match client.piece(&mut content).await? {
            Piece::Content => {}
            Piece::Trailers(trailers) => return Ok(Body::Whole(content, Some(trailers))),
            Piece::End => return Ok(Body::Whole(content, None)),
        }
    }
}

/// Whether a stream's request can be kept for another attempt as it lies there.
#[must_use]
pub fn is_whole(stream: &Stream) -> bool {
    stream.is_received() && stream.at_hand() <= MOST_REPLAYED
}

/// Which side of a transfer failed.
enum Transfer {
    From(Ended),
    To,
}

/// Forwards content and trailers until the message has ended. `waits`: is set while `from` is waited for, and while `to`
/// is.
async fn forward(
    from: &mut impl Receiver,
    to: &mut impl Sender,
    space: &mut Vec<u8>,
    progress: &Progress,
    (from_waits, to_waits): (Option<&Cell<bool>>, Option<&Cell<bool>>),
    notes: &Notes,
) -> Result<(), Transfer> {
    let note = |cell: Option<&Cell<bool>>, waits| {
        if let Some(cell) = cell {
            cell.set(waits);
        }
    };
    loop {
        space.clear();
        note(from_waits, true);
        let piece = {
            let mut piece = pin!(from.piece(space));
            match poll!(piece.as_mut()) {
                Poll::Ready(piece) => piece,
                Poll::Pending => {
                    note(to_waits, true);
                    to.flush().await.map_err(|_| Transfer::To)?;
                    note(to_waits, false);
                    piece.await
                }
            }
        };
        note(from_waits, false);
        note(to_waits, true);
        let piece = match piece {
            Ok(piece) => piece,
            Err(ended) => {
                to.flush().await.map_err(|_| Transfer::To)?;
                return Err(Transfer::From(ended));
            }
        };
        if from_waits.is_some() {
            progress.taken.set(!from.is_replayable(progress.forwarded.get().is_none()));
        } else if let Piece::Trailers(trailers) = &piece
            && let Some(code) = trailers.value(b"grpc-status")
        {
            notes.grpc.set(GrpcStatus::of(code));
        }
        progress.moved.set(true);
        let (sent, last) = match piece {
            Piece::Content => (to.content(space, false).await, false),
            Piece::End => (to.content(&[], true).await, true),
            Piece::Trailers(trailers) => {
                let sent = to.trailers(&trailers).await;
                trailers.give_back();
                (sent, true)
            }
        };
        sent.map_err(|_| Transfer::To)?;
        if from_waits.is_some() {
            notes.sent(space.len());
        } else {
            notes.received(space.len());
        }
        note(to_waits, false);
        progress.moved.set(true);
        if last {
            return Ok(());
        }
    }
}

impl Receiver for &Stream {
    async fn piece(&mut self, into: &mut Vec<u8>) -> Result<Piece, Ended> {
        Stream::piece(self, into).await
    }
}

impl Sender for &Stream {
    async fn content(&mut self, content: &[u8], end: bool) -> Result<(), Ended> {
        self.send(content, end).await
    }

    async fn trailers(&mut self, trailers: &Fields) -> Result<(), Ended> {
        self.send_section(true, |each| fields::trailers(trailers, each));
        Ok(())
    }
}

impl<'a> Responder for &'a Stream {
    async fn head(
        &mut self,
        head: &Fields,
        end: bool,
        changes: &HeaderChange,
        trusted: bool,
    ) -> Result<(), Ended> {
        self.send_section(end, |each| fields::response(head, changes, trusted, each));
        Ok(())
    }

    fn gone(&self) -> impl Future<Output = ()> + use<'a> {
        let stream: &'a Stream = self;
        async move {
            stream.ended().await;
        }
    }
}
