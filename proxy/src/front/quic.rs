//! Clients of the raw QUIC channel: one stream an exchange, any HTTP request on it.

use std::borrow::Cow;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokenlag_channel::http::{Framing, ResponseHead};
use tokenlag_channel::quic::frame::ReplyForm;
use tokenlag_channel::quic::{Accepted, Exchange, ExchangeError, Handshake, Incoming, ReplyWriter};
use tokenlag_dialect::responses::{BadRequest, Create};
use tokenlag_dialect::{Dialect, SseEvent};
use tokenlag_probes::{FailureKind, Outcome, Stamp, TraceId};
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::turn::{self, Conversations, Question, concerns_upstream};
use crate::failure::Failure;
use crate::outlet::Outlet;
use crate::tap::Tap;
use crate::worker::Worker;

const CHANNEL: &str = "quic";

/// The longest request body.
const BODY_LIMIT: usize = 64 * 1024 * 1024;

/// How long a connection that is done stays open, so that its last bytes can leave.
const LINGER: Duration = Duration::from_millis(300);

/// Serves one connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, handshake: Handshake) {
    // A client that does not trust the certificate has said so itself.
    let Ok(connection) = handshake.finish().await else {
        return;
    };
    let conversations = Rc::new(Conversations::new());
    let mut exchanges = JoinSet::new();
    while let Some(exchange) = next_exchange(&worker, &connection).await {
        exchanges.spawn_local(serve_exchange(
            Rc::clone(&worker),
            Rc::clone(&conversations),
            exchange,
        ));
        while exchanges.try_join_next().is_some() {}
    }
    while exchanges.join_next().await.is_some() {}
    // The last reply's end may still be on its way: closing now would take it back.
    let _ = timeout(LINGER, connection.closed()).await;
}

async fn next_exchange(worker: &Worker, connection: &Accepted) -> Option<Exchange> {
    select! {
        biased;
        exchange = connection.next_exchange() => exchange,
        () = worker.draining() => None,
    }
}

async fn serve_exchange(worker: Rc<Worker>, conversations: Rc<Conversations>, exchange: Exchange) {
    let _active = worker.book.metrics.begin(CHANNEL);
    match exchange.request(BODY_LIMIT).await {
        Ok((incoming, writer)) => answer(&worker, &conversations, incoming, writer).await,
        Err((ExchangeError::Gone(_), _)) => {}
        Err((error, writer)) => {
            let too_large = matches!(error, ExchangeError::TooLarge(_));
            let failure = Failure {
                status: if too_large { 413 } else { 400 },
                reason: "",
                code: "bad_request",
                message: error.to_string(),
            };
            // The client may be gone already.
            let _ = QuicOutlet::new(writer, false).refuse(&failure).await;
        }
    }
}

async fn answer(
    worker: &Worker,
    conversations: &Conversations,
    incoming: Incoming,
    writer: ReplyWriter,
) {
    let traceparent = field(&incoming, "traceparent");
    let trace = traceparent.and_then(TraceId::from_traceparent);
    let mut tap = Tap::new(CHANNEL, trace, incoming.in_head);
    tap.in_body = incoming.in_body;
    let mut outlet = QuicOutlet::new(writer, incoming.form != ReplyForm::Bytes);
    let outcome = match converse(worker, conversations, &incoming, &mut tap, &mut outlet).await {
        // A reply that was cut off is not finished: its stream is reset as the writer goes.
        Ok(outcome) if !outlet.ended => outcome,
        Ok(outcome) => match outlet.finish().await {
            Err(_) if outcome == Outcome::Complete => Outcome::Cancelled,
            _ => outcome,
        },
        Err(failed) => {
            // The client may be gone already.
            let _ = outlet.refuse(&failed.failure).await;
            Outcome::Failed(failed.kind)
        }
    };
    worker.book.enter(tap.finish(outcome));
}

/// An exchange without a reply of the upstream.
struct Failed {
    failure: Failure,
    kind: FailureKind,
}

impl From<BadRequest> for Failed {
    fn from(bad: BadRequest) -> Self {
        Self {
            failure: Failure {
                status: 400,
                reason: "",
                code: bad.code.unwrap_or("bad_request"),
                message: bad.message,
            },
            kind: FailureKind::ClientError,
        }
    }
}

async fn converse(
    worker: &Worker,
    conversations: &Conversations,
    incoming: &Incoming,
    tap: &mut Tap,
    outlet: &mut QuicOutlet,
) -> Result<Outcome, Failed> {
    // Only a streamed create has a history that the proxy keeps; everything else passes through as it is.
    let responses = Dialect::of_path(&incoming.target) == Some(Dialect::Responses);
    let create = (responses && incoming.method == "POST")
        .then(|| Create::parse(&incoming.body).ok())
        .flatten()
        .filter(|create| create.stream);
    let body = match &create {
        Some(create) if create.previous_response_id.is_some() => {
            Cow::Owned(conversations.upstream_body(create)?)
        }
        _ => Cow::Borrowed(&incoming.body[..]),
    };
    let question = Question {
        method: &incoming.method,
        target: &incoming.target,
        fields: &fields(incoming),
        traceparent: field(incoming, "traceparent"),
        body: &body,
    };
    let outcome = turn::pass(worker, &question, tap, outlet)
        .await
        .map_err(|error| Failed {
            failure: Failure::of_upstream(&error),
            kind: error.kind(),
        })?;
    if let Some(create) = &create {
        conversations.settle(create, tap, outcome);
    }
    Ok(outcome)
}

fn field<'a>(incoming: &'a Incoming, name: &str) -> Option<&'a str> {
    let mut fields = incoming.fields.iter();
    let (_, value) = fields.find(|(field, _)| field.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(value).ok()
}

/// The client's fields for the upstream.
fn fields(incoming: &Incoming) -> Vec<(Bytes, Bytes)> {
    let negotiated = ["content-type", "accept"];
    incoming
        .fields
        .iter()
        .filter(|(name, _)| {
            let kept = negotiated.iter().any(|own| name.eq_ignore_ascii_case(own));
            kept || concerns_upstream(name.as_bytes())
        })
        .map(|(name, value)| (Bytes::copy_from_slice(name.as_bytes()), value.clone()))
        .collect()
}

/// Writes a reply as frames.
struct QuicOutlet {
    writer: ReplyWriter,
    events: bool,
    /// The reply was passed on to its end.
    ended: bool,
}

impl QuicOutlet {
    fn new(writer: ReplyWriter, events: bool) -> Self {
        Self {
            writer,
            events,
            ended: false,
        }
    }

    /// Ends a reply that was passed on to its end.
    async fn finish(self) -> io::Result<()> {
        self.writer.finish().await
    }

    /// Answers for the upstream.
    async fn refuse(mut self, failure: &Failure) -> io::Result<()> {
        let fields = vec![("content-type".to_owned(), "application/json".into())];
        self.writer.head(failure.status, fields, false);
        self.writer.data(failure.body().into());
        self.writer.flush().await?;
        self.writer.finish().await
    }
}

impl Outlet for QuicOutlet {
    fn wants_events(&self) -> bool {
        self.events
    }

    fn start(&mut self, head: &ResponseHead, _framing: Framing, events: bool) {
        let fields = head.headers.end_to_end().filter_map(|(name, value)| {
            let name = std::str::from_utf8(name).ok()?.to_owned();
            Some((name, Bytes::copy_from_slice(value)))
        });
        self.writer.head(head.status, fields.collect(), events);
    }

    fn event(&mut self, event: SseEvent<'_>) {
        self.writer.event(event.name, event.data);
    }

    fn bytes(&mut self, bytes: Bytes) {
        self.writer.data(bytes);
    }

    fn end(&mut self) {
        self.ended = true;
    }

    async fn flush(&mut self) -> io::Result<Stamp> {
        self.writer.flush().await
    }

    async fn gone(&mut self) {
        self.writer.given_up().await;
    }
}
