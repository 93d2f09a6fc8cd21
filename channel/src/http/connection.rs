//! One HTTP/1.1 connection to a server: requests go out, replies come back as stamped chunks.

use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use tokenlag_probes::Stamp;

use super::body::{BodyDecoder, Piece};
use super::head::{Framing, HeadError, ResponseHead};
use crate::timers::Timers;
use crate::wire::Wire;
use crate::{ChannelError, Chunk, Counters, Dial, Socket, tcp};

/// A connection that was dialled.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    /// For what its reads wait for.
    timers: Timers,
    address: String,
}

/// A response whose head is there.
#[derive(Debug)]
pub struct Response {
    /// The head.
    pub head: ResponseHead,
    /// Read with the reply's first byte.
    pub head_at: Stamp,
    /// The body, which comes.
    pub body: ResponseBody,
}

/// How far the body of a response has come.
#[derive(Debug)]
pub struct ResponseBody {
    decoder: BodyDecoder,
    framing: Framing,
    /// The server will keep the connection.
    kept: bool,
    /// Reads of the connection before the first that carried the body.
    reads_before: Option<u64>,
}

impl ResponseBody {
    /// Whether the connection can carry another exchange once the body is over.
    pub fn is_reusable(&self) -> bool {
        self.decoder.is_done() && self.kept
    }

    /// Whether the body is over.
    pub fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// How the body is delimited.
    pub fn framing(&self) -> Framing {
        self.framing
    }
}

/// A fresh connection and the stamps of its making.
#[derive(Debug)]
pub struct Dialled {
    /// The connection.
    pub connection: Connection,
    /// The name was resolved.
    pub resolved: Stamp,
    /// TCP was connected.
    pub transport_connected: Stamp,
    /// The first request can be sent: after TLS, where it is spoken.
    pub connected: Stamp,
}

/// HTTP/1.1's name in ALPN.
pub const ALPN: &[u8] = b"http/1.1";

impl Connection {
    /// Connects, over TLS where the dial says so.
    ///
    /// # Errors
    /// No address, no listener, a TLS handshake that fails, or no answer within the dial's connect timeout.
    pub async fn dial(dial: &Dial) -> Result<Dialled, ChannelError> {
        let made = tcp::dial(dial, &[ALPN]).await?;
        Ok(Dialled {
            connection: Self {
                wire: Wire::new(made.socket),
                timers: Timers::default(),
                address: dial.authority(),
            },
            resolved: made.resolved,
            transport_connected: made.transport_connected,
            connected: made.connected,
        })
    }

    /// Whether an idle connection can carry another request.
    pub fn is_fresh(&mut self) -> bool {
        self.wire.is_fresh()
    }

    /// What the connection did so far; what it did below its bytes is booked, where that is watched ([`SocketWatch`]).
    ///
    /// [`SocketWatch`]: crate::SocketWatch
    pub fn counters(&self) -> Counters {
        self.book();
        self.counted()
    }

    /// The same without a look at the socket, which is a system call: what it did below its bytes is booked another time.
    pub fn counted(&self) -> Counters {
        self.wire.counters()
    }

    /// Books what the connection did below its bytes, where that is watched. It is booked with its end in any case.
    pub fn book(&self) {
        self.wire.socket().book();
    }

    /// Writes `bytes`; the stamp was taken before the call that carried the last of them.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<Stamp, ChannelError> {
        self.wire
            .write_all(bytes)
            .await
            .map_err(|error| no_reply(&self.address, &error))
    }

    /// As [`Self::send`], but gives up with `None` where the server says something (or closes) while it takes no more.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send_unless_answered(
        &mut self,
        bytes: &[u8],
    ) -> Result<Option<Stamp>, ChannelError> {
        self.wire
            .write_all_unless_answered(bytes)
            .await
            .map_err(|error| no_reply(&self.address, &error))
    }

    /// Returns when the server said something or closed.
    pub async fn answered(&mut self) {
        self.wire.answered().await;
    }

    /// Waits for the head of the reply to a request of that `method`. Interim responses (100 to 199) are passed over,
    /// but for 101.
    ///
    /// # Errors
    /// The connection is gone, silent for longer than `idle`, or what came is not HTTP/1.1.
    pub async fn response(
        &mut self,
        method: &str,
        idle: Duration,
    ) -> Result<Response, ChannelError> {
        let mut head_at = None;
        loop {
            let parsed = match self.wire.inbox.is_empty() {
                true => Ok(None),
                false => ResponseHead::take(&mut self.wire.inbox),
            };
            if let Some(head) = parsed.map_err(|error| self.protocol(&error))? {
                if matches!(head.status, 100 | 102..=199) {
                    continue;
                }
                let framing = head
                    .framing(method)
                    .map_err(|error| self.protocol(&error))?;
                let body = ResponseBody {
                    decoder: BodyDecoder::new(framing),
                    framing,
                    kept: head.keep_alive() && head.status != 101,
                    reads_before: None,
                };
                return Ok(Response {
                    head,
                    head_at: head_at.unwrap_or(self.wire.read_at()),
                    body,
                });
            }
            let nothing_yet = head_at.is_none() && self.wire.inbox.is_empty();
            match self.fill(idle, "reply").await {
                Ok(0) if nothing_yet => return Err(no_reply(&self.address, &"end of stream")),
                Ok(0) => return Err(lost(&self.address, &"inside the head")),
                Ok(_) => {}
                Err(ChannelError::Lost { address, detail }) if nothing_yet => {
                    return Err(ChannelError::NoReply { address, detail });
                }
                Err(error) => return Err(error),
            }
            head_at.get_or_insert(self.wire.read_at());
        }
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// The connection is gone, silent for longer than `idle`, or the body breaks its coding.
    pub async fn chunk(
        &mut self,
        body: &mut ResponseBody,
        idle: Duration,
    ) -> Result<Option<Chunk>, ChannelError> {
        loop {
            if let Some(chunk) = self.buffered_chunk(body)? {
                return Ok(Some(chunk));
            }
            if body.is_done() {
                return Ok(None);
            }
            self.read_more(body, idle).await?;
        }
    }

    /// Reads once; what came is there for [`Self::buffered_chunk`]. May be cancelled without loss.
    ///
    /// # Errors
    /// The connection is gone, silent for longer than `idle`, or ended inside the body.
    pub async fn read_more(
        &mut self,
        body: &mut ResponseBody,
        idle: Duration,
    ) -> Result<(), ChannelError> {
        if self.fill(idle, "further bytes").await? == 0 {
            let ended = body.decoder.end_of_stream();
            ended.map_err(|error| lost(&self.address, &error))?;
        }
        Ok(())
    }

    /// The next piece of the body that is there without another read.
    ///
    /// # Errors
    /// The body breaks its coding.
    pub fn buffered_chunk(
        &mut self,
        body: &mut ResponseBody,
    ) -> Result<Option<Chunk>, ChannelError> {
        match body.decoder.take(&mut self.wire.inbox) {
            Ok(Piece::Data(bytes)) => {
                let reads = self.wire.reads();
                let first = *body.reads_before.get_or_insert(reads);
                Ok(Some(Chunk {
                    at: self.wire.read_at(),
                    ordinal: (reads - first) as u32,
                    bytes,
                }))
            }
            Ok(Piece::NeedsMore | Piece::End) => Ok(None),
            Err(error) => Err(ChannelError::Protocol {
                address: self.address.clone(),
                reason: error.to_string(),
            }),
        }
    }

    /// The socket, and what was read of it and not yet used.
    pub fn into_stream(self) -> (Socket, BytesMut) {
        self.wire.into_parts()
    }

    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }

    async fn fill(&mut self, idle: Duration, what: &'static str) -> Result<usize, ChannelError> {
        match self.timers.in_time(idle, pin!(self.wire.fill())).await {
            Ok(filled) => filled.map_err(|error| lost(&self.address, &error)),
            Err(_) => Err(ChannelError::Timeout {
                address: self.address.clone(),
                what,
                after: idle,
            }),
        }
    }

    fn protocol(&self, error: &HeadError) -> ChannelError {
        ChannelError::Protocol {
            address: self.address.clone(),
            reason: error.to_string(),
        }
    }
}

fn no_reply(address: &str, detail: &dyn std::fmt::Display) -> ChannelError {
    ChannelError::NoReply {
        address: address.to_owned(),
        detail: detail.to_string(),
    }
}

fn lost(address: &str, detail: &dyn std::fmt::Display) -> ChannelError {
    ChannelError::Lost {
        address: address.to_owned(),
        detail: detail.to_string(),
    }
}
