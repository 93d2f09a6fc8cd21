//! A connection whose reads and writes are stamped where they happen, and what was read of it and not yet used.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokenlag_probes::Stamp;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::Counters;
use crate::bounds::{TooLate, in_time};
use crate::socket::Socket;

/// The most room that is offered to one read: few reads for a large body.
pub(crate) const READ_ROOM: usize = 64 * 1024;

/// Room offered at first, and where reads bring little: as much as HTTP/2 and TLS have in a frame or record, so that what lies
/// there comes in one read and with one stamp, whatever the channel.
const LEAST_ROOM: usize = 16 * 1024;

thread_local! {
    /// Where a read of an accepted connection lands. Not on the stack: perf copies the 16 KiB of it that are nearest to a sample, and would
    /// see of one within `recv` nothing but this.
    static LANDING: RefCell<Box<[u8]>> = RefCell::new(vec![0; LEAST_ROOM].into());
}

/// A connection, what was read of it and not yet used, and the stamps of its last read and write.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: Socket,
    /// Bytes read and not yet used.
    pub(crate) inbox: BytesMut,
    /// How much the inbox grows by where it is full: more after a read that took all the room there was.
    room: usize,
    /// How long the peer may take no bytes of a write.
    stalled: Option<Duration>,
}

impl Wire {
    pub(crate) fn new(socket: Socket) -> Self {
        Self {
            socket,
            inbox: BytesMut::new(),
            room: LEAST_ROOM,
            stalled: None,
        }
    }

    /// A connection that was accepted, of which `inbox` was read: its peer may not take forever to read a reply.
    pub(crate) fn accepted(socket: Socket, inbox: BytesMut, stalled: Duration) -> Self {
        Self {
            socket,
            inbox,
            room: LEAST_ROOM,
            stalled: Some(stalled),
        }
    }

    /// Reads once into the inbox; 0 is the end of the stream. May be cancelled without loss.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        if self.stalled.is_some() && self.room == LEAST_ROOM {
            return poll_fn(|context| self.poll_sized(context)).await;
        }
        if self.inbox.capacity() - self.inbox.len() < self.room / 2 {
            self.inbox.reserve(self.room);
        } else if self.inbox.is_empty() {
            // Where nobody holds what was read before, the next bytes come to lie in its place. A thousand streams whose bytes
            // come to lie in ever other memory would spend a seventh of their time on getting it.
            // Where somebody does, there is room enough still.
            let _ = self.inbox.try_reclaim(self.room);
        }
        let offered = self.inbox.capacity() - self.inbox.len();
        let count = self.socket.read_buf(&mut self.inbox).await?;
        self.learn(count, offered);
        Ok(count)
    }

    /// Learns from a read that brought `count` bytes of those that were `offered` how much room the next one is given.
    fn learn(&mut self, count: usize, offered: usize) {
        self.room = match count {
            _ if count == offered => (self.room * 4).min(READ_ROOM),
            _ if count < self.room / 16 => (self.room / 2).max(LEAST_ROOM),
            _ => self.room,
        };
    }

    /// One read, for which the inbox gets as much memory as it brings: requests are short, and come one at a time. Memory that is
    /// got for each of them costs the more the larger it is, and that of another connection lies in no cache; this is always
    /// the same.
    pub(crate) fn poll_sized(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let came = LANDING.with_borrow_mut(|room| {
            let mut room = ReadBuf::new(room);
            ready!(Pin::new(&mut self.socket).poll_read(context, &mut room))?;
            self.inbox.extend_from_slice(room.filled());
            Poll::Ready(io::Result::Ok(room.filled().len()))
        });
        let came = ready!(came)?;
        self.learn(came, LEAST_ROOM);
        Poll::Ready(Ok(came))
    }

    /// When the last read returned.
    pub(crate) fn read_at(&self) -> Stamp {
        self.socket.read_at()
    }

    /// Reads of this connection that returned bytes.
    pub(crate) fn reads(&self) -> u64 {
        self.socket.reads()
    }

    /// Writes all of `bytes`; the stamp was taken before the call that carried the last of them. Gives up with
    /// [`io::ErrorKind::TimedOut`] where an accepted peer takes none of them for too long.
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<Stamp> {
        let mut rest = bytes;
        let at_once = poll_fn(|context| Poll::Ready(self.poll_out(context, &mut rest)));
        // Nearly always everything is taken: then nobody waits, no time is kept, and no room for either.
        match at_once.await {
            Poll::Ready(written) => written?,
            Poll::Pending => Box::pin(self.write_rest(rest)).await?,
        }
        Ok(self.socket.written_at())
    }

    /// Writes what is left of `rest`, and takes off what was taken.
    fn poll_out(&mut self, context: &mut Context<'_>, rest: &mut &[u8]) -> Poll<io::Result<()>> {
        let mut socket = Pin::new(&mut self.socket);
        while !rest.is_empty() {
            match ready!(socket.as_mut().poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *rest = &rest[count..],
            }
        }
        // TLS may hold a record's end back while the socket takes no more.
        socket.poll_flush(context)
    }

    async fn write_rest(&mut self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match unless_stalled(self.stalled, self.socket.write(rest)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => rest = &rest[count..],
            }
        }
        // TLS may hold a record's end back while the socket takes no more.
        unless_stalled(self.stalled, self.socket.flush()).await
    }

    /// Tells the peer that nothing more will come.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.socket.shutdown().await
    }

    /// As [`Self::write_all`], but gives up with `None` where the peer says something (or closes) while it takes no more.
    pub(crate) async fn write_all_unless_answered(
        &mut self,
        bytes: &[u8],
    ) -> io::Result<Option<Stamp>> {
        let mut rest = bytes;
        let answered = poll_fn(|context| match self.poll_out(context, &mut rest)? {
            Poll::Ready(()) => Poll::Ready(Ok(false)),
            Poll::Pending => self.poll_answered(context),
        })
        .await?;
        Ok((!answered).then(|| self.socket.written_at()))
    }

    fn poll_answered(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut room = [0; 512];
        let mut room = ReadBuf::new(&mut room);
        let read = Pin::new(&mut self.socket).poll_read(context, &mut room);
        self.inbox.extend_from_slice(room.filled());
        // An end of the stream, or its failure, is found again by the read that follows.
        read.map(|_| Ok(true))
    }

    /// Waits until the peer said something or closed. May be cancelled without loss.
    pub(crate) async fn answered(&mut self) {
        if self.inbox.is_empty() {
            let _ = poll_fn(|context| self.poll_answered(context)).await;
        }
    }

    /// Whether an idle connection is still good: the peer neither closed it nor sent what nobody asked for.
    pub(crate) fn is_fresh(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        self.inbox.is_empty()
            && (self.socket.is_quiet() || self.poll_answered(&mut nobody).is_pending())
    }

    pub(crate) fn counters(&self) -> Counters {
        self.socket.counters()
    }

    /// The socket and what was read of it and not yet used.
    pub(crate) fn into_parts(self) -> (Socket, BytesMut) {
        (self.socket, self.inbox)
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }
}

async fn unless_stalled<T>(
    limit: Option<Duration>,
    write: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let Some(limit) = limit else {
        return write.await;
    };
    in_time(limit, pin!(write)).await.unwrap_or_else(|TooLate| {
        let why = format!("the client took no bytes for {limit:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    })
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::socket::Stamped;

    async fn pair() -> (TcpStream, Wire) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        let socket = Socket::clear(Stamped::new(client.unwrap()));
        (server.unwrap().0, Wire::new(socket))
    }

    /// Sends so many bytes and waits until all of them lie in the socket.
    async fn backlog(peer: &mut TcpStream, wire: &Wire, bytes: usize) {
        peer.write_all(&vec![b'x'; bytes]).await.unwrap();
        let mut seen = vec![0; bytes];
        while wire.socket().tcp().peek(&mut seen).await.unwrap() < bytes {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_piled_up_comes_in_one_read_whatever_was_read_before() {
        let (mut peer, mut wire) = pair().await;
        // A token, a burst of them, and so on over several lengths of the buffer.
        for bytes in [300, 12_000].repeat(10) {
            backlog(&mut peer, &wire, bytes).await;
            assert_eq!(wire.fill().await.unwrap(), bytes);
            // As a reply is taken apart, and used, before the next read.
            drop(wire.inbox.split_to(bytes - 2).freeze());
            wire.inbox.advance(2);
        }
        assert_eq!(wire.reads(), 20);
    }

    #[tokio::test]
    async fn bytes_that_are_used_leave_their_place_to_the_next_ones() {
        let (mut peer, mut wire) = pair().await;
        let mut places = Vec::new();
        for _ in 0..100 {
            backlog(&mut peer, &wire, 300).await;
            wire.fill().await.unwrap();
            places.push(wire.inbox.as_ptr());
            drop(wire.inbox.split().freeze());
        }
        assert!(places.iter().all(|&place| place == places[0]));
    }
}
