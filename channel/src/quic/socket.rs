//! The UDP socket under the endpoint: stamps datagrams as they are received, and counts.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, ConnectionIdGenerator, UdpPoller};
use tokenlag_probes::{Clock, MonoClock, Stamp};

use super::datagrams::Datagrams;
use super::stray::is_stray;
use crate::stamping::KernelStamps;
use crate::{Counters, Stamping};

/// A UDP socket that remembers when it last received.
///
/// quinn does not say which datagram released a stream's bytes. What [`Self::came_at`] gives, taken when the bytes
/// became readable, is the stamp of the latest datagram before that: an upper bound, exact where one datagram came.
#[derive(Debug)]
pub(crate) struct StampedSocket {
    inner: Arc<Datagrams>,
    read_at: AtomicU64,
    /// When what was read last came.
    came_at: AtomicU64,
    /// When a stream was first given bytes since something came.
    gave_at: AtomicU64,
    reads: AtomicU64,
    bytes_received: AtomicU64,
    writes: AtomicU64,
    /// Of both, those that were taken.
    taken: [AtomicU64; 2],
    bytes_sent: AtomicU64,
    stream_bytes_received: AtomicU64,
    stream_bytes_sent: AtomicU64,
    strays: Option<Strays>,
}

/// Tells of datagrams that are for no connection.
pub(crate) struct Strays {
    /// Made the connection ids that the endpoint gave out.
    pub(crate) known: Box<dyn ConnectionIdGenerator>,
    /// Is told how many came at once.
    pub(crate) tell: Box<dyn Fn(u64) + Send + Sync>,
}

impl fmt::Debug for Strays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Strays").finish_non_exhaustive()
    }
}

impl StampedSocket {
    /// One that connections are accepted on.
    pub(crate) fn accepting(socket: std::net::UdpSocket, strays: Strays) -> io::Result<Arc<Self>> {
        Self::new(socket, Some(strays), None)
    }

    /// The dialling end's.
    pub(crate) fn dialled(
        socket: std::net::UdpSocket,
        stamping: &Stamping,
    ) -> io::Result<Arc<Self>> {
        let stamps = stamping.begin(&socket, MonoClock.now());
        Self::new(socket, None, stamps)
    }

    fn new(
        socket: std::net::UdpSocket,
        strays: Option<Strays>,
        stamps: Option<KernelStamps>,
    ) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            inner: Datagrams::new(socket, stamps)?,
            read_at: AtomicU64::new(0),
            came_at: AtomicU64::new(0),
            gave_at: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            taken: Default::default(),
            bytes_sent: AtomicU64::new(0),
            stream_bytes_received: AtomicU64::new(0),
            stream_bytes_sent: AtomicU64::new(0),
            strays,
        }))
    }

    /// When the last datagrams that were received came: as the kernel says where it is asked, else as [`Self::read_at`].
    pub(crate) fn came_at(&self) -> Stamp {
        Stamp::from_nanos(self.came_at.load(Relaxed))
    }

    /// When datagrams were last received.
    pub(crate) fn read_at(&self) -> Stamp {
        Stamp::from_nanos(self.read_at.load(Relaxed))
    }

    /// Receives that returned datagrams.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    /// Takes the reads that returned datagrams and the writes that were not taken before, by whichever connection.
    pub(crate) fn take_calls(&self) -> (u64, u64) {
        let take = |now: u64, taken: &AtomicU64| now.saturating_sub(taken.fetch_max(now, Relaxed));
        let [reads, writes] = &self.taken;
        (
            take(self.reads(), reads),
            take(self.writes.load(Relaxed), writes),
        )
    }

    /// Counts bytes that were taken of a stream.
    pub(crate) fn took(&self, bytes: usize) {
        self.stream_bytes_received.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts bytes that were handed to a stream.
    pub(crate) fn gave(&self, bytes: usize) {
        self.stream_bytes_sent.fetch_add(bytes as u64, Relaxed);
        if !self.is_awaited() {
            self.gave_at.store(MonoClock.now().as_nanos(), Relaxed);
        }
    }

    /// Whether a stream was given bytes, and nothing came since.
    fn is_awaited(&self) -> bool {
        self.gave_at.load(Relaxed) > self.read_at.load(Relaxed)
    }

    /// How long nothing came after a stream was given bytes, not even an acknowledgement, for which a peer may take 25 ms
    /// (RFC 9000, section 18.2).
    pub(crate) fn silence(&self) -> Duration {
        if !self.is_awaited() {
            return Duration::ZERO;
        }
        let since = Stamp::from_nanos(self.gave_at.load(Relaxed));
        Duration::from_nanos(MonoClock.now().since(since).max(0) as u64)
    }

    /// Whether nobody is there any more to take what is sent.
    pub(crate) fn is_refused(&self) -> bool {
        self.inner.are_refused()
    }

    /// Tells of the datagrams of one receive that are for no connection. Where the kernel joined several, each counts.
    fn sort(&self, buffers: &[IoSliceMut<'_>], meta: &[RecvMeta]) {
        let Some(strays) = &self.strays else {
            return;
        };
        let mut count = 0;
        for (buffer, meta) in buffers.iter().zip(meta) {
            let received = &buffer[..meta.len];
            let found = match meta.stride {
                0 => u64::from(is_stray(received, &*strays.known)),
                stride => received
                    .chunks(stride)
                    .filter(|datagram| is_stray(datagram, &*strays.known))
                    .count() as u64,
            };
            count += found;
        }
        if count > 0 {
            (strays.tell)(count);
        }
    }

    /// UDP payload both ways, bytes of streams, and calls.
    pub(crate) fn counters(&self) -> Counters {
        Counters {
            bytes_sent: self.bytes_sent.load(Relaxed),
            bytes_received: self.bytes_received.load(Relaxed),
            channel_bytes_sent: self.stream_bytes_sent.load(Relaxed),
            channel_bytes_received: self.stream_bytes_received.load(Relaxed),
            reads: self.reads(),
            writes: self.writes.load(Relaxed),
            connections_opened: 1,
            ..Counters::default()
        }
    }
}

impl AsyncUdpSocket for StampedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)?;
        self.writes.fetch_add(1, Relaxed);
        self.bytes_sent
            .fetch_add(transmit.contents.len() as u64, Relaxed);
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (count, came) = ready!(self.inner.poll_recv(context, buffers, meta))?;
        self.read_at.store(came.read_at.as_nanos(), Relaxed);
        self.came_at.store(came.at.as_nanos(), Relaxed);
        let bytes: usize = meta[..count].iter().map(|datagrams| datagrams.len).sum();
        self.bytes_received.fetch_add(bytes as u64, Relaxed);
        self.reads.fetch_add(u64::from(count > 0), Relaxed);
        self.sort(buffers, &meta[..count]);
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.state().max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.state().gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.state().may_fragment()
    }
}
