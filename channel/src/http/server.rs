//! The accepting end of HTTP/1.1.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokenlag_probes::Stamp;
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::body::{BodyDecoder, BodyError, Piece};
use super::head::{Framing, HeadError, MAX_HEAD, RequestHead};
use super::render::{push_field, start_response};
use crate::bounds::{ExchangeLimits, Pace, Room, Share};
use crate::socket::{Socket, Stamped};
use crate::wire::Wire;
use crate::{Counters, ExchangeError, tcp};

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

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The client is gone.
    #[error("the client's connection failed: {0}")]
    Io(#[from] io::Error),
    /// What came is no request that can be served.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The request's body breaks its coding or ends early.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The request's body is longer than what was allowed.
    #[error("the request's body is longer than {0} bytes")]
    TooLarge(usize),
    /// The request was not whole in time.
    #[error("the request was not there within {0:?}")]
    TooSlow(Duration),
    /// The requests that are being served fill the memory that they may have together.
    #[error("too many requests are being served at once; try again later")]
    NoRoom,
}

impl From<ExchangeError> for ServerError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::TooSlow(limit) => Self::TooSlow(limit),
            ExchangeError::TooLarge(limit) => Self::TooLarge(limit),
            ExchangeError::NoRoom => Self::NoRoom,
            other => Self::Io(io::Error::other(other)),
        }
    }
}

impl ServerError {
    /// The status that tells the client what was wrong; `None` where it is gone.
    pub fn status(&self) -> Option<(u16, &'static str)> {
        match self {
            Self::Io(_) | Self::Body(BodyError::Truncated) => None,
            Self::Head(HeadError::TooLarge) => Some((431, "Request Header Fields Too Large")),
            Self::Head(HeadError::Coding(_)) => Some((501, "Not Implemented")),
            Self::Head(_) | Self::Body(_) => Some((400, "Bad Request")),
            Self::TooLarge(_) => Some((413, "Content Too Large")),
            Self::TooSlow(_) => Some((408, "Request Timeout")),
            Self::NoRoom => Some((503, "Service Unavailable")),
        }
    }

    /// The name under which it is counted; `None` where the client only left.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::TimedOut => Some("stalled"),
            Self::Io(_) => None,
            Self::Body(BodyError::Truncated) => Some("truncated"),
            Self::Head(HeadError::Syntax(_)) => Some("malformed"),
            Self::Head(HeadError::TooLarge) => Some("head_too_large"),
            Self::Head(HeadError::Ambiguous(_)) => Some("ambiguous_length"),
            Self::Head(HeadError::Coding(_)) => Some("unknown_coding"),
            Self::Body(_) => Some("malformed_body"),
            Self::TooLarge(_) => Some("body_too_large"),
            Self::TooSlow(_) => Some("slow_request"),
            Self::NoRoom => Some("no_room"),
        }
    }
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
        self.share = Share::new(&self.room);
        self.wire.readable().await?;
        self.pace = Pace::new(self.limits);
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
            if self.pace.wait(false, pin!(self.wire.fill())).await?? == 0 {
                return match in_head {
                    None => Ok(None),
                    Some(_) => Err(BodyError::Truncated.into()),
                };
            }
            in_head.get_or_insert(self.wire.read_at());
        }
    }

    /// The next piece of the request's body; `None` at its end. May be cancelled without loss.
    ///
    /// # Errors
    /// The client is gone, or the body breaks its coding.
    pub async fn body_piece(&mut self) -> Result<Option<Bytes>, ServerError> {
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
            if !matches!(self.wire.fill().await, Ok(count) if count > 0) {
                return;
            }
        }
        std::future::pending::<()>().await;
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
