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

use super::exchange::BODY_LIMIT;
use super::turn::{self, Question};
use super::{tunnel, ws};
use crate::failure::Failure;
use crate::inlet::Inlet;
use crate::options::StateAt;
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
    let dialect = (head.method == "POST")
        .then(|| Dialect::of_path(&head.target))
        .flatten();
    if dialect == Some(Dialect::Responses) && worker.state_at == StateAt::Proxy {
        return pass_whole(worker, client, incoming, tap).await;
    }
    let inlet = match ask(worker, client, incoming, tap).await {
        Ok(Some(inlet)) => inlet,
        Ok(None) => return (Outcome::Cancelled, false),
        Err(Unasked::Client(error)) => return (unread(client, &error).await, false),
        Err(Unasked::Upstream(error)) => {
            // The client may be gone already.
            let _ = answer(client, &Failure::of_upstream(&error)).await;
            return (Outcome::Failed(error.kind()), false);
        }
    };
    let mut outlet = HttpOutlet::new(worker, client, head);
    let relayed = relay::reply(worker, inlet, dialect, None, tap, &mut outlet).await;
    (relayed.outcome, outlet.is_reusable(relayed.outcome))
}

/// Passes a request on whose whole body must be known first.
async fn pass_whole(
    worker: &Worker,
    client: &mut ServerConnection,
    incoming: &Incoming,
    tap: &mut Tap,
) -> (Outcome, bool) {
    let head = &incoming.head;
    let body = match whole_body(client, incoming).await {
        Ok(body) => body,
        Err(error) => return (unread(client, &error).await, false),
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
    let mut outlet = HttpOutlet::new(worker, client, head);
    match turn::serve(worker, question, tap, &mut outlet).await {
        Ok(passed) => {
            let outcome = passed.outcome;
            let reusable = outlet.is_reusable(outcome);
            passed.settle();
            (outcome, reusable)
        }
        Err(failed) => {
            // The client may be gone already.
            let _ = answer(client, &failed.failure).await;
            (Outcome::Failed(failed.kind), false)
        }
    }
}

async fn whole_body(
    client: &mut ServerConnection,
    incoming: &Incoming,
) -> Result<Bytes, ServerError> {
    go_on(client, incoming).await?;
    client.whole_body(BODY_LIMIT).await
}

/// Tells a client that waits for it to send the body (RFC 9110, section 10.1.1).
async fn go_on(client: &mut ServerConnection, incoming: &Incoming) -> Result<(), ServerError> {
    let waits = incoming.head.headers.has_token("expect", "100-continue");
    if waits && incoming.framing != Framing::Empty {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    Ok(())
}

/// How an exchange ended whose request could not be read; the client is told why.
async fn unread(client: &mut ServerConnection, error: &ServerError) -> Outcome {
    refuse(client, error).await;
    match error {
        ServerError::Io(_) => Outcome::Cancelled,
        _ => Outcome::Failed(FailureKind::ClientError),
    }
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
) -> Result<Option<Inlet>, Unasked> {
    go_on(client, incoming).await?;
    let mut sender = Sender::new(worker, incoming);
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
    match asked? {
        Some((upstream, response)) => Ok(Some(Inlet::http(
            upstream,
            response,
            &incoming.head.method,
        )?)),
        None => Ok(None),
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
    for (name, value) in upstream_fields(head) {
        push_field(&mut out, name, value);
    }
    if chunked {
        push_field(&mut out, b"transfer-encoding", b"chunked");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The client's fields for the upstream.
fn upstream_fields(head: &RequestHead) -> impl Iterator<Item = (&[u8], &[u8])> {
    let ours = [&b"host"[..], b"expect"];
    let fields = head.headers.end_to_end();
    fields.filter(move |(name, _)| !ours.iter().any(|own| name.eq_ignore_ascii_case(own)))
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

impl<'a> HttpOutlet<'a> {
    fn new(worker: &Worker, client: &'a mut ServerConnection, head: &RequestHead) -> Self {
        let keep = head.keep_alive() && client.body_is_done() && !worker.is_draining();
        Self {
            client,
            out: Vec::with_capacity(1024),
            chunked: false,
            version: head.version,
            keep,
            ended: false,
        }
    }

    /// Whether the connection can carry another exchange. A reply that was cut off must look so: the connection is closed
    /// inside its body.
    fn is_reusable(&self, outcome: Outcome) -> bool {
        self.keep && self.ended && outcome != Outcome::Cancelled
    }
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
