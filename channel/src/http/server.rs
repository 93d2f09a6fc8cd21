//! The accepting end of HTTP/1.1.

use bytes::{Bytes, BytesMut};
use tokenlag_probes::Stamp;
use tokio::net::TcpStream;

use super::body::{BodyDecoder, BodyError, Piece};
use super::head::{Framing, HeadError, RequestHead};
use super::render::{push_field, start_response};
use crate::socket::{Socket, Stamped};
use crate::wire::Wire;
use crate::{Counters, tcp};

/// A connection that was accepted.
#[derive(Debug)]
pub struct ServerConnection {
    wire: Wire,
    body: BodyDecoder,
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
    Io(#[from] std::io::Error),
    /// What came is no request that can be served.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The request's body breaks its coding or ends early.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The request's body is longer than what was allowed.
    #[error("the request's body is longer than {0} bytes")]
    TooLarge(usize),
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
        }
    }
}

impl ServerConnection {
    /// Takes over a connection.
    ///
    /// # Errors
    /// The socket refuses its options: the client is gone.
    pub fn new(stream: TcpStream) -> std::io::Result<Self> {
        tcp::prepare_accepted(&stream)?;
        Ok(Self::over(Socket::clear(Stamped::new(stream))))
    }

    /// Goes on where it was found out what is spoken.
    pub(crate) fn over(socket: Socket) -> Self {
        Self {
            wire: Wire::new(socket),
            body: BodyDecoder::new(Framing::Empty),
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
        self.wire.readable().await?;
        let mut in_head = (!self.wire.inbox.is_empty()).then(|| self.wire.read_at());
        loop {
            if let Some(head) = RequestHead::take(&mut self.wire.inbox)? {
                let framing = head.framing()?;
                self.body = BodyDecoder::new(framing);
                let in_head = in_head.unwrap_or(self.wire.read_at());
                return Ok(Some(Incoming {
                    head,
                    framing,
                    in_head,
                }));
            }
            if self.wire.fill().await? == 0 {
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
            if self.wire.fill().await? == 0 {
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

    /// The whole body.
    ///
    /// # Errors
    /// As [`Self::body_piece`], and a body longer than `limit` bytes.
    pub async fn whole_body(&mut self, limit: usize) -> Result<Bytes, ServerError> {
        let Some(first) = self.body_piece().await? else {
            return Ok(Bytes::new());
        };
        let mut rest: Option<BytesMut> = None;
        while let Some(piece) = self.body_piece().await? {
            let whole = rest.get_or_insert_with(|| BytesMut::from(&first[..]));
            if whole.len() + piece.len() > limit {
                return Err(ServerError::TooLarge(limit));
            }
            whole.extend_from_slice(&piece);
        }
        let body = rest.map_or(first, BytesMut::freeze);
        if body.len() > limit {
            return Err(ServerError::TooLarge(limit));
        }
        Ok(body)
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
    pub async fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<Stamp> {
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
    ) -> std::io::Result<Stamp> {
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

    /// What the connection did so far.
    pub fn counters(&self) -> Counters {
        self.wire.counters()
    }

    /// The socket, and what was read of it and not yet used.
    pub fn into_stream(self) -> (Socket, BytesMut) {
        self.wire.into_parts()
    }

    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }
}
