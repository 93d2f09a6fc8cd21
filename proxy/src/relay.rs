//! From the upstream to the client: each read is passed on at once and tapped after that, and nothing is read while the
//! client is slow.

use tokenlag_channel::http::{Connection, Response};
use tokenlag_channel::{ChannelError, Chunk};
use tokenlag_dialect::Dialect;
use tokenlag_probes::{Clock, FailureKind, MonoClock, Outcome};
use tokio::select;

use crate::body::{Body, Expected};
use crate::inlet::Inlet;
use crate::outlet::Outlet;
use crate::remains::Remains;
use crate::tap::Tap;
use crate::translation::Translation;
use crate::worker::Worker;

/// A reply that was passed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relayed {
    pub(crate) outcome: Outcome,
    /// The client has the terminal event: it may leave.
    pub(crate) is_told: bool,
}

impl From<Outcome> for Relayed {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            is_told: false,
        }
    }
}

impl From<FailureKind> for Relayed {
    fn from(kind: FailureKind) -> Self {
        Outcome::Failed(kind).into()
    }
}

/// Passes a reply on to its end, and gives the upstream connection back where it can be used again. The turn that it ends is
/// kept as soon as the client has the terminal event, whatever the upstream still has to say after that: with that event
/// the client may go on, or leave.
pub(crate) async fn reply(
    worker: &Worker,
    inlet: &mut Inlet,
    mut expected: Expected<'_>,
    tap: &mut Tap,
    outlet: &mut impl Outlet,
) -> Relayed {
    if let Some(translation) = expected.translation.take_if(|wanted| !wanted.is_streamed()) {
        let whole = Box::pin(in_one_piece(worker, translation, inlet, tap, outlet));
        if let Err(ended) = whole.await {
            return ended;
        }
    }
    let status = inlet.head.status;
    let mut body = Body::start(inlet, expected, tap, outlet);
    loop {
        // Of what was flushed; the next flush may fail.
        let was_told = body.is_told(tap);
        if let Err(kind) = pass_buffered(inlet, &mut body, tap, outlet) {
            return kind.into();
        }
        if inlet.is_done() {
            body.end(outlet);
        }
        match outlet.flush().await {
            Ok(at) => tap.wrote(at),
            Err(_) if was_told => {
                Remains::of(inlet.take(), worker, tap).forget();
                return body.relayed(tap, status);
            }
            Err(_) => return Outcome::Cancelled.into(),
        }
        body.settle(tap, status);
        if inlet.is_done() {
            break;
        }
        if outlet.ends_with_terminal() && body.is_told(tap) && !inlet.ends_with_terminal() {
            outlet.end();
            Remains::of(inlet.take(), worker, tap).forget();
            return body.relayed(tap, status);
        }
        if tap.has_ended() && inlet.ends_with_terminal() {
            inlet.end();
            // A reply that broke off says so in an event where it comes as messages; where it goes on as bytes it is cut off.
            if let Some(broken) = tap.broke_off().filter(|_| !outlet.wants_events()) {
                inlet.give_back(&worker.pool, false).await;
                return broken.into();
            }
            continue;
        }
        select! {
            biased;
            read = inlet.more() => {
                if let Err(error) = read {
                    return error.kind().into();
                }
            }
            () = outlet.gone() => {
                if !body.is_told(tap) {
                    return Outcome::Cancelled.into();
                }
                Remains::of(inlet.take(), worker, tap).forget();
                return body.relayed(tap, status);
            }
        }
    }
    // After an early answer the rest of the request is still owed to this connection.
    inlet.give_back(&worker.pool, tap.overlapped).await;
    body.relayed(tap, status)
}

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

/// Puts in everything that one read released.
fn pass_buffered(
    inlet: &mut Inlet,
    body: &mut Body<'_>,
    tap: &mut Tap,
    outlet: &mut impl Outlet,
) -> Result<(), FailureKind> {
    let broken = |error: ChannelError| error.kind();
    while let Some(chunk) = inlet.buffered().map_err(broken)? {
        outlet.upstream_read(tap.up_written, chunk.at);
        body.pass(&chunk, inlet.event_name(), outlet)?;
        tap.hold(chunk);
    }
    Ok(())
}

/// Reads a chat to its end, for a client that wants the response in one piece, and puts that in the place of what comes from
/// upstream. A reply that is none to be translated stays as it is.
async fn in_one_piece(
    worker: &Worker,
    mut translation: Box<Translation>,
    inlet: &mut Inlet,
    tap: &mut Tap,
    outlet: &mut impl Outlet,
) -> Result<(), Relayed> {
    if !translation.understands(&inlet.head) {
        return Ok(());
    }
    tap.understand(Dialect::Chat);
    let drop_event = &mut |_: &str, _: &[u8]| {};
    loop {
        while let Some(chunk) = inlet.buffered().map_err(|error| error.kind())? {
            outlet.upstream_read(tap.up_written, chunk.at);
            translation.take(&chunk, drop_event)?;
            tap.hold(chunk);
        }
        if inlet.is_done() {
            break;
        }
        select! {
            biased;
            read = inlet.more() => read.map_err(|error| error.kind())?,
            () = outlet.gone() => return Err(Outcome::Cancelled.into()),
        }
    }
    let status = match translation.end(drop_event) {
        Outcome::Complete => 200,
        _ => 502,
    };
    let response = Chunk {
        at: MonoClock.now(),
        ordinal: 0,
        bytes: translation.into_response(),
    };
    inlet.give_back(&worker.pool, tap.overlapped).await;
    *inlet = Inlet::whole(status, response);
    Ok(())
}
