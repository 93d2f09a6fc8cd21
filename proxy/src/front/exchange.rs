//! One exchange whose request is whole, whatever channel carries it: asked upstream, passed on, booked.

use std::io;

use bytes::Bytes;
use tokenlag_channel::http::{Framing, Headers, ResponseHead};
use tokenlag_channel::{ExchangeError, Incoming};
use tokenlag_probes::{Outcome, TraceId};

use super::turn::{self, Question, concerns_upstream};
use crate::failure::{Failed, Failure};
use crate::outlet::Outlet;
use crate::relay::Relayed;
use crate::tap::Tap;
use crate::worker::Worker;

/// Where the reply to a request that is whole goes. Dropped before [`Self::finish`], it must look cut off to the client.
pub(crate) trait ReplyOutlet: Outlet + Sized {
    /// Whether the reply was passed on to its end.
    fn has_ended(&self) -> bool;

    /// Ends a reply that was passed on to its end.
    async fn finish(self) -> io::Result<()>;

    /// Gives up a reply that broke off.
    async fn cut_off(self) {}
}

/// The exchanges of one connection.
pub(crate) struct Exchanges {
    channel: &'static str,
}

impl Exchanges {
    /// `channel` is the name under which they are booked.
    pub(crate) fn new(channel: &'static str) -> Self {
        Self { channel }
    }

    /// Serves one exchange to its end: `request` is what was read of it.
    pub(crate) async fn serve(
        &self,
        worker: &Worker,
        request: Result<Incoming, ExchangeError>,
        outlet: impl ReplyOutlet,
    ) {
        match request {
            Ok(incoming) => self.answer(worker, &incoming, outlet).await,
            Err(error) => {
                count(worker, self.channel, &error);
                // The client may be gone already.
                let _ = decline(&error, outlet).await;
            }
        }
    }

    async fn answer(&self, worker: &Worker, incoming: &Incoming, mut outlet: impl ReplyOutlet) {
        let trace = incoming
            .field("traceparent")
            .and_then(TraceId::from_traceparent);
        let mut tap = Tap::new(self.channel, trace, incoming.in_head);
        tap.in_body = incoming.in_body;
        let outcome = match self.converse(worker, incoming, &mut tap, &mut outlet).await {
            Ok(relayed) if !outlet.has_ended() => {
                if relayed.outcome != Outcome::Cancelled {
                    outlet.cut_off().await;
                }
                relayed.outcome
            }
            Ok(Relayed { outcome, is_told }) => match outlet.finish().await {
                Err(_) if outcome == Outcome::Complete && !is_told => Outcome::Cancelled,
                _ => outcome,
            },
            Err(failed) => {
                // The client may be gone already.
                let _ = refuse(&failed.failure, outlet).await;
                Outcome::Failed(failed.kind)
            }
        };
        worker.book.enter(tap.finish(outcome));
    }

    async fn converse(
        &self,
        worker: &Worker,
        incoming: &Incoming,
        tap: &mut Tap,
        outlet: &mut impl Outlet,
    ) -> Result<Relayed, Failed> {
        let question = Question {
            method: incoming.method(),
            target: incoming.target(),
            fields: &upstream_fields(incoming),
            traceparent: incoming.field("traceparent"),
            body: incoming.body.clone(),
        };
        turn::serve(worker, question, tap, outlet).await
    }
}

/// Counts a request that cannot be served, where it was not given up by the client itself.
pub(crate) fn count(worker: &Worker, door: &'static str, error: &ExchangeError) {
    if error.status().is_some() {
        worker.book.metrics.refused(door, error.reason());
    }
}

/// Answers a request that cannot be served.
async fn decline(error: &ExchangeError, outlet: impl ReplyOutlet) -> io::Result<()> {
    let Some(status) = error.status() else {
        return Ok(());
    };
    let failure = Failure {
        status,
        reason: "",
        code: "bad_request",
        message: error.to_string(),
    };
    refuse(&failure, outlet).await
}

/// Answers for the upstream.
pub(crate) async fn refuse(failure: &Failure, mut outlet: impl ReplyOutlet) -> io::Result<()> {
    let body = failure.body();
    let mut headers = Headers::default();
    headers.push("content-type", b"application/json");
    headers.push("content-length", body.len().to_string().as_bytes());
    let head = ResponseHead {
        status: failure.status,
        reason: failure.reason.into(),
        version: 1,
        headers,
    };
    outlet.start(&head, Framing::Length(body.len() as u64), false);
    outlet.bytes(&Bytes::from(body));
    outlet.end();
    outlet.flush().await?;
    outlet.finish().await
}

/// The client's fields for the upstream.
fn upstream_fields(incoming: &Incoming) -> Vec<(Bytes, Bytes)> {
    let negotiated = ["content-type", "accept"];
    incoming
        .fields()
        .filter(|(name, _)| {
            let kept = negotiated.iter().any(|own| name.eq_ignore_ascii_case(own));
            kept || concerns_upstream(name.as_bytes())
        })
        .map(|(name, value)| {
            (
                Bytes::copy_from_slice(name.as_bytes()),
                Bytes::copy_from_slice(value),
            )
        })
        .collect()
}
