//! One turn of a conversation whose history the proxy keeps: from a `create` to the upstream's HTTP and back.

use std::cell::RefCell;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokenlag_channel::ChannelError;
use tokenlag_channel::http::head::is_hop_by_hop;
use tokenlag_channel::http::render::{push_field, start_request};
use tokenlag_channel::http::{Connection, Response};
use tokenlag_dialect::responses::{BadRequest, Completed, Create};
use tokenlag_dialect::{ConversationStore, Dialect, Limits};
use tokenlag_probes::{FailureKind, Outcome};

use crate::outlet::Outlet;
use crate::relay;
use crate::tap::Tap;
use crate::upstream::was_stale;
use crate::worker::Worker;

/// What one connection remembers.
const LIMITS: Limits = Limits {
    responses: 1024,
    bytes: 64 * 1024 * 1024,
};

/// The conversations of one connection.
#[derive(Debug)]
pub(crate) struct Conversations(RefCell<ConversationStore>);

impl Conversations {
    pub(crate) fn new() -> Self {
        Self(RefCell::new(ConversationStore::new(LIMITS)))
    }

    /// The body to send upstream: the whole conversation.
    ///
    /// # Errors
    /// The response that the turn goes on from is not known here (any more).
    pub(crate) fn upstream_body(&self, create: &Create<'_>) -> Result<Vec<u8>, BadRequest> {
        let Some(parent) = create.previous_response_id.as_deref() else {
            return Ok(create.upstream_body(std::iter::empty()));
        };
        let mut store = self.0.borrow_mut();
        store.touch(parent);
        match store.history(parent) {
            Some(history) => Ok(create.upstream_body(history)),
            None => Err(BadRequest {
                message: format!("Previous response with id '{parent}' not found."),
                param: Some("previous_response_id"),
                code: Some("previous_response_not_found"),
            }),
        }
    }

    /// Keeps a turn under the response's id, so that the next can go on from it.
    pub(crate) fn keep(&self, create: &Create<'_>, id: &str, output: Vec<Box<RawValue>>) {
        let Ok(mut items) = create.input_items() else {
            return;
        };
        items.extend(output);
        let parent = create.previous_response_id.as_deref();
        self.0.borrow_mut().insert(id, parent, items);
    }

    /// Keeps a turn that ended well; forgets the parent of one that failed with a 4xx or 5xx.
    pub(crate) fn settle(&self, create: &Create<'_>, tap: &Tap, outcome: Outcome) {
        match outcome {
            Outcome::Complete => {
                if let Some(done) = tap.terminal_event().and_then(Completed::parse) {
                    self.keep(create, &done.id, done.output);
                }
            }
            Outcome::Failed(FailureKind::ClientError | FailureKind::ServerError) => {
                if let Some(parent) = create.previous_response_id.as_deref() {
                    self.0.borrow_mut().remove(parent);
                }
            }
            _ => {}
        }
    }
}

/// A request that is whole, as it goes upstream.
pub(crate) struct Question<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    /// The client's fields, as far as they concern the upstream.
    pub(crate) fields: &'a [(Bytes, Bytes)],
    /// The client's `traceparent`, passed on as it came.
    pub(crate) traceparent: Option<&'a str>,
    pub(crate) body: &'a [u8],
}

/// Sends a whole request and waits for the reply's head; `None` where the client is gone first.
///
/// # Errors
/// The upstream failed before it said anything that can be passed on.
pub(crate) async fn ask(
    worker: &Worker,
    question: &Question<'_>,
    tap: &mut Tap,
    outlet: &mut impl Outlet,
) -> Result<Option<(Connection, Response)>, ChannelError> {
    let request = render(worker, question);
    let (upstream, anew) = worker.pool.take().await?;
    tap.up_connected_anew = anew;
    match ask_on(upstream, worker, &request, question.method, tap, outlet).await {
        Err(error) if was_stale(anew, &error, tap.up_written) => {
            tap.up_connected_anew = true;
            let upstream = worker.pool.dial().await?;
            ask_on(upstream, worker, &request, question.method, tap, outlet).await
        }
        asked => asked,
    }
}

async fn ask_on(
    mut upstream: Connection,
    worker: &Worker,
    request: &[u8],
    method: &str,
    tap: &mut Tap,
    outlet: &mut impl Outlet,
) -> Result<Option<(Connection, Response)>, ChannelError> {
    tap.up_written = upstream.send_unless_answered(request).await?;
    tap.overlapped = tap.up_written.is_none();
    let head = relay::reply_head(worker, &mut upstream, method, outlet.gone()).await?;
    Ok(head.map(|response| (upstream, response)))
}

/// Asks, and passes the reply on.
///
/// # Errors
/// The upstream failed before it said anything that can be passed on.
pub(crate) async fn pass(
    worker: &Worker,
    question: &Question<'_>,
    tap: &mut Tap,
    outlet: &mut impl Outlet,
) -> Result<Outcome, ChannelError> {
    let Some((upstream, response)) = ask(worker, question, tap, outlet).await? else {
        return Ok(Outcome::Cancelled);
    };
    let method = question.method;
    let dialect = Dialect::of_path(question.target).filter(|_| method == "POST");
    Ok(relay::reply(worker, upstream, response, method, dialect, tap, outlet).await)
}

fn render(worker: &Worker, question: &Question<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024 + question.body.len());
    let target = worker.upstream.path(question.target);
    start_request(
        &mut out,
        question.method,
        &target,
        &worker.upstream.authority(),
    );
    for (name, value) in question.fields {
        push_field(&mut out, name, value);
    }
    if let Some(traceparent) = question.traceparent {
        push_field(&mut out, b"traceparent", traceparent.as_bytes());
    }
    if question.method != "GET" || !question.body.is_empty() {
        let length = question.body.len().to_string();
        push_field(&mut out, b"content-length", length.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(question.body);
    out
}

/// Whether a client's field concerns the upstream of a request that the proxy writes anew.
pub(crate) fn concerns_upstream(name: &[u8]) -> bool {
    const OURS: [&[u8]; 6] = [
        b"host",
        b"content-length",
        b"expect",
        b"traceparent",
        b"content-type",
        b"accept",
    ];
    let websocket = name.len() > 14 && name[..14].eq_ignore_ascii_case(b"sec-websocket-");
    !websocket && !is_hop_by_hop(name) && !OURS.iter().any(|own| name.eq_ignore_ascii_case(own))
}
