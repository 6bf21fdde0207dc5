//! One request and its response: attempts, each to one endpoint, until one of them responds.
//!
//! ```text
//!   plan (head, rule, replay) ─▶ pick endpoint ─▶ connect ─▶ send ∥ receive ─▶ done
//!                                     ▲                          │ failed before anything was forwarded
//!                                     └──── retry allows ◀───────┘
//! ```

mod attempt;
mod receive;
mod send;

use self::{attempt::Attempt, send::Outgoing};
use super::timer::Timer;
use crate::{
    act::Answer,
    buffer::Buffer,
    cause::Cause,
    http1::{body::Framing, head::Version},
    serve::attempts::{Attempts, Head, Terms},
    stream::Stream,
    worker::Worker,
};

/// A request as it is to be sent, with all that its response depends on.
pub(super) struct Plan<'a> {
    /// Rewritten head.
    pub head: &'a [u8],
    pub framing: Framing,
    pub version: Version,
    pub keep_alive: bool,
    pub to_head: bool,
    pub to_connect: bool,
    pub upgrade: bool,
    pub expects_continue: bool,
    pub idempotent: bool,
    pub terms: Terms<'a>,
}

/// How an exchange ended.
pub(super) enum End<'a> {
    /// The response was forwarded as a whole. `reusable`: the client's connection can carry another request.
    Responded { status: u16, reusable: bool },
    /// The connection speaks another protocol now.
    Tunnel { status: u16, upstream: Stream, pending: Buffer },
    /// Nothing was sent anywhere: this is the answer.
    Answered(&'a Answer),
    /// Nothing was forwarded; the client is to be told why. `untouched`: what it has sent of the body still lies in
    /// the buffer.
    Failed { cause: Cause, detail: String, untouched: bool },
    /// The response broke off after it had begun, or the client is gone: the client's connection must be closed.
    Broken { status: Option<u16>, why: &'static str },
}

/// Sends the request and forwards the response. `read` holds what the client has sent after the head; what of it
/// belongs to the request is used up.
pub(super) async fn run(
    client: &mut Stream,
    read: &mut Buffer,
    timer: &mut Timer<'_>,
    plan: &Plan<'_>,
    worker: &Worker,
) -> End<'static> {
    let mut request = match Outgoing::new(plan.framing, read) {
        Ok(request) => request,
        Err(error) => {
            let detail = format!("request body: {error}");
            return End::Failed { cause: Cause::BadRequest, detail, untouched: false };
        }
    };
    let mut attempts = Attempts::begin(&plan.terms, worker);
    loop {
        let to = match attempts.next() {
            Ok(to) => to,
            Err((cause, detail)) => return End::Failed { cause, detail, untouched: true },
        };
        // What is not needed while it is waited ends before: a connection would have room for it while it idles.
        let pause = {
            let attempt = Attempt::new(plan, worker, to, &attempts);
            let (error, reused) = match attempt.run(client, read, timer, &mut request).await {
                Ok(end) => return end,
                Err(failed) => failed,
            };
            let replay = request.replay(plan.idempotent);
            let again =
                attempts.again(&to, (error.failure, error.cause), reused, replay, Head::Bytes(plan.head));
            match again {
                Some(pause) => pause,
                None => {
                    let untouched = replay.complete;
                    return End::Failed { cause: error.cause, detail: error.detail, untouched };
                }
            }
        };
        if !pause.is_zero() {
            // Boxed, as what few requests need.
            Box::pin(tokio::time::sleep(pause)).await;
        }
    }
}
