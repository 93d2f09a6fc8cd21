//! A TCP connection whose reads and writes are stamped where they happen.

use std::io;

use bytes::BytesMut;
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Counters;

/// Room offered to one read: what a token stream needs many times over, and few reads for a large body.
const READ_ROOM: usize = 64 * 1024;

/// A connection, what was read of it and not yet used, and the stamps of its last read and write.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    /// Bytes read and not yet used.
    pub(crate) inbox: BytesMut,
    read_at: Stamp,
    counters: Counters,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            inbox: BytesMut::new(),
            read_at: Stamp::default(),
            counters: Counters {
                connections_opened: 1,
                ..Counters::default()
            },
        }
    }

    /// Reads once into the inbox; 0 is the end of the stream.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        if self.inbox.capacity() - self.inbox.len() < READ_ROOM / 4 {
            self.inbox.reserve(READ_ROOM);
        }
        let count = self.stream.read_buf(&mut self.inbox).await?;
        self.read_at = MonoClock.now();
        self.counters.bytes_received += count as u64;
        self.counters.reads += u64::from(count > 0);
        Ok(count)
    }

    /// Waits, without holding a buffer, until there is something to read: ten thousand idle connections cost little.
    pub(crate) async fn readable(&mut self) -> io::Result<()> {
        if self.inbox.is_empty() {
            self.inbox = BytesMut::new();
            self.stream.readable().await?;
        }
        Ok(())
    }

    /// When the last read returned.
    pub(crate) fn read_at(&self) -> Stamp {
        self.read_at
    }

    /// Reads of this connection that returned bytes.
    pub(crate) fn reads(&self) -> u64 {
        self.counters.reads
    }

    /// Writes all of `bytes`; the stamp was taken before the call that carried the last of them.
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<Stamp> {
        let mut rest = bytes;
        loop {
            let at = MonoClock.now();
            let count = self.stream.write(rest).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.counters.writes += 1;
            self.counters.bytes_sent += count as u64;
            rest = &rest[count..];
            if rest.is_empty() {
                return Ok(at);
            }
        }
    }

    /// As [`Self::write_all`], but gives up with `None` where the peer becomes readable while it takes no more.
    pub(crate) async fn write_all_unless_readable(
        &mut self,
        bytes: &[u8],
    ) -> io::Result<Option<Stamp>> {
        let mut rest = bytes;
        loop {
            let at = MonoClock.now();
            match self.stream.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.counters.writes += 1;
                    self.counters.bytes_sent += count as u64;
                    rest = &rest[count..];
                    if rest.is_empty() {
                        return Ok(Some(at));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::select! {
                        biased;
                        writable = self.stream.writable() => writable?,
                        readable = self.stream.readable() => {
                            readable?;
                            return Ok(None);
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until the peer said something or closed.
    pub(crate) async fn wait_readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// Whether an idle connection is still good: the peer neither closed it nor sent what nobody asked for.
    pub(crate) fn is_fresh(&mut self) -> bool {
        let mut probe = [0; 1];
        self.inbox.is_empty()
            && matches!(self.stream.try_read(&mut probe),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// The socket and what was read of it and not yet used.
    pub(crate) fn into_parts(self) -> (TcpStream, BytesMut) {
        (self.stream, self.inbox)
    }
}
