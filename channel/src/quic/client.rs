//! The dialling end of `quic`.

use std::cell::Cell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream, WriteError};
use tokenlag_dialect::Framing;
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::compact::Expander;
use super::dialled::Dialled;
use super::frame::{self, Frame};
use super::{ALPN, NOT_BEGUN, early};
use crate::{ChannelError, Chunk, Counters, Dial, Opening, Request};

/// The most that one read takes of a stream.
const READ_LIMIT: usize = 64 * 1024;

/// A client with at most one connection at a time, on a socket of its own. Clones share it.
#[derive(Clone, Debug)]
pub struct Client(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    dial: Dial,
    /// Held while a connection is made: exchanges that begin meanwhile wait for it instead of making another.
    live: Mutex<Option<Rc<Live>>>,
    /// Counters of the connections that are gone.
    past: Rc<Cell<Counters>>,
}

/// A connection; what it counted is kept when its last exchange is over.
#[derive(Debug)]
struct Live {
    dialled: Dialled,
    /// The server takes no more exchanges on it.
    leaving: Cell<bool>,
    past: Rc<Cell<Counters>>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.past.set(self.past.get() + self.dialled.counters());
    }
}

/// Why an exchange has no reply.
struct Unanswered {
    error: ChannelError,
    /// The server did not work on it: it can be sent again.
    untouched: bool,
}

impl From<ChannelError> for Unanswered {
    fn from(error: ChannelError) -> Self {
        Self {
            error,
            untouched: false,
        }
    }
}

impl Client {
    /// A client that will dial when it is first needed.
    pub fn new(dial: Dial) -> Self {
        Self(Rc::new(Shared {
            dial,
            live: Mutex::default(),
            past: Rc::default(),
        }))
    }

    /// Connects now, where no connection is there.
    ///
    /// # Errors
    /// No connection, or a peer that shows another certificate or speaks another protocol.
    pub async fn connect(&self) -> Result<(), ChannelError> {
        self.0.live().await.map(drop)
    }

    /// Sends a request on a stream of its own and waits for the reply's head.
    ///
    /// What the server says it did not begin, early data that it did not take among it, is sent once more.
    ///
    /// # Errors
    /// No connection, one that ends or falls silent, or frames that break the format.
    pub async fn open(&self, request: &Request) -> Result<ClientReply, ChannelError> {
        let (live, resolved) = self.0.live().await?;
        match self.0.exchange(&live, resolved, request).await {
            Err(unanswered) if unanswered.untouched => {
                live.dialled.settled().await;
                drop(live);
                let (live, anew) = self.0.live().await?;
                let again = self.0.exchange(&live, anew.or(resolved), request).await;
                again.map_err(|unanswered| unanswered.error)
            }
            reply => reply.map_err(|unanswered| unanswered.error),
        }
    }

    /// What the client did so far; a connection that is being made, or that only ends its exchanges, is left out.
    pub fn counters(&self) -> Counters {
        let live = self.0.live.try_lock();
        let live = live
            .ok()
            .and_then(|live| Some(live.as_ref()?.dialled.counters()));
        self.0.past.get() + live.unwrap_or_default()
    }

    /// Closes the connection and lets the farewell leave.
    pub async fn close(self) {
        if let Some(live) = self.0.live.lock().await.take() {
            live.dialled.close(0).await;
        }
    }
}

impl Shared {
    /// The connection; where it was just made, also when the name was resolved.
    async fn live(&self) -> Result<(Rc<Live>, Option<Stamp>), ChannelError> {
        let mut slot = self.live.lock().await;
        if let Some(live) = &*slot {
            if live.dialled.is_open() && !live.leaving.get() {
                return Ok((Rc::clone(live), None));
            }
            *slot = None;
        }
        let (dialled, resolved) = Dialled::new(&self.dial, ALPN, "QUIC").await?;
        let live = Rc::new(Live {
            dialled,
            leaving: Cell::new(false),
            past: Rc::clone(&self.past),
        });
        *slot = Some(Rc::clone(&live));
        Ok((live, Some(resolved)))
    }

    async fn exchange(
        self: &Rc<Self>,
        live: &Rc<Live>,
        resolved: Option<Stamp>,
        request: &Request,
    ) -> Result<ClientReply, Unanswered> {
        let bytes = if live.dialled.is_early() {
            early::marked(request.stream()?)?
        } else {
            request.stream()?.clone()
        };
        let connected = MonoClock.now();
        let (mut send, recv) = live
            .dialled
            .connection
            .open_bi()
            .await
            .map_err(|error| lost(&self.dial, &error))?;
        send.write_all(&bytes)
            .await
            .map_err(|error| self.unsent(live, &error))?;
        let written = MonoClock.now();
        // Only early data that was not taken can be closed by now: then there is no reply either.
        let _ = send.finish();
        live.dialled.socket.gave(bytes.len());
        let mut reply = ClientReply {
            client: Rc::clone(self),
            live: Rc::clone(live),
            recv,
            inbox: BytesMut::new(),
            expander: Expander::default(),
            opening: Opening {
                resolved,
                transport_connected: None,
                connected,
                written,
            },
            head_at: None,
            read_at: Stamp::default(),
            reads: None,
            ordinal: 0,
            status: 0,
            fields: Vec::new(),
            events: false,
            event_name: None,
            ended: false,
        };
        reply.head().await?;
        Ok(reply)
    }

    fn unsent(&self, live: &Live, error: &WriteError) -> Unanswered {
        let untouched = match error {
            WriteError::ZeroRttRejected => true,
            WriteError::Stopped(code) => live.was_left(code.into_inner()),
            _ => false,
        };
        Unanswered {
            error: lost(&self.dial, error),
            untouched,
        }
    }

    fn unanswered(&self, live: &Live, error: &ReadError) -> Unanswered {
        let untouched = match error {
            ReadError::ZeroRttRejected => true,
            ReadError::Reset(code) => live.was_left(code.into_inner()),
            _ => false,
        };
        Unanswered {
            error: lost(&self.dial, error),
            untouched,
        }
    }
}

impl Live {
    /// Whether a stream's code says that the server takes no more exchanges; then no more are begun here.
    fn was_left(&self, code: u64) -> bool {
        let left = code == u64::from(NOT_BEGUN);
        self.leaving.set(self.leaving.get() || left);
        left
    }
}

fn lost(dial: &Dial, detail: &dyn std::fmt::Display) -> ChannelError {
    ChannelError::Lost {
        address: dial.authority(),
        detail: detail.to_string(),
    }
}

fn protocol(dial: &Dial, reason: &dyn std::fmt::Display) -> ChannelError {
    ChannelError::Protocol {
        address: dial.authority(),
        reason: reason.to_string(),
    }
}

/// A stream of frames that answers a request. Dropped before its end, it stops the stream; the connection lives on.
#[derive(Debug)]
pub struct ClientReply {
    client: Rc<Shared>,
    live: Rc<Live>,
    recv: RecvStream,
    inbox: BytesMut,
    expander: Expander,
    opening: Opening,
    head_at: Option<Stamp>,
    read_at: Stamp,
    /// The socket's count of receives at the last read that carried bytes of this stream.
    reads: Option<u64>,
    ordinal: u32,
    status: u16,
    fields: Vec<(String, Bytes)>,
    events: bool,
    /// Of the event that was given last, where its data does not tell its name.
    event_name: Option<String>,
    ended: bool,
}

impl ClientReply {
    pub(crate) fn opening(&self) -> Opening {
        self.opening
    }

    pub(crate) fn head_at(&self) -> Stamp {
        self.head_at.unwrap_or(self.read_at)
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn fields(&self) -> Vec<(String, Bytes)> {
        self.fields.clone()
    }

    pub(crate) fn event_name(&self) -> Option<&str> {
        self.event_name.as_deref()
    }

    pub(crate) fn framing(&self) -> Framing {
        if self.events {
            Framing::Messages
        } else {
            Framing::Sse
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Chunk>, ChannelError> {
        while let Some(frame) = self.frame().await? {
            self.event_name = None;
            let bytes = match frame {
                Frame::Data(bytes) => bytes,
                Frame::Event(data) => data,
                Frame::NamedEvent { name, data } => {
                    self.event_name = Some(name);
                    data
                }
                Frame::Token(text) => self.expand(&text)?,
                Frame::TokenContext(context) => {
                    self.expander.set_context(context);
                    continue;
                }
                Frame::End => {
                    self.ended = true;
                    return Ok(None);
                }
                Frame::Request { .. } | Frame::Response { .. } => {
                    return Err(protocol(
                        &self.client.dial,
                        &"a second head came within the reply",
                    ));
                }
            };
            return Ok(Some(Chunk {
                at: self.read_at,
                ordinal: self.ordinal,
                bytes,
            }));
        }
        if self.ended {
            return Ok(None);
        }
        Err(lost(
            &self.client.dial,
            &"the stream ended without its END frame",
        ))
    }

    pub(crate) async fn finish(mut self) -> Result<(), ChannelError> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    async fn head(&mut self) -> Result<(), Unanswered> {
        match self.frame_or_why().await? {
            Some(Frame::Response {
                events,
                status,
                fields,
            }) => {
                self.status = status;
                self.fields = fields;
                self.events = events;
                Ok(())
            }
            Some(_) => {
                let what = "the reply does not begin with its head";
                Err(protocol(&self.client.dial, &what).into())
            }
            None => {
                let what = "the stream ended before any reply";
                Err(lost(&self.client.dial, &what).into())
            }
        }
    }

    fn expand(&mut self, text: &[u8]) -> Result<Bytes, ChannelError> {
        self.expander
            .expand(text)
            .map_err(|error| protocol(&self.client.dial, &error))
    }

    /// The next frame; `None` at the stream's end.
    async fn frame(&mut self) -> Result<Option<Frame>, ChannelError> {
        let frame = self.frame_or_why().await;
        frame.map_err(|unanswered| unanswered.error)
    }

    async fn frame_or_why(&mut self) -> Result<Option<Frame>, Unanswered> {
        loop {
            if self.ended {
                return Ok(None);
            }
            let taken = frame::take(&mut self.inbox)
                .map_err(|error| protocol(&self.client.dial, &error))?;
            if taken.is_some() {
                return Ok(taken);
            }
            let idle = self.client.dial.idle_timeout;
            let read = timeout(idle, self.recv.read_chunk(READ_LIMIT, true))
                .await
                .map_err(|_| ChannelError::Timeout {
                    address: self.client.dial.authority(),
                    what: "further bytes",
                    after: idle,
                })?
                .map_err(|error| self.client.unanswered(&self.live, &error))?;
            let Some(chunk) = read else {
                return Ok(None);
            };
            self.stamp();
            self.live.dialled.socket.took(chunk.bytes.len());
            self.inbox.extend_from_slice(&chunk.bytes);
        }
    }

    /// Notes the receive that made the stream readable.
    fn stamp(&mut self) {
        let socket = &self.live.dialled.socket;
        let reads = socket.reads();
        self.read_at = socket.read_at();
        self.head_at.get_or_insert(self.read_at);
        match self.reads.replace(reads) {
            Some(before) if before != reads => self.ordinal += 1,
            _ => {}
        }
    }
}
