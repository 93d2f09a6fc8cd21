//! The one stream under every TCP channel: stamps each read as it returns, or has the kernel stamp what it returns, and each
//! write before it is made; and counts what passes on the wire.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::stamping::{KernelStamps, receive};
use crate::watch::Watched;
use crate::wire::READ_ROOM;
use crate::{SocketWatch, Stamping};

/// Room offered to a read that the kernel stamps, at first: it has to be filled with zeros before.
const LEAST_ROOM: usize = 4 * 1024;

/// The TCP stream itself. Under TLS the stamps are those of the records' bytes: decryption comes after.
#[derive(Debug)]
pub(crate) struct Stamped {
    stream: TcpStream,
    /// Read before it was known what is spoken here, and not yet handed on.
    early: BytesMut,
    /// `None` where reads are stamped as they return.
    kernel: Option<Kernel>,
    pub(crate) read_at: Stamp,
    pub(crate) written_at: Stamp,
    pub(crate) bytes_sent: u64,
    /// What was peeked at among them.
    pub(crate) bytes_received: u64,
    /// Reads that returned bytes.
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    watched: Option<Watched>,
}

/// How reads go where the kernel stamps what they return.
#[derive(Debug)]
struct Kernel {
    stamps: KernelStamps,
    /// What the next read is offered at most: more after one that took it all.
    room: usize,
}

impl Stamped {
    /// A connection whose reads are stamped as they return.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            early: BytesMut::new(),
            kernel: None,
            read_at: Stamp::default(),
            written_at: Stamp::default(),
            bytes_sent: 0,
            bytes_received: 0,
            reads: 0,
            writes: 0,
            watched: None,
        }
    }

    /// The same, which books into `watch` what it does below its bytes.
    pub(crate) fn watched(stream: TcpStream, watch: &SocketWatch) -> Self {
        let mut stamped = Self::new(stream);
        stamped.watched = Some(Watched::by(watch));
        stamped
    }

    /// A connection that was dialled and just `connected`.
    pub(crate) fn dialled(stream: TcpStream, stamping: &Stamping, connected: Stamp) -> Self {
        let kernel = stamping.begin(&stream, connected).map(|stamps| Kernel {
            stamps,
            room: LEAST_ROOM,
        });
        let mut stamped = Self::watched(stream, stamping.watch());
        stamped.kernel = kernel;
        stamped
    }

    /// When the write is made that follows. Now and then what waits in the send queue before it is looked at.
    #[inline]
    fn before_write(&self) -> Stamp {
        let now = MonoClock.now();
        match &self.watched {
            Some(watched) if watched.is_due(now) => self.after_a_look(),
            _ => now,
        }
    }

    #[cold]
    fn after_a_look(&self) -> Stamp {
        self.book(true);
        MonoClock.now()
    }

    /// Notes a read that returned so many bytes.
    #[inline]
    fn received(&mut self, count: usize) {
        self.bytes_received += count as u64;
        self.reads += u64::from(count > 0);
    }

    /// Notes a write that took so many bytes.
    #[inline]
    fn wrote(&mut self, count: usize, before: Stamp) {
        self.written_at = before;
        self.writes += 1;
        self.bytes_sent += count as u64;
    }

    /// Books what was done since it was booked last; and where it is `sampled`, what waits to be sent.
    pub(crate) fn book(&self, sampled: bool) {
        if let Some(watched) = &self.watched {
            let written = sampled.then_some(self.bytes_sent);
            watched.book(&self.stream, (self.reads, self.writes), written);
        }
    }

    /// One read, stamped as it returns.
    #[inline]
    fn poll_plain(
        &mut self,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        self.read_at = MonoClock.now();
        let count = into.filled().len() - before;
        self.received(count);
        Poll::Ready(Ok(()))
    }

    /// What was read before, or else one read, by whoever stamps it. (Apart from a plain read, which is all that most connections
    /// ever make: its code stays short.)
    #[inline(never)]
    fn poll_other(
        &mut self,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            // Already stamped and counted, when it was peeked at.
            let count = self.early.len().min(into.remaining());
            into.put_slice(&self.early[..count]);
            self.early.advance(count);
            if self.early.is_empty() {
                // Its memory goes too: a connection may lie idle for long.
                self.early = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        let Some(kernel) = &mut self.kernel else {
            return self.poll_plain(context, into);
        };
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            let room = into.remaining().min(kernel.room);
            let room = into.initialize_unfilled_to(room);
            let offered = room.len();
            let mut received = None;
            let tried = self.stream.try_io(Interest::READABLE, || {
                let (count, wall) = receive(&self.stream, room)?;
                received = Some((count, wall));
                // What was less than there was room for was all that there is: the runtime, which does the same in reads
                // of its own, shall not have it asked once more.
                match count {
                    1.. if count < offered => Err(io::ErrorKind::WouldBlock.into()),
                    _ => Ok(()),
                }
            });
            if let Some((count, wall)) = received {
                into.advance(count);
                kernel.room = match count {
                    _ if count == kernel.room => (kernel.room * 2).min(READ_ROOM),
                    _ if count < kernel.room / 4 => (kernel.room / 2).max(LEAST_ROOM),
                    _ => kernel.room,
                };
                // An end of the stream is nothing that was received.
                self.read_at = match count {
                    0 => MonoClock.now(),
                    _ => kernel.stamps.came(wall).at,
                };
                self.received(count);
                return Poll::Ready(Ok(()));
            }
            match tried {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Reads once more into what the next reader will be given first, and shows all of that; no more came where it did
    /// not grow.
    pub(crate) async fn peek(&mut self) -> io::Result<&[u8]> {
        let mut early = std::mem::take(&mut self.early);
        if early.capacity() == early.len() {
            early.reserve(READ_ROOM);
        }
        let read = self.stream.read_buf(&mut early).await;
        self.early = early;
        self.read_at = MonoClock.now();
        let count = read?;
        self.received(count);
        Ok(&self.early)
    }

    /// What was read and not yet handed on: the next reader will not be given it. It has the memory that it needs, and not
    /// what was offered to the read, since a request may live as long as its reply.
    pub(crate) fn take_early(&mut self) -> BytesMut {
        let early = std::mem::take(&mut self.early);
        match early.len() < early.capacity() / 2 {
            true => BytesMut::from(&early[..]),
            false => early,
        }
    }

    /// Bytes that were read and not yet handed on.
    #[inline]
    pub(crate) fn held_back(&self) -> u64 {
        self.early.len() as u64
    }

    /// Whether nothing is held back, and the runtime knows of nothing that came since the stream was read empty.
    pub(crate) fn is_quiet(&self) -> bool {
        let known = self.stream.try_io(Interest::READABLE, || Ok(()));
        self.early.is_empty() && known.is_err()
    }

    /// The TCP stream.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.stream
    }
}

impl Drop for Stamped {
    fn drop(&mut self) {
        self.book(false);
    }
}

impl AsyncRead for Stamped {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.kernel.is_none() && self.early.is_empty() {
            true => self.poll_plain(context, into),
            false => self.poll_other(context, into),
        }
    }
}

impl AsyncWrite for Stamped {
    #[inline]
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let before = self.before_write();
        let count = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.wrote(count, before);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let before = self.before_write();
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, pieces))?;
        self.wrote(count, before);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
