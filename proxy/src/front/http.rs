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
use tokio::select;

use super::turn::{self, Question};
use super::{tunnel, ws};
use crate::body::Expected;
use crate::failure::Failure;
use crate::inlet::Inlet;
use crate::outlet::Outlet;
use crate::relay;
use crate::tap::Tap;
use crate::upstream::was_stale;
use crate::worker::Worker;

/// The channel's name in records: the proxy cannot know whether the client will come again.
const CHANNEL: &str = "http";

/// The name under which refusals are counted.
const DOOR: &str = "http1";

/// Serves one client connection to its end. What is large is boxed: an idle connection does not pay for it.
pub(crate) async fn serve(worker: Rc<Worker>, mut connection: ServerConnection) {
    loop {
        let request = select! {
            biased;
            request = connection.next_request() => request,
            () = worker.draining() => break,
        };
        let incoming = match request {
            Ok(Some(incoming)) => incoming,
            Ok(None) => return,
            Err(error) => {
                refuse(&worker, &mut connection, &error).await;
                return connection.close_after_answer().await;
            }
        };
        let responses = Dialect::of_path(&incoming.head.target) == Some(Dialect::Responses);
        if incoming.head.wants_websocket() && responses {
            return Box::pin(ws::serve(worker, connection, &incoming.head)).await;
        }
        if asks_for_tunnel(&incoming) {
            return Box::pin(tunnel::serve(&worker, connection, &incoming.head)).await;
        }
        match Box::pin(exchange(&worker, &mut connection, &incoming)).await {
            After::Again => {}
            After::Close if connection.body_is_done() => break,
            After::Close => return connection.close_after_answer().await,
            After::Abort => return,
        }
    }
    connection.close().await;
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
    let traceparent = incoming.head.headers.get("traceparent");
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
        return pass_whole(worker, client, incoming, tap).await;
    }
    let inlet = match ask(worker, client, incoming, tap).await {
        Ok(Some(inlet)) => inlet,
        Ok(None) => return (Outcome::Cancelled, After::Abort),
        Err(Unasked::Client(error)) => return (unread(worker, client, &error).await, After::Close),
        Err(Unasked::Upstream(error)) => {
            // The client may be gone already.
            let _ = answer(client, &Failure::of_upstream(&error)).await;
            return (Outcome::Failed(error.kind()), After::Close);
        }
    };
    let mut outlet = HttpOutlet::new(worker, client, head);
    let expected = Expected {
        dialect,
        ..Expected::default()
    };
    let relayed = relay::reply(worker, inlet, expected, tap, &mut outlet).await;
    (relayed.outcome, outlet.after(relayed.outcome))
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
    let mut outlet = HttpOutlet::new(worker, client, head);
    match turn::serve(worker, question, tap, &mut outlet).await {
        Ok(passed) => {
            let outcome = passed.outcome;
            let after = outlet.after(outcome);
            passed.settle();
            (outcome, after)
        }
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
    go_on(client, incoming).await?;
    client.whole_body().await
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
async fn unread(worker: &Worker, client: &mut ServerConnection, error: &ServerError) -> Outcome {
    refuse(worker, client, error).await;
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
    let Some((upstream, response)) = asked? else {
        return Ok(None);
    };
    let (method, idle) = (&incoming.head.method, worker.pool.idle_timeout());
    Ok(Some(Inlet::http(upstream, response, method, idle)?))
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
    if worker.pool.is_cold() {
        push_field(&mut out, b"connection", b"close");
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
    worker: &'a Worker,
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
    fn new(worker: &'a Worker, client: &'a mut ServerConnection, head: &RequestHead) -> Self {
        let keep = head.keep_alive() && client.body_is_done() && !worker.is_draining();
        Self {
            worker,
            client,
            out: Vec::with_capacity(1024),
            chunked: false,
            version: head.version,
            keep,
            ended: false,
        }
    }

    /// What becomes of the connection after an exchange that ended so.
    fn after(&self, outcome: Outcome) -> After {
        match outcome {
            Outcome::Cancelled => After::Abort,
            _ if !self.ended => After::Abort,
            _ if self.keep => After::Again,
            _ => After::Close,
        }
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
        let alt_svc = self.worker.door.alt_svc(self.client.is_tls());
        if let Some(alt_svc) = alt_svc.filter(|_| head.headers.get("alt-svc").is_none()) {
            push_field(&mut self.out, b"alt-svc", alt_svc.as_bytes());
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
        let written = self.client.write_all(&self.out).await;
        self.out.clear();
        if let Err(error) = &written
            && error.kind() == io::ErrorKind::TimedOut
        {
            self.worker.book.metrics.refused(DOOR, "stalled");
        }
        written
    }

    async fn gone(&mut self) {
        self.client.hung_up().await;
    }
}
