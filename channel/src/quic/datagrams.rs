//! The UDP socket itself, and what the network says of datagrams that nobody took.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use quinn::UdpPoller;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use tokenlag_probes::{Clock, MonoClock};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::stamping::{Came, KernelStamps, receive_datagrams};

/// So many datagrams have to be refused, and none to come, before a peer that was there is taken for gone: a single refusal
/// may be forged, or a firewall's that is being set up.
const REFUSALS: u32 = 2;

/// Datagrams for which a receive has room at least: with one more than come, it tells that there are no others.
const LEAST_ROOM: usize = 2;

/// Datagrams that may wait for the thread to come to them, in bytes as the system counts (twice what they hold). Its usual 208
/// KiB are 90 clients that begin together: those beyond them begin anew after a second, then two, then four, and some
/// handshakes run out of time. It gives no more than its own limit (`net.core.rmem_max`).
const ROOM: usize = 4 * 1024 * 1024;

/// A socket. Where it is connected, a peer whose port is closed shows itself as [`io::ErrorKind::ConnectionRefused`]; quinn's
/// own socket would pass over that, and leave the connection to its idle timeout.
#[derive(Debug)]
pub(crate) struct Datagrams {
    socket: UdpSocket,
    state: UdpSocketState,
    /// Refusals since something came.
    refusals: AtomicU32,
    /// Whoever reads: the write learns of refusals, and the read tells.
    reader: AtomicWaker,
    /// Datagrams, or trains that the kernel joined, for which the next receive has room: room is work, whether it is
    /// filled or not.
    room: AtomicUsize,
    /// `None` where receives are stamped as they return.
    stamps: Option<KernelStamps>,
}

impl Datagrams {
    pub(crate) fn new(
        socket: std::net::UdpSocket,
        stamps: Option<KernelStamps>,
    ) -> io::Result<Arc<Self>> {
        let state = UdpSocketState::new((&socket).into())?;
        // With less room more is lost, and sent again.
        let _ = state.set_recv_buffer_size((&socket).into(), ROOM);
        // The state has made it non-blocking.
        let socket = UdpSocket::from_std(socket)?;
        Ok(Arc::new(Self {
            socket,
            state,
            // Of a peer that was never heard the first refusal is enough.
            refusals: AtomicU32::new(REFUSALS - 1),
            reader: AtomicWaker::new(),
            room: AtomicUsize::new(LEAST_ROOM),
            stamps,
        }))
    }

    /// Whether the peer is gone.
    pub(crate) fn are_refused(&self) -> bool {
        self.refusals.load(Relaxed) >= REFUSALS
    }

    pub(crate) fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let socket = (&self.socket).into();
        self.socket.try_io(Interest::WRITABLE, || {
            match self.state.try_send(socket, transmit) {
                // It is about a datagram before this one, which did not leave.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.refuse();
                    self.state.send((&self.socket).into(), transmit)
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
                // QUIC sends again what is lost.
                Err(_) | Ok(()) => Ok(()),
            }
        })
    }

    fn refuse(&self) {
        self.refusals.fetch_add(1, Relaxed);
        if self.are_refused() {
            self.reader.wake();
        }
    }

    /// Receives, and tells when the last of it came; fails only where the peer is gone.
    pub(crate) fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<(usize, Came)>> {
        self.reader.register(context.waker());
        loop {
            if self.are_refused() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
            }
            ready!(self.socket.poll_recv_ready(context))?;
            let mut received = None;
            let tried = self.socket.try_io(Interest::READABLE, || {
                let (came, is_all) = self.receive(buffers, meta)?;
                received = Some(came);
                match is_all {
                    // There is nothing to be received until the socket is readable once more.
                    true => Err(io::ErrorKind::WouldBlock.into()),
                    false => Ok(()),
                }
            });
            if let Some(received) = received {
                self.refusals.store(0, Relaxed);
                return Poll::Ready(Ok(received));
            }
            match tried {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => self.refuse(),
                // Nothing is there, or what there was is lost.
                _ => {}
            }
        }
    }

    /// Receives once; tells also whether it found that there is no more.
    fn receive(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> io::Result<((usize, Came), bool)> {
        if let (Some(stamps), [buffer, ..], [meta, ..]) = (&self.stamps, &mut *buffers, &mut *meta)
        {
            // One at a time: each has a stamp of its own.
            let (received, wall) = receive_datagrams(&self.socket, buffer)?;
            *meta = received;
            return Ok(((1, stamps.came(wall)), false));
        }
        let most = buffers.len().min(meta.len());
        let room = self.room.load(Relaxed).min(most);
        let socket = (&self.socket).into();
        let count = self
            .state
            .recv(socket, &mut buffers[..room], &mut meta[..room])?;
        let now = MonoClock.now();
        let came = Came {
            at: now,
            read_at: now,
        };
        let next = match count {
            _ if count == room => (room * 2).min(most),
            _ if count < room / 4 => room / 2,
            _ => room,
        };
        self.room.store(next.max(LEAST_ROOM), Relaxed);
        Ok(((count, came), count < room))
    }

    pub(crate) fn poller(self: &Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller {
            socket: Arc::clone(self),
            writable: None,
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(crate) fn state(&self) -> &UdpSocketState {
        &self.state
    }
}

/// Waits for room in the socket.
struct Poller {
    socket: Arc<Datagrams>,
    writable: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").finish_non_exhaustive()
    }
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poller = &mut *self;
        let known = || poller.socket.socket.try_io(Interest::WRITABLE, || Ok(()));
        if poller.writable.is_none() && known().is_ok() {
            return Poll::Ready(Ok(()));
        }
        let writable = poller.writable.get_or_insert_with(|| {
            let socket = Arc::clone(&poller.socket);
            Box::pin(async move { socket.socket.writable().await })
        });
        let written = ready!(writable.as_mut().poll(context));
        poller.writable = None;
        Poll::Ready(written)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::UdpSocket;

    use super::*;

    /// More than the system's usual room takes, and less than twice that, which every system gives.
    const CLIENTS: usize = 150;

    #[tokio::test(flavor = "current_thread")]
    async fn clients_that_begin_together_while_the_thread_is_busy_lose_nothing() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let datagrams = Datagrams::new(socket, None).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        // On loopback they lie there when the call returns; no task runs meanwhile.
        for _ in 0..CLIENTS {
            client.send_to(&[7; 1_200], address).unwrap();
        }
        let mut came = 0;
        while came < CLIENTS {
            let mut room = [0; 64 * 1024];
            let mut buffers = [IoSliceMut::new(&mut room)];
            let mut meta = [RecvMeta::default()];
            let received =
                poll_fn(
                    |context| match datagrams.poll_recv(context, &mut buffers, &mut meta) {
                        Poll::Pending if came > 0 => Poll::Ready(None),
                        received => received.map(Some),
                    },
                );
            let received = tokio::task::unconstrained(received).await;
            let Some(received) = received else {
                break;
            };
            received.unwrap();
            came += meta[0].len / 1_200;
        }
        assert_eq!(came, CLIENTS);
    }
}
