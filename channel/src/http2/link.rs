//! The socket under the HTTP/2 library: walks the frames that pass, and enters them into the connection's ledger.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Walker;
use super::ledger::Ledger;
use super::nudge::Nudge;
use crate::bell::Bell;
use crate::socket::Socket;

/// The ledger of a connection, shared by its socket and its exchanges, which are all on one thread: the lock is never
/// waited for. (The library's tasks must be `Send`, or it would be a cell.)
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Entered>);

#[derive(Debug)]
struct Entered {
    ledger: Mutex<Ledger>,
    /// What is asked for at every turn, so that it takes no lock: the last read left a head there in part.
    half_a_head: AtomicBool,
    /// SETTINGS were answered since somebody last asked: from then on they hold.
    settled: AtomicBool,
    /// What the socket did below its bytes is asked for.
    look: AtomicBool,
}

impl Shared {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self(Arc::new(Entered {
            ledger: Mutex::new(ledger),
            half_a_head: AtomicBool::new(false),
            settled: AtomicBool::new(true),
            look: AtomicBool::new(false),
        }))
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Entries are whole whoever panicked meanwhile.
        let ledger = &self.0.ledger;
        ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the head of a request has been there in part since the last read.
    pub(crate) fn has_half_a_head(&self) -> bool {
        self.0.half_a_head.load(Ordering::Acquire)
    }

    /// Has the socket book what it did below its bytes once it has been read empty, as whoever drives the connection does.
    pub(crate) fn want_look(&self) {
        self.0.look.store(true, Ordering::Release);
    }

    /// Whether what the peer allows may have changed since this was last asked.
    pub(crate) fn take_settled(&self) -> bool {
        self.0.settled.load(Ordering::Acquire) && self.0.settled.swap(false, Ordering::AcqRel)
    }
}

/// A connection's socket.
#[derive(Debug)]
pub(crate) struct Link {
    socket: Socket,
    inward: Walker,
    outward: Walker,
    shared: Shared,
    bell: Bell,
    /// Tasks to wake once the ledger is let go.
    woken: Vec<Waker>,
}

impl Link {
    /// The dialling end's.
    pub(crate) fn dialled(socket: Socket, shared: Shared, nudge: &Arc<Nudge>) -> Self {
        let (inward, outward) = (Walker::default(), Walker::after_preface());
        Self::new(socket, shared, nudge, inward, outward)
    }

    /// The accepting end's.
    pub(crate) fn accepted(socket: Socket, shared: Shared, nudge: &Arc<Nudge>) -> Self {
        let (inward, outward) = (Walker::after_preface(), Walker::default());
        Self::new(socket, shared, nudge, inward, outward)
    }

    fn new(
        socket: Socket,
        shared: Shared,
        nudge: &Arc<Nudge>,
        inward: Walker,
        outward: Walker,
    ) -> Self {
        shared.ledger().counters = socket.counters();
        Self {
            socket,
            inward,
            outward,
            shared,
            bell: Bell::new(Waker::from(Arc::clone(nudge))),
            woken: Vec::new(),
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        let at = self.socket.read_at();
        let mut ledger = self.shared.ledger();
        let woken = &mut self.woken;
        let walk = &mut |found| ledger.read(found, at, woken);
        self.inward.walk(bytes, at, walk);
        ledger.note_read(at);
        self.socket.count_into(&mut ledger.counters);
        drop(ledger);
        let half_a_head = self.inward.half_a_head().is_some();
        let said = &self.shared.0.half_a_head;
        said.store(half_a_head, Ordering::Release);
        self.wake();
    }

    fn wrote<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>, at: Stamp) {
        let mut ledger = self.shared.ledger();
        let woken = &mut self.woken;
        for piece in pieces {
            let walk = &mut |found| ledger.wrote(found, at, woken);
            self.outward.walk(piece, at, walk);
        }
        self.socket.count_into(&mut ledger.counters);
        drop(ledger);
        if self.outward.take_settings() {
            self.shared.0.settled.store(true, Ordering::Release);
        }
        self.wake();
    }

    #[cold]
    fn look(&self) {
        if self.shared.0.look.swap(false, Ordering::AcqRel) {
            self.socket.book();
        }
    }

    #[cold]
    fn close(&mut self) {
        self.shared.ledger().close(&mut self.woken);
        self.wake();
    }

    #[inline]
    fn wake(&mut self) {
        if !self.woken.is_empty() {
            self.wake_all();
        }
    }

    #[inline(never)]
    fn wake_all(&mut self) {
        self.woken.drain(..).for_each(Waker::wake);
    }

    /// Makes a write; gives how much it took and the stamp before it.
    fn stamped<F>(&mut self, write: F) -> Poll<io::Result<(usize, Stamp)>>
    where
        F: FnOnce(Pin<&mut Socket>) -> Poll<io::Result<usize>>,
    {
        let writes = self.socket.writes();
        let count = match ready!(write(Pin::new(&mut self.socket))) {
            Ok(count) => count,
            Err(error) => {
                self.close();
                return Poll::Ready(Err(error));
            }
        };
        // TLS may keep what it took for the next write.
        let at = if self.socket.writes() > writes {
            self.socket.written_at()
        } else {
            MonoClock.now()
        };
        Poll::Ready(Ok((count, at)))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let had_room = into.remaining() > 0;
        let Self { socket, bell, .. } = &mut *self;
        let polled = if socket.is_tls() {
            // There a write may read, and answer for the socket.
            Pin::new(socket).poll_read(context, into)
        } else {
            bell.poll(context, |context| Pin::new(socket).poll_read(context, into))
        };
        let Poll::Ready(read) = polled else {
            if self.shared.0.look.load(Ordering::Relaxed) {
                self.look();
            }
            return Poll::Pending;
        };
        let bytes = &into.filled()[before..];
        if !bytes.is_empty() {
            self.read(bytes);
        } else if had_room || read.is_err() {
            self.close();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (count, at) = ready!(self.stamped(|socket| socket.poll_write(context, bytes)))?;
        self.wrote(std::iter::once(&bytes[..count]), at);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut full = pieces.iter().filter(|piece| !piece.is_empty());
        if let (Some(only), None) = (full.next(), full.next()) {
            // The system has less to do for one piece that is none of several.
            return self.poll_write(context, only);
        }
        let (count, at) =
            ready!(self.stamped(|socket| socket.poll_write_vectored(context, pieces)))?;
        let mut left = count;
        let written = pieces.iter().map(|piece| {
            let taken = left.min(piece.len());
            left -= taken;
            &piece[..taken]
        });
        self.wrote(written, at);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
