//! The socket under the WebSocket library: keeps the stamps of the reads that carried a message.

use std::cell::{Ref, RefCell, RefMut};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokenlag_probes::Stamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;
use crate::Counters;
use crate::bounds::{Room, Share};
use crate::socket::Socket;
use crate::wire::Wire;

/// In which steps a message that is not whole takes of the room. What is smaller has room in the buffer that every connection
/// has.
const STEP: usize = 16 * 1024;

/// A connection after its opening, with stamps and counters.
#[derive(Debug)]
pub(crate) struct Stamped {
    socket: Socket,
    /// Read, and not yet handed to the library.
    early: BytesMut,
    frames: Frames,
    /// What messages take that were not taken yet.
    share: Share,
}

impl Stamped {
    /// Goes on where the opening's HTTP left off. Messages that are not whole take of the `room`; where it is full, reading
    /// fails ([`io::ErrorKind::OutOfMemory`]).
    pub(crate) fn after_opening(wire: Wire, room: &Arc<Room>) -> Self {
        let (socket, early) = wire.into_parts();
        Self {
            socket,
            early,
            frames: Frames::default(),
            share: Share::new(room),
        }
    }

    /// Whether the library has nothing of what was read, its buffer being large.
    pub(super) fn is_after_large(&self) -> bool {
        self.frames.are_after_large()
    }

    /// Follows what was read; gives how much of it the library may have now.
    fn follow(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.frames.read(bytes, self.socket.read_at());
        self.charge()?;
        Ok(count)
    }

    fn charge(&mut self) -> io::Result<()> {
        let wanted = self.frames.held() / STEP * STEP;
        if wanted == self.share.bytes() {
            return Ok(());
        }
        let full = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        self.share.resize(wanted).map_err(full)
    }

    pub(crate) fn read_at(&self) -> Stamp {
        self.socket.read_at()
    }

    /// The stamps of the first and the last read that carried the text or binary message just taken, of so many bytes.
    pub(crate) fn take_message_stamps(&mut self, length: usize) -> (Stamp, Stamp) {
        // The library reads on only where it has no whole message.
        let read_at = self.read_at();
        let begun = self.frames.take(length).unwrap_or(read_at);
        // It became less.
        let _ = self.charge();
        (begun, read_at)
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
            // Already stamped and counted, when it was read.
            let most = self.early.len().min(into.remaining());
            let offered = self.early.split_to(most);
            let count = self.follow(&offered)?;
            into.put_slice(&offered[..count]);
            if count < most {
                let mut rest = BytesMut::from(&offered[count..]);
                rest.extend_from_slice(&self.early);
                self.early = rest;
            }
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(context, into))?;
        let count = self.follow(&into.filled()[before..])?;
        self.early
            .extend_from_slice(&into.filled()[before + count..]);
        into.set_filled(before + count);
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

/// A connection that outlives the library's state about it. Borrowed within one poll, never across an await.
#[derive(Clone, Debug)]
pub(super) struct Shared(Rc<RefCell<Stamped>>);

impl Shared {
    pub(super) fn new(stamped: Stamped) -> Self {
        Self(Rc::new(RefCell::new(stamped)))
    }

    pub(super) fn look(&self) -> Ref<'_, Stamped> {
        self.0.borrow()
    }

    pub(super) fn lend(&self) -> RefMut<'_, Stamped> {
        self.0.borrow_mut()
    }
}

impl AsyncRead for Shared {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lend()).poll_read(context, into)
    }
}

impl AsyncWrite for Shared {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lend()).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lend()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lend()).poll_shutdown(context)
    }
}
