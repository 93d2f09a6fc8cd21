//! From the upstream to the client: each read is passed on at once and tapped after that, and nothing is read while the
//! client is slow.

use tokenlag_channel::ChannelError;
use tokenlag_channel::http::{Connection, Response, ResponseHead};
use tokenlag_dialect::decoder::EVENT_LIMIT;
use tokenlag_dialect::{Dialect, Framing, SseSplitter};
use tokenlag_probes::{FailureKind, Outcome};
use tokio::select;

use crate::outlet::Outlet;
use crate::tap::Tap;
use crate::worker::Worker;

/// Waits for the reply's head; `None` where the client is gone first.
///
/// # Errors
/// The upstream failed before it said anything that can be passed on.
pub(crate) async fn reply_head(
    worker: &Worker,
    upstream: &mut Connection,
    method: &str,
    gone: impl Future<Output = ()>,
) -> Result<Option<Response>, ChannelError> {
    select! {
        biased;
        response = upstream.response(method, worker.pool.idle_timeout()) => response.map(Some),
        () = gone => Ok(None),
    }
}

/// Passes a reply on to its end, and gives the upstream connection back where it can be used again.
pub(crate) async fn reply(
    worker: &Worker,
    mut upstream: Connection,
    mut response: Response,
    method: &str,
    dialect: Option<Dialect>,
    tap: &mut Tap,
    outlet: &mut impl Outlet,
) -> Outcome {
    let status = response.head.status;
    let dialect = dialect.filter(|dialect| is_readable_stream(&response.head, *dialect));
    if let Some(dialect) = dialect {
        tap.understand(dialect);
    }
    let has_events = dialect.is_some_and(|dialect| dialect.framing() == Framing::Sse);
    let mut splitter = (has_events && outlet.wants_events()).then(|| SseSplitter::new(EVENT_LIMIT));
    let Ok(framing) = response.head.framing(method) else {
        return Outcome::Failed(FailureKind::Protocol);
    };
    outlet.start(&response.head, framing, splitter.is_some());
    loop {
        let passed = pass_buffered(&mut upstream, &mut response, &mut splitter, tap, outlet);
        if let Err(kind) = passed {
            return Outcome::Failed(kind);
        }
        if response.is_done() {
            outlet.end();
        }
        match outlet.flush().await {
            Ok(at) => tap.wrote(at),
            Err(_) => return Outcome::Cancelled,
        }
        if response.is_done() {
            break;
        }
        select! {
            biased;
            read = upstream.read_more(&mut response, worker.pool.idle_timeout()) => {
                if let Err(error) = read {
                    return Outcome::Failed(error.kind());
                }
            }
            () = outlet.gone() => return Outcome::Cancelled,
        }
    }
    // After an early answer the rest of the request is still owed to this connection.
    if response.is_reusable() && !tap.overlapped {
        worker.pool.put(upstream);
    }
    tap.relayed(status)
}

/// Puts in everything that one read released: as events where there is a splitter, else as bytes.
fn pass_buffered(
    upstream: &mut Connection,
    response: &mut Response,
    splitter: &mut Option<SseSplitter>,
    tap: &mut Tap,
    outlet: &mut impl Outlet,
) -> Result<(), FailureKind> {
    let broken = |error: ChannelError| error.kind();
    while let Some(chunk) = upstream.buffered_chunk(response).map_err(broken)? {
        match splitter {
            // An event beyond the limit cannot be turned into a message.
            Some(splitter) => splitter
                .feed(&chunk.bytes, &mut |event| outlet.event(event))
                .map_err(|_| FailureKind::Protocol)?,
            None => outlet.bytes(chunk.bytes.clone()),
        }
        tap.hold(chunk);
    }
    Ok(())
}

/// A stream as the dialect frames it, that is not compressed.
fn is_readable_stream(head: &ResponseHead, dialect: Dialect) -> bool {
    let plain = head
        .headers
        .get("content-encoding")
        .is_none_or(|coding| coding.eq_ignore_ascii_case("identity"));
    head.is_of_type(dialect.media_type()) && plain
}
