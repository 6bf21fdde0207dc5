//! One attempt: a connection to one endpoint, the request there and the response back at the same time.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io,
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use super::{
    End, Plan,
    send::{Outgoing, Progress, SendError, stream_body, write_both},
};
use crate::{
    balance::Load,
    buffer::Buffer,
    cause::Cause,
    limits::Limit,
    retry::Failure,
    serve::{
        attempts::{self, Attempts, Terms},
        http1::timer::Timer,
    },
    stream::Stream,
    worker::Worker,
};

pub(super) struct Attempt<'a> {
    pub plan: &'a Plan<'a>,
    pub worker: &'a Worker,
    pub to: attempts::Attempt<'a>,
    pub attempts: &'a Attempts<'a>,
    /// Status of the final response, once some of it was written to the client.
    pub forwarded: Cell<Option<u16>>,
    pub progress: Progress,
}

/// An attempt that failed before anything was forwarded.
pub(super) struct Failed {
    pub failure: Failure,
    pub cause: Cause,
    pub detail: String,
}

/// What the response left behind.
pub(super) struct Received {
    pub status: u16,
    pub upstream_reusable: bool,
    pub client_reusable: bool,
    pub tunnel: bool,
}

pub(super) enum ReceiveError {
    /// Nothing was forwarded.
    Failed(Failed),
    /// The client can only be cut off; for this reason.
    Broken(&'static str),
}

/// Who or what was waited for too long.
enum Expired {
    Route,
    Attempt,
    Client,
    Endpoint,
}

impl<'a> Attempt<'a> {
    pub fn new(
        plan: &'a Plan<'a>,
        worker: &'a Worker,
        to: attempts::Attempt<'a>,
        attempts: &'a Attempts<'a>,
    ) -> Self {
        Self { plan, worker, to, attempts, forwarded: Cell::new(None), progress: Progress::default() }
    }

    /// Makes the attempt. An error says also whether the connection had been used before.
    pub async fn run(
        &self,
        client: &mut Stream,
        read: &mut Buffer,
        timer: &mut Timer<'_>,
        request: &mut Outgoing,
    ) -> Result<End<'static>, (Failed, bool)> {
        let repeatable = self.plan.idempotent && request.buffered.is_some();
        let Terms { direction, cluster, .. } = self.plan.terms;
        let expected = cluster.expected.as_deref();
        let connected = self.worker.connection(direction, self.to.endpoint, expected, repeatable).await;
        let (mut upstream, is_new) = match connected {
            Ok(connection) => connection,
            Err(error) => return Err((self.connect_failed(&error), false)),
        };
        let load = Load::begin(self.to.endpoint);
        let mut response = Buffer::default();
        let received = self.talk(client, read, timer, request, &mut upstream, &mut response).await;
        drop(load);
        let received = match received {
            Ok(received) => received,
            Err(ReceiveError::Failed(failed)) => return Err((failed, !is_new)),
            Err(ReceiveError::Broken(why)) => return Ok(End::Broken { status: self.forwarded.get(), why }),
        };
        self.to.responded();
        if let Some(length) = request.buffered {
            read.consume(length);
        }
        if received.tunnel {
            return Ok(End::Tunnel { status: received.status, upstream, pending: response });
        }
        // One in TLS carries what shares no connection.
        if let Stream::Plain(upstream) = upstream
            && received.upstream_reusable
            && response.is_empty()
        {
            let pool = self.worker.pool(self.plan.terms.direction);
            pool.put(self.to.endpoint.address, upstream, Instant::now());
        }
        Ok(End::Responded { status: received.status, reusable: received.client_reusable })
    }

    /// Sends and receives at once: a server may respond before it has read the whole request.
    async fn talk(
        &self,
        client: &mut Stream,
        read: &mut Buffer,
        timer: &mut Timer<'_>,
        request: &mut Outgoing,
        upstream: &mut Stream,
        response: &mut Buffer,
    ) -> Result<Received, ReceiveError> {
        let changed = attempts::head_of_attempt(self.plan.head, &self.plan.terms, self.to.number);
        let (mut client_read, mut client_write) = client.split();
        let (mut upstream_read, mut upstream_write) = upstream.split();
        let buffered = request.buffered;
        let progress = &self.progress;
        // Ends only when there is no sense in going on.
        let mut sending = pin!(async {
            let head = changed.as_deref().unwrap_or(self.plan.head);
            let sent = match buffered {
                Some(length) => {
                    // Not added to: an attempt before this one may have sent it too.
                    self.plan.terms.notes.request_bytes.set(length as u64);
                    write_both(&mut upstream_write, head, &read.data()[..length])
                        .await
                        .map_err(|_| SendError::Upstream)
                }
                None => match write_both(&mut upstream_write, head, &[]).await {
                    Ok(()) => {
                        let to = (&mut upstream_write, self.plan.terms.notes);
                        stream_body(request, read, &mut client_read, to, progress).await
                    }
                    Err(_) => Err(SendError::Upstream),
                },
            };
            match sent {
                Ok(()) => progress.sent.set(true),
                // It may have responded all the same: reading will tell.
                Err(SendError::Upstream) => {}
                Err(SendError::Client) => return ReceiveError::Broken("client-closed"),
                Err(SendError::Malformed(error)) => {
                    return self.failed(Cause::BadRequest, format!("request body: {error}"));
                }
            }
            client_read.gone().await;
            ReceiveError::Broken("client-closed")
        });
        // The request goes out before anything is awaited; from then on a response that is there comes first.
        if let Poll::Ready(error) = poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await {
            return Err(error);
        }
        let replayable = buffered.is_some();
        let mut receiving = pin!(self.receive(&mut upstream_read, &mut client_write, response, replayable));
        let mut watching = pin!(self.watch(timer));
        let mut received = tokio::select! {
            biased;
            received = &mut receiving => received?,
            error = &mut sending => return Err(error),
            expired = &mut watching => return Err(self.expired(&expired)),
        };
        if !received.tunnel && !progress.sent.get() {
            received.upstream_reusable = false;
            received.client_reusable &= replayable;
        }
        Ok(received)
    }

    /// Looks at the clock from time to time and ends when the route's time is up or nothing has moved for too long.
    async fn watch(&self, timer: &mut Timer<'_>) -> Expired {
        let limits = &self.worker.limits;
        let tick = (limits.client_stall.min(limits.endpoint_stall) / 4).max(Duration::from_millis(1));
        let (mut since, mut next) = (self.plan.terms.started, self.plan.terms.started + tick);
        // What came before this attempt counts for none of them.
        self.progress.moved.set(true);
        loop {
            // The times are made anew each time rather than kept: a connection has room for what is kept while it idles.
            let until = self.times().into_iter().flatten().chain([next]).min().unwrap_or(next);
            timer.until(until).await;
            let now = Instant::now();
            match self.times().map(|time| time.is_some_and(|time| now >= time)) {
                [true, ..] => return Expired::Route,
                [false, true] => return Expired::Attempt,
                [false, false] => {}
            }
            next = now + tick;
            let still = now.saturating_duration_since(since);
            let on_client = self.progress.reads_client.get() || self.progress.writes_client.get();
            if self.progress.moved.replace(false) {
                since = now;
            } else if on_client && still >= limits.client_stall {
                return Expired::Client;
            } else if !on_client && still >= limits.endpoint_stall {
                return Expired::Endpoint;
            }
        }
    }

    /// When the request must have ended, and when this attempt must have got on.
    fn times(&self) -> [Option<Instant>; 2] {
        let (whole, begin) = self.plan.terms.attempt_deadlines(self.to.began);
        let begin = begin.filter(|_| self.forwarded.get().is_none());
        [self.plan.terms.deadline(), whole.into_iter().chain(begin).min()]
    }

    fn expired(&self, expired: &Expired) -> ReceiveError {
        let service = &self.plan.terms.cluster.service;
        let limits = &self.worker.limits;
        match expired {
            Expired::Route => {
                let (cause, detail) = self.plan.terms.expired();
                self.failed(cause, detail)
            }
            Expired::Attempt if self.forwarded.get().is_some() => ReceiveError::Broken(Cause::Timeout.name()),
            Expired::Attempt => ReceiveError::Failed(Failed {
                failure: Failure::TimedOut,
                cause: Cause::Timeout,
                detail: format!("no response of {} of {service} in time", self.to.endpoint.address),
            }),
            Expired::Client => {
                self.worker.telemetry.limit(self.plan.terms.direction, Limit::ClientStall);
                let detail = format!("no more of the request's body for {:?}", limits.client_stall);
                self.failed(Cause::BodyTimeout, detail)
            }
            Expired::Endpoint => {
                self.worker.telemetry.limit(self.plan.terms.direction, Limit::EndpointStall);
                let detail = format!(
                    "{} of {service} sent and took nothing for {:?}",
                    self.to.endpoint.address, limits.endpoint_stall
                );
                self.failed(Cause::ResponseTimeout, detail)
            }
        }
    }

    /// The end of the exchange: told to the client, unless it has some of the response already.
    pub fn failed(&self, cause: Cause, detail: String) -> ReceiveError {
        if self.forwarded.get().is_some() {
            return ReceiveError::Broken(cause.name());
        }
        ReceiveError::Failed(Failed { failure: Failure::Final, cause, detail })
    }

    fn connect_failed(&self, error: &io::Error) -> Failed {
        let (cause, detail) = self.plan.terms.not_connected(self.to.endpoint.address, error);
        Failed { failure: Failure::NotConnected, cause, detail }
    }
}
