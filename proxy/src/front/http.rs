//! HTTP/1.1 clients: requests and replies pass through as they are.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use tokenlag_channel::ChannelError;
use tokenlag_channel::http::body::{LAST_CHUNK, push_chunk};
use tokenlag_channel::http::render::{push_field, start_request, start_response};
use tokenlag_channel::http::{
    Connection, Framing, Incoming, RequestHead, Response, ResponseHead, ServerConnection,
    ServerError,
};
use tokenlag_dialect::{Dialect, SseEvent, write_event};
use tokenlag_probes::{FailureKind, Outcome, Stamp, TraceId};
use tokio::net::TcpStream;
use tokio::select;

use super::{tunnel, ws};
use crate::failure::Failure;
use crate::outlet::Outlet;
use crate::relay;
use crate::tap::Tap;
use crate::upstream::was_stale;
use crate::worker::Worker;

/// The channel's name in records: the proxy cannot know whether the client will come again.
const CHANNEL: &str = "http";

/// Serves one client connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream) {
    let Ok(mut connection) = ServerConnection::new(stream) else {
        return;
    };
    loop {
        let request = select! {
            biased;
            request = connection.next_request() => request,
            () = worker.draining() => return,
        };
        let incoming = match request {
            Ok(Some(incoming)) => incoming,
            Ok(None) => return,
            Err(error) => return refuse(&mut connection, &error).await,
        };
        let responses = Dialect::of_path(&incoming.head.target) == Some(Dialect::Responses);
        if incoming.head.wants_websocket() && responses {
            return ws::serve(worker, connection, &incoming.head).await;
        }
        if asks_for_tunnel(&incoming) {
            return tunnel::serve(&worker, connection, &incoming.head).await;
        }
        if !exchange(&worker, &mut connection, &incoming).await {
            return;
        }
    }
}

/// An upgrade that only the upstream can decide on. An offer of HTTP/2 in clear may be passed over (RFC 9110, section 7.8), and
/// clients make it with any request; one with a body is served as if nothing had been offered.
fn asks_for_tunnel(incoming: &Incoming) -> bool {
    let headers = &incoming.head.headers;
    headers.has_token("connection", "upgrade")
        && !headers.has_token("upgrade", "h2c")
        && incoming.framing == Framing::Empty
}

async fn refuse(connection: &mut ServerConnection, error: &ServerError) {
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

/// Serves one request; says whether the connection can carry another.
async fn exchange(worker: &Worker, client: &mut ServerConnection, incoming: &Incoming) -> bool {
    let _active = worker.book.metrics.begin(CHANNEL);
    let traceparent = incoming.head.headers.get("traceparent");
    let trace = traceparent.and_then(TraceId::from_traceparent);
    let mut tap = Tap::new(CHANNEL, trace, incoming.in_head);
    let (outcome, reusable) = pass(worker, client, incoming, &mut tap).await;
    worker.book.enter(tap.finish(outcome));
    reusable && !worker.is_draining()
}

async fn pass(
    worker: &Worker,
    client: &mut ServerConnection,
    incoming: &Incoming,
    tap: &mut Tap,
) -> (Outcome, bool) {
    let head = &incoming.head;
    let (upstream, response) = match ask(worker, client, incoming, tap).await {
        Ok(Some(opened)) => opened,
        Ok(None) => return (Outcome::Cancelled, false),
        Err(Unasked::Client(error)) => {
            refuse(client, &error).await;
            let kind = match error {
                ServerError::Io(_) => return (Outcome::Cancelled, false),
                _ => FailureKind::ClientError,
            };
            return (Outcome::Failed(kind), false);
        }
        Err(Unasked::Upstream(error)) => {
            // The client may be gone already.
            let _ = answer(client, &Failure::of_upstream(&error)).await;
            return (Outcome::Failed(error.kind()), false);
        }
    };
    let dialect = (head.method == "POST")
        .then(|| Dialect::of_path(&head.target))
        .flatten();
    let keep = head.keep_alive() && client.body_is_done() && !worker.is_draining();
    let mut outlet = HttpOutlet {
        client,
        out: Vec::with_capacity(1024),
        chunked: false,
        version: head.version,
        keep,
        ended: false,
    };
    let outcome = relay::reply(
        worker,
        upstream,
        response,
        &head.method,
        dialect,
        tap,
        &mut outlet,
    )
    .await;
    // A reply that was cut off must look so: the connection is closed inside its body.
    let reusable = outlet.keep && outlet.ended && outcome != Outcome::Cancelled;
    (outcome, reusable)
}

/// Why there is no reply.
enum Unasked {
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

/// Sends the request upstream and waits for the reply's head; `None` where the client is gone first.
async fn ask(
    worker: &Worker,
    client: &mut ServerConnection,
    incoming: &Incoming,
    tap: &mut Tap,
) -> Result<Option<(Connection, Response)>, Unasked> {
    let head = &incoming.head;
    if head.headers.has_token("expect", "100-continue") && incoming.framing != Framing::Empty {
        let go_on = client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        go_on.map_err(ServerError::Io)?;
    }
    let mut sender = Sender::new(worker, incoming);
    let (upstream, anew) = worker.pool.take().await?;
    tap.up_connected_anew = anew;
    match ask_on(upstream, worker, client, incoming, &mut sender, tap).await {
        Err(Unasked::Upstream(error))
            if sender.can_repeat() && was_stale(anew, &error, tap.up_written) =>
        {
            tap.up_connected_anew = true;
            let upstream = worker.pool.dial().await?;
            ask_on(upstream, worker, client, incoming, &mut sender, tap).await
        }
        asked => asked,
    }
}

async fn ask_on(
    mut upstream: Connection,
    worker: &Worker,
    client: &mut ServerConnection,
    incoming: &Incoming,
    sender: &mut Sender,
    tap: &mut Tap,
) -> Result<Option<(Connection, Response)>, Unasked> {
    sender.send(client, &mut upstream, tap).await?;
    let gone = client.hung_up();
    let head = relay::reply_head(worker, &mut upstream, &incoming.head.method, gone).await?;
    Ok(head.map(|response| (upstream, response)))
}

/// Sends head and body as the body arrives; the head leaves with what is there of the body.
struct Sender {
    chunked: bool,
    /// Bytes that are to be sent, or were sent last.
    out: Vec<u8>,
    /// Something left before the request was whole.
    begun: bool,
    /// `out` is the whole request: it can be repeated.
    whole: bool,
}

impl Sender {
    fn new(worker: &Worker, incoming: &Incoming) -> Self {
        let chunked = incoming.framing == Framing::Chunked;
        Self {
            chunked,
            out: upstream_head(worker, &incoming.head, chunked),
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
        loop {
            while let Some(piece) = client.buffered_body_piece()? {
                self.push(&piece);
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
                tap.overlapped = upstream.send_unless_answered(&self.out).await?.is_none();
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
        tap.up_written = upstream.send_unless_answered(&self.out).await?;
        tap.overlapped = tap.up_written.is_none();
        Ok(())
    }

    fn push(&mut self, piece: &[u8]) {
        if self.chunked {
            push_chunk(&mut self.out, piece);
        } else {
            self.out.extend_from_slice(piece);
        }
    }
}

fn upstream_head(worker: &Worker, head: &RequestHead, chunked: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    // The upstream was named by its URL, and that is the name it knows itself by.
    let (target, authority) = (
        worker.upstream.path(&head.target),
        worker.upstream.authority(),
    );
    start_request(&mut out, &head.method, &target, &authority);
    let ours = [&b"host"[..], b"expect"];
    for (name, value) in head.headers.end_to_end() {
        if !ours.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            push_field(&mut out, name, value);
        }
    }
    if chunked {
        push_field(&mut out, b"transfer-encoding", b"chunked");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Writes a reply to an HTTP/1.1 client.
struct HttpOutlet<'a> {
    client: &'a mut ServerConnection,
    out: Vec<u8>,
    chunked: bool,
    version: u8,
    /// The connection can carry another request.
    keep: bool,
    /// The reply was passed on to its end.
    ended: bool,
}

impl Outlet for HttpOutlet<'_> {
    fn wants_events(&self) -> bool {
        false
    }

    fn start(&mut self, head: &ResponseHead, framing: Framing, _events: bool) {
        start_response(&mut self.out, head.status, &head.reason);
        for (name, value) in head.headers.end_to_end() {
            push_field(&mut self.out, name, value);
        }
        let unbounded = matches!(framing, Framing::Chunked | Framing::UntilClose);
        self.chunked = unbounded && self.version == 1;
        // To HTTP/1.0 the end of such a body is the end of the connection.
        self.keep &= !unbounded || self.chunked;
        if self.chunked {
            push_field(&mut self.out, b"transfer-encoding", b"chunked");
        }
        if !self.keep {
            push_field(&mut self.out, b"connection", b"close");
        }
        self.out.extend_from_slice(b"\r\n");
    }

    fn event(&mut self, event: SseEvent<'_>) {
        let mut bytes = Vec::with_capacity(event.data.len() + 64);
        let name = std::str::from_utf8(event.name)
            .ok()
            .filter(|name| !name.is_empty());
        write_event(&mut bytes, name, event.data);
        self.bytes(bytes.into());
    }

    fn bytes(&mut self, bytes: Bytes) {
        if self.chunked {
            push_chunk(&mut self.out, &bytes);
        } else {
            self.out.extend_from_slice(&bytes);
        }
    }

    fn end(&mut self) {
        self.ended = true;
        if self.chunked {
            self.out.extend_from_slice(LAST_CHUNK);
        }
    }

    async fn flush(&mut self) -> io::Result<Stamp> {
        if self.out.is_empty() {
            return Ok(self.client.read_at());
        }
        let at = self.client.write_all(&self.out).await?;
        self.out.clear();
        Ok(at)
    }

    async fn gone(&mut self) {
        self.client.hung_up().await;
    }
}
