//! The socket under the WebSocket library: keeps the stamps of the reads that carried a message.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokenlag_probes::Stamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;
use crate::Counters;
use crate::socket::Socket;
use crate::wire::Wire;

/// A connection after its opening, with stamps and counters.
#[derive(Debug)]
pub(crate) struct Stamped {
    socket: Socket,
    /// Read with the opening's head, and not yet handed to the library.
    early: BytesMut,
    frames: Frames,
}

impl Stamped {
    /// Goes on where the opening's HTTP left off.
    pub(crate) fn after_opening(wire: Wire) -> Self {
        let (socket, early) = wire.into_parts();
        Self {
            socket,
            early,
            frames: Frames::default(),
        }
    }

    pub(crate) fn read_at(&self) -> Stamp {
        self.socket.read_at()
    }

    /// The stamps of the first and the last read that carried the text or binary message just taken.
    pub(crate) fn take_message_stamps(&mut self) -> (Stamp, Stamp) {
        // The library reads on only where it has no whole message.
        let read_at = self.read_at();
        (self.frames.take().unwrap_or(read_at), read_at)
    }

    /// Messages that came and whose stamps were not taken.
    #[cfg(test)]
    pub(super) fn untaken(&self) -> usize {
        self.frames.untaken()
    }

    /// The connection underneath, for what is read to be forgotten.
    pub(crate) fn under(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// The read with which something began that is not whole.
    pub(crate) fn begun_at(&self) -> Option<Stamp> {
        self.frames.begun_at()
    }

    pub(crate) fn written_at(&self) -> Stamp {
        self.socket.written_at()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.socket.counters()
    }

    /// Reads that returned bytes.
    pub(crate) fn reads(&self) -> u64 {
        self.socket.reads()
    }

    /// Books what the connection did below its bytes.
    pub(crate) fn book(&self) {
        self.socket.book();
    }
}

impl AsyncRead for Stamped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            // Already stamped and counted, when the opening read it.
            let count = self.early.len().min(into.remaining());
            into.put_slice(&self.early[..count]);
            let stamped = &mut *self;
            let at = stamped.socket.read_at();
            stamped.frames.read(&stamped.early[..count], at);
            stamped.early.advance(count);
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(context, into))?;
        let at = self.socket.read_at();
        self.frames.read(&into.filled()[before..], at);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
