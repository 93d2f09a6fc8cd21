//! The dialling end of `http2`.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::rc::Rc;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::ResponseFuture;
use tokenlag_probes::{Clock, MonoClock, Stamp};

use super::live::{Live, Made};
use super::slots::Slot;
use super::unanswered::{Unanswered, failed, silent};
use crate::kept::Kept;
use crate::{ChannelError, Chunk, Counters, Dial, Opening, Request};

/// A client with at most one connection at a time that takes new exchanges. Clones share it.
#[derive(Clone, Debug)]
pub struct Client(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    dial: Dial,
    live: Kept<Live>,
    /// Counters of the connections that are gone.
    past: Rc<Cell<Counters>>,
}

impl Client {
    /// A client that will dial when it is first needed.
    pub fn new(dial: Dial) -> Self {
        Self(Rc::new(Inner {
            dial,
            live: Kept::default(),
            past: Rc::default(),
        }))
    }

    /// Connects now, where no connection is there. Must run within a tokio runtime: the connection gets a task of its own.
    ///
    /// # Errors
    /// No connection, or a peer that does not offer HTTP/2 inside TLS.
    pub async fn connect(&self) -> Result<(), ChannelError> {
        Box::pin(self.0.live()).await.map(drop)
    }

    /// Sends a request on a stream of its own and waits for the reply's head. Where the server has as many streams as it
    /// allows, it waits for one to end first.
    ///
    /// What the server says it did not work on (REFUSED_STREAM, GOAWAY), and what met a kept connection that the server
    /// turns out to have closed, is asked once more.
    ///
    /// # Errors
    /// No connection, one that ends or falls silent, a stream that is reset, or frames that break the protocol.
    pub async fn open(&self, request: &Request) -> Result<Box<ClientReply>, ChannelError> {
        let request = request.fields()?;
        let (live, made) = match self.0.kept() {
            Some(live) => (live, None),
            None => Box::pin(self.0.live()).await?,
        };
        match self.0.ask(live, made, request).await {
            Ok(reply) => Ok(reply),
            Err(unanswered) if unanswered.untouched => Box::pin(self.0.ask_anew(request)).await,
            Err(unanswered) => Err(unanswered.error),
        }
    }

    /// What the client did so far; a connection that is being made, or that only ends its exchanges, is left out.
    /// What the connection did below its bytes is booked, where that is watched ([`SocketWatch`]).
    ///
    /// [`SocketWatch`]: crate::SocketWatch
    pub fn counters(&self) -> Counters {
        if let Some(live) = self.0.live.peek() {
            live.book();
        }
        self.counted()
    }

    /// The same without a look at the socket, which is a system call.
    pub fn counted(&self) -> Counters {
        let live = self.0.live.peek().map(|live| live.counters());
        self.0.past.get() + live.unwrap_or_default()
    }

    /// Closes the connection, with a GOAWAY, once its last exchange is over.
    pub async fn close(self) {
        drop(self.0.live.close().await);
    }
}

impl Inner {
    /// The connection that is there, where it is good.
    fn kept(&self) -> Option<Rc<Live>> {
        self.live.peek().filter(|live| live.is_good())
    }

    /// The connection; where it was just made, also how.
    async fn live(&self) -> Result<(Rc<Live>, Option<Made>), ChannelError> {
        let make = async || Live::dial(&self.dial, &self.past).await;
        self.live.get(Live::is_good, make).await
    }

    /// Asks what was asked already, and not worked on.
    async fn ask_anew(
        self: &Rc<Self>,
        request: &http::Request<Bytes>,
    ) -> Result<Box<ClientReply>, ChannelError> {
        let (live, made) = self.live().await?;
        let asked = self.ask(live, made, request).await;
        asked.map_err(|unanswered| unanswered.error)
    }

    async fn ask(
        self: &Rc<Self>,
        live: Rc<Live>,
        made: Option<Made>,
        request: &http::Request<Bytes>,
    ) -> Result<Box<ClientReply>, Unanswered> {
        let slot = match Slot::take(&live) {
            Some(slot) => slot,
            None => Box::pin(self.slot(&live)).await?,
        };
        let connected = MonoClock.now();
        let (mut response, stream) = self.send(made, connected, slot, request)?;
        let response = live
            .brings(self.dial.idle_timeout, |context| {
                Pin::new(&mut response).poll(context)
            })
            .await
            .map_err(|_| Unanswered::silent(&self.dial, "reply"))?
            .map_err(|error| Unanswered::because(&error, &self.dial, made.is_none(), connected))?;
        let (head, body) = response.into_parts();
        let ledger = live.shared.ledger();
        let sent = ledger.sent(stream.id);
        let written = sent.and_then(|sent| sent.at);
        let head_at = ledger.head_at(stream.id);
        let whole_by_then = sent.is_some_and(|sent| sent.ended && sent.at <= Some(head_at));
        let reply = Box::new(ClientReply {
            opening: Opening {
                resolved: made.map(|made| made.resolved),
                transport_connected: made.map(|made| made.transport_connected),
                connected,
                written: written.unwrap_or(connected),
                overlapped: !whole_by_then,
            },
            head_at,
            head,
            body: Some(body),
            rest: Bytes::new(),
            stream,
            client: Rc::clone(self),
        });
        drop(ledger);
        Ok(reply)
    }

    /// Waits for a slot on a connection that has none.
    async fn slot(&self, live: &Rc<Live>) -> Result<Slot, Unanswered> {
        live.timers
            .in_time(self.dial.idle_timeout, pin!(Slot::wait(live)))
            .await
            .map_err(|_| Unanswered::silent(&self.dial, "stream for the request"))?
            .filter(|_| live.is_open())
            .ok_or_else(|| Unanswered::takes_no_more(&self.dial))
    }

    /// Sends the request: all of it that the windows and the socket take leaves now.
    fn send(
        &self,
        made: Option<Made>,
        connected: Stamp,
        slot: Slot,
        request: &http::Request<Bytes>,
    ) -> Result<(ResponseFuture, Entry), Unanswered> {
        let head = self.head(request)?;
        let body = request.body().clone();
        let live = &*slot.0;
        let hush = live.nudge.hush();
        let mut send = live
            .sender()
            .ok_or_else(|| Unanswered::takes_no_more(&self.dial))?;
        let (response, mut sending) = send
            .send_request(head, body.is_empty())
            .map_err(|error| Unanswered::unsent(&error, &self.dial))?;
        let id = response.stream_id().as_u32();
        live.shared.ledger().open(id);
        live.nudge.part();
        // The body is in memory as it is: the library sends of it what the windows allow.
        if !body.is_empty()
            && let Err(error) = sending.send_data(body, true)
        {
            live.shared.ledger().forget(id);
            return Err(Unanswered::because(
                &error,
                &self.dial,
                made.is_none(),
                connected,
            ));
        }
        live.push();
        drop(hush);
        Ok((response, Entry { slot, id }))
    }

    /// The request's head for this connection.
    fn head(&self, request: &http::Request<Bytes>) -> Result<http::Request<()>, Unanswered> {
        let scheme = if self.dial.tls.is_some() {
            http::uri::Scheme::HTTPS
        } else {
            http::uri::Scheme::HTTP
        };
        let mut uri = request.uri().clone();
        if uri.scheme() != Some(&scheme) {
            uri = with_scheme(uri, scheme)?;
        }
        let mut head = http::Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = uri;
        *head.version_mut() = http::Version::HTTP_2;
        *head.headers_mut() = request.headers().clone();
        Ok(head)
    }
}

#[cold]
fn with_scheme(uri: http::Uri, scheme: http::uri::Scheme) -> Result<http::Uri, Unanswered> {
    let mut parts = uri.into_parts();
    parts.scheme = Some(scheme);
    http::Uri::from_parts(parts).map_err(|error| Unanswered {
        error: ChannelError::Request(error.to_string()),
        untouched: false,
    })
}

/// A stream's entry in its connection's ledger, and its slot.
#[derive(Debug)]
struct Entry {
    slot: Slot,
    id: u32,
}

impl Entry {
    fn live(&self) -> &Live {
        &self.slot.0
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.live().shared.ledger().forget(self.id);
    }
}

/// A response that is arriving. Dropped before its end, it resets its stream; the connection lives on.
#[derive(Debug)]
pub struct ClientReply {
    client: Rc<Inner>,
    head: http::response::Parts,
    head_at: Stamp,
    /// `None` once it has ended.
    body: Option<RecvStream>,
    /// Of a DATA frame that several reads carried: what is still to be handed out.
    rest: Bytes,
    opening: Opening,
    stream: Entry,
}

impl ClientReply {
    pub(crate) fn opening(&self) -> Opening {
        self.opening
    }

    pub(crate) fn head_at(&self) -> Stamp {
        self.head_at
    }

    pub(crate) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub(crate) fn fields(&self) -> Vec<(String, Bytes)> {
        let fields = self.head.headers.iter();
        let fields = fields.map(|(name, value)| {
            let value = Bytes::copy_from_slice(value.as_bytes());
            (name.as_str().to_owned(), value)
        });
        fields.collect()
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Chunk>, ChannelError> {
        while self.rest.is_empty() {
            let Some(body) = &mut self.body else {
                return Ok(None);
            };
            let idle = self.client.dial.idle_timeout;
            let live = self.stream.live();
            let read = live
                .brings(idle, |context| body.poll_data(context))
                .await
                .map_err(|_| silent(&self.client.dial, "further bytes"))?;
            let ended = match read {
                None => true,
                Some(data) => {
                    self.rest = data.map_err(|error| failed(&error, &self.client.dial))?;
                    let ended = body.is_end_stream();
                    if !ended {
                        // It is read: the peer may send as much again. What ended is dropped, and nothing of it is held back.
                        let _ = body.flow_control().release_capacity(self.rest.len());
                    }
                    ended
                }
            };
            if ended {
                let last = live.shared.ledger().is_last(self.stream.id);
                let _letting_go = live.nudge.let_go(last);
                self.body = None;
            }
        }
        let mut ledger = self.stream.live().shared.ledger();
        let piece = ledger.take(self.stream.id, self.rest.len());
        Ok(Some(Chunk {
            at: piece.at,
            ordinal: piece.ordinal,
            bytes: self.rest.split_to(piece.bytes),
        }))
    }

    pub(crate) async fn finish(mut self: Box<Self>) -> Result<(), ChannelError> {
        while self.next().await?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
