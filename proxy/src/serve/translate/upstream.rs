//! The endpoint's side: a stream of an HTTP/2 connection, or an HTTP/1 connection of its own.

use std::{io, rc::Rc};

use super::{Plan, Receiver, fields, http1};
use crate::{
    balance::Endpoint,
    http2::{
        fields::Fields,
        stream::{Piece, Stream},
        streams::Ended,
    },
    message::is_idempotent,
    telemetry::Use,
    worker::Worker,
};

/// A response that is to come.
pub(super) trait Respond: Receiver {
    /// The next head: interim ones, then the final one.
    async fn head(&mut self) -> Result<Fields, Ended>;

    /// Whether the response ends with the head that was received.
    fn is_ended(&self) -> bool;
}

/// A request whose head was sent, and whether its connection had carried others before.
pub(super) enum Opened {
    Http2(Stream, bool),
    Http1(Box<http1::Upstream>, bool),
}

/// Sends the head of a request to an endpoint.
pub(super) async fn open(
    plan: &Plan<'_>,
    endpoint: &Endpoint,
    end: bool,
    worker: &Rc<Worker>,
) -> io::Result<Opened> {
    if !plan.http2 {
        let repeatable = end && is_idempotent(plan.head.method());
        let (stream, is_new) = worker.connection(plan.terms.direction, endpoint, repeatable).await?;
        return Ok(Opened::Http1(Box::new(http1::Upstream::new(stream, plan, end).await?), !is_new));
    }
    loop {
        let direction = plan.terms.direction;
        let count = |r#use| worker.recorder.pool(direction, true, r#use);
        let connection =
            worker.upstreams(direction).connection(endpoint, worker.http2_settings(direction)).await;
        let (connection, is_new) = connection.inspect_err(|_| count(Use::Failed))?;
        let bodiless = plan.head.method() == "HEAD";
        let head = |each: fields::Each<'_>| fields::request(plan.head, plan.request_headers, each);
        if let Some(stream) = connection.open(bodiless, end, head) {
            count(if is_new { Use::New } else { Use::Reused });
            return Ok(Opened::Http2(stream, !is_new));
        }
    }
}

/// The response side of a stream.
pub(super) struct Response<'a>(pub &'a Stream);

impl Receiver for Response<'_> {
    async fn piece(&mut self, into: &mut Vec<u8>) -> Result<Piece, Ended> {
        self.0.piece(into).await
    }
}

impl Respond for Response<'_> {
    async fn head(&mut self) -> Result<Fields, Ended> {
        self.0.response_head().await
    }

    fn is_ended(&self) -> bool {
        self.0.is_at_end()
    }
}
