//! HTTP/1.1 clients: requests and replies pass through as they are.

mod ask;
mod outlet;

use std::io;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use tokenlag_channel::http::{Framing, Incoming, ServerConnection, ServerError};
use tokenlag_dialect::Dialect;
use tokenlag_probes::{FailureKind, Outcome, Stamp, TraceId};
use tokio::select;

use self::ask::{Unasked, ask, awaits_word, go_on, upstream_fields};
use self::outlet::HttpOutlet;
use super::turn::{self, Question};
use super::{tunnel, ws};
use crate::body::Expected;
use crate::failure::Failure;
use crate::relay;
use crate::tap::Tap;
use crate::worker::Worker;

/// The channel's name in records: the proxy cannot know whether the client will come again.
const CHANNEL: &str = "http";

/// The name under which refusals are counted.
const DOOR: &str = "http1";

/// Room for the heads and bodies that most messages have, in bytes.
const ROOM: usize = 1024;

/// Room beyond which a reply does not keep what its request took, in bytes: it may go on for minutes.
const MOST_ROOM: usize = 4 * ROOM;

/// Serves one client connection to its end. What is large and seldom is boxed: others keep no room for it. An exchange is neither:
/// to get it memory of its own would take longer than to write its head.
pub(crate) async fn serve(worker: Rc<Worker>, mut connection: Box<ServerConnection>) {
    let draining = Rc::clone(&worker);
    // Once for the connection: to stand in line for the news anew with each request would cost more than to be asked.
    let mut draining = pin!(async move { draining.draining().await });
    loop {
        let request = select! {
            biased;
            request = connection.next_request() => request,
            () = &mut draining => break,
        };
        let incoming = match request {
            Ok(Some(incoming)) => incoming,
            Ok(None) => return,
            Err(error) => {
                Box::pin(refuse(&worker, &mut connection, &error)).await;
                return Box::pin(connection.close_after_answer()).await;
            }
        };
        let head = &incoming.head;
        let is_responses = || Dialect::of_path(&head.target) == Some(Dialect::Responses);
        if head.wants_websocket() && is_responses() {
            return Box::pin(ws::serve(worker, *connection, &incoming.head)).await;
        }
        if asks_for_tunnel(&incoming) {
            return Box::pin(tunnel::serve(&worker, *connection, &incoming.head)).await;
        }
        match exchange(&worker, &mut connection, &incoming).await {
            After::Again => {}
            After::Close if connection.body_is_done() => break,
            After::Close => return Box::pin(connection.close_after_answer()).await,
            After::Abort => return,
        }
    }
    Box::pin(connection.close()).await;
}

/// What becomes of a connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// It can carry another.
    Again,
    /// It is closed.
    Close,
    /// What was cut off must look so: it is closed without the farewell of TLS, which could make it look whole.
    Abort,
}

/// An upgrade that only the upstream can decide on. An offer of HTTP/2 in clear may be passed over (RFC 9110, section 7.8), and
/// clients make it with any request; one with a body is served as if nothing had been offered.
fn asks_for_tunnel(incoming: &Incoming) -> bool {
    let headers = &incoming.head.headers;
    headers.has_token("connection", "upgrade")
        && !headers.has_token("upgrade", "h2c")
        && incoming.framing == Framing::Empty
}

async fn refuse(worker: &Worker, connection: &mut ServerConnection, error: &ServerError) {
    if let Some(reason) = error.reason() {
        worker.book.metrics.refused(DOOR, reason);
    }
    if let Some((status, reason)) = error.status() {
        let failure = Failure {
            status,
            reason,
            code: "bad_request",
            message: error.to_string(),
        };
        // The client may be gone already.
        let _ = answer(connection, &failure).await;
    }
}

pub(super) async fn answer(
    connection: &mut ServerConnection,
    failure: &Failure,
) -> io::Result<Stamp> {
    let fields = [
        ("content-type", "application/json"),
        ("connection", "close"),
    ];
    connection
        .respond(failure.status, failure.reason, &fields, &failure.body())
        .await
}

/// Serves one request.
async fn exchange(worker: &Worker, client: &mut ServerConnection, incoming: &Incoming) -> After {
    let _active = worker.book.metrics.begin(CHANNEL);
    let traceparent = incoming.head.headers.first("traceparent");
    let trace = traceparent.and_then(TraceId::from_traceparent);
    let mut tap = Tap::new(CHANNEL, trace, incoming.in_head);
    let (outcome, after) = pass(worker, client, incoming, &mut tap).await;
    worker.book.enter(tap.finish(outcome));
    match after {
        After::Again if worker.is_draining() => After::Close,
        after => after,
    }
}

async fn pass(
    worker: &Worker,
    client: &mut ServerConnection,
    incoming: &Incoming,
    tap: &mut Tap,
) -> (Outcome, After) {
    let head = &incoming.head;
    let dialect = (head.method == "POST")
        .then(|| Dialect::of_path(&head.target))
        .flatten();
    if worker.wants_whole(dialect == Some(Dialect::Responses)) {
        return Box::pin(pass_whole(worker, client, incoming, tap)).await;
    }
    // What is written to either end lies here.
    let mut out = Vec::with_capacity(ROOM);
    let mut inlet = match ask(worker, client, incoming, &mut out, tap).await {
        Ok(Some(inlet)) => inlet,
        Ok(None) => return (Outcome::Cancelled, After::Abort),
        // Few end so: what follows then is boxed, and the others keep no room for it.
        Err(Unasked::Client(error)) => {
            let outcome = Box::pin(unread(worker, client, &error)).await;
            return (outcome, After::Close);
        }
        Err(Unasked::Upstream(error)) => {
            // The client may be gone already.
            let _ = Box::pin(answer(client, &Failure::of_upstream(&error))).await;
            return (Outcome::Failed(error.kind()), After::Close);
        }
    };
    empty(&mut out);
    let mut outlet = HttpOutlet::new(worker, client, head, out);
    let expected = Expected {
        dialect,
        ..Expected::default()
    };
    let relayed = relay::reply(worker, &mut inlet, expected, tap, &mut outlet).await;
    (relayed.outcome, outlet.after(relayed.outcome))
}

/// Forgets the request that was written, and what room it took beyond what most messages need.
fn empty(out: &mut Vec<u8>) {
    out.clear();
    if out.capacity() > MOST_ROOM {
        out.shrink_to(ROOM);
    }
}

/// Passes a request on whose whole body must be known first.
async fn pass_whole(
    worker: &Worker,
    client: &mut ServerConnection,
    incoming: &Incoming,
    tap: &mut Tap,
) -> (Outcome, After) {
    let head = &incoming.head;
    let body = match whole_body(client, incoming).await {
        Ok(body) => body,
        Err(error) => return (unread(worker, client, &error).await, After::Close),
    };
    tap.in_body = client.read_at();
    let fields: Vec<_> = upstream_fields(head)
        .filter(|(name, _)| !name.eq_ignore_ascii_case(b"content-length"))
        .map(|(name, value)| (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)))
        .collect();
    let question = Question {
        method: &head.method,
        target: &head.target,
        fields: &fields,
        traceparent: None,
        body,
    };
    let mut outlet = HttpOutlet::new(worker, client, head, Vec::with_capacity(ROOM));
    match turn::serve(worker, question, tap, &mut outlet).await {
        Ok(relayed) => (relayed.outcome, outlet.after(relayed.outcome)),
        Err(failed) => {
            // The client may be gone already.
            let _ = answer(client, &failed.failure).await;
            (Outcome::Failed(failed.kind), After::Close)
        }
    }
}

async fn whole_body(
    client: &mut ServerConnection,
    incoming: &Incoming,
) -> Result<Bytes, ServerError> {
    if awaits_word(incoming) {
        go_on(client).await?;
    }
    client.whole_body().await
}

/// How an exchange ended whose request could not be read; the client is told why.
async fn unread(worker: &Worker, client: &mut ServerConnection, error: &ServerError) -> Outcome {
    refuse(worker, client, error).await;
    match error {
        ServerError::Io(_) => Outcome::Cancelled,
        _ => Outcome::Failed(FailureKind::ClientError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_does_not_keep_the_room_of_a_large_request() {
        let mut out = Vec::with_capacity(ROOM);
        out.resize(64 * ROOM, b'x');
        empty(&mut out);
        assert!(out.is_empty() && out.capacity() <= MOST_ROOM);
        out.resize(2 * ROOM, b'x');
        let capacity = out.capacity();
        empty(&mut out);
        // To give so little back would take longer than to keep it.
        assert!(out.is_empty() && out.capacity() == capacity);
    }
}
