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
    stream::Stream as Socket,
    telemetry::Use,
    tls::{
        alpn::Alpn,
        dial::{Repeat, Way, to_repeat},
        expected::PlainReason,
    },
    worker::{Direction, Worker},
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
    let direction = plan.terms.direction;
    let mut newer = None;
    loop {
        let expected = newer.as_deref().or(plan.terms.cluster.expected.as_deref());
        let way = match direction {
            Direction::Outbound => worker.dialer.way(endpoint.address, expected)?,
            Direction::Inbound => Way::Plain(PlainReason::OwnPod),
        };
        let secured = match &way {
            Way::Plain(_) => None,
            Way::Tls(secured) if plan.http2 => Some((secured, Alpn::Http2)),
            Way::Tls(secured) => Some((secured, Alpn::Http2ForHttp1)),
        };
        if !plan.http2 && secured.is_none() {
            let repeatable = end && is_idempotent(plan.head.method());
            let (stream, is_new) = worker.connection(direction, endpoint, expected, repeatable).await?;
            return Ok(Opened::Http1(Box::new(http1::Upstream::new(stream, plan, end).await?), !is_new));
        }
        let count = |r#use| worker.recorder.pool(direction, true, r#use);
        let dial = async || {
            let limit = worker.limits.connecting(direction);
            match (secured, &way) {
                (Some((secured, alpn)), _) => {
                    let made = worker.dialer.secure(endpoint, secured, alpn, limit, &worker.limits).await;
                    made.map(|stream| Socket::Tls(Box::new(stream)))
                }
                (None, Way::Plain(reason)) if direction == Direction::Outbound => {
                    worker.dialer.plain(endpoint, *reason, limit).await.map(Socket::Plain)
                }
                _ => crate::net::connect_either(endpoint.address, endpoint.other(), limit)
                    .await
                    .map(Socket::Plain),
            }
        };
        let upstreams = worker.upstreams(direction);
        let made = upstreams.connection(endpoint.address, secured, worker.http2_settings(), dial).await;
        let (connection, is_new) = match made {
            Ok(made) => made,
            Err(error) => match to_repeat(error, expected, newer.is_some()).await {
                Ok(Repeat::AsBefore) => continue,
                Ok(Repeat::With(found)) => {
                    newer = Some(found);
                    continue;
                }
                Err(error) => {
                    count(Use::Failed);
                    return Err(error);
                }
            },
        };
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
