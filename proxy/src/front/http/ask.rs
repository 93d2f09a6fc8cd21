//! Sends a request upstream as it arrives, and waits for the head of its reply.

use tokenlag_channel::ChannelError;
use tokenlag_channel::http::body::{LAST_CHUNK, push_chunk};
use tokenlag_channel::http::render::{push_field, start_request};
use tokenlag_channel::http::{
    Connection, Framing, Incoming, RequestHead, Response, ServerConnection, ServerError,
};
use tokio::select;
use tokio::task::yield_now;

use crate::inlet::Inlet;
use crate::pooled::Pooled;
use crate::relay;
use crate::tap::Tap;
use crate::upstream::was_stale;
use crate::worker::Worker;

/// Pieces of a body that are taken in a row before other connections of the thread have their turn.
const PIECES: usize = 256;

/// Writes of a body, of some tens of kilobytes each, before they have theirs.
const WRITES: usize = 8;

/// Whether the client waits to be told before it sends the body (RFC 9110, section 10.1.1).
pub(super) fn awaits_word(incoming: &Incoming) -> bool {
    let waits = incoming.head.headers.has_token("expect", "100-continue");
    waits && incoming.framing != Framing::Empty
}

/// Tells it to.
pub(super) async fn go_on(client: &mut ServerConnection) -> Result<(), ServerError> {
    client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    Ok(())
}

/// Why there is no reply.
pub(super) enum Unasked {
    Client(ServerError),
    Upstream(ChannelError),
}

impl From<ServerError> for Unasked {
    fn from(error: ServerError) -> Self {
        Self::Client(error)
    }
}

impl From<ChannelError> for Unasked {
    fn from(error: ChannelError) -> Self {
        Self::Upstream(error)
    }
}

/// Sends the request upstream and waits for the reply's head; `None` where the client is gone first. The request goes through
/// `out`, which is empty.
pub(super) async fn ask(
    worker: &Worker,
    client: &mut ServerConnection,
    incoming: &Incoming,
    out: &mut Vec<u8>,
    tap: &mut Tap,
) -> Result<Option<Inlet>, Unasked> {
    if awaits_word(incoming) {
        Box::pin(go_on(client)).await?;
    }
    let mut sender = Sender::new(worker, incoming, out);
    let (upstream, anew) = worker.pool.take().await?;
    tap.up_connected_anew = anew;
    let asked = match ask_on(upstream, worker, client, incoming, &mut sender, tap).await {
        Err(Unasked::Upstream(error))
            if sender.can_repeat() && was_stale(anew, &error, tap.up_written) =>
        {
            tap.up_connected_anew = true;
            let upstream = worker.pool.dial().await?;
            ask_on(upstream, worker, client, incoming, &mut sender, tap).await
        }
        asked => asked,
    };
    let Some((upstream, response)) = asked? else {
        return Ok(None);
    };
    let idle = worker.pool.idle_timeout();
    Ok(Some(Inlet::http(upstream, response, idle)))
}

async fn ask_on(
    mut upstream: Box<Pooled>,
    worker: &Worker,
    client: &mut ServerConnection,
    incoming: &Incoming,
    sender: &mut Sender<'_>,
    tap: &mut Tap,
) -> Result<Option<(Box<Pooled>, Response)>, Unasked> {
    sender.send(client, &mut upstream, tap).await?;
    let gone = client.hung_up();
    let head = relay::reply_head(worker, &mut upstream, &incoming.head.method, gone).await?;
    Ok(head.map(|response| (upstream, response)))
}

/// Sends head and body as the body arrives; the head leaves with what is there of the body.
struct Sender<'a> {
    chunked: bool,
    /// Bytes that are to be sent, or were sent last.
    out: &'a mut Vec<u8>,
    /// Something left before the request was whole.
    begun: bool,
    /// `out` is the whole request: it can be repeated.
    whole: bool,
}

impl<'a> Sender<'a> {
    fn new(worker: &Worker, incoming: &Incoming, out: &'a mut Vec<u8>) -> Self {
        let chunked = incoming.framing == Framing::Chunked;
        put_upstream_head(worker, &incoming.head, chunked, out);
        Self {
            chunked,
            out,
            begun: false,
            whole: false,
        }
    }

    fn can_repeat(&self) -> bool {
        self.whole
    }

    async fn send(
        &mut self,
        client: &mut ServerConnection,
        upstream: &mut Connection,
        tap: &mut Tap,
    ) -> Result<(), Unasked> {
        if self.whole {
            return self.send_last(upstream, tap).await;
        }
        let mut writes = 0;
        loop {
            let mut pieces = 0;
            while client.look_at_body_piece(|piece| self.push(piece))? {
                pieces += 1;
                // Pieces of a byte: others have their turn.
                if pieces == PIECES {
                    pieces = 0;
                    yield_now().await;
                }
            }
            if client.body_is_done() {
                tap.in_body = client.read_at();
                if self.chunked {
                    self.out.extend_from_slice(LAST_CHUNK);
                }
                return self.send_last(upstream, tap).await;
            }
            if !self.out.is_empty() {
                self.begun = true;
                writes += 1;
                if writes == WRITES {
                    writes = 0;
                    yield_now().await;
                }
                tap.overlapped = upstream.send_unless_answered(self.out).await?.is_none();
                self.out.clear();
            }
            if tap.overlapped {
                return Ok(());
            }
            select! {
                biased;
                piece = client.body_piece() => {
                    if let Some(piece) = piece? {
                        self.push(&piece);
                    }
                }
                () = upstream.answered() => tap.overlapped = true,
            }
        }
    }

    async fn send_last(&mut self, upstream: &mut Connection, tap: &mut Tap) -> Result<(), Unasked> {
        self.whole = !self.begun;
        tap.up_written = upstream.send_unless_answered(self.out).await?;
        tap.overlapped = tap.up_written.is_none();
        Ok(())
    }

    fn push(&mut self, piece: &[u8]) {
        if self.chunked {
            push_chunk(self.out, piece);
        } else {
            self.out.extend_from_slice(piece);
        }
    }
}

fn put_upstream_head(worker: &Worker, head: &RequestHead, chunked: bool, out: &mut Vec<u8>) {
    // The upstream was named by its URL, and that is the name it knows itself by.
    let target = worker.upstream.path(&head.target);
    start_request(out, &head.method, &target, &worker.authority);
    for (name, value) in upstream_fields(head) {
        push_field(out, name, value);
    }
    if chunked {
        push_field(out, b"transfer-encoding", b"chunked");
    }
    if worker.pool.is_cold() {
        push_field(out, b"connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
}

/// The client's fields for the upstream.
pub(super) fn upstream_fields(head: &RequestHead) -> impl Iterator<Item = (&[u8], &[u8])> {
    let ours = [&b"host"[..], b"expect"];
    let fields = head.headers.end_to_end();
    fields.filter(move |(name, _)| !ours.iter().any(|own| name.eq_ignore_ascii_case(own)))
}
