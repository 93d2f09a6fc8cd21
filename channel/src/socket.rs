//! The one stream under every TCP channel, in clear or inside TLS: stamps each read as it returns, or has the kernel stamp
//! what it returns, and each write before it is made; and counts bytes on the wire and bytes inside.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::stamping::{KernelStamps, receive};
use crate::watch::Watched;
use crate::wire::READ_ROOM;
use crate::{Counters, SocketWatch, Stamping};

/// Room offered to a read that the kernel stamps, at first: it has to be filled with zeros before.
const LEAST_ROOM: usize = 4 * 1024;

/// A TCP connection, in clear or inside TLS.
#[derive(Debug)]
pub struct Socket {
    layer: Layer,
    channel_bytes_sent: u64,
    channel_bytes_received: u64,
    resumed: bool,
    early_data: bool,
}

#[derive(Debug)]
enum Layer {
    Clear(Stamped),
    /// The session's state is large; boxed, it does not make every socket as large.
    Tls(Box<TlsStream<Stamped>>),
}

/// The TCP stream itself. Under TLS the stamps are those of the records' bytes: decryption comes after.
#[derive(Debug)]
pub(crate) struct Stamped {
    stream: TcpStream,
    /// Read before it was known what is spoken here, and not yet handed on.
    early: BytesMut,
    /// `None` where reads are stamped as they return.
    kernel: Option<Kernel>,
    read_at: Stamp,
    written_at: Stamp,
    bytes_sent: u64,
    bytes_received: u64,
    reads: u64,
    writes: u64,
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
    fn before_write(&self) -> Stamp {
        let now = MonoClock.now();
        match &self.watched {
            Some(watched) if watched.is_due(now) => {
                self.book(true);
                MonoClock.now()
            }
            _ => now,
        }
    }

    /// Books what was done since it was booked last; and where it is `sampled`, what waits to be sent.
    fn book(&self, sampled: bool) {
        if let Some(watched) = &self.watched {
            let written = sampled.then_some(self.bytes_sent);
            watched.book(&self.stream, (self.reads, self.writes), written);
        }
    }

    /// One read, stamped.
    fn poll_stream(
        &mut self,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(kernel) = &mut self.kernel else {
            ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
            self.read_at = MonoClock.now();
            return Poll::Ready(Ok(()));
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
        self.bytes_received += count as u64;
        self.reads += u64::from(count > 0);
        Ok(&self.early)
    }

    /// What was read and not yet handed on: the next reader will not be given it.
    pub(crate) fn take_early(&mut self) -> BytesMut {
        std::mem::take(&mut self.early)
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

impl Socket {
    /// A connection in clear.
    pub(crate) fn clear(stream: Stamped) -> Self {
        Self::over(Layer::Clear(stream), false, false)
    }

    /// A connection inside TLS, after its handshake. `resumed` and `early_data` are what the handshake made use of.
    pub(crate) fn tls(stream: TlsStream<Stamped>, resumed: bool, early_data: bool) -> Self {
        Self::over(Layer::Tls(Box::new(stream)), resumed, early_data)
    }

    fn over(layer: Layer, resumed: bool, early_data: bool) -> Self {
        Self {
            layer,
            channel_bytes_sent: 0,
            channel_bytes_received: 0,
            resumed,
            early_data,
        }
    }

    fn wire(&self) -> &Stamped {
        match &self.layer {
            Layer::Clear(stream) => stream,
            Layer::Tls(stream) => stream.get_ref().0,
        }
    }

    /// The TCP stream underneath, for its options.
    pub fn tcp(&self) -> &TcpStream {
        &self.wire().stream
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.layer, Layer::Tls(_))
    }

    /// When the last read of the TCP stream returned; where the kernel stamps what comes, when it received the last of it.
    pub fn read_at(&self) -> Stamp {
        self.wire().read_at
    }

    /// Before the last write to the TCP stream.
    pub fn written_at(&self) -> Stamp {
        self.wire().written_at
    }

    /// Reads of the TCP stream that returned bytes.
    pub fn reads(&self) -> u64 {
        self.wire().reads
    }

    /// Writes to the TCP stream.
    pub(crate) fn writes(&self) -> u64 {
        self.wire().writes
    }

    /// Books what the connection did below its bytes, where that is watched: it lies idle from now on, or is asked about.
    pub(crate) fn book(&self) {
        self.wire().book(false);
    }

    /// The protocol that the peers agreed on inside TLS (ALPN).
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        match &self.layer {
            Layer::Clear(_) => None,
            Layer::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// What the connection did so far.
    pub fn counters(&self) -> Counters {
        let wire = self.wire();
        Counters {
            bytes_sent: wire.bytes_sent,
            bytes_received: wire.bytes_received,
            channel_bytes_sent: self.channel_bytes_sent,
            channel_bytes_received: self.channel_bytes_received,
            reads: wire.reads,
            writes: wire.writes,
            connections_opened: 1,
            handshakes_resumed: self.resumed.into(),
            early_data_accepted: self.early_data.into(),
            ..Counters::default()
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(match &mut self.layer {
            Layer::Clear(stream) => Pin::new(stream).poll_read(context, into),
            Layer::Tls(stream) => Pin::new(stream).poll_read(context, into),
        })?;
        self.channel_bytes_received += (into.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(match &mut self.layer {
            Layer::Clear(stream) => Pin::new(stream).poll_write(context, bytes),
            Layer::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        })?;
        self.channel_bytes_sent += count as u64;
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(match &mut self.layer {
            Layer::Clear(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Layer::Tls(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
        })?;
        self.channel_bytes_sent += count as u64;
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Clear(stream) => Pin::new(stream).poll_flush(context),
            Layer::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Clear(stream) => Pin::new(stream).poll_shutdown(context),
            Layer::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

impl AsyncRead for Stamped {
    fn poll_read(
        mut self: Pin<&mut Self>,
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
        let before = into.filled().len();
        ready!(self.poll_stream(context, into))?;
        let count = into.filled().len() - before;
        self.bytes_received += count as u64;
        self.reads += u64::from(count > 0);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let before = self.before_write();
        let count = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.written_at = before;
        self.writes += 1;
        self.bytes_sent += count as u64;
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let before = self.before_write();
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, pieces))?;
        self.written_at = before;
        self.writes += 1;
        self.bytes_sent += count as u64;
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
