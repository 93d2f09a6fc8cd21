//! An upstream that speaks WebSocket itself: both sockets are joined message by message, and what passes is only tapped.
//!
//! Lanes, their limits, state and errors are the upstream's business. Pings are answered on each side, extensions agreed
//! on neither; a farewell is passed on with its code.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use tokenlag_channel::Chunk;
use tokenlag_channel::http::render::{push_field, start_response};
use tokenlag_channel::http::{Headers, RequestHead, ResponseHead, ServerConnection};
use tokenlag_channel::ws::{self, Farewell, NotOpened, Received, Text, Upgrade, WebSocket};
use tokenlag_probes::{FailureKind, Outcome};
use tokio::select;

use super::pulse::{Pulse, Reading, overdue};
use super::taps::Taps;
use super::{broken, events};
use crate::carried::Carried;
use crate::failure::Failure;
use crate::front::http::answer;
use crate::worker::Worker;

/// Serves a client's WebSocket over one of the upstream's, to the end of both.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    mut connection: ServerConnection,
    head: &RequestHead,
    upgrade: Upgrade,
) {
    let stalled = worker.websocket.stalled;
    let target = worker.upstream.path(&head.target);
    let dialled = select! {
        biased;
        dialled = ws::dial(worker.pool.dialled(), &target, passed_on(&head.headers), stalled) => dialled,
        () = connection.hung_up() => return,
    };
    let refused = match dialled {
        Ok((upstream, answer)) => {
            let granted = upgrade.grant(connection, passed_on(&answer.headers), stalled);
            // The client may be gone already.
            if let Ok(client) = granted.await {
                Joined::new(worker, client, upstream).serve().await;
            }
            return;
        }
        Err(NotOpened::Refused { head, body }) => pass_refusal(&mut connection, &head, &body).await,
        Err(NotOpened::Failed(error)) => {
            let failure = Failure::of_upstream(&error);
            answer(&mut connection, &failure).await.map(drop)
        }
    };
    if refused.is_ok() {
        connection.close_after_answer().await;
    }
}

/// The fields of an opening, or of its answer, that concern more than one connection. Which subprotocol is spoken is agreed
/// on from end to end.
fn passed_on(headers: &Headers) -> impl Iterator<Item = (&[u8], &[u8])> {
    const OURS: [&[u8]; 6] = [
        b"host",
        b"content-length",
        b"sec-websocket-key",
        b"sec-websocket-accept",
        b"sec-websocket-version",
        b"sec-websocket-extensions",
    ];
    headers
        .end_to_end()
        .filter(|(name, _)| !OURS.iter().any(|own| name.eq_ignore_ascii_case(own)))
}

/// Tells the client what the upstream answered instead of opening a WebSocket.
async fn pass_refusal(
    connection: &mut ServerConnection,
    head: &ResponseHead,
    body: &[u8],
) -> io::Result<()> {
    let mut out = Vec::with_capacity(512 + body.len());
    start_response(&mut out, head.status, &head.reason);
    for (name, value) in passed_on(&head.headers) {
        push_field(&mut out, name, value);
    }
    let length = body.len().to_string();
    push_field(&mut out, b"content-length", length.as_bytes());
    push_field(&mut out, b"connection", b"close");
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    connection.write_all(&out).await.map(drop)
}

/// Two sockets of which each takes what the other gives.
struct Joined<'a> {
    worker: &'a Worker,
    client: WebSocket,
    upstream: WebSocket,
    /// The client is read, not left to wait for the upstream.
    client_read: Reading,
    /// The upstream is read, not left to wait for the client.
    upstream_read: Reading,
    taps: Taps<'a>,
    draining: Cell<bool>,
}

/// The next message; the peer counts as read for as long as it is waited for.
async fn read(peer: &WebSocket, reading: &Reading) -> Result<Received, Farewell> {
    reading.goes_on();
    let received = peer.receive().await;
    reading.pauses();
    received
}

/// Why nothing passes any more.
enum End {
    /// The client said goodbye, or is gone without a word.
    ClientLeft(Option<Farewell>),
    /// The client broke the protocol.
    ClientBroke(Farewell),
    /// The upstream said goodbye.
    UpstreamLeft(Farewell),
    /// The upstream is gone without a word, or broke the protocol.
    UpstreamLost(Option<Farewell>),
    /// Everything that was under way at the shutdown has ended.
    Drained,
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        let counters = self.upstream.counters();
        self.worker.joined.book(&mut Carried::default(), counters);
    }
}

impl<'a> Joined<'a> {
    fn new(worker: &'a Worker, client: WebSocket, upstream: WebSocket) -> Self {
        Self {
            worker,
            client,
            upstream,
            client_read: Reading::default(),
            upstream_read: Reading::default(),
            taps: Taps::new(&worker.book),
            draining: Cell::new(false),
        }
    }

    async fn serve(self) {
        let end = select! {
            biased;
            end = self.downstream() => end,
            end = self.upwards() => end,
            end = self.pulse(&self.client, &self.client_read, End::ClientLeft(None)) => end,
            end = self.pulse(&self.upstream, &self.upstream_read, End::UpstreamLost(None)) => end,
            () = overdue(&self.client, &self.client_read, self.worker.websocket.message) => {
                End::ClientBroke(Farewell::new(Farewell::POLICY, "a message took too long to come"))
            }
            end = self.drained() => end,
        };
        self.end(end).await;
    }

    /// From the upstream to the client. What passed is read for its meaning after it was written on.
    async fn downstream(&self) -> End {
        loop {
            let sent = match read(&self.upstream, &self.upstream_read).await {
                Ok(Received::Text { text, in_body, .. }) => {
                    let chunk = Chunk {
                        at: in_body,
                        ordinal: self.upstream.counters().reads as u32,
                        bytes: text.clone().into(),
                    };
                    let sent = self.client.send([text]).await;
                    if let Ok(at) = sent {
                        self.taps.passed(chunk, at);
                    }
                    sent
                }
                Ok(Received::Binary(bytes)) => self.client.send_binary(bytes).await,
                Ok(Received::Closed(Some(farewell))) => return End::UpstreamLeft(farewell),
                Ok(Received::Closed(None) | Received::Stalled) => return End::UpstreamLost(None),
                Err(farewell) => return End::UpstreamLost(Some(farewell)),
            };
            if let Err(error) = sent {
                if error.kind() == io::ErrorKind::TimedOut {
                    self.worker.book.metrics.refused("ws", "stalled");
                }
                return End::ClientLeft(None);
            }
        }
    }

    /// From the client to the upstream.
    async fn upwards(&self) -> End {
        // One message is on its way at a time.
        let mut held = self.client.share();
        loop {
            // It became less.
            let _ = held.resize(0);
            let sent = match read(&self.client, &self.client_read).await {
                Ok(Received::Text {
                    text,
                    in_head,
                    in_body,
                }) => {
                    if self.draining.get() && self.refused(&text).await {
                        continue;
                    }
                    if held.resize(text.len()).is_err() {
                        let why = "too many requests are being served at once; try again later";
                        return End::ClientBroke(Farewell::new(Farewell::TRY_AGAIN, why));
                    }
                    let sent = self.upstream.send([text.clone()]).await;
                    if let Ok(at) = sent {
                        self.taps.asked(&text, (in_head, in_body), at);
                    }
                    sent
                }
                Ok(Received::Binary(bytes)) => self.upstream.send_binary(bytes).await,
                Ok(Received::Closed(farewell)) => return End::ClientLeft(farewell),
                Ok(Received::Stalled) => {
                    self.worker.book.metrics.refused("ws", "stalled");
                    return End::ClientLeft(None);
                }
                Err(farewell) => return End::ClientBroke(farewell),
            };
            if sent.is_err() {
                return End::UpstreamLost(None);
            }
        }
    }

    /// Turns a create down that came after the shutdown began; false where the message is none.
    async fn refused(&self, text: &Text) -> bool {
        let Some(lane) = Taps::lane(text) else {
            return false;
        };
        let event = events::failed(&events::shutting_down(), lane.as_deref());
        // A client that is gone is found by the next read.
        let _ = self.client.send([event]).await;
        true
    }

    /// Returns when a peer that is read gave no sign of life for too long while responses are under way.
    async fn pulse(&self, peer: &WebSocket, reading: &Reading, end: End) -> End {
        let mut pulse = Pulse::new(self.worker.websocket.silence);
        loop {
            let too_many = pulse.missed(peer).await.is_too_many();
            if reading.since().is_none() {
                // Its signs of life lie unread while the other end takes nothing, which has a limit of its own.
                pulse = Pulse::new(self.worker.websocket.silence);
                continue;
            }
            if (too_many && !self.taps.are_idle()) || peer.ping().await.is_err() {
                self.worker.book.metrics.refused("ws", "silent");
                return end;
            }
        }
    }

    async fn drained(&self) -> End {
        self.worker.draining().await;
        self.draining.set(true);
        self.taps.idle().await;
        End::Drained
    }

    /// Ends both sockets, each as the other's end has it.
    async fn end(&self, end: End) {
        let away = |why: &str| Farewell::new(Farewell::GOING_AWAY, why);
        let (outcome, to_client, to_upstream) = match end {
            End::ClientLeft(Some(farewell)) => (Outcome::Cancelled, None, Some(farewell)),
            End::ClientLeft(None) => {
                let farewell = away("the client is gone");
                (Outcome::Cancelled, None, Some(farewell))
            }
            End::ClientBroke(farewell) => {
                self.worker.book.metrics.refused("ws", broken(&farewell));
                let away = away("the client broke the protocol");
                (Outcome::Cancelled, Some(farewell), Some(away))
            }
            End::UpstreamLeft(farewell) => (
                Outcome::Failed(FailureKind::ConnectionLost),
                Some(farewell),
                None,
            ),
            End::UpstreamLost(farewell) => {
                self.tell_of_loss().await;
                let kind = match &farewell {
                    Some(_) => FailureKind::Protocol,
                    None => FailureKind::ConnectionLost,
                };
                let failed = Farewell::new(Farewell::FAILED, "the upstream is gone");
                (Outcome::Failed(kind), Some(failed), farewell)
            }
            End::Drained => {
                let away = away("the proxy is shutting down");
                (Outcome::Cancelled, Some(away.clone()), Some(away))
            }
        };
        self.taps.end(outcome);
        tokio::join!(
            self.client.close(to_client.as_ref()),
            self.upstream.close(to_upstream.as_ref()),
        );
    }

    /// A reply that was cut off looks cut off: each lane that waits for one is told.
    async fn tell_of_loss(&self) {
        let failure = events::upstream_failed(
            "upstream_lost",
            "the upstream's connection ended before the response did",
        );
        let events: Vec<_> = self
            .taps
            .waiting()
            .iter()
            .map(|lane| events::failed(&failure, lane.as_deref()))
            .collect();
        // The client may be gone too.
        let _ = self.client.send(events).await;
    }
}
