//! One attempt at one endpoint.

use std::{
    io,
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use ferrule_config::names::ERROR_HEADER;
use futures::future::{Either, select};

use super::{
    Body, MALFORMED, Outcome, Plan, Receiver, Responder, Sender, Transfer, forward,
    stall::{Progress, stalled},
    upstream::{self, Opened},
};
use crate::{
    balance::Load,
    buffer,
    cause::Cause,
    http2::{fields::Fields, frame::Code, streams::Ended},
    limits::Limit,
    message::is_idempotent,
    retry::{self, Failure, Replay},
    serve::attempts::{self, Attempts, Head},
    telemetry::GrpcStatus,
    worker::Worker,
};

pub(super) struct Attempt<'a> {
    pub plan: &'a Plan<'a>,
    pub worker: &'a Rc<Worker>,
    pub to: attempts::Attempt<'a>,
    pub attempts: &'a Attempts<'a>,
}

/// An attempt that failed before anything was forwarded.
#[derive(Debug)]
pub(super) struct Failed {
    pub failure: Failure,
    pub cause: Cause,
    pub detail: String,
    /// It was made on a connection that had carried others before.
    pub reused: bool,
    /// Content was taken from the client and can't be sent again.
    pub taken: bool,
}

enum Stop {
    Failed(Failed),
    Broken,
}

impl Attempt<'_> {
    /// Sends the request and forwards the response.
    pub async fn run<R: Receiver>(
        &self,
        body: &mut Body<'_, R>,
        reply: &mut impl Responder,
    ) -> Result<Outcome, Failed> {
        let progress = Progress::default();
        let limits = &self.worker.limits;
        let deadline = self.plan.terms.deadline();
        let result = {
            // Pinned where it is made: it is large, and moving it would copy all of it.
            let attempt = pin!(async {
                let exchange = pin!(self.exchange(body, &mut *reply, &progress));
                let stalled = pin!(stalled(&progress, limits));
                let exchange = select(exchange, stalled);
                let result = match self.plan.terms.attempt_deadlines(self.to.began) {
                    (None, None) => Either::Left(exchange.await),
                    times => match select(exchange, Box::pin(attempt_expired(times, &progress))).await {
                        Either::Left((result, _)) => Either::Left(result),
                        Either::Right(_) => Either::Right(()),
                    },
                };
                match result {
                    Either::Left(Either::Left((result, _))) => result,
                    Either::Left(Either::Right((limit, _))) => Err(self.stalled(limit, &progress)),
                    Either::Right(()) if progress.forwarded.get().is_some() => Err(Stop::Broken),
                    Either::Right(()) => {
                        let (address, service) = (self.to.endpoint.address, &self.plan.terms.cluster.service);
                        let detail = format!("no response of {address} of {service} in time");
                        Err(self.failed(Failure::TimedOut, Cause::Timeout, detail))
                    }
                }
            });
            match deadline {
                None => Some(attempt.await),
                Some(deadline) => tokio::time::timeout_at(deadline.into(), attempt).await.ok(),
            }
        };
        let stopped = match result {
            Some(result) => result,
            None if progress.forwarded.get().is_some() => self.cut_short(reply, &progress).await,
            None => {
                let (cause, detail) = self.plan.terms.expired();
                Err(self.failed(Failure::Final, cause, detail))
            }
        };
        match stopped {
            Ok(status) => {
                self.to.responded();
                Ok(Outcome::Responded(status))
            }
            Err(Stop::Broken) => Ok(Outcome::Broken(progress.forwarded.get())),
            Err(Stop::Failed(failed)) => Err(Failed { taken: progress.taken.get(), ..failed }),
        }
    }

    /// The time of a request is over whose response has begun. A call of gRPC is told so, as its trailers can.
    async fn cut_short(&self, reply: &mut impl Responder, progress: &Progress) -> Result<u16, Stop> {
        let Some(status) = progress.forwarded.get().filter(|_| self.plan.head.is_grpc()) else {
            return Err(Stop::Broken);
        };
        let code = Cause::Deadline.grpc_status();
        let mut trailers = Fields::take();
        trailers.push(b"grpc-status", code.to_string().as_bytes());
        trailers.push(b"grpc-message", b"ferrule: the time of the call is over");
        trailers.push(ERROR_HEADER.as_bytes(), Cause::Deadline.name().as_bytes());
        let sent = reply.trailers(&trailers).await;
        trailers.give_back();
        sent.map_err(|_| Stop::Broken)?;
        self.plan.terms.notes.grpc.set(GrpcStatus::Code(code));
        Ok(status)
    }

    async fn exchange<R: Receiver>(
        &self,
        body: &mut Body<'_, R>,
        reply: &mut impl Responder,
        progress: &Progress,
    ) -> Result<u16, Stop> {
        let _load = Load::begin(self.to.endpoint);
        let left = reply.gone();
        let end = match body {
            Body::Whole(content, trailers) => content.is_empty() && trailers.is_none(),
            Body::Streaming(_) => false,
        };
        let opened = upstream::open(self.plan, self.to.endpoint, end, self.worker).await;
        match opened.map_err(|error| self.connect_failed(&error))? {
            Opened::Http2(stream, reused) => {
                self.talk(
                    left,
                    body,
                    end,
                    reply,
                    &mut &stream,
                    &mut upstream::Response(&stream),
                    progress,
                    reused,
                )
                .await
            }
            Opened::Http1(connection, reused) => {
                let (mut sender, mut receiver) = connection.split();
                let status =
                    self.talk(left, body, end, reply, &mut sender, &mut receiver, progress, reused).await?;
                let reusable = sender.is_done() && receiver.is_reusable();
                drop((sender, receiver));
                if reusable && let crate::stream::Stream::Plain(stream) = connection.into_stream() {
                    let pool = self.worker.pool(self.plan.terms.direction);
                    pool.put(self.to.endpoint.address, stream, Instant::now());
                }
                Ok(status)
            }
        }
    }

    /// Sends and receives at once: a server may respond before it has read the whole request.
    #[expect(
        clippy::too_many_arguments,
        reason = "the two ends of both directions, and what is known of them"
    )]
    async fn talk<R: Receiver>(
        &self,
        left: impl Future<Output = ()>,
        body: &mut Body<'_, R>,
        end: bool,
        reply: &mut impl Responder,
        to: &mut impl Sender,
        from: &mut impl upstream::Respond,
        progress: &Progress,
        reused: bool,
    ) -> Result<u16, Stop> {
        let mut sending = pin!(async { if end { Ok(()) } else { self.send(body, to, progress).await } });
        let mut sent = end;
        let mut left = pin!(left);
        let (mut final_head, mut interim) = (None, 0);
        // Until the response begins, also the client's leaving is noticed.
        while final_head.is_none() {
            let head = tokio::select! {
                biased;
                head = from.head() => head,
                result = &mut sending, if !sent => match result {
                    // An endpoint that takes no more may still have responded.
                    Ok(()) | Err(Side::Endpoint) => { sent = true; continue }
                    Err(Side::Client(Ended::Faulty)) => {
                        return Err(self.failed(Failure::Final, Cause::BadRequest, MALFORMED.to_owned()));
                    }
                    Err(Side::Client(_)) => return Err(Stop::Broken),
                },
                () = left.as_mut() => return Err(Stop::Broken),
            };
            let head = head.map_err(|ended| self.no_response(ended, progress, reused))?;
            match self.interim(head, &mut interim, reply, progress).await? {
                None => {}
                Some(head) => final_head = Some(head),
            }
        }
        let Some(head) = final_head else { return Err(Stop::Broken) };
        let mut receiving = pin!(self.receive(head, from, reply, progress));
        loop {
            tokio::select! {
                biased;
                status = &mut receiving => return status,
                result = &mut sending, if !sent => match result {
                    Ok(()) | Err(Side::Endpoint) => sent = true,
                    Err(Side::Client(_)) => return Err(Stop::Broken),
                },
                () = left.as_mut() => return Err(Stop::Broken),
            }
        }
    }

    async fn send<R: Receiver>(
        &self,
        body: &mut Body<'_, R>,
        to: &mut impl Sender,
        progress: &Progress,
    ) -> Result<(), Side> {
        if let Body::Whole(content, _) = body {
            // Not added to: an attempt before this one may have sent it too.
            self.plan.terms.notes.request_bytes.set(content.len() as u64);
        }
        match body {
            Body::Whole(content, None) => to.content(content, true).await.map_err(|_| Side::Endpoint),
            Body::Whole(content, Some(trailers)) => {
                to.content(content, false).await.map_err(|_| Side::Endpoint)?;
                to.trailers(trailers).await.map_err(|_| Side::Endpoint)
            }
            Body::Streaming(client) => {
                // An attempt before this one may have sent some of it.
                self.plan.terms.notes.request_bytes.set(0);
                let mut space = buffer::take();
                let waits = (Some(&progress.reads_client), None);
                let result = forward(client, to, &mut space, progress, waits, self.plan.terms.notes).await;
                buffer::give_back(space);
                result.map_err(|side| match side {
                    Transfer::From(ended) => Side::Client(ended),
                    Transfer::To => Side::Endpoint,
                })
            }
        }
    }

    /// Forwards an interim response, or hands the final head back. `before`: interim responses that came before.
    async fn interim(
        &self,
        head: Fields,
        before: &mut usize,
        reply: &mut impl Responder,
        progress: &Progress,
    ) -> Result<Option<Fields>, Stop> {
        let status = head.status();
        if status >= 200 {
            let grpc = head.value(b"grpc-status");
            let told = head.value(ERROR_HEADER.as_bytes()).and_then(|name| Cause::told(status, grpc, name));
            let (replay, number) = (self.replay(progress), (Head::Fields(self.plan.head), self.to.number));
            if let Some((cause, failure)) = told
                && self.plan.terms.trusts_endpoint()
                && self.attempts.grants(failure, replay, number, None)
            {
                let detail = format!("the sidecar at {} says: {}", self.to.endpoint.address, cause.name());
                return Err(self.failed(failure, cause, detail));
            }
            if self.plan.terms.policy.looks_at_responses() && self.plan.terms.trusts_endpoint() {
                let code = grpc.and_then(|code| std::str::from_utf8(code).ok()?.parse().ok());
                let failure = code.map_or(Failure::Status(status), Failure::Grpc);
                let after = head.value(b"retry-after");
                let after = after.map(|value| retry::retry_after(value).unwrap_or(Duration::MAX));
                if self.attempts.grants(failure, replay, number, after) {
                    let detail = format!("{} answered with {failure:?}", self.to.endpoint.address);
                    return Err(self.failed(failure, Cause::Answered, detail));
                }
            }
            return Ok(Some(head));
        }
        *before += 1;
        if *before > self.worker.limits.interim_responses {
            head.give_back();
            self.worker.telemetry.limit(self.plan.terms.direction, Limit::InterimResponses);
            let detail =
                format!("{} sent more than {} interim responses", self.to.endpoint.address, *before - 1);
            return Err(self.failed(Failure::Final, Cause::BadResponse, detail));
        }
        let sent = reply
            .head(&head, false, self.plan.terms.response_headers, self.plan.terms.trusts_endpoint())
            .await;
        head.give_back();
        sent.map_err(|_| Stop::Broken)?;
        Ok(None)
    }

    async fn receive(
        &self,
        head: Fields,
        from: &mut impl upstream::Respond,
        reply: &mut impl Responder,
        progress: &Progress,
    ) -> Result<u16, Stop> {
        let status = head.status();
        let notes = self.plan.terms.notes;
        notes.responds();
        progress.forwarded.set(Some(status));
        let end = from.is_ended();
        if end && let Some(code) = head.value(b"grpc-status") {
            notes.grpc.set(GrpcStatus::of(code));
        }
        let changes = self.plan.terms.final_headers(self.to.endpoint);
        let sent = reply.head(&head, end, &changes, self.plan.terms.trusts_endpoint()).await;
        head.give_back();
        sent.map_err(|_| Stop::Broken)?;
        if end {
            return Ok(status);
        }
        let mut space = buffer::take();
        let waits = (None, Some(&progress.writes_client));
        let result = forward(from, reply, &mut space, progress, waits, notes).await;
        buffer::give_back(space);
        result.map(|()| status).map_err(|_| Stop::Broken)
    }

    fn stalled(&self, limit: Limit, progress: &Progress) -> Stop {
        self.worker.telemetry.limit(self.plan.terms.direction, limit);
        if progress.forwarded.get().is_some() {
            return Stop::Broken;
        }
        if limit == Limit::ClientStall {
            let detail = "nothing more of the request arrived in time".to_owned();
            return self.failed(Failure::Final, Cause::BodyTimeout, detail);
        }
        let detail = format!(
            "{} of {} sent nothing in time",
            self.to.endpoint.address, self.plan.terms.cluster.service
        );
        self.failed(Failure::Final, Cause::Timeout, detail)
    }

    fn replay(&self, progress: &Progress) -> Replay {
        Replay { idempotent: is_idempotent(self.plan.head.method()), complete: !progress.taken.get() }
    }

    fn failed(&self, failure: Failure, cause: Cause, detail: String) -> Stop {
        Stop::Failed(Failed { failure, cause, detail, reused: false, taken: false })
    }

    fn connect_failed(&self, error: &io::Error) -> Stop {
        if error.kind() == io::ErrorKind::InvalidInput {
            return self.failed(Failure::Final, Cause::BadRequest, error.to_string());
        }
        let (cause, detail) = self.plan.terms.not_connected(self.to.endpoint.address, error);
        self.failed(Failure::NotConnected, cause, detail)
    }

    fn no_response(&self, ended: Ended, progress: &Progress, reused: bool) -> Stop {
        if progress.forwarded.get().is_some() {
            return Stop::Broken;
        }
        let (address, service) = (self.to.endpoint.address, &self.plan.terms.cluster.service);
        let (failure, cause, what) = match ended {
            // An end that gRPC has a meaning for: the deadline has passed there, or a handler gave up. The client's library
            // knows best which; any status of ours would be a guess.
            Ended::ByPeer(Code::CANCEL) if self.plan.head.is_grpc() => return Stop::Broken,
            Ended::Refused => (Failure::Refused, Cause::Reset, "refused the request".to_owned()),
            Ended::ByPeer(code) => {
                (Failure::Reset, Cause::Reset, format!("reset the request (HTTP/2 error {})", code.0))
            }
            Ended::Faulty => (Failure::Final, Cause::BadResponse, "sent no proper response".to_owned()),
            Ended::Gone => {
                (Failure::Reset, Cause::Reset, "closed the connection before it responded".to_owned())
            }
        };
        let detail = format!("{address} of {service} {what}");
        Stop::Failed(Failed { failure, cause, detail, reused, taken: false })
    }
}

/// Waits until the attempt must have ended, or its response have begun and has not.
async fn attempt_expired((whole, begin): (Option<Instant>, Option<Instant>), progress: &Progress) {
    let until = async |time: Option<Instant>| match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    };
    let begun = async {
        until(begin).await;
        if progress.forwarded.get().is_some() {
            std::future::pending::<()>().await;
        }
    };
    select(pin!(until(whole)), pin!(begun)).await;
}

enum Side {
    Client(Ended),
    Endpoint,
}
