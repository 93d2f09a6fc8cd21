//! The accepting end of HTTP/1.1.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::body::{BodyDecoder, BodyError, Front, Piece};
use super::head::{Framing, MAX_HEAD, RequestHead};
use super::render::{push_field, start_response};
use super::server_error::ServerError;
use crate::bell::Bell;
use crate::bounds::{ExchangeLimits, Pace, Room, Share};
use crate::socket::{Socket, Stamped};
use crate::wire::Wire;
use crate::{Counters, tcp};

/// How long a client that was refused may go on sending until its connection is closed, and how much: a close while bytes
/// are on their way would take the answer back (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// Pieces of a body that are taken in a row before other connections of the thread have their turn.
const PIECES: usize = 256;

/// A connection that was accepted.
#[derive(Debug)]
pub struct ServerConnection {
    wire: Wire,
    body: BodyDecoder,
    limits: ExchangeLimits,
    pace: Pace,
    room: Arc<Room>,
    /// What the request takes of it.
    share: Share,
    /// What the socket has while a reply or the next request is waited for.
    bell: Option<Bell>,
}

/// A request whose head is there.
#[derive(Debug)]
pub struct Incoming {
    /// The head.
    pub head: RequestHead,
    /// How its body is delimited.
    pub framing: Framing,
    /// Read with the request's first byte.
    pub in_head: Stamp,
}

impl ServerConnection {
    /// Takes over a connection on which HTTP/1.1 alone is spoken, in clear.
    ///
    /// # Errors
    /// The socket refuses its options: the client is gone.
    pub fn new(stream: TcpStream, limits: ExchangeLimits) -> io::Result<Self> {
        tcp::prepare_accepted(&stream, false)?;
        let socket = Socket::clear(Stamped::new(stream));
        Ok(Self::over(
            socket,
            BytesMut::new(),
            limits,
            Room::new(limits.body),
        ))
    }

    /// Goes on where it was found out what is spoken, after `early` was read.
    pub(crate) fn over(
        socket: Socket,
        early: BytesMut,
        limits: ExchangeLimits,
        room: Arc<Room>,
    ) -> Self {
        Self {
            wire: Wire::accepted(socket, early, limits.stalled),
            body: BodyDecoder::new(Framing::Empty),
            limits,
            pace: Pace::new(limits),
            share: Share::new(&room),
            room,
            bell: None,
        }
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.wire.socket().is_tls()
    }

    /// The next request's head; `None` where the client closed the connection between requests.
    ///
    /// # Errors
    /// The client is gone in the middle, or what it sent cannot be served.
    pub async fn next_request(&mut self) -> Result<Option<Incoming>, ServerError> {
        // What the last body took is given back before the client is waited for, however long it thinks.
        self.share.give_back();
        let began = match self.wire.inbox.is_empty() {
            true => self.readable().await?,
            false => MonoClock.now(),
        };
        self.pace.begin(began);
        let mut in_head = (!self.wire.inbox.is_empty()).then(|| self.wire.read_at());
        // A head that comes byte by byte is not parsed anew with each: only once it may be whole.
        let mut looked_at = 0;
        loop {
            let inbox = &mut self.wire.inbox;
            if (looked_at == 0 || may_end(&inbox[looked_at..]) || inbox.len() > MAX_HEAD)
                && let Some(head) = RequestHead::take(inbox)?
            {
                let framing = head.framing()?;
                self.body = BodyDecoder::new(framing);
                let in_head = in_head.unwrap_or(self.wire.read_at());
                return Ok(Some(Incoming {
                    head,
                    framing,
                    in_head,
                }));
            }
            // The end may begin with the last two bytes.
            looked_at = inbox.len().saturating_sub(2);
            self.take_bell_off();
            if self.pace.wait(false, pin!(self.wire.fill())).await?? == 0 {
                return match in_head {
                    None => Ok(None),
                    Some(_) => Err(BodyError::Truncated.into()),
                };
            }
            in_head.get_or_insert(self.wire.read_at());
        }
    }

    /// Waits, without holding a buffer, until something came: ten thousand idle connections cost little. What came lies in the
    /// inbox then; nothing does where the client has ended. When that was found is returned.
    async fn readable(&mut self) -> io::Result<Stamp> {
        self.wire.inbox = BytesMut::new();
        // One that waited for its client's leaving has a bell already, which hangs where it was hung then.
        match self.bell.is_some() {
            true => poll_fn(|context| self.poll_with_bell(context)).await?,
            false => poll_fn(|context| self.wire.poll_sized(context)).await?,
        };
        Ok(self.wire.read_at())
    }

    /// The next piece of the request's body; `None` at its end. May be cancelled without loss.
    ///
    /// # Errors
    /// The client is gone, or the body breaks its coding.
    pub async fn body_piece(&mut self) -> Result<Option<Bytes>, ServerError> {
        self.take_bell_off();
        loop {
            if let Some(piece) = self.buffered_body_piece()? {
                return Ok(Some(piece));
            }
            if self.body.is_done() {
                return Ok(None);
            }
            if self.pace.wait(true, pin!(self.wire.fill())).await?? == 0 {
                self.body.end_of_stream()?;
            }
        }
    }

    /// The next piece of the request's body that is there without another read.
    ///
    /// # Errors
    /// The body breaks its coding.
    pub fn buffered_body_piece(&mut self) -> Result<Option<Bytes>, ServerError> {
        match self.body.take(&mut self.wire.inbox)? {
            Piece::Data(data) => Ok(Some(data)),
            Piece::End | Piece::NeedsMore => Ok(None),
        }
    }

    /// As [`Self::buffered_body_piece`], for who only looks at it: `false` where there is none.
    ///
    /// # Errors
    /// The body breaks its coding.
    pub fn look_at_body_piece(&mut self, look: impl FnOnce(&[u8])) -> Result<bool, ServerError> {
        let inbox = &mut self.wire.inbox;
        let Front::Data(length) = self.body.front(inbox)? else {
            return Ok(false);
        };
        look(&inbox[..length]);
        inbox.advance(length);
        Ok(true)
    }

    /// The whole body, as long as it may be and while there is memory for it.
    ///
    /// # Errors
    /// As [`Self::body_piece`], and a body that is too long.
    pub async fn whole_body(&mut self) -> Result<Bytes, ServerError> {
        let limit = self.limits.body;
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        let mut pieces = 0_usize;
        while let Some(piece) = self.body_piece().await? {
            pieces += 1;
            // Pieces of a byte: others have their turn.
            if pieces.is_multiple_of(PIECES) {
                yield_now().await;
            }
            if first.len().max(rest.len()) + piece.len() > limit {
                return Err(ServerError::TooLarge(limit));
            }
            self.share.grow(piece.len())?;
            if first.is_empty() {
                first = piece;
            } else {
                if rest.is_empty() {
                    rest.extend_from_slice(&first);
                }
                rest.extend_from_slice(&piece);
            }
        }
        Ok(if rest.is_empty() {
            first
        } else {
            rest.freeze()
        })
    }

    /// Whether the request's body was read to its end.
    pub fn body_is_done(&self) -> bool {
        self.body.is_done()
    }

    /// When the last read returned: after the last piece of a body, the stamp `in_body`.
    pub fn read_at(&self) -> Stamp {
        self.wire.read_at()
    }

    /// Writes all of `bytes`; the stamp was taken before the call that carried the last of them.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<Stamp> {
        self.wire.write_all(bytes).await
    }

    /// Returns when the client hangs up. Bytes that it sends meanwhile (a pipelined request) are kept, up to a bound;
    /// beyond it the client is left to wait.
    pub async fn hung_up(&mut self) {
        const PIPELINED: usize = 64 * 1024;
        while self.wire.inbox.len() < PIPELINED {
            let read = poll_fn(|context| self.poll_with_bell(context)).await;
            if !matches!(read, Ok(count) if count > 0) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Reads once, where there may be something: this is asked with every token that the reply brings.
    fn poll_with_bell(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.is_tls() {
            // There a write may read, and answer for the socket.
            return self.wire.poll_sized(context);
        }
        let bell = match &mut self.bell {
            Some(bell) if bell.wakes(context.waker()) => bell,
            bell => bell.insert(Bell::new(context.waker().clone())),
        };
        bell.poll(context, |context| self.wire.poll_sized(context))
    }

    /// Before a read whose end the bell is not asked about.
    fn take_bell_off(&mut self) {
        if let Some(bell) = &mut self.bell {
            bell.take_off();
        }
    }

    /// Answers with a whole, short response.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn respond(
        &mut self,
        status: u16,
        reason: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Stamp> {
        let mut out = Vec::with_capacity(256 + body.len());
        start_response(&mut out, status, reason);
        for (name, value) in fields {
            push_field(&mut out, name.as_bytes(), value.as_bytes());
        }
        push_field(
            &mut out,
            b"content-length",
            body.len().to_string().as_bytes(),
        );
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
        self.write_all(&out).await
    }

    /// Closes, with TLS's own farewell where it is spoken.
    pub async fn close(mut self) {
        if self.is_tls() {
            // A client that is gone, or takes nothing, is left to the system.
            let _ = timeout(LINGER, self.wire.shutdown()).await;
        }
    }

    /// Closes, but not before what the client is still sending has come: it may read the answer first.
    pub async fn close_after_answer(mut self) {
        let gently = async {
            self.wire.shutdown().await?;
            let mut left = LINGER_BYTES;
            while left > 0 {
                self.wire.inbox.clear();
                match self.wire.fill().await? {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
            io::Result::Ok(())
        };
        // A client that does not leave is left to the system.
        let _ = timeout(LINGER, gently).await;
    }

    /// What the connection did so far.
    pub fn counters(&self) -> Counters {
        self.wire.counters()
    }

    /// The socket, and what was read of it and not yet used.
    pub fn into_stream(self) -> (Socket, BytesMut) {
        self.wire.into_parts()
    }

    /// What requests of this door have together.
    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }
}

/// Whether a head may end within the bytes: with an empty line, whichever line end was meant.
fn may_end(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|end| end == b"\n\r" || end == b"\n\n")
}
