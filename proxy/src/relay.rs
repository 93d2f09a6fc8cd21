//! From the upstream to the client: each read is passed on at once and tapped after that, and nothing is read while the
//! client is slow.

use bytes::Bytes;
use tokenlag_channel::http::{Connection, Response, ResponseHead};
use tokenlag_channel::{ChannelError, Chunk};
use tokenlag_dialect::decoder::EVENT_LIMIT;
use tokenlag_dialect::{Dialect, Framing, SseSplitter};
use tokenlag_probes::{FailureKind, Outcome};
use tokio::select;

use crate::conversations::Turn;
use crate::inlet::Inlet;
use crate::outlet::Outlet;
use crate::tap::Tap;
use crate::worker::Worker;

/// The longest reply in one object by which a turn is kept.
const OBJECT_LIMIT: usize = 16 * 1024 * 1024;

/// A reply that was passed on.
#[derive(Debug)]
pub(crate) struct Relayed {
    pub(crate) outcome: Outcome,
    /// What a turn can be kept by: the data of a stream's terminal event, or the whole of a reply that was not streamed.
    pub(crate) ending: Option<Vec<u8>>,
}

impl From<Outcome> for Relayed {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            ending: None,
        }
    }
}

/// Passes a reply on to its end, and gives the upstream connection back where it can be used again.
pub(crate) async fn reply(
    worker: &Worker,
    mut inlet: Inlet,
    dialect: Option<Dialect>,
    turn: Option<&mut Turn>,
    tap: &mut Tap,
    outlet: &mut impl Outlet,
) -> Relayed {
    let status = inlet.head.status;
    let mut body = Body::new(&inlet.head, dialect, turn, tap, outlet);
    outlet.start(&inlet.head, inlet.length, body.splitter.is_some());
    loop {
        if let Err(kind) = pass_buffered(&mut inlet, &mut body, tap, outlet) {
            return Outcome::Failed(kind).into();
        }
        if inlet.is_done() {
            outlet.end();
        }
        match outlet.flush().await {
            Ok(at) => tap.wrote(at),
            Err(_) => return Outcome::Cancelled.into(),
        }
        if inlet.is_done() {
            break;
        }
        select! {
            biased;
            read = inlet.more(worker) => {
                if let Err(error) = read {
                    return Outcome::Failed(error.kind()).into();
                }
            }
            () = outlet.gone() => return Outcome::Cancelled.into(),
        }
    }
    // After an early answer the rest of the request is still owed to this connection.
    inlet.give_back(worker, tap.overlapped);
    Relayed {
        outcome: tap.relayed(status),
        ending: body.ending(tap),
    }
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
        body.pass(&chunk, outlet)?;
        tap.hold(chunk);
    }
    Ok(())
}

/// A reply's body on its way: as events where they are wanted, else as bytes; and what of it a turn is kept by.
struct Body<'a> {
    splitter: Option<SseSplitter>,
    turn: Option<&'a mut Turn>,
    /// A reply in one object, where a turn is to be kept by it.
    object: Option<Vec<Bytes>>,
    length: usize,
}

impl<'a> Body<'a> {
    fn new(
        head: &ResponseHead,
        dialect: Option<Dialect>,
        turn: Option<&'a mut Turn>,
        tap: &mut Tap,
        outlet: &impl Outlet,
    ) -> Self {
        let stream = dialect.filter(|dialect| is_readable(head, dialect.media_type()));
        if let Some(dialect) = stream {
            tap.understand(dialect);
        }
        let has_events = stream.is_some_and(|dialect| dialect.framing() == Framing::Sse);
        let turn = turn.filter(|_| head.status == 200);
        let object = turn.is_some() && is_readable(head, "application/json");
        Self {
            splitter: (has_events && outlet.wants_events()).then(|| SseSplitter::new(EVENT_LIMIT)),
            turn: turn.filter(|_| stream.is_some() || object),
            object: object.then(Vec::new),
            length: 0,
        }
    }

    fn pass(&mut self, chunk: &Chunk, outlet: &mut impl Outlet) -> Result<(), FailureKind> {
        if let Some(turn) = &mut self.turn {
            turn.begins(&chunk.bytes);
        }
        match &mut self.splitter {
            // An event beyond the limit cannot be turned into a message.
            Some(splitter) => splitter
                .feed(&chunk.bytes, &mut |event| outlet.event(event))
                .map_err(|_| FailureKind::Protocol)?,
            None => outlet.bytes(chunk.bytes.clone()),
        }
        self.length += chunk.bytes.len();
        match &mut self.object {
            Some(pieces) if self.length <= OBJECT_LIMIT => pieces.push(chunk.bytes.clone()),
            Some(_) => self.object = None,
            None => {}
        }
        Ok(())
    }

    fn ending(self, tap: &Tap) -> Option<Vec<u8>> {
        match self.object {
            Some(pieces) => Some(pieces.concat()),
            None => tap.terminal_event().map(<[u8]>::to_vec),
        }
    }
}

/// Of that media type, and not compressed.
fn is_readable(head: &ResponseHead, media_type: &str) -> bool {
    let plain = head
        .headers
        .get("content-encoding")
        .is_none_or(|coding| coding.eq_ignore_ascii_case("identity"));
    head.is_of_type(media_type) && plain
}
