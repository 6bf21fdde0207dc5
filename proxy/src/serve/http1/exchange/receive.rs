//! The response on its way to the client, held to the same standard as a request: nothing of it is forwarded
//! before its head was understood and its framing is beyond doubt.

use std::{borrow::Cow, time::Duration};

use tokio::io::AsyncWriteExt as _;

use super::{
    attempt::{Attempt, Failed, ReceiveError, Received},
    send::write_both,
};
use crate::{
    buffer::{self, Buffer},
    cause::Cause,
    http1::{
        body::{Body, BodyError, Framing},
        head::{self, HeadError, ResponseHead, Scan, Version, field_space},
        rewrite::{self, Persistence},
    },
    limits::Limit,
    retry::{self, Failure, Replay},
    serve::attempts::Head,
    stream::{ReadHalf, WriteHalf},
};

use ferrule_config::names::ERROR_HEADER;

/// Content up to this size is copied behind the head rather than sent from where it lies.
const COPIED: usize = 2048;

impl Attempt<'_> {
    /// Forwards the response: interim ones (RFC 9110 §15.2) as they come, then the final one. `replayable`: the
    /// whole request is still at hand.
    pub async fn receive(
        &self,
        upstream: &mut ReadHalf<'_>,
        client: &mut WriteHalf<'_>,
        response: &mut Buffer,
        replayable: bool,
    ) -> Result<Received, ReceiveError> {
        let mut out = Scratch(buffer::take());
        let mut interim = 0;
        loop {
            let (framing, mut received) = self.head(upstream, response, replayable, &mut out.0).await?;
            if received.status >= 200 || received.tunnel {
                self.body(framing, received.status, upstream, client, response, &mut out.0).await?;
                // Bytes beyond the response answer no request of ours: that connection is out of step.
                received.upstream_reusable &= response.is_empty();
                return Ok(received);
            }
            interim += 1;
            if interim > self.worker.limits.interim_responses {
                self.worker.telemetry.limit(self.plan.terms.direction, Limit::InterimResponses);
                return Err(self.bad_response(format_args!("more than {} interim responses", interim - 1)));
            }
            if self.plan.version == Version::Http11 {
                self.write(client, &out.0, &[]).await?;
            }
            out.0.clear();
        }
    }

    /// Reads until the next head is understood and writes to `out` what the client is to see.
    async fn head(
        &self,
        upstream: &mut ReadHalf<'_>,
        response: &mut Buffer,
        replayable: bool,
        out: &mut Vec<u8>,
    ) -> Result<(Framing, Received), ReceiveError> {
        let mut scan = Scan::default();
        loop {
            let bytes = response.data();
            if !bytes.is_empty()
                && (scan.is_due(bytes) || scan.is_decidable(bytes))
                && let Some(understood) = self.understand(response, replayable, out)?
            {
                return Ok(understood);
            }
            if response.data().len() > self.worker.limits.head_bytes {
                return Err(self.bad_head(HeadError::TooLarge));
            }
            self.more(upstream, response).await?;
        }
    }

    /// Takes the head at the front of `response`, if it is complete.
    fn understand(
        &self,
        response: &mut Buffer,
        replayable: bool,
        out: &mut Vec<u8>,
    ) -> Result<Option<(Framing, Received)>, ReceiveError> {
        let plan = self.plan;
        let mut space = field_space();
        let parsed = head::response(response.data(), &mut space, plan.to_head, plan.to_connect);
        let Some((head, length)) = parsed.map_err(|error| self.bad_head(error))? else { return Ok(None) };
        if head.fields.len() > self.worker.limits.fields {
            return Err(self.bad_head(HeadError::TooManyFields));
        }
        if length > self.worker.limits.head_bytes {
            return Err(self.bad_head(HeadError::TooLarge));
        }
        self.refuse_failed(&head, replayable)?;
        let switches = head.status == 101;
        if switches && !plan.upgrade {
            return Err(self.bad_response(format_args!("the protocol was changed without being asked")));
        }
        if switches && !head.fields.iter().any(|field| field.name.eq_ignore_ascii_case("upgrade")) {
            return Err(self.bad_response(format_args!("the protocol was changed to one that is not named")));
        }
        let tunnel = switches || (plan.to_connect && (200..300).contains(&head.status));
        let client_reusable = plan.keep_alive && !self.ends_connection(&head);
        let persistence = match (switches, tunnel || head.status < 200) {
            (true, _) => Persistence::Upgrade,
            (false, true) => Persistence::Implied,
            (false, false) => Persistence::new(client_reusable, plan.version),
        };
        let trusted = plan.terms.trusts_endpoint();
        let changes = if head.status >= 200 || switches {
            plan.terms.final_headers(self.to.endpoint)
        } else {
            Cow::Borrowed(plan.terms.response_headers)
        };
        rewrite::response(out, &head, &changes, persistence, trusted, self.dechunks(head.framing));
        plan.terms.notes.responds();
        let framing = head.framing;
        let received =
            Received { status: head.status, upstream_reusable: head.keep_alive, client_reusable, tunnel };
        response.consume(length);
        Ok(Some((framing, received)))
    }

    /// Whether the client's connection ends with this response.
    fn ends_connection(&self, head: &ResponseHead<'_>) -> bool {
        // A client that was told nothing, or no, before it sent its body may send it or not (RFC 9110 §10.1.1); and
        // an endpoint that closes will not read what is left of it.
        let unsent = !self.progress.sent.get();
        let unread = unsent && (self.plan.expects_continue && !self.progress.begun.get() || !head.keep_alive);
        head.framing == Framing::Close
            || self.dechunks(head.framing)
            || unread
            || self.worker.drain.is_draining()
    }

    /// The endpoint's sidecar says that its application failed the request, or the status is one that the rule names: then
    /// there may be another attempt.
    fn refuse_failed(&self, head: &ResponseHead<'_>, replayable: bool) -> Result<(), ReceiveError> {
        let looked_at = head.status >= 400 && self.plan.terms.policy.looks_at_responses();
        if !self.plan.terms.trusts_endpoint() || (head.status < 500 && !looked_at) {
            return Ok(());
        }
        let value = |name: &str| {
            let field = head.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name));
            field.map(|field| field.value)
        };
        let replay = Replay { idempotent: self.plan.idempotent, complete: replayable };
        let number = (Head::Bytes(self.plan.head), self.to.number);
        let told = value(ERROR_HEADER).and_then(|name| Cause::told(head.status, None, name));
        if let Some((cause, failure)) = told
            && self.attempts.grants(failure, replay, number, None)
        {
            let detail = format!("the sidecar at {} says: {}", self.to.endpoint.address, cause.name());
            return Err(ReceiveError::Failed(Failed { failure, cause, detail }));
        }
        let failure = Failure::Status(head.status);
        let after = value("retry-after").map(|value| retry::retry_after(value).unwrap_or(Duration::MAX));
        if looked_at && self.attempts.grants(failure, replay, number, after) {
            let detail = format!("{} answered with {}", self.to.endpoint.address, head.status);
            return Err(ReceiveError::Failed(Failed { failure, cause: Cause::Answered, detail }));
        }
        Ok(())
    }

    /// Forwards head and body. `out` holds the head.
    async fn body(
        &self,
        framing: Framing,
        status: u16,
        upstream: &mut ReadHalf<'_>,
        client: &mut WriteHalf<'_>,
        response: &mut Buffer,
        out: &mut Vec<u8>,
    ) -> Result<(), ReceiveError> {
        let dechunk = self.dechunks(framing);
        let mut body = Body::new(framing);
        loop {
            let used = if dechunk {
                append_content(&mut body, response, out)
            } else {
                body.advance(response.data())
            };
            let used = used.map_err(|error| self.bad_response(format_args!("body: {error}")))?;
            let mut direct = &response.data()[..used];
            if dechunk || (!out.is_empty() && used <= COPIED) {
                if !dechunk {
                    out.extend_from_slice(direct);
                }
                direct = &[];
            }
            self.forwarded.set(Some(status));
            self.write(client, out, direct).await?;
            self.plan.terms.notes.received(used);
            out.clear();
            response.consume(used);
            if body.is_done() {
                return Ok(());
            }
            match response.fill(upstream).await {
                Ok(0) if body.may_end() => return Ok(()),
                Ok(0) | Err(_) => return Err(ReceiveError::Broken("response-cut-off")),
                Ok(_) => self.progress.moved.set(true),
            }
        }
    }

    /// HTTP/1.0 has no chunked coding: its client gets the content and the end of the connection.
    fn dechunks(&self, framing: Framing) -> bool {
        framing == Framing::Chunked && self.plan.version == Version::Http10
    }

    async fn more(&self, upstream: &mut ReadHalf<'_>, response: &mut Buffer) -> Result<(), ReceiveError> {
        match response.fill(upstream).await {
            Ok(1..) => {
                self.progress.moved.set(true);
                Ok(())
            }
            Ok(0) if response.is_empty() => Err(self.reset("closed the connection before it responded")),
            Ok(0) => {
                let detail =
                    format!("{} closed the connection within the response's head", self.to.endpoint.address);
                Err(ReceiveError::Failed(Failed {
                    failure: Failure::Reset,
                    cause: Cause::BadResponse,
                    detail,
                }))
            }
            Err(error) => Err(self.reset(&format!("broke the connection: {error}"))),
        }
    }

    async fn write(&self, client: &mut WriteHalf<'_>, head: &[u8], body: &[u8]) -> Result<(), ReceiveError> {
        self.progress.writes_client.set(true);
        let written = match (head, body) {
            ([], body) => client.write_all(body).await,
            (head, body) => write_both(client, head, body).await,
        };
        self.progress.writes_client.set(false);
        self.progress.moved.set(true);
        written.map_err(|_| ReceiveError::Broken("client-closed"))
    }

    fn bad_head(&self, error: HeadError) -> ReceiveError {
        if let Some(limit) = error.limit() {
            self.worker.telemetry.limit(self.plan.terms.direction, limit);
        }
        self.bad_response(format_args!("{error}"))
    }

    fn bad_response(&self, what: std::fmt::Arguments<'_>) -> ReceiveError {
        self.failed(Cause::BadResponse, format!("response of {}: {what}", self.to.endpoint.address))
    }

    fn reset(&self, what: &str) -> ReceiveError {
        let detail = format!("{} of {} {what}", self.to.endpoint.address, self.plan.terms.cluster.service);
        ReceiveError::Failed(Failed { failure: Failure::Reset, cause: Cause::Reset, detail })
    }
}

/// A vector from the thread's store that goes back there.
struct Scratch(Vec<u8>);

impl Drop for Scratch {
    fn drop(&mut self) {
        buffer::give_back(std::mem::take(&mut self.0));
    }
}

/// Appends the content that is at hand, without its framing, and tells how many bytes it took.
fn append_content(body: &mut Body, buffer: &Buffer, out: &mut Vec<u8>) -> Result<usize, BodyError> {
    let mut used = 0;
    while used < buffer.data().len() && !body.is_done() {
        let step = body.step(&buffer.data()[used..])?;
        out.extend_from_slice(&buffer.data()[used..][step.content]);
        used += step.used;
    }
    Ok(used)
}
