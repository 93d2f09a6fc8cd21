//! A reply that is arriving on a stream of `tokenlag/1`.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream};
use tokenlag_dialect::Framing;
use tokenlag_probes::Stamp;

use super::client::{Live, Shared};
use super::compact::Expander;
use super::frame::{self, Frame};
use crate::overlap::watched;
use crate::{ChannelError, Chunk, Opening};

/// The most that one read takes of a stream.
const READ_LIMIT: usize = 64 * 1024;

/// Why a reply has no head, or none of what should follow.
pub(super) enum Headless {
    Channel(ChannelError),
    Read(ReadError),
}

impl From<ChannelError> for Headless {
    fn from(error: ChannelError) -> Self {
        Self::Channel(error)
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
    pub(super) fn new(
        client: &Rc<Shared>,
        live: &Rc<Live>,
        recv: RecvStream,
        opening: Opening,
    ) -> Self {
        Self {
            client: Rc::clone(client),
            live: Rc::clone(live),
            recv,
            inbox: BytesMut::new(),
            expander: Expander::default(),
            opening,
            head_at: None,
            read_at: Stamp::default(),
            reads: None,
            ordinal: 0,
            status: 0,
            fields: Vec::new(),
            events: false,
            event_name: None,
            ended: false,
        }
    }

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
                    self.take_end().await;
                    return Ok(None);
                }
                Frame::Request { .. } | Frame::Response { .. } => {
                    let what = "a second head came within the reply";
                    return Err(self.client.broken(&what));
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
        let what = "the stream ended without its END frame";
        Err(self.client.lost(&what))
    }

    pub(crate) async fn finish(mut self: Box<Self>) -> Result<(), ChannelError> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    /// The reply, once its head is there.
    pub(super) async fn with_head(mut self: Box<Self>) -> Result<Box<Self>, Headless> {
        let (head, overlapped) = watched(pin!(self.read_frame())).await;
        self.opening.overlapped |= overlapped;
        match head? {
            Some(Frame::Response {
                events,
                status,
                fields,
            }) => {
                self.status = status;
                self.fields = fields;
                self.events = events;
                Ok(self)
            }
            Some(_) => {
                let what = "the reply does not begin with its head";
                Err(self.client.broken(&what).into())
            }
            None => {
                let what = "the stream ended before any reply";
                Err(self.client.lost(&what).into())
            }
        }
    }

    fn expand(&mut self, text: &[u8]) -> Result<Bytes, ChannelError> {
        self.expander
            .expand(text)
            .map_err(|error| self.client.broken(&error))
    }

    /// The next frame; `None` at the stream's end.
    async fn frame(&mut self) -> Result<Option<Frame>, ChannelError> {
        self.read_frame().await.map_err(|headless| match headless {
            Headless::Channel(error) => error,
            Headless::Read(error) => self.client.lost_by(&error),
        })
    }

    async fn read_frame(&mut self) -> Result<Option<Frame>, Headless> {
        loop {
            if self.ended {
                return Ok(None);
            }
            let taken = frame::take(&mut self.inbox).map_err(|error| self.client.broken(&error))?;
            if taken.is_some() {
                return Ok(taken);
            }
            let idle = self.client.dial.idle_timeout;
            let read = self
                .live
                .timers
                .in_time(idle, pin!(self.recv.read_chunk(READ_LIMIT, true)))
                .await
                .map_err(|_| self.client.silent("further bytes"))?
                .map_err(Headless::Read)?;
            let Some(chunk) = read else {
                return Ok(None);
            };
            self.stamp();
            self.live.dialled.socket.took(chunk.bytes.len());
            self.inbox.extend_from_slice(&chunk.bytes);
        }
    }

    /// Takes the end of the stream too, where it came with the END frame: a stream that is dropped without it is stopped
    /// (RFC 9000, section 3.5), which costs both ends a frame to no end.
    async fn take_end(&mut self) {
        let mut end = pin!(self.recv.read_chunk(READ_LIMIT, true));
        poll_fn(|context| {
            // Whatever it is: the reply is whole.
            let _ = end.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
    }

    /// Notes the receive that made the stream readable.
    fn stamp(&mut self) {
        let socket = &self.live.dialled.socket;
        let reads = socket.reads();
        self.read_at = socket.came_at();
        self.head_at.get_or_insert(self.read_at);
        match self.reads.replace(reads) {
            Some(before) if before != reads => self.ordinal += 1,
            _ => {}
        }
    }
}
