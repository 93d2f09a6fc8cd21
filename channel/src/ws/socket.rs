//! The socket under the WebSocket library: stamps each read as it returns and each write before it is made.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::Counters;
use crate::wire::Wire;

/// A TCP stream with stamps and counters.
#[derive(Debug)]
pub(crate) struct Stamped {
    stream: TcpStream,
    /// Read with the opening's head, and not yet handed to the library.
    early: BytesMut,
    read_at: Stamp,
    /// The first read since a message was last taken.
    first_read_at: Option<Stamp>,
    written_at: Stamp,
    counters: Counters,
}

impl Stamped {
    /// Goes on where the opening's HTTP left off.
    pub(crate) fn after_opening(wire: Wire) -> Self {
        let read_at = wire.read_at();
        let counters = wire.counters();
        let (stream, early) = wire.into_parts();
        Self {
            stream,
            early,
            read_at,
            first_read_at: None,
            written_at: Stamp::default(),
            counters,
        }
    }

    pub(crate) fn read_at(&self) -> Stamp {
        self.read_at
    }

    /// The stamps of the first and the last read that carried the message just taken; the next read begins another.
    /// A message that came whole with the one before it has that one's stamp.
    pub(crate) fn take_message_stamps(&mut self) -> (Stamp, Stamp) {
        let first = self.first_read_at.take().unwrap_or(self.read_at);
        (first, self.read_at)
    }

    pub(crate) fn written_at(&self) -> Stamp {
        self.written_at
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
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
            self.early.advance(count);
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        let now = MonoClock.now();
        self.read_at = now;
        self.first_read_at.get_or_insert(now);
        let count = into.filled().len() - before;
        self.counters.bytes_received += count as u64;
        self.counters.reads += u64::from(count > 0);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let before = MonoClock.now();
        let count = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.written_at = before;
        self.counters.writes += 1;
        self.counters.bytes_sent += count as u64;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
